//! The data directory: what is where, whose it is, and who may open it.
//!
//! ```text
//! <data>/LOCK            held by the process that serves it
//! <data>/FORMAT          version of this layout
//! <data>/raft/IDENTITY   whose log this is          <data>/raft/      the log
//! <data>/blobs/IDENTITY  whose blobs these are      <data>/blobs/     blob files
//! <data>/state/          the applied state          <data>/local/     the index of local blobs
//! <data>/uploads/        bytes on their way in      <data>/snapshots/ state snapshots on their way in
//! ```
//!
//! The identity stands in both directories that hold what was acknowledged: they may be on different disks, and
//! one that was emptied or exchanged must not serve (protocols.md section 9).

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use metadata::ids::NodeId;

use crate::durable;
use crate::error::StorageError;

/// Version of the layout that this code reads and writes.
const FORMAT: u32 = 1;

/// An open data directory, locked against every other process until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    disk_id: String,
    is_new: bool,
    _lock: File,
}

/// What an IDENTITY file says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    node: NodeId,
    disk_id: String,
}

impl DataDir {
    /// Opens the data directory of `node`, or creates an empty one.
    ///
    /// # Errors
    /// [`StorageError::Refused`] when it is in use, newer than this code, another node's, or when one of its
    /// parts was emptied or exchanged.
    pub fn open(path: &Path, node: NodeId) -> Result<DataDir, StorageError> {
        durable::create_dir(path)?;
        let lock = lock(path)?;
        check_format(path)?;
        let parts = [path.join("raft"), path.join("blobs")];
        let mut identities = Vec::new();
        for part in &parts {
            durable::create_dir(part)?;
            identities.push(read_identity(part)?);
        }
        let (identity, is_new) = match (&identities[0], &identities[1]) {
            (None, None) => (create_identity(path, &parts, node)?, true),
            (Some(raft), Some(blobs)) if raft == blobs => (raft.clone(), false),
            (Some(_), Some(_)) => {
                let why = "its log and its blobs belong to different nodes or disks; \
                           put back the right disk or replace the node";
                return Err(refused(path, why));
            }
            // A crash between the two writes of `create_identity` leaves the log's without any data.
            (Some(raft), None) if is_empty_but_identity(&parts[0])? && is_empty(&parts[1])? => {
                write_identity(&parts[1], raft)?;
                (raft.clone(), true)
            }
            (raft, _) => {
                let missing = if raft.is_none() { &parts[0] } else { &parts[1] };
                let why = "IDENTITY is missing: this part was emptied or exchanged; \
                           put back the right disk or replace the node";
                return Err(refused(missing, why));
            }
        };
        if identity.node != node {
            let why = format!("it belongs to node {}, not to node {node}", identity.node);
            return Err(refused(path, why));
        }
        Ok(DataDir { path: path.to_owned(), disk_id: identity.disk_id, is_new, _lock: lock })
    }

    /// Everything is below.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the Raft log lives.
    pub fn raft_dir(&self) -> PathBuf {
        self.path.join("raft").join("log")
    }

    /// Where the applied state lives.
    pub fn state_dir(&self) -> PathBuf {
        self.path.join("state")
    }

    /// Random name given when the directory was created; a wiped or exchanged one has another.
    pub fn disk_id(&self) -> &str {
        &self.disk_id
    }

    /// Whether the directory was created just now.
    pub fn is_new(&self) -> bool {
        self.is_new
    }
}

fn refused(path: &Path, why: impl Into<String>) -> StorageError {
    StorageError::Refused { path: path.to_owned(), why: why.into() }
}

fn lock(path: &Path) -> Result<File, StorageError> {
    let path = path.join("LOCK");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(StorageError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(refused(&path, "another process is using it")),
        Err(TryLockError::Error(error)) => Err(StorageError::io("lock", &path)(error)),
    }
}

fn check_format(path: &Path) -> Result<(), StorageError> {
    let file = path.join("FORMAT");
    match durable::read_file(&file)? {
        None => durable::write_file(&file, format!("{FORMAT}\n").as_bytes()),
        Some(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            match text.trim().parse::<u32>() {
                Ok(FORMAT) => Ok(()),
                Ok(newer) => Err(refused(
                    &file,
                    format!("format {newer} is not {FORMAT}; use the version of argosy that wrote it"),
                )),
                Err(_) => Err(StorageError::Corrupt { path: file, what: "not a format number" }),
            }
        }
    }
}

/// Names a new directory, provided that nothing was ever stored in it.
fn create_identity(
    path: &Path,
    parts: &[PathBuf; 2],
    node: NodeId,
) -> Result<Identity, StorageError> {
    for part in [&parts[0], &parts[1], &path.join("state"), &path.join("local")] {
        if !is_empty(part)? {
            return Err(refused(part, "there is data but no IDENTITY; replace the node"));
        }
    }
    let disk_id = format!("{:032x}", rand::random::<u128>());
    let identity = Identity { node, disk_id };
    for part in parts {
        write_identity(part, &identity)?;
    }
    Ok(identity)
}

fn is_empty(path: &Path) -> Result<bool, StorageError> {
    entries(path).map(|names| names.is_empty())
}

