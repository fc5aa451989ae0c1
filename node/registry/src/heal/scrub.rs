//! Reading everything again: each blob of this node and each manifest in its state, against the digest.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use metadata::ids::RepositoryId;
use metadata::query;
use oci::Digest;
use storage::blob::ScrubProgress;

use crate::error::not_stored;
use crate::failpoints::hit;
use crate::{Registry, Result};

/// Blobs between two notes of the progress: what a restart reads again.
const NOTE_BLOBS: usize = 16;

/// Manifests read at once, and their bytes.
const MANIFESTS: usize = 256;
const MANIFESTS_BYTES: usize = 8 << 20;

impl Registry {
    /// Starts a scrub now, or lets one that runs go on.
    pub fn start_scrub(&self) {
        self.heal.memory().scrub_wanted = true;
    }

    /// Scrubs when it is time, from where the last run of this process stopped.
    pub(crate) async fn scrub_if_due(self: &Arc<Self>) {
        let scrubbed = async {
            let last = self.blobs.scrub_progress().await.map_err(not_stored)?;
            let is_wanted = std::mem::take(&mut self.heal.memory().scrub_wanted);
            self.heal.memory().scrub = last;
            let interval_ms = self.options.heal.scrub_interval.as_millis();
            match next_pass(last, is_wanted, interval_ms, unix_ms()) {
                Pass::NotDue => Ok(()),
                Pass::Counted(idle) => self.note(idle).await,
                Pass::Due(progress) => {
                    if progress.after.is_none() {
                        self.scrub_manifests().await?;
                    }
                    self.scrub_blobs(progress).await
                }
            }
        };
        if let Err::<(), _>(error) = scrubbed.await {
            tracing::warn!(error = %error, "the scrub stopped and is tried again");
        }
    }

    async fn scrub_blobs(self: &Arc<Self>, mut progress: ScrubProgress) -> Result<()> {
        loop {
            let page = self
                .blobs
                .list(progress.after.as_ref(), NOTE_BLOBS)
                .await
                .map_err(not_stored)?;
            for stat in &page {
                let is_fine = self.scrub_blob(&stat.digest).await;
                progress.after = Some(stat.digest);
                progress.blobs += 1;
                progress.bytes += stat.size_bytes;
                progress.bad += u64::from(!is_fine);
            }
            if page.len() < NOTE_BLOBS {
                progress.ended_at_ms = unix_ms();
            }
            self.note(progress).await?;
            if progress.ended_at_ms > 0 {
                tracing::info!(
                    pass = progress.pass,
                    blobs = progress.blobs,
                    bytes = progress.bytes,
                    bad = progress.bad,
                    "scrubbed"
                );
                return Ok(());
            }
        }
    }

    async fn note(&self, progress: ScrubProgress) -> Result<()> {
        hit("scrub_before_note")?;
        self.heal.memory().scrub = Some(progress);
        self.blobs
            .save_scrub_progress(&progress)
            .await
            .map_err(not_stored)
    }

    async fn scrub_blob(self: &Arc<Self>, digest: &Digest) -> bool {
        let pace = |bytes| -> BoxFuture<'_, ()> { Box::pin(self.heal.scrub_pacer.take(bytes)) };
        match self.blobs.verify(digest, &pace).await {
            Ok(verdict) => self.judge(digest, &verdict).await,
            Err(error) => {
                tracing::warn!(%digest, error = %error, "a copy cannot be verified");
                false
            }
        }
    }

    /// Manifests are in the state of every node. Bytes that changed there mean that this node's state is damaged, which
    /// no other node can mend: an operator must replace it.
    async fn scrub_manifests(&self) -> Result<()> {
        let mut after: Option<(RepositoryId, Digest)> = None;
        loop {
            let page = self
                .look(|view| query::manifest_bodies(view, after, MANIFESTS, MANIFESTS_BYTES))?
                .value;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some((last.repository, last.digest));
            let mut bytes = 0;
            for manifest in &page {
                bytes += manifest.body.len() as u64;
                if Digest::of(manifest.digest.algorithm(), &manifest.body) != manifest.digest {
                    tracing::error!(digest = %manifest.digest, "a manifest in the state of this node is damaged");
                    self.heal.memory().damaged_manifests.insert(manifest.digest);
                }
            }
            self.heal.scrub_pacer.take(bytes).await;
        }
    }
}

/// What a look at the progress says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    NotDue,
    /// A new node has nothing old to read, or the clock was set back: the next pass is due an interval from now.
    Counted(ScrubProgress),
    Due(ScrubProgress),
}

fn next_pass(last: Option<ScrubProgress>, is_wanted: bool, interval_ms: u128, now_ms: u64) -> Pass {
    let next = |pass: u64| {
        Pass::Due(ScrubProgress {
            pass: pass + 1,
            started_at_ms: now_ms,
            ..ScrubProgress::default()
        })
    };
    match last {
        None if is_wanted => next(0),
        None => Pass::Counted(ScrubProgress {
            started_at_ms: now_ms,
            ended_at_ms: now_ms,
            ..ScrubProgress::default()
        }),
        Some(running) if running.ended_at_ms == 0 => Pass::Due(running),
        // The clock was ahead then; without this the next pass could be years away.
        Some(last) if !is_wanted && last.started_at_ms > now_ms => Pass::Counted(ScrubProgress {
            started_at_ms: now_ms,
            ended_at_ms: now_ms,
            ..last
        }),
        Some(last) => {
            let age_ms = u128::from(now_ms.saturating_sub(last.started_at_ms));
            if is_wanted || age_ms >= interval_ms {
                next(last.pass)
            } else {
                Pass::NotDue
            }
        }
    }
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_begins_when_due_or_asked_for_and_goes_on_after_a_restart() {
        let Pass::Counted(idle) = next_pass(None, false, 100, 1_000) else {
            panic!("a new node has nothing to scrub");
        };
        assert_eq!(next_pass(Some(idle), false, 100, 1_099), Pass::NotDue);
        let Pass::Counted(set_back) = next_pass(Some(idle), false, 100, 1) else {
            panic!("a clock that was set back delays it by an interval at most");
        };
        assert!(matches!(
            next_pass(Some(set_back), false, 100, 101),
            Pass::Due(_)
        ));
        let Pass::Due(first) = next_pass(Some(idle), false, 100, 1_100) else {
            panic!("it is due");
        };
        assert_eq!(
            (first.pass, first.started_at_ms, first.ended_at_ms),
            (1, 1_100, 0)
        );
        let half = ScrubProgress {
            blobs: 7,
            after: Some(Digest::of(oci::Algorithm::Sha256, b"7")),
            ..first
        };
        assert_eq!(next_pass(Some(half), false, 100, 9_999), Pass::Due(half));
        let ended = ScrubProgress {
            ended_at_ms: 1_150,
            ..half
        };
        let Pass::Due(second) = next_pass(Some(ended), true, 100, 1_151) else {
            panic!("it was asked for");
        };
        assert_eq!((second.pass, second.blobs, second.after), (2, 0, None));
    }
}
