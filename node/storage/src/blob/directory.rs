//! Blobs on disk: large ones as files, small ones in the local index.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use metadata::ids::TicketId;
use metadata::log::{self, MetadataLog};
use oci::Digest;

use super::budget::Budget;
use super::follow::Feed;
use super::index::Edit;
use super::names::Names;
use super::options::BlobOptions;
use super::reader::BlobReader;
use super::spool::{Spool, SpoolTarget};
use super::staged::StagedBlob;
use super::verify::{Scan, Step};
use super::walk::Walker;
use super::{
    BlobHealth, BlobStat, BlobStore, Comparison, DiskUsage, Pace, QuarantineUsage, Quarantined,
    ScrubProgress, TrashUsage, Unlink, Verified, Walk, WalkCursor, files, shelf::Shelf, unlink,
};
use crate::error::{BlobError, StorageError};

/// The blobs of a node in its data directory: `blobs/` and `local/` (the index). Cheap to clone.
///
/// The futures of `commit`, `pin` and `unlink_if_unneeded` may be dropped: what they began on disk is finished
/// or harmless. But the caller then does not know the outcome.
#[derive(Clone)]
pub struct DirectoryBlobs {
    shelf: Arc<Shelf>,
    names: Names,
    memory: Arc<Budget>,
    /// The same for the batches of those that are files.
    batches: Arc<Budget>,
    options: BlobOptions,
    started: SystemTime,
}

impl DirectoryBlobs {
    /// Opens or creates the blobs below `data`. Blocks. Removes files that a crash left without a record; how
    /// many those can be is bounded by what was being committed, nothing is searched for.
    ///
    /// # Errors
    /// When directories cannot be created or the index cannot be opened, for example because it is damaged.
    pub fn open(data: &Path, options: BlobOptions) -> Result<Self, BlobError> {
        let shelf = Arc::new(Shelf::open(data, &options)?);
        Ok(DirectoryBlobs {
            shelf,
            names: Names::default(),
            memory: Budget::new(options.inline_memory_bytes),
            batches: Budget::new(options.inline_memory_bytes),
            options,
            started: SystemTime::now(),
        })
    }

    /// Why nothing can be written to the directory; `None` when it can, or is only full. Asks the file system: quick,
    /// unless that hangs.
    pub fn trouble(&self) -> Option<String> {
        let directory = self.shelf.files.blobs().display();
        let what = match self.shelf.disk.health() {
            Ok(BlobHealth::Healthy | BlobHealth::Full) => return None,
            Ok(BlobHealth::ReadOnly) => "is read-only".to_owned(),
            Ok(BlobHealth::Failed) => {
                "failed a write: mend its disk and start this node again".to_owned()
            }
            Err(error) => format!("cannot be used: {error}"),
        };
        Some(format!("the blob directory {directory} {what}"))
    }

    /// Completes when the local index is found damaged: a node with such an index must stop.
    pub async fn damaged(&self) -> StorageError {
        self.shelf.index.rung().await
    }

    /// Syncs of the local index since it was opened: fewer than commits when they shared.
    pub fn index_syncs(&self) -> u64 {
        self.shelf.index.sync_count()
    }

    /// Runs on a blocking thread.
    async fn blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Shelf) -> Result<T, BlobError> + Send + 'static,
    ) -> Result<T, BlobError> {
        let shelf = Arc::clone(&self.shelf);
        tokio::task::spawn_blocking(move || job(&shelf))
            .await
            .unwrap_or(Err(BlobError::Failed))
    }

    /// Runs on a blocking thread under the lock of a digest.
    async fn locked<T: Send + 'static>(
        &self,
        digest: &Digest,
        job: impl FnOnce(&Shelf, &Digest) -> Result<T, BlobError> + Send + 'static,
    ) -> Result<T, BlobError> {
        let digest = *digest;
        let guard = self.shelf.locks.lock(&digest).await;
        self.blocking(move |shelf| {
            let _guard = guard;
            job(shelf, &digest)
        })
        .await
    }

    /// Makes bytes in memory durable with one synced batch; see `Shelf::commit_file` for large blobs.
    async fn commit_inline(
        &self,
        staged: &StagedBlob,
        digest: Digest,
        ticket: TicketId,
    ) -> Result<(), BlobError> {
        let body = staged.in_memory().ok_or(BlobError::Gone)?;
        let guard = self.shelf.locks.lock(&digest).await;
        self.shelf.disk.check_writable()?;
        if self.shelf.index.record(&digest)?.is_none() {
            return self
                .shelf
                .index
                .write(Shelf::inline_edit(&digest, ticket, body))
                .await;
        }
        self.blocking(move |shelf| {
            let _guard = guard;
            shelf.commit_again(&digest, ticket, body)
        })
        .await
    }

    /// Makes a staged file durable under its digest.
    async fn commit_file(
        &self,
        staged: &mut StagedBlob,
        digest: Digest,
        ticket: TicketId,
    ) -> Result<(), BlobError> {
        let guard = self.shelf.locks.lock(&digest).await;
        let shelf = Arc::clone(&self.shelf);
        let commit = move |spool: &mut Spool| {
            let _guard = guard;
            shelf.commit_file(spool, &digest, ticket)
        };
        staged.run(commit).await
    }
}

