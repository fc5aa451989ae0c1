//! Unlinks the copies of this node that the state does not count (the unlink rule, protocols.md section 6.2).
//!
//! Two ways lead here, and neither has to be reliable. The state keeps a short history of deleted blobs: following it
//! finds what has just been deleted, whoever led and however this node got the state. A walk over all blobs of the node
//! finds everything else: it begins when the node starts, is repeated from time to time, and starts early when the
//! history may not reach back to where this node left it, as after the installation of a snapshot. Both ask the blob
//! store, which asks the state under the lock of the digest.

use std::future::ready;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt as _;
use metadata::apply::DELETED_TTL_MS;
use metadata::ids::{LogIndex, LogTime};
use metadata::query;
use oci::Digest;
use storage::blob::{self, Unlink, WalkCursor};
use storage::failpoints::blob_hit;

use super::GcError;
use crate::Registry;
use crate::sessions::ticket_of_name;

/// Blobs or files looked at before a pause.
const PAGE: usize = 256;

/// Copies unlinked at the same time: they share the syncs of the index and of the file system's journal.
const UNLINKS_AT_ONCE: usize = 8;

/// The trash is looked at once in so many intervals: emptying lists it.
const TRASH_INTERVALS: u32 = 6;

/// What the sweeper remembers. Nothing of it survives a restart: the first walk makes up for it.
#[derive(Default)]
struct Progress {
    /// How far the history of deleted blobs was followed.
    followed: Option<(LogIndex, Digest)>,
    /// The log time of the state at the last look at the history; `None` before the first.
    seen: Option<LogTime>,
    walk: Option<Walk>,
    walked_at: Option<Instant>,
    emptied_at: Option<Instant>,
}

/// A walk under way: over the blobs, then over the directories.
enum Walk {
    /// Behind this one.
    Blobs(Option<Digest>),
    /// From here on.
    Files(Option<WalkCursor>),
}

