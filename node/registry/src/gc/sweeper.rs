//! Unlinks the copies of this node that the state does not count (the unlink rule, protocols.md section 6.2).
//!
//! Two ways lead here, and neither has to be reliable. The state keeps a short history of deleted blobs: following it
//! finds what has just been deleted, whoever led and however this node got the state. A walk over all blobs of the node
//! finds everything else: it begins when the node starts, is repeated from time to time, and starts early when the
//! history does not reach back to where this node left it, as after the installation of a snapshot. Both ask the blob
//! store, which asks the state under the lock of the digest.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use metadata::ids::LogIndex;
use metadata::query;
use oci::Digest;
use storage::blob::{self, Unlink, WalkCursor};

use super::GcError;
use crate::Registry;
use crate::sessions::ticket_of_name;

/// Blobs or files looked at before a pause.
const PAGE: usize = 256;

/// The trash is looked at once in so many intervals: emptying lists it.
const TRASH_INTERVALS: u32 = 6;

/// Entries between two looks that mean that a snapshot was installed or this node slept, rather than an ordinary load: a
/// walk costs more than it would find after a few.
const LONG_JUMP_ENTRIES: u64 = 1_000;

/// What the sweeper remembers. Nothing of it survives a restart: the first walk makes up for it.
#[derive(Default)]
struct Progress {
    /// How far the history of deleted blobs was followed.
    followed: Option<(LogIndex, Digest)>,
    /// The log index of the state at the last look at the history; `None` before the first.
    seen: Option<LogIndex>,
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
        let (page, applied, oldest) = self.gc_look(|view| {
            let page = query::deleted_blobs(view, followed, PAGE)?;
            let oldest = query::deleted_blobs(view, None, 1)?;
            let oldest = oldest.first().map(|first| first.record.deleted_index);
            Ok((page, view.applied(), oldest))
        })?;
        // What was deleted and forgotten between two looks is found by a walk, which starts over if one is under way.
        if let (Some(seen), Some(oldest)) = (progress.seen, oldest)
            && oldest > seen
            && applied.0.saturating_sub(seen.0) > LONG_JUMP_ENTRIES
        {
            progress.walk = Some(Walk::Blobs(None));
        }
        progress.seen = Some(applied);
        for deleted in &page {
            // Behind it even when it fails, so that one bad file does not hide the others: the next walk tries again.
            progress.followed = Some((deleted.record.deleted_index, deleted.digest));
            self.sweep_blob(&deleted.digest).await?;
        }
        Ok(page.len() == PAGE)
    }

    /// A piece of a walk; whether that was the last one.
    async fn walk(&self, walk: &mut Walk) -> Result<bool, GcError> {
        match walk {
            Walk::Blobs(after) => {
                let page = self.blobs.list(after.as_ref(), PAGE).await?;
                for stat in &page {
                    *after = Some(stat.digest);
                    // One that is counted only loses pins that protect nothing any more.
                    self.sweep_blob(&stat.digest).await?;
                }
                if page.len() < PAGE {
                    *walk = Walk::Files(None);
                }
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

    async fn sweep_blob(&self, digest: &Digest) -> Result<(), GcError> {
        let Some(stat) = self.blobs.stat(digest).await? else {
            return Ok(());
        };
        match self.blobs.unlink_if_unneeded(digest, &*self.log).await? {
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

    /// Removes files that belong to nothing. What the cluster knows may be adopted instead, and uploads are ended by
    /// their tickets.
    async fn discard(&self, found: &blob::Walk) {
        for orphan in &found.orphans {
            let digest = &orphan.digest;
            let is_known = self.gc_look(|view| Ok(query::blob(view, digest)?.is_some()));
            let gone = match is_known {
                Ok(true) => continue,
                Ok(false) => self
                    .blobs
                    .discard_orphan(digest)
                    .await
                    .map_err(GcError::from),
                Err(error) => Err(error),
            };
            if let Err(error) = gone {
                tracing::warn!(%digest, %error, "an orphan was not removed");
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
