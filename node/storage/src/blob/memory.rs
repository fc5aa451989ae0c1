//! Blobs in memory: the same contract without a disk, for tests of what stands above.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use metadata::ids::TicketId;
use metadata::log::{self, MetadataLog};
use oci::Digest;

use super::checksum::checksums;
use super::reader::BlobReader;
use super::staged::StagedBlob;
use super::{
    BlobHealth, BlobStat, BlobStore, Comparison, Damage, DiskUsage, Pace, QuarantineUsage,
    Quarantined, ScrubProgress, TrashUsage, Unlink, Verified, Walk, WalkCursor, care, unlink,
};
use crate::error::BlobError;

/// Blobs that are gone with the process. Cheap to clone; clones share their blobs.
#[derive(Clone, Default)]
pub struct MemoryBlobs(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    blobs: BTreeMap<Digest, StoredBlob>,
    pins: BTreeMap<Digest, BTreeSet<TicketId>>,
    trash: BTreeMap<Digest, (StoredBlob, SystemTime)>,
    quarantine: Vec<StoredBlob>,
    scrub: Option<ScrubProgress>,
}

/// How long a removed blob can be adopted again.
const TRASH_TTL: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone)]
struct StoredBlob {
    bytes: Bytes,
    checksums: Arc<[u32]>,
}

impl MemoryBlobs {
    /// No blobs.
    pub fn new() -> Self {
        MemoryBlobs::default()
    }

    /// Flips a bit of a stored byte, as a failing disk would. Returns whether there was such a byte.
    pub fn damage(&self, digest: &Digest, offset: usize) -> bool {
        let mut contents = self.lock();
        let Some(blob) = contents
            .blobs
            .get_mut(digest)
            .filter(|blob| offset < blob.bytes.len())
        else {
            return false;
        };
        let mut bytes = blob.bytes.to_vec();
        bytes[offset] ^= 1;
        blob.bytes = bytes.into();
        true
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn stat(&self, digest: &Digest) -> Option<BlobStat> {
        self.blobs.get(digest).map(|blob| BlobStat {
            digest: *digest,
            size_bytes: blob.bytes.len() as u64,
        })
    }

    fn verify(&self, digest: &Digest) -> Verified {
        let Some(blob) = self.blobs.get(digest) else {
            return Verified::Absent;
        };
        let actual = Digest::of(digest.algorithm(), &blob.bytes);
        if actual == *digest {
            Verified::Sound(BlobStat {
                digest: *digest,
                size_bytes: blob.bytes.len() as u64,
            })
        } else {
            let actual = Box::new(actual);
            Verified::Damaged(Damage::Content { actual })
        }
    }
}

fn usage_of<'a>(blobs: impl Iterator<Item = &'a StoredBlob>) -> (u64, u64) {
    blobs.fold((0, 0), |(files, bytes), blob| {
        (files + 1, bytes + blob.bytes.len() as u64)
    })
}

#[async_trait]
impl BlobStore for MemoryBlobs {
    async fn stage(&self, _name: &str) -> Result<StagedBlob, BlobError> {
        Ok(StagedBlob::in_memory_only())
    }

    async fn commit(
        &self,
        mut staged: StagedBlob,
        digest: &Digest,
        ticket: TicketId,
    ) -> Result<BlobStat, (BlobError, Option<StagedBlob>)> {
        let (actual, bytes) = match (staged.digest(digest.algorithm()).await, staged.in_memory()) {
            (Ok(actual), Some(bytes)) => (actual, bytes),
            (Err(error), _) => return Err((error, None)),
            (Ok(_), None) => return Err((BlobError::Gone, None)),
        };
        if actual != *digest {
            let error = BlobError::DigestMismatch {
                expected: *digest,
                actual: Box::new(actual),
            };
            return Err((error, Some(staged)));
        }
        let size_bytes = bytes.len() as u64;
        let checksums = checksums(&bytes).into();
        let mut contents = self.lock();
        contents.pins.entry(*digest).or_default().insert(ticket);
        // These bytes were just verified; those that are here may have been damaged.
        contents
            .blobs
            .insert(*digest, StoredBlob { bytes, checksums });
        Ok(BlobStat {
            digest: *digest,
            size_bytes,
        })
    }

    async fn pin(&self, digest: &Digest, ticket: TicketId) -> Result<Option<BlobStat>, BlobError> {
        let mut contents = self.lock();
        let stat = contents.stat(digest);
        if stat.is_some() {
            contents.pins.entry(*digest).or_default().insert(ticket);
        }
        Ok(stat)
    }

    async fn discard(&self, staged: StagedBlob) -> Result<(), BlobError> {
        staged.dismantle().await;
        Ok(())
    }

    async fn discard_name(&self, _name: &str) -> Result<(), BlobError> {
        Ok(())
    }

    async fn staged_names(&self) -> Result<Vec<String>, BlobError> {
        Ok(Vec::new())
    }

    async fn stat(&self, digest: &Digest) -> Result<Option<BlobStat>, BlobError> {
        Ok(self.lock().stat(digest))
    }

    async fn open(&self, digest: &Digest) -> Result<Option<BlobReader>, BlobError> {
        let blob = self.lock().blobs.get(digest).cloned();
        Ok(blob.map(|blob| BlobReader::memory(*digest, blob.bytes, blob.checksums)))
    }

