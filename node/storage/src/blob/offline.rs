//! The blobs of a node that does not run, looked at without changing anything.

use std::path::Path;
use std::time::SystemTime;

use metadata::ids::TicketId;
use oci::Digest;

use super::names::Names;
use super::options::BlobOptions;
use super::shelf::Shelf;
use super::verify::Scan;
use super::walk::Walker;
use super::{BlobStat, Damage, QuarantineUsage, TrashUsage, Verified, Walk, WalkCursor};
use crate::error::BlobError;

/// Files visited in one step.
const WALKED: usize = 10_000;

/// Blobs of a data directory that somebody else keeps locked.
pub struct OfflineBlobs {
    shelf: Shelf,
}

impl OfflineBlobs {
    pub(crate) fn open(data: &Path) -> Result<OfflineBlobs, BlobError> {
        Ok(OfflineBlobs {
            shelf: Shelf::inspect(data, &BlobOptions::default())?,
        })
    }

    /// Recorded blobs after `after`, ordered, at most `limit`.
    pub fn list(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<BlobStat>, BlobError> {
        Ok(self.shelf.index.list(after, limit)?)
    }

    /// What a blob is found to be: all of it read, or with `quick` only its length compared.
    pub fn verify(&self, digest: &Digest, quick: bool) -> Result<Verified, BlobError> {
        let Some(record) = self.shelf.index.record(digest)? else {
            return Ok(Verified::Absent);
        };
        if !quick {
            return Scan::run(&self.shelf, digest, record);
        }
        let expected = BlobStat {
            digest: *digest,
            size_bytes: record.size_bytes,
        };
        Ok(match self.shelf.stat_on_disk(expected)? {
            None => Verified::Missing,
            Some(found) if found == expected => Verified::Sound(found),
            Some(found) => Verified::Damaged(Damage::Size {
                expected_bytes: expected.size_bytes,
                found_bytes: found.size_bytes,
            }),
        })
    }

    /// Pins of all blobs together.
    pub fn pin_count(&self) -> Result<u64, BlobError> {
        Ok(self.shelf.index.pin_count()?)
    }

    /// The tickets a blob is pinned with.
    pub fn pins(&self, digest: &Digest) -> Result<Vec<TicketId>, BlobError> {
        Ok(self.shelf.index.pins(digest)?)
    }

    /// Files that are no blobs: under the name of a digest that no record knows, staged, or foreign.
    pub fn strays(&self) -> Result<Walk, BlobError> {
        let walker = Walker {
            shelf: &self.shelf,
            names: &Names::default(),
            // Nothing is that old: nothing is removed.
            started: SystemTime::UNIX_EPOCH,
        };
        let mut found = Walk::default();
        let mut after: Option<WalkCursor> = None;
        loop {
            let walk = walker.step(after.as_ref(), WALKED)?;
            found.orphans.extend(walk.orphans);
            found.foreign.extend(walk.foreign);
            match walk.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        found.staged = self.shelf.files.upload_names()?;
        Ok(found)
    }

    /// What is in the trash.
    pub fn trash(&self) -> TrashUsage {
        self.shelf.trash.usage()
    }

    /// What is in quarantine.
    pub fn quarantine(&self) -> Result<QuarantineUsage, BlobError> {
        self.shelf.quarantine.usage()
    }
}
