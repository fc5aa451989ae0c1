//! The file of a staged blob that outgrew memory. Everything here runs on blocking threads, one job at a time.

use std::fs::File;
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use oci::{Algorithm, Digest, Hasher};
use rustix::fs::Advice;
use rustix::io::Errno;

use super::checksum::RunningChecksums;
use super::files;
use super::follow::Feed;
use super::names::NameClaim;
use super::reader::read_full;
use super::space::Disk;
use crate::error::BlobError;
use crate::failpoints;

/// Hash and checksum take turns on pieces of this size, so that the second finds it in the processor's cache.
const PIECE_BYTES: usize = 64 * 1024;

/// Reading back, for a resumed upload or another digest algorithm.
const READ_BACK_BYTES: usize = 512 * 1024;

/// What a spool needs to know of its store.
pub(super) struct SpoolTarget {
    pub path: PathBuf,
    pub disk: Arc<Disk>,
    pub write_back_bytes: u64,
    /// Held until the last job is done.
    pub _claim: NameClaim,
}

/// The file, and everything computed over its bytes so far.
pub(super) struct Spool {
    target: Arc<SpoolTarget>,
    feed: Arc<Feed>,
    /// Created by the first write.
    file: Option<Arc<File>>,
    written_bytes: u64,
    synced_bytes: u64,
    written_back_bytes: u64,
    entry_is_synced: bool,
    hasher: Hasher,
    checksums: RunningChecksums,
    /// A digest in another algorithm, of all bytes.
    other: Option<Digest>,
    is_lost: bool,
}

impl Spool {
    /// A spool without a file yet.
    pub(super) fn new(target: Arc<SpoolTarget>, feed: Arc<Feed>, algorithm: Algorithm) -> Self {
        Spool {
            target,
            feed,
            file: None,
            written_bytes: 0,
            synced_bytes: 0,
            written_back_bytes: 0,
            entry_is_synced: false,
            hasher: Hasher::new(algorithm),
            checksums: RunningChecksums::default(),
            other: None,
            is_lost: false,
        }
    }

    /// Goes on with what an interrupted upload left: hashes all of it again. `None` when there is nothing.
    pub(super) fn resume(
        target: Arc<SpoolTarget>,
        feed: Arc<Feed>,
    ) -> Result<Option<Self>, BlobError> {
        let Some(file) = files::open_upload(&target.path)? else {
            return Ok(None);
        };
        let file = Arc::new(file);
        // Pages whose sync failed before a restart may still be in the cache, marked clean: only the disk knows what
        // is durable.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
        let mut spool = Spool::new(target, feed, Algorithm::Sha256);
        let (mut hasher, mut checksums) =
            (Hasher::new(Algorithm::Sha256), RunningChecksums::default());
        spool.written_bytes = spool.read_back(&file, u64::MAX, |bytes| {
            hasher.update(bytes);
            checksums.update(bytes);
        })?;
        (spool.hasher, spool.checksums) = (hasher, checksums);
        spool.feed.publish(&file, spool.written_bytes);
        spool.file = Some(file);
        Ok(Some(spool))
    }

    /// Whether the bytes can still become a blob.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Whether followers read from the file already.
    pub(super) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    pub(super) fn path(&self) -> &Path {
        &self.target.path
    }

    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// One CRC-32C per chunk.
    pub(super) fn checksums(&self) -> Arc<[u32]> {
        self.checksums.finish().into()
    }

    /// The digest of all bytes, when it is known without reading them back.
    pub(super) fn digest(&self, algorithm: Algorithm) -> Option<Digest> {
        if self.hasher.algorithm() == algorithm {
            return Some(self.hasher.clone().finish());
        }
        self.other.filter(|digest| digest.algorithm() == algorithm)
    }

    /// Computes a digest that the running hash does not give.
    pub(super) fn compute(&mut self, algorithm: Algorithm) -> Result<(), BlobError> {
        let mut hasher = Hasher::new(algorithm);
        if let Some(file) = self.usable_file()? {
            self.read_back(&file, self.written_bytes, |bytes| hasher.update(bytes))?;
        }
        self.other = Some(hasher.finish());
        Ok(())
    }