#[async_trait]
impl BlobStore for DirectoryBlobs {
    async fn stage(&self, name: &str) -> Result<StagedBlob, BlobError> {
        let target = Arc::new(SpoolTarget {
            path: self.shelf.files.upload(name)?,
            disk: Arc::clone(&self.shelf.disk),
            write_back_bytes: self.options.write_back_bytes,
            _claim: self.names.claim(name)?,
        });
        let feed = Arc::new(Feed::new());
        let (job_target, job_feed) = (Arc::clone(&target), Arc::clone(&feed));
        let job = move |shelf: &Shelf| {
            shelf.check_room()?;
            Spool::resume(job_target, job_feed)
        };
        let resumed = self.blocking(job).await?;
        let memory = self.memory.share(self.options.inline_limit());
        Ok(StagedBlob::spilling(
            target,
            feed,
            memory,
            self.batches.share(self.options.batch_bytes as u64),
            resumed,
        ))
    }

    async fn commit(
        &self,
        mut staged: StagedBlob,
        digest: &Digest,
        ticket: TicketId,
    ) -> Result<BlobStat, (BlobError, Option<StagedBlob>)> {
        let done = match staged.digest(digest.algorithm()).await {
            Ok(actual) if actual != *digest => Err(BlobError::DigestMismatch {
                expected: *digest,
                actual: Box::new(actual),
            }),
            Ok(_) if staged.in_memory().is_some() => {
                self.commit_inline(&staged, *digest, ticket).await
            }
            Ok(_) => self.commit_file(&mut staged, *digest, ticket).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => Ok(BlobStat {
                digest: *digest,
                size_bytes: staged.len_bytes(),
            }),
            Err(error) => Err((error, Some(staged).filter(StagedBlob::is_usable))),
        }
    }

    async fn pin(&self, digest: &Digest, ticket: TicketId) -> Result<Option<BlobStat>, BlobError> {
        self.locked(digest, move |shelf, digest| shelf.pin(digest, ticket))
            .await
    }

    async fn discard(&self, staged: StagedBlob) -> Result<(), BlobError> {
        match staged.dismantle().await {
            // The claim on the name goes with the job: nobody stages under it before the file is gone.
            Some(target) => self.blocking(move |_| files::remove(&target.path)).await,
            None => Ok(()),
        }
    }

    async fn discard_name(&self, name: &str) -> Result<(), BlobError> {
        let path = self.shelf.files.upload(name)?;
        let claim = self.names.claim(name)?;
        self.blocking(move |_| {
            let _claim = claim;
            files::remove(&path)
        })
        .await
    }

    async fn staged_names(&self) -> Result<Vec<String>, BlobError> {
        self.blocking(|shelf| shelf.files.upload_names()).await
    }

    async fn stat(&self, digest: &Digest) -> Result<Option<BlobStat>, BlobError> {
        let record = self.shelf.index.record(digest)?;
        Ok(record.map(|record| BlobStat {
            digest: *digest,
            size_bytes: record.size_bytes,
        }))
    }

    async fn open(&self, digest: &Digest) -> Result<Option<BlobReader>, BlobError> {
        let digest = *digest;
        // Misses are common (every pull of a blob that another node holds) and need no thread.
        let Some(record) = self.shelf.index.record(&digest)? else {
            return Ok(None);
        };
        self.blocking(move |shelf| shelf.reader(&digest, record))
            .await
    }

