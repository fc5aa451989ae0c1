//! The data directory of one node.
//!
//! ```text
//! lock             held by the process that uses the directory
//! format           version of everything below; written last when the directory is created
//! raft/            IDENTITY, PLACE, the log (RocksDB), its high-water mark
//! state/           generations of the applied state (RocksDB) and which one is current
//! blobs/           IDENTITY, the blobs, the high-water mark of their index
//! blobs/uploads/   what is being uploaded: it becomes a blob by a rename, which no mount may stand in the way of
//! local/           index of the blobs here (RocksDB)
//! snapshots/       states on their way in from other nodes
//! ```
//! `raft` and `blobs` may be mounts of their own: an identity in each tells when one of them is not the right one.
//! A directory that is not whole is refused, never repaired: what is missing may have been acknowledged. So is a copy:
//! whoever moves a directory to another disk says so with [`accept_copy`].

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use metadata::ids::NodeId;
use rustix::fs::{Mode, OFlags};

use crate::durable;
use crate::error::StorageError;
use crate::identity::{self, Identity};
use crate::place::{self, Place, Placed};

const LOCK: &str = "lock";
const FORMAT_FILE: &str = "format";
const FORMAT_PREFIX: &str = "argosy data format ";

/// The format this version reads and writes.
const FORMAT: u32 = 1;

pub(crate) const RAFT: &str = "raft";
pub(crate) const STATE: &str = "state";
const BLOBS: &str = "blobs";
const UPLOADS: &str = "blobs/uploads";
/// Where earlier versions had them.
const FORMER_UPLOADS: &str = "uploads";
const LOCAL: &str = "local";
const SNAPSHOTS: &str = "snapshots";

/// Hold what was acknowledged, or what says where it is: never missing from a whole directory.
const KEPT: [&str; 4] = [RAFT, STATE, BLOBS, LOCAL];
/// Hold what may be lost: made again when they are missing.
const SCRATCH: [&str; 2] = [UPLOADS, SNAPSHOTS];

/// An open data directory. Keep it until everything in it is closed: it holds the lock.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    identity: Mutex<Identity>,
    is_new: bool,
    _lock: File,
}

impl DataDir {
    /// Opens the directory of node `node_id`, creating it where there is nothing.
    ///
    /// Refuses one that another process uses, that a newer version wrote, that belongs to another node, or of which
    /// a part is missing. A start that was interrupted while it created the directory is finished.
    pub fn open(path: impl AsRef<Path>, node_id: NodeId) -> Result<DataDir, StorageError> {
        let root = path.as_ref().to_path_buf();
        durable::create_dir(&root)?;
        let lock = lock(&root)?;
        let is_new = !has_format(&root)?;
        if is_new {
            create(&root, node_id)?;
        }
        let identity = load_identity(&root)?;
        for name in SCRATCH {
            durable::create_dir(&root.join(name))?;
        }
        if identity.node_id != node_id {
            let why = format!(
                "it belongs to node {}, not {node_id}; check the configured node id and data directory",
                identity.node_id
            );
            return Err(StorageError::Refused { path: root, why });
        }
        check_place(&root)?;
        move_uploads(&root)?;
        Ok(DataDir {
            root,
            identity: Mutex::new(identity),
            is_new,
            _lock: lock,
        })
    }

    /// Names this directory: 32 hexadecimal digits, drawn when it was created.
    pub fn disk_id(&self) -> String {
        self.identity
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .disk_id
            .clone()
    }

    /// Whether this call of `open` created the directory. A node that was a member before and finds its directory
    /// new has lost its disk.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The cluster the directory is bound to, once it is.
    pub fn cluster_id(&self) -> Option<String> {
        self.identity
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .cluster_id
            .clone()
    }

    /// Binds the directory to a cluster, durably and for good. Refuses another one than before, and an id that is
    /// not 1 to 128 printable ASCII characters.
    pub fn bind_cluster(&self, cluster_id: &str) -> Result<(), StorageError> {
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = |why| {
            Err(StorageError::Refused {
                path: self.root.clone(),
                why,
            })
        };
        match &identity.cluster_id {
            Some(bound) if bound == cluster_id => return Ok(()),
            Some(bound) => {
                return refused(format!(
                    "it belongs to cluster {bound}, not {cluster_id}; a node joins another cluster with an empty \
                     data directory"
                ));
            }
            None if !identity::is_cluster_id(cluster_id) => {
                return refused(format!("{cluster_id:?} cannot name a cluster"));
            }
            None => {}
        }
        self.save_cluster(&mut identity, cluster_id)
    }

    /// Binds the directory to the cluster that its old one became after it lost its quorum, durably.
    pub fn rebind_cluster(&self, cluster_id: &str) -> Result<(), StorageError> {
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        self.save_cluster(&mut identity, cluster_id)
    }

    fn save_cluster(&self, identity: &mut Identity, cluster_id: &str) -> Result<(), StorageError> {
        let bound = Identity {
            cluster_id: Some(cluster_id.to_owned()),
            ..identity.clone()
        };
        save_identity(&self.root, &bound)?;
        *identity = bound;
        Ok(())
    }

