//! That a data directory is where it was made, and no copy of it: the file `PLACE` in the Raft directory.
//!
//! Two processes on two copies of one directory are one node twice: it can vote twice in one term. The lock cannot see
//! that, so this file says when it was itself created (or, where the file system does not tell, its inode). Renaming,
//! remounting and rebooting keep that; `cp`, `rsync`, `tar` and every other copy of files do not. A copy of a whole
//! file system does: that one is not noticed (decision 0012).

use std::fs::{Metadata, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::durable;
use crate::error::StorageError;

/// Name of the file.
pub(crate) const FILE: &str = "PLACE";

const FIRST_LINE: &str = "argosy place 1";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// What the file system said of the file when it was made.
    mark: String,
    /// Where the data directory was then. For people: it may be mounted elsewhere today.
    path: String,
}

/// How a directory relates to its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It is where it was made.
    Here,
    /// The file was never made.
    Unknown,
    /// It is a copy of the directory that was at this path.
    Copy(PathBuf),
}

impl Place {
    /// Compares the file in `dir` with what the file system says of it.
    pub(crate) fn look(dir: &Path) -> Result<Placed, StorageError> {
        let path = dir.join(FILE);
        let Some(bytes) = durable::read_file(&path)? else {
            return Ok(Placed::Unknown);
        };
        let Some(place) = Place::decode(&bytes) else {
            return Err(StorageError::Corrupt {
                path,
                what: "it does not say where the directory was made; if no copy of this directory is in use, \
                       `argosy accept-copy --data DIR` makes it again",
            });
        };
        let metadata = std::fs::metadata(&path).map_err(StorageError::io("stat", &path))?;
        if mark_of(&metadata) == place.mark {
            return Ok(Placed::Here);
        }
        Ok(Placed::Copy(PathBuf::from(place.path)))
    }

    /// Makes the file in `dir`, for the data directory `root`.
    pub(crate) fn save(dir: &Path, root: &Path) -> Result<(), StorageError> {
        let path = dir.join(FILE);
        let partial = dir.join(format!("{FILE}{}", durable::PARTIAL_SUFFIX));
        // A new file in any case: it says when it was created.
        durable::remove_file(&partial)?;
        durable::remove_file(&path)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&partial)
            .map_err(StorageError::io("create", &partial))?;
        let metadata = file
            .metadata()
            .map_err(StorageError::io("stat", &partial))?;
        let root = std::fs::canonicalize(root).map_err(StorageError::io("resolve", root))?;
        let place = Place {
            mark: mark_of(&metadata),
            path: root.to_string_lossy().replace('\n', "?"),
        };
        file.write_all(place.encode().as_bytes())
            .map_err(StorageError::io("write", &partial))?;
        file.sync_all()
            .map_err(StorageError::io("sync", &partial))?;
        durable::rename(&partial, &path)
    }

    fn encode(&self) -> String {
        let text = format!("{FIRST_LINE}\n{}\npath {}\n", self.mark, self.path);
        let checksum = crc32c::crc32c(text.as_bytes());
        format!("{text}checksum {checksum:08x}\n")
    }

    fn decode(bytes: &[u8]) -> Option<Place> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines().skip(1);
        let place = Place {
            mark: lines.next()?.to_owned(),
            path: lines.next()?.strip_prefix("path ")?.to_owned(),
        };
        (place.encode().as_bytes() == bytes).then_some(place)
    }
}

/// What no copy of a file has in common with it.
fn mark_of(metadata: &Metadata) -> String {
    let born = (metadata.created().ok()).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    match born {
        Some(born) => format!("created {}", born.as_nanos()),
        None => format!("inode {}", metadata.ino()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_told_from_a_move() {
        let root = tempfile::tempdir().expect("a directory");
        let (here, there) = (root.path().join("here"), root.path().join("there"));
        std::fs::create_dir(&here).expect("created");
        assert_eq!(Place::look(&here).expect("readable"), Placed::Unknown);
        Place::save(&here, root.path()).expect("saved");
        assert_eq!(Place::look(&here).expect("readable"), Placed::Here);
        std::fs::rename(&here, &there).expect("moved");
        assert_eq!(Place::look(&there).expect("readable"), Placed::Here);
        std::fs::create_dir(&here).expect("created");
        std::fs::copy(there.join(FILE), here.join(FILE)).expect("copied");
        let original = std::fs::canonicalize(root.path()).expect("it is there");
        assert_eq!(
            Place::look(&here).expect("readable"),
            Placed::Copy(original)
        );
        Place::save(&here, root.path()).expect("saved");
        assert_eq!(Place::look(&here).expect("readable"), Placed::Here);
        assert_eq!(Place::look(&there).expect("readable"), Placed::Here);
    }

    #[test]
    fn no_flipped_bit_is_taken_for_a_copy() {
        let root = tempfile::tempdir().expect("a directory");
        Place::save(root.path(), root.path()).expect("saved");
        let path = root.path().join(FILE);
        let bytes = std::fs::read(&path).expect("readable");
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1;
            std::fs::write(&path, &damaged).expect("written");
            assert!(Place::look(root.path()).is_err(), "byte {position}");
        }
    }
}