    /// Appends. After an error nothing of these bytes counts, and the spool is as it was before.
    pub(super) fn write(&mut self, pieces: &[Bytes]) -> Result<(), BlobError> {
        self.target.disk.check_writable()?;
        let file = match self.usable_file()? {
            Some(file) => file,
            None => Arc::new(files::create_upload(self.path(), &self.target.disk)?),
        };
        let written = failpoints::hit("tmp_write")
            .and_then(|()| write_all(&file, pieces, self.written_bytes));
        if let Err(error) = written {
            self.undo(&file);
            return Err(self.target.disk.write_failed("write", self.path(), error));
        }
        self.other = None;
        self.written_bytes += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        // Followers go on at once; only the owner waits for the hash.
        self.feed.publish(&file, self.written_bytes);
        for piece in pieces.iter().flat_map(|piece| piece.chunks(PIECE_BYTES)) {
            self.hasher.update(piece);
            self.checksums.update(piece);
        }
        self.file = Some(Arc::clone(&file));
        self.start_write_back(&file)
    }

    /// Makes the bytes durable, and the file's name too, for an upload that is to survive a restart.
    pub(super) fn sync(&mut self) -> Result<(), BlobError> {
        self.sync_data()?;
        let Some(directory) = self
            .path()
            .parent()
            .filter(|_| self.has_file() && !self.entry_is_synced)
        else {
            return Ok(());
        };
        files::sync_directory(directory)
            .map_err(|error| self.target.disk.sync_failed(directory, error))?;
        self.entry_is_synced = true;
        Ok(())
    }

    /// Makes the bytes durable. A failed sync is not tried again: the bytes are lost.
    pub(super) fn sync_data(&mut self) -> Result<(), BlobError> {
        self.target.disk.check_writable()?;
        let Some(file) = self.usable_file()? else {
            return Ok(());
        };
        if self.synced_bytes < self.written_bytes {
            let synced = failpoints::hit("tmp_before_fsync").and_then(|()| file.sync_data());
            if let Err(error) = synced {
                self.is_lost = true;
                return Err(self.target.disk.sync_failed(self.path(), error));
            }
            self.synced_bytes = self.written_bytes;
        }
        Ok(())
    }

    /// The file was moved away or must not be used again; followers keep reading it.
    pub(super) fn give_up(&mut self) {
        self.is_lost = true;
    }

    fn usable_file(&self) -> Result<Option<Arc<File>>, BlobError> {
        if self.is_lost {
            Err(BlobError::Gone)
        } else {
            Ok(self.file.clone())
        }
    }

    /// Removes what a failed write left: a resumed upload must not find bytes that nobody acknowledged.
    fn undo(&mut self, file: &File) {
        let undone = match self.file {
            Some(_) => file
                .set_len(self.written_bytes)
                .map_err(BlobError::io("shorten", self.path())),
            None => files::remove(self.path()),
        };
        if let Err(error) = undone {
            tracing::warn!(path = %self.path().display(), error = &error as &dyn std::error::Error,
                "an upload file has bytes too many");
        }
    }

    /// Tells the kernel to write out what is complete, without waiting. Otherwise it would hold hundreds of
    /// megabytes back and the sync at the end would wait for all of them.
    ///
    /// `DontNeed` does just that for dirty pages (Linux starts their write-back and keeps them until it is done;
    /// `sync_file_range` has no safe binding). Pages already clean may be dropped, which costs a follower that
    /// lags this far a read from disk.
    fn start_write_back(&mut self, file: &File) -> Result<(), BlobError> {
        let Some(len) = NonZeroU64::new(self.written_bytes - self.written_back_bytes) else {
            return Ok(());
        };
        if len.get() < self.target.write_back_bytes {
            return Ok(());
        }
        // Advice: a file system that does not take it only makes the last sync longer.
        let _ = rustix::fs::fadvise(file, self.written_back_bytes, Some(len), Advice::DontNeed);
        self.written_back_bytes = self.written_bytes;
        self.target.disk.check_room()
    }

    /// Passes the first `limit_bytes` of the file on in order; returns how many there were.
    fn read_back(
        &self,
        file: &File,
        limit_bytes: u64,
        mut take: impl FnMut(&[u8]),
    ) -> Result<u64, BlobError> {
        let mut buffer = vec![0; READ_BACK_BYTES];
        let mut offset = 0;
        loop {
            let wanted = usize::try_from(limit_bytes - offset)
                .map_or(READ_BACK_BYTES, |rest| rest.min(READ_BACK_BYTES));
            let read = read_full(file, offset, &mut buffer[..wanted])
                .map_err(BlobError::io("read", self.path()))?;
            if read == 0 {
                return Ok(offset);
            }
            take(&buffer[..read]);
            offset += read as u64;
        }
    }
}

/// Writes all pieces in as few calls as the kernel allows.
fn write_all(file: &File, pieces: &[Bytes], mut offset: u64) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = slices.as_mut_slice();
    // The kernel takes at most 1,024 slices in one call.
    while !rest.is_empty() {
        match rustix::io::pwritev(file, &rest[..rest.len().min(1024)], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