    /// For [`crate::rocks::RocksLog::open`].
    pub fn raft_dir(&self) -> PathBuf {
        self.root.join(RAFT)
    }

    /// For [`crate::rocks::RocksState::open`].
    pub fn state_dir(&self) -> PathBuf {
        self.root.join(STATE)
    }

    /// For the blobs.
    pub fn blobs_dir(&self) -> PathBuf {
        self.root.join(BLOBS)
    }

    /// Everything is below.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// For what is being uploaded.
    pub fn uploads_dir(&self) -> PathBuf {
        self.root.join(UPLOADS)
    }

    /// For states on their way in from other nodes.
    pub fn snapshots_dir(&self) -> PathBuf {
        self.root.join(SNAPSHOTS)
    }

    /// For the index of the blobs.
    pub fn local_dir(&self) -> PathBuf {
        self.root.join(LOCAL)
    }
}

/// Takes over what an earlier version was staging. What cannot be renamed could not have become a blob either.
fn move_uploads(root: &Path) -> Result<(), StorageError> {
    let former = root.join(FORMER_UPLOADS);
    if !former.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(&former).map_err(StorageError::io("list", &former))? {
        let entry = entry.map_err(StorageError::io("list", &former))?;
        let moved = std::fs::rename(entry.path(), root.join(UPLOADS).join(entry.file_name()));
        if moved.is_err() {
            durable::remove_file(&entry.path())?;
        }
    }
    // It may be a mount of its own.
    if let Err(error) = durable::remove_file(&former) {
        tracing::debug!(%error, "the former directory of uploads stays");
    }
    durable::sync_dir(&root.join(UPLOADS))
}

/// Refuses a copy of a directory. One that has no file yet gets it: it is new, or an earlier version made it.
fn check_place(root: &Path) -> Result<(), StorageError> {
    let raft = root.join(RAFT);
    match Place::look(&raft)? {
        Placed::Here => Ok(()),
        Placed::Unknown => Place::save(&raft, root),
        Placed::Copy(original) => {
            let why = format!(
                "it says that {} is a copy of the data directory made at {}, and a node that runs twice loses what it \
                 acknowledged; if the original is never started again, run `argosy accept-copy --data {}`",
                root.display(),
                original.display(),
                root.display()
            );
            Err(StorageError::Refused {
                path: raft.join(place::FILE),
                why,
            })
        }
    }
}

/// Makes a copy of a data directory the one that counts; it must not be in use. Returns the node it belongs to. The
/// caller promises that the original is never started again, and was not since the copy was made.
///
/// # Errors
/// `StorageError::Refused` when the original is still where it was, when a process uses the copy, or when it is no
/// whole data directory.
pub fn accept_copy(root: &Path) -> Result<NodeId, StorageError> {
    let _lock = lock_existing(root)?;
    let identity = inspect(root)?;
    let raft = root.join(RAFT);
    if let Ok(Placed::Copy(original)) = Place::look(&raft)
        && !is_same_file(&original, root)
        && inspect(&original).is_ok_and(|other| other.disk_id == identity.disk_id)
    {
        let why = format!(
            "the original is still there, at {}; remove it or its file {} first: of the two only one may ever run again",
            original.display(),
            original.join(FORMAT_FILE).display()
        );
        return Err(StorageError::Refused {
            path: root.to_path_buf(),
            why,
        });
    }
    Place::save(&raft, root)?;
    Ok(identity.node_id)
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let key = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    key(one).is_some() && key(one) == key(other)
}

/// Takes the lock of a directory that exists, without creating anything.
pub(crate) fn lock_existing(root: &Path) -> Result<File, StorageError> {
    let path = root.join(LOCK);
    if !path.is_file() {
        let why =
            "it is no file: this is no data directory of a node, or it was removed and the next start makes it again"
                .to_owned();
        return Err(StorageError::Refused { path, why });
    }
    lock(root)
}

/// Reads the identity of a directory that was created, without changing it.
pub(crate) fn inspect(root: &Path) -> Result<Identity, StorageError> {
    if !has_format(root)? {
        let why = "its format file is missing: no node ever finished creating it".to_owned();
        return Err(StorageError::Refused {
            path: root.to_path_buf(),
            why,
        });
    }
    read_identity(root)
}

/// Takes the lock; the kernel gives it back when the process ends, however it ends.
fn lock(root: &Path) -> Result<File, StorageError> {
    let path = root.join(LOCK);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
        .map(File::from)
        .map_err(|error| StorageError::io("create", &path)(error.into()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let why = "another process uses it; stop that one first".to_owned();
            Err(StorageError::Refused {
                path: root.to_path_buf(),
                why,
            })
        }
        Err(TryLockError::Error(error)) => Err(StorageError::io("lock", &path)(error)),
    }
}

