//! What the file system under the blobs has left, and whether it can still be trusted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{StatVfs, StatVfsMountFlags};
use rustix::io::Errno;

use super::{BlobHealth, DiskUsage};
use crate::error::BlobError;

/// Inodes that uploads must leave for the databases, which make and remove files all the time.
const MIN_FREE_INODES: u64 = 64;

/// The floor nobody configured.
const DEFAULT_MIN_FREE_BYTES: u64 = 256 << 20;

/// State of the disk that all parts of a blob store share.
pub(super) struct Disk {
    directory: PathBuf,
    min_free_bytes: u64,
    /// Where the index is, which may be another file system, and what uploads must leave there.
    index: (PathBuf, u64),
    failed: AtomicBool,
}

impl Disk {
    /// Of the blobs in `directory` and the index in `index`. `min_free_bytes`: see `BlobOptions`.
    pub(super) fn new(
        directory: &Path,
        index: &Path,
        min_free_bytes: Option<u64>,
    ) -> Result<Self, BlobError> {
        let floor = |directory: &Path| -> Result<u64, BlobError> {
            let total_bytes = usage(directory)?.total_bytes;
            Ok(min_free_bytes.unwrap_or_else(|| DEFAULT_MIN_FREE_BYTES.min(total_bytes / 100)))
        };
        Ok(Disk {
            directory: directory.to_owned(),
            min_free_bytes: floor(directory)?,
            index: (index.to_owned(), floor(index)?),
            failed: AtomicBool::new(false),
        })
    }

    pub(super) fn usage(&self) -> Result<DiskUsage, BlobError> {
        usage(&self.directory)
    }

    /// Whether the directory can be written, and if not, why.
    pub(super) fn health(&self) -> Result<BlobHealth, BlobError> {
        if self.failed.load(Ordering::Acquire) {
            return Ok(BlobHealth::Failed);
        }
        let stat = statvfs(&self.directory)?;
        if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Ok(BlobHealth::ReadOnly);
        }
        Ok(match self.check_room() {
            Err(BlobError::NoSpace) => BlobHealth::Full,
            room => room.map(|()| BlobHealth::Healthy)?,
        })
    }

    /// Refuses when a sync failed before.
    pub(super) fn check_writable(&self) -> Result<(), BlobError> {
        if self.failed.load(Ordering::Acquire) {
            Err(BlobError::Failed)
        } else {
            Ok(())
        }
    }

    /// Refuses when a sync failed before, or when uploads have used up what they may, bytes or inodes.
    pub(super) fn check_room(&self) -> Result<(), BlobError> {
        self.check_writable()?;
        let (index, index_min_free_bytes) = &self.index;
        for (directory, min_free_bytes) in [
            (&self.directory, self.min_free_bytes),
            (index, *index_min_free_bytes),
        ] {
            let stat = statvfs(directory)?;
            // Some file systems have as many inodes as there is space, and count none.
            let lacks_inodes = stat.f_files > 0 && stat.f_favail < MIN_FREE_INODES;
            if lacks_inodes || free_bytes(&stat) < min_free_bytes {
                return Err(BlobError::NoSpace);
            }
        }
        Ok(())
    }

    /// Ends all writing: after a failed sync nobody knows what is on the disk, and asking again may answer
    /// "fine" although the pages were dropped.
    pub(super) fn fail(&self, error: &(dyn std::error::Error + 'static)) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            let path = self.directory.display();
            tracing::error!(%path, error, "the blob directory failed, it takes no more writes");
        }
    }

    /// The error of a failed write. A disk that gives errors is left alone; one that is full or read-only is not
    /// failing.
    pub(super) fn write_failed(
        &self,
        action: &'static str,
        path: &Path,
        source: io::Error,
    ) -> BlobError {
        let is_failing = source.raw_os_error() == Some(Errno::IO.raw_os_error());
        let error = BlobError::io(action, path)(source);
        if is_failing {
            self.fail(&error);
        }
        error
    }

    /// The error of a failed sync. A full disk spoils only the file at hand; anything else ends all writing.
    pub(super) fn sync_failed(&self, path: &Path, source: io::Error) -> BlobError {
        let error = BlobError::io("sync", path)(source);
        if !matches!(error, BlobError::NoSpace) {
            self.fail(&error);
        }
        error
    }
}

fn free_bytes(stat: &StatVfs) -> u64 {
    stat.f_bavail.saturating_mul(stat.f_frsize)
}

fn usage(directory: &Path) -> Result<DiskUsage, BlobError> {
    let stat = statvfs(directory)?;
    Ok(DiskUsage {
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        free_bytes: free_bytes(&stat),
    })
}

fn statvfs(directory: &Path) -> Result<StatVfs, BlobError> {
    rustix::fs::statvfs(directory).map_err(|error| BlobError::io("stat", directory)(error.into()))
}