    async fn unlink_if_unneeded(
        &self,
        digest: &Digest,
        log: &dyn MetadataLog,
    ) -> Result<Unlink, BlobError> {
        let digest = *digest;
        let guard = self.shelf.locks.lock(&digest).await;
        let (record, pins) = self
            .blocking(move |shelf| Ok((shelf.index.record(&digest)?, shelf.index.pins(&digest)?)))
            .await?;
        let verdict = log::read(log, |view| {
            unlink::judge(view, log.node_id(), &digest, &pins)
        })?;
        self.blocking(move |shelf| {
            let _guard = guard;
            shelf.carry_out(&digest, record.as_ref(), &verdict)
        })
        .await
    }

    async fn list(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<BlobStat>, BlobError> {
        let after = after.copied();
        self.blocking(move |shelf| Ok(shelf.index.list(after.as_ref(), limit)?))
            .await
    }

    async fn pins(&self, digest: &Digest) -> Result<Vec<TicketId>, BlobError> {
        let digest = *digest;
        self.blocking(move |shelf| Ok(shelf.index.pins(&digest)?))
            .await
    }

    async fn usage(&self) -> Result<DiskUsage, BlobError> {
        self.shelf.disk.usage()
    }

    async fn health(&self) -> Result<BlobHealth, BlobError> {
        self.blocking(|shelf| shelf.disk.health()).await
    }

    async fn walk(&self, after: Option<&WalkCursor>, limit: usize) -> Result<Walk, BlobError> {
        let (after, names, started) = (after.cloned(), self.names.clone(), self.started);
        self.blocking(move |shelf| {
            let walker = Walker {
                shelf,
                names: &names,
                started,
            };
            walker.step(after.as_ref(), limit)
        })
        .await
    }

    async fn adopt(
        &self,
        digest: &Digest,
        ticket: TicketId,
    ) -> Result<Option<BlobStat>, BlobError> {
        self.locked(digest, move |shelf, digest| shelf.adopt(digest, ticket))
            .await
    }

    async fn discard_orphan(&self, digest: &Digest) -> Result<bool, BlobError> {
        self.locked(digest, Shelf::discard_orphan).await
    }

    async fn empty_trash(&self, now: SystemTime, limit: usize) -> Result<TrashUsage, BlobError> {
        self.blocking(move |shelf| shelf.trash.empty(now, limit, &shelf.disk))
            .await
    }

    async fn trash_usage(&self) -> Result<TrashUsage, BlobError> {
        Ok(self.shelf.trash.usage())
    }

    async fn verify(&self, digest: &Digest, pace: Pace<'_>) -> Result<Verified, BlobError> {
        let digest = *digest;
        let Some(record) = self.shelf.index.record(&digest)? else {
            return Ok(Verified::Absent);
        };
        let mut step = self
            .blocking(move |shelf| Scan::begin(shelf, &digest, record))
            .await?;
        let verified = loop {
            match step {
                Step::More(scan) => {
                    let before = scan.offset();
                    step = self.blocking(move |_| Ok(scan.step())).await?;
                    if let Step::More(scan) = &step {
                        pace(scan.offset() - before).await;
                    }
                }
                Step::Done(verified) => break verified,
            }
        };
        // Unlinked meanwhile: nothing is missing.
        if self.shelf.index.record(&digest)?.is_none() {
            return Ok(Verified::Absent);
        }
        Ok(verified)
    }

    async fn quarantine(&self, digest: &Digest) -> Result<Quarantined, BlobError> {
        self.locked(digest, Shelf::quarantine).await
    }

    async fn quarantine_usage(&self) -> Result<QuarantineUsage, BlobError> {
        self.blocking(|shelf| shelf.quarantine.usage()).await
    }

    async fn scrub_progress(&self) -> Result<Option<ScrubProgress>, BlobError> {
        let index = &self.shelf.index;
        let note = index.note(ScrubProgress::NOTE)?;
        let decoded = note.map(|note| ScrubProgress::decode(&note));
        Ok(decoded
            .map(|progress| progress.ok_or_else(|| index.damaged("how far a scrub got")))
            .transpose()?)
    }

    async fn save_scrub_progress(&self, progress: &ScrubProgress) -> Result<(), BlobError> {
        let edit = Edit::default().put_note(ScrubProgress::NOTE, progress.encode());
        self.shelf.index.write(edit).await
    }

    async fn compare(
        &self,
        after: Option<&Digest>,
        through: Option<&Digest>,
        expected: &[BlobStat],
        limit: usize,
    ) -> Result<Comparison, BlobError> {
        let (after, through, expected) = (after.copied(), through.copied(), expected.to_vec());
        self.blocking(move |shelf| {
            shelf.compare(after.as_ref(), through.as_ref(), &expected, limit)
        })
        .await
    }
}

#[cfg(test)]
mod tests;
