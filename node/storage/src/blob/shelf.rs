//! What a blob directory does on blocking threads, under the lock of a digest.
//!
//! Order of a commit (protocols.md section 6.1), with what a crash after each step leaves:
//! 1. pin and stray mark synced, file synced: a staged file, and a pin that protects nothing;
//! 2. file renamed, directory synced: a file without a record, which the stray mark names: removed at start;
//! 3. record written, stray mark removed, in one synced batch: the blob.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use metadata::ids::TicketId;
use oci::Digest;

use super::checksum::checksums;
use super::files::Files;
use super::index::{Edit, LocalIndex, Place, Record};
use super::locks::DigestLocks;
use super::options::BlobOptions;
use super::quarantine::Quarantine;
use super::reader::BlobReader;
use super::space::Disk;
use super::spool::Spool;
use super::trash::Trash;
use super::unlink::Verdict;
use super::{BlobStat, Unlink, files};
use crate::error::BlobError;

/// Files that leave the trash when an upload finds too little room.
const MADE_ROOM_FILES: usize = 1000;

/// Files, index and locks of one blob directory. Whoever changes a digest holds its lock.
pub(super) struct Shelf {
    pub files: Files,
    pub index: LocalIndex,
    pub locks: DigestLocks,
    pub disk: Arc<Disk>,
    pub trash: Trash,
    pub quarantine: Quarantine,
}

impl Shelf {
    pub(super) fn open(data: &Path, options: &BlobOptions) -> Result<Self, BlobError> {
        let files = Files::open(data)?;
        let disk = Arc::new(Disk::new(
            files.blobs(),
            files.index(),
            options.min_free_bytes,
        )?);
        let index = LocalIndex::open(
            files.index(),
            &files.index_mark(),
            options,
            Arc::clone(&disk),
        )?;
        let shelf = Self::of(files, index, disk, options)?;
        let mut edit = Edit::default();
        for digest in shelf.index.strays()? {
            shelf.remove_stray_file(&digest)?;
            edit = edit.remove_stray(&digest);
        }
        if !edit.is_empty() {
            shelf.index.write_alone(edit)?;
        }
        Ok(shelf)
    }

    /// Opens it without changing anything: to be looked at only.
    pub(super) fn inspect(data: &Path, options: &BlobOptions) -> Result<Self, BlobError> {
        let files = Files::below(data);
        let disk = Arc::new(Disk::new(
            files.blobs(),
            files.index(),
            options.min_free_bytes,
        )?);
        let mark = files.index_mark();
        let index = LocalIndex::open_read_only(files.index(), &mark, options, Arc::clone(&disk))?;
        Self::of(files, index, disk, options)
    }

    fn of(
        files: Files,
        index: LocalIndex,
        disk: Arc<Disk>,
        options: &BlobOptions,
    ) -> Result<Self, BlobError> {
        Ok(Shelf {
            trash: Trash::open(files.blobs(), options, &disk)?,
            quarantine: Quarantine::open(files.blobs(), options),
            files,
            index,
            locks: DigestLocks::new(),
            disk,
        })
    }

    /// Refuses when there is no room for uploads. What is in the trash goes first.
    pub(super) fn check_room(&self) -> Result<(), BlobError> {
        match self.disk.check_room() {
            Err(BlobError::NoSpace) if self.trash.usage().files > 0 => {
                self.trash
                    .empty(SystemTime::now(), MADE_ROOM_FILES, &self.disk)?;
                self.disk.check_room()
            }
            room => room,
        }
    }

    /// The batch that makes a small blob durable.
    pub(super) fn inline_edit(digest: &Digest, ticket: TicketId, body: Bytes) -> Edit {
        let checksums = checksums(&body).into();
        let record = Record {
            size_bytes: body.len() as u64,
            place: Place::Inline,
            checksums,
        };
        Edit::default()
            .pin(digest, ticket)
            .put_record(digest, &record)
            .put_body(digest, body)
    }

    /// Commits bytes in memory under a digest that has a record.
    pub(super) fn commit_again(
        &self,
        digest: &Digest,
        ticket: TicketId,
        body: Bytes,
    ) -> Result<(), BlobError> {
        if matches!(self.look(digest)?, Found::Whole) {
            return self
                .index
                .write_blocking(Edit::default().pin(digest, ticket));
        }
        // A damaged file may lie there: it loses its record and goes.
        let edit = Self::inline_edit(digest, ticket, body).put_stray(digest);
        self.index.write_blocking(edit)?;
        self.clear_stray(digest)
    }

    /// Commits a staged file. On success it is in its place, or the blob was there already and it is gone.
    pub(super) fn commit_file(
        &self,
        spool: &mut Spool,
        digest: &Digest,
        ticket: TicketId,
    ) -> Result<(), BlobError> {
        self.disk.check_writable()?;
        let found = self.look(digest)?;
        if matches!(found, Found::Whole) {
            self.index
                .write_blocking(Edit::default().pin(digest, ticket))?;
            spool.give_up();
            return files::remove(spool.path());
        }
        // The pin must be durable before the file can be seen under its digest; the bytes as well. Neither
        // needs the other, so they sync side by side.
        let pinned = self
            .index
            .submit_blocking(Edit::default().pin(digest, ticket).put_stray(digest))?;
        let synced = spool.sync_data();
        pinned.wait_blocking()?;
        synced?;
        self.make_way(digest)?;
        self.files.place(spool.path(), digest, &self.disk)?;
        spool.give_up();
        let record = Record {
            size_bytes: spool.written_bytes(),
            place: Place::File,
            checksums: spool.checksums(),
        };
        let mut edit = Edit::default()
            .put_record(digest, &record)
            .remove_stray(digest);
        if let Found::Damaged(Record {
            place: Place::Inline,
            size_bytes,
            ..
        }) = found
        {
            edit = edit.remove_body(digest, size_bytes);
        }
        self.index.write_blocking(edit)
    }