fn is_empty_but_identity(path: &Path) -> Result<bool, StorageError> {
    entries(path).map(|names| names.iter().all(|name| name == "IDENTITY"))
}

/// Names in a directory; a filesystem's own `lost+found` does not count.
fn entries(path: &Path) -> Result<Vec<String>, StorageError> {
    let mut names = Vec::new();
    let listing = match std::fs::read_dir(path) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(names),
        Err(error) => return Err(StorageError::io("list", path)(error)),
    };
    for entry in listing {
        let entry = entry.map_err(StorageError::io("list", path))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "lost+found" && !name.ends_with(durable::PARTIAL_SUFFIX) {
            names.push(name);
        }
    }
    Ok(names)
}

/// `node`, `disk` and a checksum over both, a line each.
fn write_identity(part: &Path, identity: &Identity) -> Result<(), StorageError> {
    let text = format!("node {}\ndisk {}\n", identity.node, identity.disk_id);
    let text = format!("{text}crc32c {:08x}\n", crc32c::crc32c(text.as_bytes()));
    durable::write_file(&part.join("IDENTITY"), text.as_bytes())
}

fn read_identity(part: &Path) -> Result<Option<Identity>, StorageError> {
    let path = part.join("IDENTITY");
    let Some(bytes) = durable::read_file(&path)? else { return Ok(None) };
    let damaged = || StorageError::Corrupt { path: path.clone(), what: "the identity" };
    let text = String::from_utf8(bytes).map_err(|_| damaged())?;
    let (body, checksum) = text.split_once("crc32c ").ok_or_else(damaged)?;
    let expected = u32::from_str_radix(checksum.trim(), 16).map_err(|_| damaged())?;
    if crc32c::crc32c(body.as_bytes()) != expected {
        return Err(damaged());
    }
    let mut lines = body.lines();
    let node = lines.next().and_then(|line| line.strip_prefix("node ")?.parse().ok());
    let disk = lines.next().and_then(|line| line.strip_prefix("disk "));
    match (node, disk) {
        (Some(node), Some(disk)) => {
            Ok(Some(Identity { node: NodeId(node), disk_id: disk.to_owned() }))
        }
        _ => Err(damaged()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, node: u64) -> Result<DataDir, StorageError> {
        DataDir::open(path, NodeId(node))
    }

    #[test]
    fn a_directory_keeps_its_name() {
        let root = tempfile::tempdir().unwrap();
        let first = open(root.path(), 1).unwrap();
        assert!(first.is_new());
        let name = first.disk_id().to_owned();
        drop(first);
        let second = open(root.path(), 1).unwrap();
        assert!(!second.is_new());
        assert_eq!(second.disk_id(), name);
    }

    #[test]
    fn only_one_process_and_only_its_node_may_open_it() {
        let root = tempfile::tempdir().unwrap();
        let first = open(root.path(), 1).unwrap();
        let error = open(root.path(), 1).unwrap_err().to_string();
        assert!(error.contains("another process"), "{error}");
        drop(first);
        let error = open(root.path(), 2).unwrap_err().to_string();
        assert!(error.contains("belongs to node 1"), "{error}");
    }

    #[test]
    fn an_emptied_or_exchanged_part_is_refused() {
        let root = tempfile::tempdir().unwrap();
        drop(open(root.path(), 1).unwrap());
        std::fs::write(root.path().join("raft/000001.sst"), b"log").unwrap();
        std::fs::remove_file(root.path().join("blobs/IDENTITY")).unwrap();
        let error = open(root.path(), 1).unwrap_err().to_string();
        assert!(error.contains("blobs") && error.contains("replace the node"), "{error}");

        let other = tempfile::tempdir().unwrap();
        drop(open(other.path(), 1).unwrap());
        let stranger = other.path().join("blobs/IDENTITY");
        std::fs::copy(stranger, root.path().join("blobs/IDENTITY")).unwrap();
        let error = open(root.path(), 1).unwrap_err().to_string();
        assert!(error.contains("different"), "{error}");
    }

    #[test]
    fn a_crash_while_naming_it_is_repaired() {
        let root = tempfile::tempdir().unwrap();
        drop(open(root.path(), 1).unwrap());
        std::fs::remove_file(root.path().join("blobs/IDENTITY")).unwrap();
        assert!(open(root.path(), 1).unwrap().is_new());
        open(root.path(), 1).unwrap();
    }

    #[test]
    fn data_without_identity_a_newer_format_and_damage_are_refused() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("state")).unwrap();
        std::fs::write(root.path().join("state/CURRENT"), b"x").unwrap();
        let error = open(root.path(), 1).unwrap_err().to_string();
        assert!(error.contains("no IDENTITY"), "{error}");

        let root = tempfile::tempdir().unwrap();
        drop(open(root.path(), 1).unwrap());
        std::fs::write(root.path().join("FORMAT"), b"2\n").unwrap();
        assert!(open(root.path(), 1).is_err());
        std::fs::write(root.path().join("FORMAT"), b"1\n").unwrap();
        std::fs::write(root.path().join("raft/IDENTITY"), b"node 1\n").unwrap();
        let error = open(root.path(), 1).unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
    }
}
