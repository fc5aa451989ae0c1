//! Where damaged copies go: `blobs/quarantine/<unix ms>-<algorithm>-<hex>`.
//!
//! A damaged copy may be the last there is, and most of its bytes are good. Nothing in this program removes a file
//! from here: an operator does, when the blob is whole elsewhere. What is here is bounded by refusing more.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use oci::Digest;

use super::QuarantineUsage;
use super::files::{self, sync_directory};
use super::options::BlobOptions;
use super::space::Disk;
use super::trash::file_name;
use crate::error::BlobError;
use crate::failpoints;

/// Name below the directory of the blobs.
pub(super) const DIRECTORY: &str = "quarantine";

/// The quarantine of one blob directory.
pub(super) struct Quarantine {
    directory: PathBuf,
    max_files: u64,
    max_bytes: u64,
}

impl Quarantine {
    /// Opens the quarantine below `blobs`.
    pub(super) fn open(blobs: &Path, options: &BlobOptions) -> Self {
        Quarantine {
            directory: blobs.join(DIRECTORY),
            max_files: options.quarantine_max_files,
            max_bytes: options.quarantine_max_bytes,
        }
    }

    pub(super) fn usage(&self) -> Result<QuarantineUsage, BlobError> {
        let fail = |error| BlobError::io("list", &self.directory)(error);
        let mut usage = QuarantineUsage::default();
        let listed = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(usage),
            listed => listed.map_err(fail)?,
        };
        for entry in listed {
            let metadata = entry.and_then(|entry| entry.metadata()).map_err(fail)?;
            usage.files += 1;
            usage.bytes += metadata.len();
        }
        Ok(usage)
    }

    /// Whether a copy of this size may come in.
    pub(super) fn has_room(&self, size_bytes: u64) -> Result<bool, BlobError> {
        let usage = self.usage()?;
        Ok(
            usage.files < self.max_files
                && usage.bytes.saturating_add(size_bytes) <= self.max_bytes,
        )
    }

    /// Moves the file of a damaged blob here, durably. What is there that is no regular file moves too, unread.
    pub(super) fn take_file(
        &self,
        path: &Path,
        digest: &Digest,
        disk: &Disk,
    ) -> Result<(), BlobError> {
        failpoints::hit("quarantine_before_rename").map_err(BlobError::io("rename", path))?;
        std::fs::rename(path, self.place(digest)).map_err(BlobError::io("rename", path))?;
        failpoints::hit("quarantine_before_dirsync")
            .map_err(|error| disk.sync_failed(&self.directory, error))?;
        sync_directory(&self.directory)
            .map_err(|error| disk.sync_failed(&self.directory, error))?;
        files::sync_parent(path, disk)
    }

    /// Writes the bytes of a damaged inline blob here, durably.
    pub(super) fn take_bytes(
        &self,
        bytes: &[u8],
        digest: &Digest,
        disk: &Disk,
    ) -> Result<(), BlobError> {
        let place = self.place(digest);
        let mut file = files::create_upload(&place, disk)?;
        file.write_all(bytes)
            .map_err(BlobError::io("write", &place))?;
        file.sync_all()
            .map_err(|error| disk.sync_failed(&place, error))?;
        sync_directory(&self.directory).map_err(|error| disk.sync_failed(&self.directory, error))
    }

    /// Two damaged copies of one blob in one millisecond are the same bytes.
    fn place(&self, digest: &Digest) -> PathBuf {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let since_ms = since.unwrap_or_default().as_millis();
        self.directory
            .join(format!("{since_ms}-{}", file_name(digest)))
    }
}
