//! Blobs in memory: the same contract without a disk, for tests of what stands above.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use metadata::ids::TicketId;
use metadata::log::{self, MetadataLog};
use oci::Digest;

use super::checksum::checksums;
use super::reader::BlobReader;
use super::staged::StagedBlob;
use super::{BlobStat, BlobStore, DiskUsage, Unlink, unlink};
use crate::error::BlobError;

/// Blobs that are gone with the process. Cheap to clone; clones share their blobs.
#[derive(Clone, Default)]
pub struct MemoryBlobs(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    blobs: BTreeMap<Digest, StoredBlob>,
    pins: BTreeMap<Digest, BTreeSet<TicketId>>,
}

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
        contents.blobs.remove(digest);
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
}