/// Whether the directory was created before, in a format that this version knows.
fn has_format(root: &Path) -> Result<bool, StorageError> {
    let path = root.join(FORMAT_FILE);
    let Some(bytes) = durable::read_file(&path)? else {
        return Ok(false);
    };
    let format = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.trim_end().strip_prefix(FORMAT_PREFIX));
    match format.and_then(|number| number.parse::<u32>().ok()) {
        Some(FORMAT) => Ok(true),
        Some(newer) if newer > FORMAT => {
            let why = format!(
                "it has format {newer}, and this version knows up to {FORMAT}; run a newer version"
            );
            Err(StorageError::Refused {
                path: root.to_path_buf(),
                why,
            })
        }
        _ => Err(StorageError::Corrupt {
            path,
            what: "it does not name a known format",
        }),
    }
}

/// Creates everything, the format file last: without it, an earlier attempt was interrupted and nothing that
/// counts can be here.
fn create(root: &Path, node_id: NodeId) -> Result<(), StorageError> {
    for name in KEPT {
        let directory = root.join(name);
        durable::create_dir(&directory)?;
        if let Some(found) = unexpected_entry(&directory)? {
            let why = format!(
                "it holds {found}, but {} is missing, which every data directory has; restore it or replace this node",
                root.join(FORMAT_FILE).display()
            );
            return Err(StorageError::Refused {
                path: directory,
                why,
            });
        }
    }
    save_identity(root, &Identity::new(node_id))?;
    durable::write_file(
        &root.join(FORMAT_FILE),
        format!("{FORMAT_PREFIX}{FORMAT}\n").as_bytes(),
    )
}

/// The first thing in a directory that creating it does not put there. A mount may have a `lost+found`.
fn unexpected_entry(directory: &Path) -> Result<Option<String>, StorageError> {
    let partial = format!("{}{}", identity::FILE, durable::PARTIAL_SUFFIX);
    let of_an_earlier_try = [identity::FILE, &partial, place::FILE, "lost+found"];
    for entry in std::fs::read_dir(directory).map_err(StorageError::io("list", directory))? {
        let entry = entry.map_err(StorageError::io("list", directory))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Uploads may be lost: an empty directory of them is not worth a refusal.
        let is_scratch = name == "uploads" && is_empty(&entry.path());
        if !of_an_earlier_try.contains(&name.as_str()) && !is_scratch {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

/// Reads both identities of a complete directory and compares them; finishes what a crash interrupted.
fn load_identity(root: &Path) -> Result<Identity, StorageError> {
    let identity = read_identity(root)?;
    // A crash may have come between the two writes of `bind_cluster`.
    for name in [RAFT, BLOBS] {
        if Identity::load(&root.join(name))?.as_ref() != Some(&identity) {
            identity.save(&root.join(name))?;
        }
    }
    Ok(identity)
}

/// Reads both identities of a complete directory and compares them. One may lack the cluster: a crash came between
/// the two writes of `bind_cluster`.
fn read_identity(root: &Path) -> Result<Identity, StorageError> {
    for name in KEPT {
        let directory = root.join(name);
        if !directory.is_dir() {
            let why = "it is missing; mount or restore it, or replace this node".to_owned();
            return Err(StorageError::Refused {
                path: directory,
                why,
            });
        }
    }
    let of = |name: &str| {
        let directory = root.join(name);
        Identity::load(&directory)?.ok_or_else(|| StorageError::Refused {
            path: directory.join(identity::FILE),
            why: "it is missing: an empty disk in place of the right one? Mount or restore the right one, or replace \
                  this node"
                .to_owned(),
        })
    };
    let (raft, blobs) = (of(RAFT)?, of(BLOBS)?);
    if raft == blobs {
        return Ok(raft);
    }
    let unbound = |identity: &Identity| Identity {
        cluster_id: None,
        ..identity.clone()
    };
    if unbound(&raft) == unbound(&blobs)
        && (raft.cluster_id.is_none() || blobs.cluster_id.is_none())
    {
        return Ok(if raft.cluster_id.is_some() {
            raft
        } else {
            blobs
        });
    }
    const FILE: &str = identity::FILE;
    let why = format!(
        "it says disk {} of node {} in cluster {}, {BLOBS}/{FILE} disk {} of node {} in cluster {}; they belong to \
         different data directories, mount the right ones or replace this node",
        raft.disk_id,
        raft.node_id,
        raft.cluster_id.as_deref().unwrap_or("none"),
        blobs.disk_id,
        blobs.node_id,
        blobs.cluster_id.as_deref().unwrap_or("none"),
    );
    Err(StorageError::Refused {
        path: root.join(RAFT).join(FILE),
        why,
    })
}

/// The good one of two identities, when the other is damaged or missing.
pub fn sound_identity(root: &Path) -> Option<PathBuf> {
    let is_sound = |name: &str| matches!(Identity::load(&root.join(name)), Ok(Some(_)));
    match (is_sound(RAFT), is_sound(BLOBS)) {
        (true, false) => Some(root.join(RAFT).join(identity::FILE)),
        (false, true) => Some(root.join(BLOBS).join(identity::FILE)),
        (true, true) | (false, false) => None,
    }
}

fn save_identity(root: &Path, identity: &Identity) -> Result<(), StorageError> {
    identity.save(&root.join(RAFT))?;
    identity.save(&root.join(BLOBS))
}

#[cfg(test)]
mod tests;