    async fn unlink_if_unneeded(
        &self,
        digest: &Digest,
        log: &dyn MetadataLog,
    ) -> Result<Unlink, BlobError> {
        // One lock for all digests also holds that of this one.
        let mut contents = self.lock();
        let pins: Vec<TicketId> = contents
            .pins
            .get(digest)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        let verdict = log::read(log, |view| {
            unlink::judge(view, log.node_id(), digest, &pins)
        })?;
        if let Some(pins) = contents.pins.get_mut(digest) {
            verdict
                .closed
                .iter()
                .for_each(|ticket| _ = pins.remove(ticket));
        }
        if contents.stat(digest).is_none() {
            return Ok(Unlink::Absent);
        }
        if !verdict.is_unneeded() {
            return Ok(Unlink::Needed);
        }
        if let Some(blob) = contents.blobs.remove(digest) {
            contents.trash.insert(*digest, (blob, SystemTime::now()));
        }
        contents.pins.remove(digest);
        Ok(Unlink::Removed)
    }

    async fn list(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<BlobStat>, BlobError> {
        let contents = self.lock();
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(*after));
        let digests = contents.blobs.range((start, Bound::Unbounded)).take(limit);
        Ok(digests
            .filter_map(|(digest, _)| contents.stat(digest))
            .collect())
    }

    async fn usage(&self) -> Result<DiskUsage, BlobError> {
        Ok(DiskUsage {
            total_bytes: u64::MAX,
            free_bytes: u64::MAX,
        })
    }

    async fn health(&self) -> Result<BlobHealth, BlobError> {
        Ok(BlobHealth::Healthy)
    }

    async fn walk(&self, _after: Option<&WalkCursor>, _limit: usize) -> Result<Walk, BlobError> {
        // Without files there is nothing that no record knows.
        Ok(Walk::default())
    }

    async fn adopt(
        &self,
        digest: &Digest,
        ticket: TicketId,
    ) -> Result<Option<BlobStat>, BlobError> {
        let mut contents = self.lock();
        match contents.verify(digest) {
            Verified::Damaged(_) => return Ok(None),
            Verified::Sound(_) => {}
            Verified::Absent | Verified::Missing => match contents.trash.remove(digest) {
                Some((blob, _)) => {
                    contents.blobs.insert(*digest, blob);
                }
                None => return Ok(None),
            },
        }
        contents.pins.entry(*digest).or_default().insert(ticket);
        Ok(contents.stat(digest))
    }

    async fn discard_orphan(&self, _digest: &Digest) -> Result<bool, BlobError> {
        Ok(false)
    }

    async fn empty_trash(&self, now: SystemTime, limit: usize) -> Result<TrashUsage, BlobError> {
        let mut contents = self.lock();
        let is_old =
            |since: &SystemTime| now.duration_since(*since).is_ok_and(|age| age >= TRASH_TTL);
        let old: Vec<Digest> = contents
            .trash
            .iter()
            .filter(|(_, (_, since))| is_old(since))
            .map(|(digest, _)| *digest)
            .take(limit)
            .collect();
        let gone: Vec<StoredBlob> = old
            .iter()
            .filter_map(|digest| contents.trash.remove(digest))
            .map(|(blob, _)| blob)
            .collect();
        let (files, bytes) = usage_of(gone.iter());
        Ok(TrashUsage { files, bytes })
    }

    async fn trash_usage(&self) -> Result<TrashUsage, BlobError> {
        let (files, bytes) = usage_of(self.lock().trash.values().map(|(blob, _)| blob));
        Ok(TrashUsage { files, bytes })
    }

    async fn verify(&self, digest: &Digest, _pace: Pace<'_>) -> Result<Verified, BlobError> {
        Ok(self.lock().verify(digest))
    }

    async fn quarantine(&self, digest: &Digest) -> Result<Quarantined, BlobError> {
        let mut contents = self.lock();
        match contents.verify(digest) {
            Verified::Sound(_) => return Ok(Quarantined::Sound),
            Verified::Absent | Verified::Missing => return Ok(Quarantined::Absent),
            Verified::Damaged(_) => {}
        }
        let damaged = contents.blobs.remove(digest);
        contents.quarantine.extend(damaged);
        Ok(Quarantined::Moved)
    }

    async fn quarantine_usage(&self) -> Result<QuarantineUsage, BlobError> {
        let (files, bytes) = usage_of(self.lock().quarantine.iter());
        Ok(QuarantineUsage { files, bytes })
    }

    async fn scrub_progress(&self) -> Result<Option<ScrubProgress>, BlobError> {
        Ok(self.lock().scrub)
    }

    async fn save_scrub_progress(&self, progress: &ScrubProgress) -> Result<(), BlobError> {
        self.lock().scrub = Some(*progress);
        Ok(())
    }

    async fn compare(
        &self,
        after: Option<&Digest>,
        through: Option<&Digest>,
        expected: &[BlobStat],
        limit: usize,
    ) -> Result<Comparison, BlobError> {
        let contents = self.lock();
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(*after));
        let end = through.map_or(Bound::Unbounded, |through| Bound::Included(*through));
        let mut found = contents
            .blobs
            .range((start, end))
            .filter_map(|(digest, _)| contents.stat(digest));
        care::compare(expected, &mut || Ok(found.next()), limit)
    }
}
