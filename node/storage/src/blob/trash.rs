//! Where files of unlinked blobs wait for a while before their bytes are gone.
//!
//! `blobs/trash/<algorithm>-<hex>`: on the file system of the blobs, so that moving there is a rename. The time of
//! modification is when a file came in. Nothing here is promised to anybody: it is a second chance after a mistake
//! (and saves a repair its copy), and it goes when it is old, too much, or in the way.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use oci::Digest;

use super::TrashUsage;
use super::files::{self, sync_directory};
use super::options::BlobOptions;
use super::space::Disk;
use crate::error::BlobError;
use crate::failpoints;

/// Name below the directory of the blobs.
pub(super) const DIRECTORY: &str = "trash";

/// More files than this are not kept: emptying lists them all.
const MAX_FILES: u64 = 100_000;

/// The trash of one blob directory.
pub(super) struct Trash {
    directory: PathBuf,
    ttl: Duration,
    max_bytes: u64,
    min_free_bytes: u64,
    files: AtomicU64,
    bytes: AtomicU64,
    /// Held while files leave, so that two calls do not count one twice.
    emptying: Mutex<()>,
}

struct Entry {
    path: PathBuf,
    size_bytes: u64,
    since: SystemTime,
}

impl Trash {
    /// Opens the trash below `blobs` and counts what an earlier run left in it.
    pub(super) fn open(
        blobs: &Path,
        options: &BlobOptions,
        disk: &Disk,
    ) -> Result<Self, BlobError> {
        let directory = blobs.join(DIRECTORY);
        let total_bytes = disk.usage()?.total_bytes;
        let trash = Trash {
            directory,
            ttl: options.trash_ttl,
            max_bytes: options.trash_max_bytes,
            min_free_bytes: options.trash_min_free_bytes.unwrap_or(total_bytes / 10),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            emptying: Mutex::new(()),
        };
        for entry in trash.entries()? {
            trash.count(entry.size_bytes);
        }
        Ok(trash)
    }

    pub(super) fn usage(&self) -> TrashUsage {
        TrashUsage {
            files: self.files.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    /// Takes the file of a blob, durably; one that is not there is fine. Removes it at once when there is no room
    /// for trash, and whatever is there that is no regular file. The caller holds the lock of the digest.
    pub(super) fn take(&self, path: &Path, digest: &Digest, disk: &Disk) -> Result<(), BlobError> {
        failpoints::hit("unlink_before_trash").map_err(BlobError::io("rename", path))?;
        let opened = files::open_regular_file(path)?;
        let kept = match opened {
            Some(file) if self.has_room(disk)? => self.keep(path, &file, digest)?,
            Some(_) | None => false,
        };
        if !kept {
            files::remove(path)?;
        }
        failpoints::hit("unlink_before_dirsync").map_err(|error| disk.sync_failed(path, error))?;
        if kept {
            sync_directory(&self.directory)
                .map_err(|error| disk.sync_failed(&self.directory, error))?;
        }
        files::sync_parent(path, disk)
    }

    /// Moves a file here. False when the disk is too full even for that.
    fn keep(&self, path: &Path, file: &File, digest: &Digest) -> Result<bool, BlobError> {
        let size_bytes = file.metadata().map_err(BlobError::io("stat", path))?.len();
        let place = self.place(digest);
        let replaced = std::fs::symlink_metadata(&place).ok();
        // Losing the time to a power cut only makes the file look older.
        if let Err(error) = file.set_modified(SystemTime::now()) {
            tracing::debug!(path = %path.display(), %error, "the age of a file in the trash is unknown");
        }
        match std::fs::rename(path, &place).map_err(BlobError::io("rename", path)) {
            Ok(()) => {}
            Err(BlobError::NoSpace) => return Ok(false),
            Err(error) => return Err(error),
        }
        if let Some(replaced) = replaced {
            self.uncount(replaced.len());
        }
        self.count(size_bytes);
        Ok(true)
    }

    /// The file of a blob in the trash, if it is there.
    pub(super) fn find(&self, digest: &Digest) -> Result<Option<(PathBuf, File)>, BlobError> {
        let place = self.place(digest);
        Ok(files::open_regular_file(&place)?.map(|file| (place, file)))
    }

    /// Says that a file found here was moved out.
    pub(super) fn taken_out(&self, size_bytes: u64) {
        self.uncount(size_bytes);
    }

    /// Removes what is older than allowed, then the oldest while there is too much or too little space is left.
    /// At most `limit` files. Returns what went.
    pub(super) fn empty(
        &self,
        now: SystemTime,
        limit: usize,
        disk: &Disk,
    ) -> Result<TrashUsage, BlobError> {
        let _emptying = self.emptying.lock().unwrap_or_else(PoisonError::into_inner);
        if self.usage().files == 0 {
            return Ok(TrashUsage::default());
        }
        let mut entries = self.entries()?;
        entries.sort_by_key(|entry| entry.since);
        let mut gone = TrashUsage::default();
        for entry in entries.into_iter().take(limit) {
            // A clock that went back makes a file look new: its bytes still count.
            let age = now.duration_since(entry.since).unwrap_or_default();
            if age < self.ttl
                && self.usage().bytes <= self.max_bytes
                && disk.usage()?.free_bytes >= self.min_free_bytes
            {
                break;
            }
            failpoints::hit("trash_before_remove").map_err(BlobError::io("remove", &entry.path))?;
            files::remove(&entry.path)?;
            self.uncount(entry.size_bytes);
            gone.files += 1;
            gone.bytes += entry.size_bytes;
        }
        Ok(gone)
    }

    fn has_room(&self, disk: &Disk) -> Result<bool, BlobError> {
        Ok(!self.ttl.is_zero()
            && self.usage().files < MAX_FILES
            && self.usage().bytes < self.max_bytes
            && disk.usage()?.free_bytes >= self.min_free_bytes)
    }

    fn entries(&self) -> Result<Vec<Entry>, BlobError> {
        let fail = |error| BlobError::io("list", &self.directory)(error);
        let mut entries = Vec::new();
        let listed = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(entries),
            listed => listed.map_err(fail)?,
        };
        for entry in listed {
            let entry = entry.map_err(fail)?;
            // One that was moved out meanwhile is not there any more.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            entries.push(Entry {
                path: entry.path(),
                size_bytes: metadata.len(),
                since: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            });
        }
        Ok(entries)
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        self.directory.join(file_name(digest))
    }

    fn count(&self, size_bytes: u64) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(size_bytes, Ordering::Relaxed);
    }

    fn uncount(&self, size_bytes: u64) {
        let less = |value: &AtomicU64, by: u64| {
            let _ = value.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |value| {
                Some(value.saturating_sub(by))
            });
        };
        less(&self.files, 1);
        less(&self.bytes, size_bytes);
    }
}

/// A digest as the name of one file: a colon means something to some tools.
pub(super) fn file_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.hex())
}