pub(super) fn start(registry: &Arc<Registry>) {
    let interval = registry.options.gc.interval;
    let stop = registry.shutdown.token();
    let swept: Weak<Registry> = Arc::downgrade(registry);
    drop(registry.shutdown.spawn("sweep blobs", async move {
        let mut progress = Progress::default();
        while let Some(registry) = swept.upgrade() {
            let pause = tokio::select! {
                pause = registry.sweep(&mut progress, interval) => pause,
                () = stop.cancelled() => return,
            };
            drop(registry);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }));
}

impl Registry {
    /// One bounded piece of work; returns how long to rest.
    async fn sweep(&self, progress: &mut Progress, interval: Duration) -> Duration {
        let started = Instant::now();
        match self.sweep_once(progress).await {
            // As long as it works it rests, so that requests have at least half of the disk.
            Ok(true) => started.elapsed(),
            Ok(false) => interval,
            Err(error) => {
                tracing::warn!(error = %error, "sweeping blobs failed, it will be tried again");
                interval
            }
        }
    }

    /// Whether there is more to do at once.
    async fn sweep_once(&self, progress: &mut Progress) -> Result<bool, GcError> {
        if self.follow_history(progress).await? {
            return Ok(true);
        }
        let options = &self.options.gc;
        let is_over =
            |at: Option<Instant>, after: Duration| at.is_none_or(|at| at.elapsed() >= after);
        if progress.walk.is_none() && is_over(progress.walked_at, options.walk_interval) {
            progress.walk = Some(Walk::Blobs(None));
        }
        if let Some(walk) = &mut progress.walk {
            if self.walk(walk).await? {
                progress.walk = None;
                progress.walked_at = Some(Instant::now());
                self.gc.activity.walks.fetch_add(1, Ordering::Relaxed);
            }
            return Ok(true);
        }
        if is_over(progress.emptied_at, options.interval * TRASH_INTERVALS) {
            let gone = self.blobs.empty_trash(SystemTime::now(), PAGE).await?;
            if gone.files == PAGE as u64 {
                return Ok(true);
            }
            progress.emptied_at = Some(Instant::now());
        }
        Ok(false)
    }

    /// A page of what was deleted since the last look.
    async fn follow_history(&self, progress: &mut Progress) -> Result<bool, GcError> {
        let followed = progress.followed;
        let (page, now) = self.gc_look(|view| {
            let page = query::deleted_blobs(view, followed, PAGE)?;
            Ok((page, query::time(view)?.0))
        })?;
        // What was deleted and forgotten between two looks, for a snapshot was installed or this node slept, is found by
        // a walk, which starts over if one is under way.
        if let Some(seen) = progress.seen
            && seen.plus_ms(DELETED_TTL_MS) <= now
        {
            progress.walk = Some(Walk::Blobs(None));
        }
        progress.seen = Some(now);
        if let Some(last) = page.last() {
            // Behind them even when one fails: the next walk tries again.
            progress.followed = Some((last.record.deleted_index, last.digest));
        }
        self.sweep_blobs(page.iter().map(|deleted| deleted.digest).collect())
            .await?;
        Ok(page.len() == PAGE)
    }

    /// A piece of a walk; whether that was the last one.
    async fn walk(&self, walk: &mut Walk) -> Result<bool, GcError> {
        match walk {
            Walk::Blobs(after) => {
                let page = self.blobs.list(after.as_ref(), PAGE).await?;
                *after = page.last().map(|stat| stat.digest);
                if page.len() < PAGE {
                    *walk = Walk::Files(None);
                }
                // One that is counted only loses pins that protect nothing any more.
                self.sweep_blobs(page.iter().map(|stat| stat.digest).collect())
                    .await?;
                Ok(false)
            }
            Walk::Files(after) => {
                let found = self.blobs.walk(after.as_ref(), PAGE).await?;
                after.clone_from(&found.next);
                self.discard(&found).await;
                Ok(found.next.is_none())
            }
        }
    }

    /// The unlink rule (protocols.md section 6.2), which holds as long as the state never goes back. After a power cut
    /// it does: pins are removed durably, while the state that allowed it may not have reached the disk. So nothing is
    /// unlinked before this process has passed a barrier once; what it applies then is newer than all it ever applied.
    pub(crate) async fn unlink_if_unneeded(&self, digest: &Digest) -> Result<Unlink, GcError> {
        let barrier = || self.gc_barrier();
        self.caught_up.get_or_try_init(barrier).await?;
        Ok(self.blobs.unlink_if_unneeded(digest, &*self.log).await?)
    }

    /// Tries all of them, so that one bad file does not hide the others.
    async fn sweep_blobs(&self, digests: Vec<Digest>) -> Result<(), GcError> {
        futures::stream::iter(digests)
            .map(|digest| async move { self.sweep_blob(&digest).await })
            .buffer_unordered(UNLINKS_AT_ONCE)
            .fold(Ok(()), |so_far, swept| ready(so_far.and(swept)))
            .await
    }

    async fn sweep_blob(&self, digest: &Digest) -> Result<(), GcError> {
        let Some(stat) = self.blobs.stat(digest).await? else {
            return Ok(());
        };
        blob_hit("sweep_before_unlink")?;
        match self.unlink_if_unneeded(digest).await? {
            Unlink::Removed => {
                let (activity, size_bytes) = (&self.gc.activity, stat.size_bytes);
                activity.removed_blobs.fetch_add(1, Ordering::Relaxed);
                activity
                    .removed_bytes
                    .fetch_add(size_bytes, Ordering::Relaxed);
                tracing::debug!(%digest, size_bytes, "blob unlinked");
            }
            Unlink::Needed | Unlink::Absent => {}
        }
        Ok(())
    }

    /// Removes files that belong to nothing, but for copies that are missing. Uploads are ended by their tickets.
    async fn discard(&self, found: &blob::Walk) {
        for orphan in &found.orphans {
            let digest = &orphan.digest;
            if let Err(error) = self.adopt_or_discard(digest).await {
                tracing::warn!(%digest, %error, "an orphan was neither counted nor removed");
            }
        }
        for name in &found.staged {
            if ticket_of_name(name).is_some() {
                continue;
            }
            if let Err(error) = self.blobs.discard_name(name).await {
                tracing::warn!(name, %error, "a leftover was not removed");
            }
        }
    }
}
