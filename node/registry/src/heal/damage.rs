//! What becomes of a copy that somebody found bad, here or for another node.

use std::sync::Arc;

use metadata::command::{Command, NodeState, ReportLost};
use metadata::ids::NodeId;
use metadata::query;
use oci::Digest;
use storage::blob::{Quarantined, Verified};
use tokio::task::JoinHandle;

use crate::error::{RegistryError, not_stored};
use crate::failpoints::hit;
use crate::{Registry, Result};

/// Copies being looked at. Beyond that the scrub finds them in its time.
const INSPECTED_MAX: usize = 1_024;

/// Digests remembered for an operator to see.
const LISTED_MAX: usize = 1_000;

impl Registry {
    /// Has the copy of this node read again and, when it is bad, replaced. Returns at once; `None` when that is being
    /// done already.
    pub fn suspect_copy(self: &Arc<Self>, digest: Digest) -> Option<JoinHandle<()>> {
        {
            let inspected = &mut self.heal.memory().inspected;
            if inspected.len() == INSPECTED_MAX || !inspected.insert(digest) {
                return None;
            }
        }
        let registry = self.clone();
        Some(self.shutdown.spawn("inspect a copy", async move {
            registry.inspect(&digest).await;
            registry.heal.memory().inspected.remove(&digest);
        }))
    }

    async fn inspect(&self, digest: &Digest) {
        let Ok(_turn) = self.heal.inspections.acquire().await else {
            return;
        };
        let unpaced = |_| -> futures::future::BoxFuture<'_, ()> { Box::pin(async {}) };
        match self.blobs.verify(digest, &unpaced).await {
            Ok(verdict) => drop(self.judge(digest, &verdict).await),
            Err(error) => tracing::warn!(%digest, error = %error, "a copy cannot be verified"),
        }
    }

    /// Acts on what a copy of this node was found to be. True when it is as it should be.
    pub(super) async fn judge(&self, digest: &Digest, verdict: &Verified) -> bool {
        let what = match verdict {
            Verified::Sound(_) => {
                self.heal.memory().unrecoverable.remove(digest);
                return true;
            }
            Verified::Damaged(damage) => damage.to_string(),
            Verified::Missing | Verified::Absent => "it is not there".to_owned(),
        };
        match self.replace(digest, verdict, &what).await {
            Ok(is_fine) => is_fine,
            Err(error) => {
                tracing::warn!(%digest, what, error = %error, "a bad copy is not replaced yet");
                false
            }
        }
    }

    async fn replace(&self, digest: &Digest, verdict: &Verified, what: &str) -> Result<bool> {
        let (is_counted, others) = self.others(digest)?;
        if !is_counted {
            self.heal.memory().unrecoverable.remove(digest);
            if !matches!(verdict, Verified::Absent) {
                self.unlink(digest).await;
            }
            return Ok(true);
        }
        tracing::error!(%digest, what, others, "a copy of this node is bad");
        self.heal.memory().counts.damaged += 1;
        if matches!(verdict, Verified::Damaged(_)) {
            return self.give_up_damaged(digest, others).await;
        }
        // A node whose whole directory fails must not declare all its copies lost one by one.
        if !self.is_writable().await {
            return Ok(false);
        }
        // Looks again, under the lock of the digest: what is gone is not held back by the floor.
        match self.blobs.quarantine(digest).await.map_err(not_stored)? {
            Quarantined::Missing | Quarantined::Absent => {
                self.report_lost(digest, true).await?;
                Ok(false)
            }
            Quarantined::Moved => {
                self.heal.memory().counts.quarantined += 1;
                self.report_lost(digest, false).await?;
                Ok(false)
            }
            Quarantined::Sound => Ok(true),
            Quarantined::Full => Ok(false),
        }
    }

    /// The log decides first whether another copy is counted, then the bytes are moved: the last copy stays where it is,
    /// also when the nodes of the last two find them damaged at the same moment.
    async fn give_up_damaged(&self, digest: &Digest, others: usize) -> Result<bool> {
        let is_last = others == 0
            || match self.is_writable().await {
                true => match self.report_lost(digest, false).await {
                    Ok(()) => false,
                    Err(RegistryError::TooFewCopies { .. }) => true,
                    Err(error) => return Err(error),
                },
                false => return Ok(false),
            };
        if is_last {
            // Its good chunks may be all that is left. They are served on, and an operator is told.
            let unrecoverable = &mut self.heal.memory().unrecoverable;
            if unrecoverable.len() < LISTED_MAX {
                unrecoverable.insert(*digest);
            }
            return Ok(false);
        }
        self.heal.memory().unrecoverable.remove(digest);
        match self.blobs.quarantine(digest).await.map_err(not_stored)? {
            Quarantined::Moved => self.heal.memory().counts.quarantined += 1,
            Quarantined::Full => {
                tracing::error!(%digest, "the quarantine is full: the damaged bytes give way to a good copy");
            }
            Quarantined::Missing | Quarantined::Absent | Quarantined::Sound => {}
        }
        Ok(false)
    }

    async fn report_lost(&self, digest: &Digest, is_gone: bool) -> Result<()> {
        let lost = ReportLost {
            node: self.log.node_id(),
            digest: *digest,
            is_gone,
        };
        hit("lost_before_propose")?;
        self.upkeep(Command::ReportLost(lost)).await?;
        self.heal.memory().counts.reported_lost += 1;
        Ok(())
    }

    /// Damaged copies that were the last of their blob are looked at again once another copy is counted.
    pub(super) fn look_again_at_unrecoverable(self: &Arc<Self>) {
        let unrecoverable = self.heal.memory().unrecoverable.clone();
        for digest in unrecoverable {
            let others = self.others(&digest);
            if !matches!(&others, Ok((true, 0))) {
                drop(self.suspect_copy(digest));
            }
        }
    }

    /// Whether the copy of this node is counted, and how many other nodes that are not down have one.
    fn others(&self, digest: &Digest) -> Result<(bool, usize)> {
        let me = self.log.node_id();
        let seen = self.look(|view| {
            let nodes = query::nodes(view)?;
            let is_up = |node: &NodeId| {
                nodes
                    .iter()
                    .any(|known| known.node == *node && known.state != NodeState::Down)
            };
            let holders = query::blob(view, digest)?.map(|blob| blob.holders);
            let holders = holders.unwrap_or_default();
            let others = holders.iter().filter(|node| **node != me && is_up(node));
            Ok((holders.contains(&me), others.count()))
        })?;
        Ok(seen.value)
    }
}