    /// Pins a blob that is here, every chunk of it: whoever asks counts this copy, and may have found it here from
    /// long before. Not even a pin of the same ticket proves anything, because pins come before files.
    pub(super) fn pin(
        &self,
        digest: &Digest,
        ticket: TicketId,
    ) -> Result<Option<BlobStat>, BlobError> {
        self.disk.check_writable()?;
        match self.look(digest)? {
            Found::Whole => self.pin_found(digest, ticket),
            Found::Damaged(_) | Found::Nothing => Ok(None),
        }
    }

    /// Pins a blob that was looked at.
    pub(super) fn pin_found(
        &self,
        digest: &Digest,
        ticket: TicketId,
    ) -> Result<Option<BlobStat>, BlobError> {
        let Some(record) = self.index.record(digest)? else {
            return Ok(None);
        };
        self.index
            .write_blocking(Edit::default().pin(digest, ticket))?;
        Ok(Some(BlobStat {
            digest: *digest,
            size_bytes: record.size_bytes,
        }))
    }

    /// Opens what `record` describes. `None` when it was unlinked in the meantime.
    pub(super) fn reader(
        &self,
        digest: &Digest,
        record: Record,
    ) -> Result<Option<BlobReader>, BlobError> {
        let reader = match record.place {
            Place::File => self.files.open_blob(digest)?.map(|file| {
                BlobReader::file_of(*digest, record.size_bytes, file, record.checksums)
            }),
            Place::Inline => self
                .index
                .body(digest)
                .filter(|body| body.len() as u64 == record.size_bytes)
                .map(|body| BlobReader::memory(*digest, body, record.checksums)),
        };
        match reader {
            Some(reader) => Ok(Some(reader)),
            // The record goes first when a blob is unlinked: if it is still there, the bytes were lost.
            None if self.index.record(digest)?.is_some() => Err(BlobError::Corrupt {
                digest: *digest,
                chunk: 0,
            }),
            None => Ok(None),
        }
    }

    /// Does what the verdict of the unlink rule allows.
    pub(super) fn carry_out(
        &self,
        digest: &Digest,
        record: Option<&Record>,
        verdict: &Verdict,
    ) -> Result<Unlink, BlobError> {
        self.disk.check_writable()?;
        // A closed ticket never opens again, so its pin protects nothing whatever else holds.
        let unpin = Edit::default().unpin(digest, &verdict.closed);
        if let Some(record) = record.filter(|_| verdict.is_unneeded()) {
            self.remove(digest, record, unpin)?;
            return Ok(Unlink::Removed);
        }
        if !verdict.closed.is_empty() {
            self.index.write_blocking(unpin)?;
        }
        Ok(if record.is_some() {
            Unlink::Needed
        } else {
            Unlink::Absent
        })
    }

    fn remove(&self, digest: &Digest, record: &Record, unpin: Edit) -> Result<(), BlobError> {
        let edit = unpin.remove_record(digest);
        match record.place {
            Place::Inline => self
                .index
                .write_blocking(edit.remove_body(digest, record.size_bytes)),
            Place::File => {
                self.index.write_blocking(edit.put_stray(digest))?;
                self.clear_stray(digest)
            }
        }
    }

    fn clear_stray(&self, digest: &Digest) -> Result<(), BlobError> {
        self.remove_stray_file(digest)?;
        self.index
            .write_blocking(Edit::default().remove_stray(digest))
    }

    /// Trashes a file that may lie under a digest without a record that wants it.
    pub(super) fn remove_stray_file(&self, digest: &Digest) -> Result<(), BlobError> {
        match self.index.record(digest)? {
            Some(record) if record.place == Place::File => Ok(()),
            _ => self
                .trash
                .take(&self.files.blob(digest), digest, &self.disk),
        }
    }

    /// Nothing but a directory keeps a file from taking its place. Nobody knows what is in it, so it is kept.
    pub(super) fn make_way(&self, digest: &Digest) -> Result<(), BlobError> {
        let path = self.files.blob(digest);
        if !std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            return Ok(());
        }
        tracing::error!(path = %path.display(), "a directory in the place of a blob goes to quarantine");
        self.quarantine.take_file(&path, digest, &self.disk)
    }

    /// Looks at what is here, every chunk of it. Whoever commits holds fresh bytes: a rotten copy must not be
    /// counted in their stead, and reading it back costs less than the upload did.
    pub(super) fn look(&self, digest: &Digest) -> Result<Found, BlobError> {
        let Some(record) = self.index.record(digest)? else {
            return Ok(Found::Nothing);
        };
        let damage = match self.reader(digest, record.clone()) {
            Ok(Some(reader)) => reader.verify_blocking(0..record.size_bytes).err(),
            Ok(None) => return Ok(Found::Nothing),
            Err(error) => Some(error),
        };
        match damage {
            None => Ok(Found::Whole),
            Some(BlobError::Corrupt { chunk, .. }) => {
                tracing::warn!(%digest, chunk, "a damaged blob does not count; the same blob pushed again replaces it");
                Ok(Found::Damaged(record))
            }
            Some(error) => Err(error),
        }
    }
}

/// What is here of a blob.
pub(super) enum Found {
    Nothing,
    Whole,
    Damaged(Record),
}
