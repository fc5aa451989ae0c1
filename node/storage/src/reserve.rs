//! Space put aside for the day the disk is full.
//!
//! A file of real blocks in the Raft directory. When the file system has almost nothing left it is given up, so that
//! the log, deletes and garbage collection, which make room, can still be written; it is made again when there is
//! room. Uploads stop earlier, at the floor of the blob store.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, Mode, OFlags};

use crate::durable;
use crate::error::StorageError;
use crate::failpoints;

const FILE: &str = "reserve";

/// What became of the reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveState {
    /// It is there.
    Kept,
    /// It was given up just now or before: the disk is full.
    GivenUp,
    /// Nothing is to be reserved.
    Off,
}

/// The reserve of one data directory.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    size_bytes: u64,
}

impl Reserve {
    /// The reserve in the Raft directory; 0 bytes: none. Looks at the disk once: a node that starts on a full disk
    /// needs the space to open its log.
    pub fn open(raft_dir: &Path, size_bytes: u64) -> Result<Reserve, StorageError> {
        let reserve = Reserve {
            path: raft_dir.join(FILE),
            size_bytes,
        };
        reserve.tend()?;
        Ok(reserve)
    }

    /// Gives the reserve up when less than half of it is free, and makes it again when twice as much as it takes is
    /// free: in between nothing changes, so it does not flap. Cheap enough to call every second. Blocks.
    pub fn tend(&self) -> Result<ReserveState, StorageError> {
        let held_bytes = match std::fs::symlink_metadata(&self.path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(StorageError::io("stat", &self.path)(error)),
        };
        if self.size_bytes == 0 {
            if held_bytes > 0 {
                durable::remove_file(&self.path)?;
            }
            return Ok(ReserveState::Off);
        }
        let free_bytes = self.free_bytes()?;
        if free_bytes < self.size_bytes / 2 {
            if held_bytes > 0 {
                tracing::error!(path = %self.path.display(), free_bytes,
                    "the disk is full, the reserve is given up so that deletes can make room");
                durable::remove_file(&self.path)?;
            }
            return Ok(ReserveState::GivenUp);
        }
        if held_bytes == self.size_bytes {
            return Ok(ReserveState::Kept);
        }
        if free_bytes.saturating_add(held_bytes) < self.size_bytes.saturating_mul(3) {
            return Ok(ReserveState::GivenUp);
        }
        self.make()
    }

    fn make(&self) -> Result<ReserveState, StorageError> {
        durable::remove_file(&self.path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(&self.path, flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .map_err(|error| StorageError::io("create", &self.path)(error.into()))?;
        let made = failpoints::hit("reserve_before_allocate").and_then(|()| {
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, self.size_bytes)?;
            file.sync_all()
        });
        match made {
            Ok(()) => Ok(ReserveState::Kept),
            Err(error) => {
                // Somebody was quicker, or the file system cannot do this: there is no reserve, and no half of one.
                tracing::warn!(path = %self.path.display(), %error, "no space could be reserved");
                durable::remove_file(&self.path)?;
                Ok(ReserveState::GivenUp)
            }
        }
    }

    fn free_bytes(&self) -> Result<u64, StorageError> {
        let directory = self.path.parent().unwrap_or(&self.path);
        let stat = rustix::fs::statvfs(directory)
            .map_err(|error| StorageError::io("stat", directory)(error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_bytes(directory: &Path) -> Option<u64> {
        let metadata = std::fs::metadata(directory.join(FILE)).ok()?;
        Some(metadata.len())
    }

    #[test]
    fn the_reserve_takes_real_blocks_and_its_size_can_change() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().expect("a directory");
        for size_bytes in [1 << 20, 2 << 20, 1 << 20] {
            let reserve = Reserve::open(directory.path(), size_bytes).expect("opens");
            assert_eq!(reserve.tend().expect("tended"), ReserveState::Kept);
            assert_eq!(held_bytes(directory.path()), Some(size_bytes));
            let metadata = std::fs::metadata(directory.path().join(FILE)).expect("there");
            assert!(metadata.blocks() * 512 >= size_bytes);
        }
        let off = Reserve::open(directory.path(), 0).expect("opens");
        assert_eq!(off.tend().expect("tended"), ReserveState::Off);
        assert_eq!(held_bytes(directory.path()), None);
    }

    #[test]
    fn on_a_full_disk_it_is_given_up() {
        let directory = tempfile::tempdir().expect("a directory");
        Reserve::open(directory.path(), 1 << 20).expect("opens");
        // No disk has room for half of this.
        let greedy = Reserve::open(directory.path(), u64::MAX).expect("opens");
        assert_eq!(greedy.tend().expect("tended"), ReserveState::GivenUp);
        assert_eq!(held_bytes(directory.path()), None);
    }
}
