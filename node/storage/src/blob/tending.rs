//! What looking after copies does on blocking threads, under the lock of a digest.

use std::sync::Arc;

use metadata::ids::TicketId;
use oci::Digest;

use super::index::{Edit, Place, Record};
use super::shelf::{Found, Shelf};
use super::verify::Scan;
use super::{BlobStat, Comparison, Quarantined, Verified, care};
use crate::error::BlobError;
use crate::failpoints;

/// Records read at a time.
const PAGE: usize = 1000;

impl Shelf {
    /// Makes a blob of a file that is here already. Same order as a commit: pin and stray mark, bytes, place, record.
    pub(super) fn adopt(
        &self,
        digest: &Digest,
        ticket: TicketId,
    ) -> Result<Option<BlobStat>, BlobError> {
        self.disk.check_writable()?;
        match self.look(digest)? {
            Found::Whole => return self.pin_found(digest, ticket),
            // What is recorded and damaged waits for good bytes or for quarantine.
            Found::Damaged(_) => return Ok(None),
            Found::Nothing => {}
        }
        let place = self.files.blob(digest);
        let orphan = self.files.open_blob(digest)?.map(|file| (place, file));
        let mut found = None;
        for (path, file) in orphan.into_iter().chain(self.trash.find(digest)?) {
            let file = Arc::new(file);
            if let Some(record) = Scan::of_file(digest, &file)? {
                found = Some((path, file, record));
                break;
            }
        }
        let Some((path, file, record)) = found else {
            return Ok(None);
        };
        let pinned = self
            .index
            .submit_blocking(Edit::default().pin(digest, ticket).put_stray(digest))?;
        // Nobody knows whether these bytes were ever synced.
        let synced = file.sync_all();
        pinned.wait_blocking()?;
        synced.map_err(|error| self.disk.sync_failed(&path, error))?;
        if path != self.files.blob(digest) {
            self.make_way(digest)?;
            self.files.place(&path, digest, &self.disk)?;
            self.trash.taken_out(record.size_bytes);
        }
        failpoints::hit("adopt_before_record").map_err(BlobError::io("adopt", &path))?;
        let edit = Edit::default().put_record(digest, &record);
        self.index.write_blocking(edit.remove_stray(digest))?;
        Ok(Some(BlobStat {
            digest: *digest,
            size_bytes: record.size_bytes,
        }))
    }

    /// Trashes a file that no record knows.
    pub(super) fn discard_orphan(&self, digest: &Digest) -> Result<bool, BlobError> {
        self.disk.check_writable()?;
        let record = self.index.record(digest)?;
        let path = self.files.blob(digest);
        let is_orphan = record.is_none_or(|record| record.place == Place::Inline)
            && std::fs::symlink_metadata(&path).is_ok();
        if is_orphan {
            self.trash.take(&path, digest, &self.disk)?;
        }
        Ok(is_orphan)
    }

    /// Moves a damaged copy away. Its bytes first: a crash in between leaves a record without bytes, which the next
    /// look finds missing; the other order would leave bytes that nobody knows are worth keeping.
    pub(super) fn quarantine(&self, digest: &Digest) -> Result<Quarantined, BlobError> {
        self.disk.check_writable()?;
        let Some(record) = self.index.record(digest)? else {
            return Ok(Quarantined::Absent);
        };
        let moved = match Scan::run(self, digest, record.clone())? {
            Verified::Sound(_) => return Ok(Quarantined::Sound),
            Verified::Absent => return Ok(Quarantined::Absent),
            Verified::Damaged(damage) => {
                tracing::error!(%digest, ?damage, "a damaged copy goes to quarantine");
                self.move_to_quarantine(digest, &record)?
            }
            Verified::Missing => {
                tracing::error!(%digest, "a copy is missing");
                self.move_to_quarantine(digest, &record)?
            }
        };
        if moved == Quarantined::Full {
            return Ok(moved);
        }
        failpoints::hit("quarantine_before_record")
            .map_err(BlobError::io("forget", &self.files.blob(digest)))?;
        let edit = Edit::default().remove_record(digest);
        self.index.write_blocking(match record.place {
            Place::File => edit,
            Place::Inline => edit.remove_body(digest, record.size_bytes),
        })?;
        Ok(moved)
    }

    fn move_to_quarantine(
        &self,
        digest: &Digest,
        record: &Record,
    ) -> Result<Quarantined, BlobError> {
        match record.place {
            Place::File => {
                let path = self.files.blob(digest);
                let Ok(metadata) = std::fs::symlink_metadata(&path) else {
                    return Ok(Quarantined::Missing);
                };
                if !self.quarantine.has_room(metadata.len())? {
                    return Ok(Quarantined::Full);
                }
                self.quarantine.take_file(&path, digest, &self.disk)?;
            }
            Place::Inline => {
                let Some(body) = self.index.body(digest) else {
                    return Ok(Quarantined::Missing);
                };
                if !self.quarantine.has_room(body.len() as u64)? {
                    return Ok(Quarantined::Full);
                }
                self.quarantine.take_bytes(&body, digest, &self.disk)?;
            }
        }
        Ok(Quarantined::Moved)
    }

    /// Compares what should be here with what is.
    pub(super) fn compare(
        &self,
        after: Option<&Digest>,
        through: Option<&Digest>,
        expected: &[BlobStat],
        limit: usize,
    ) -> Result<Comparison, BlobError> {
        let mut after = after.copied();
        let mut page = Vec::new().into_iter();
        let mut next = || {
            loop {
                let Some(stat) = page.next() else {
                    page = self.index.list(after.as_ref(), PAGE)?.into_iter();
                    let Some(last) = page.as_slice().last() else {
                        return Ok(None);
                    };
                    after = Some(last.digest);
                    continue;
                };
                if through.is_some_and(|through| stat.digest > *through) {
                    return Ok(None);
                }
                if let Some(stat) = self.stat_on_disk(stat)? {
                    return Ok(Some(stat));
                }
            }
        };
        care::compare(expected, &mut next, limit)
    }

    /// The length that is really there; `None` when the file is not.
    pub(super) fn stat_on_disk(&self, stat: BlobStat) -> Result<Option<BlobStat>, BlobError> {
        let record = self.index.record(&stat.digest)?;
        if record.is_none_or(|record| record.place == Place::Inline) {
            return Ok(Some(stat));
        }
        let Some(file) = self.files.open_blob(&stat.digest)? else {
            return Ok(None);
        };
        let metadata = file
            .metadata()
            .map_err(BlobError::io("stat", &self.files.blob(&stat.digest)))?;
        Ok(Some(BlobStat {
            size_bytes: metadata.len(),
            ..stat
        }))
    }
}
