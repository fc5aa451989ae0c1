//! Copying a blob to other nodes while it arrives.
//!
//! ```text
//! start_spread   peers chosen by rendezvous over the reachable registered nodes; bytes flow as they arrive
//! finish         the digest is known: every peer verifies, syncs, pins, acknowledges; returns at W copies
//!                (the caller makes its own copy durable meanwhile)
//! CommitBlob     proposed by the caller, with the holders that `finish` returned
//! stragglers     copies that come later are pinned under the repair ticket, then counted by AddPlacement
//! ```
//!
//! Dropping a [`Spread`] before `stragglers` abandons every copy that is still on its way.

mod coordinator;
mod copy;
mod lane;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metadata::ids::{NodeId, TicketId};
use oci::Algorithm;
use storage::blob::StagedReader;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use self::coordinator::{Coordinator, Progress, Settlement};
use self::copy::Source;
use crate::Replication;
use crate::error::ReplicationError;
use crate::peers::PushEnd;
use crate::state;

/// Copies that were durable when [`Spread::finish`] returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Other nodes on which the blob is durable and pinned; this node is not among them. For `CommitBlob`.
    pub holders: Vec<NodeId>,
    /// Whether the copy on this node counts, too; not when it drained or was down as the upload began.
    pub counts_own: bool,
    /// Nodes that still receive it. For `CommitBlob`.
    pub stragglers: u32,
}

/// A blob on its way to other nodes.
pub struct Spread {
    replication: Arc<Replication>,
    end: watch::Sender<Option<PushEnd>>,
    progress: watch::Receiver<Progress>,
    settle: Option<oneshot::Sender<Settlement>>,
    counted: Vec<NodeId>,
    /// What held at the start; the number of copies on their way follows from it.
    counts_own: bool,
}

impl Replication {
    /// Starts copying a blob that is still arriving. `key` chooses the peers: anything that differs from blob to
    /// blob, because the digest is not known yet. Nothing is sent before the blob outgrows
    /// `ReplicationOptions::small_max_bytes` or its end is known.
    ///
    /// With one copy per blob this does nothing, and [`Spread::finish`] returns at once.
    ///
    /// # Errors
    /// [`ReplicationError::State`].
    pub fn start_spread(
        self: &Arc<Self>,
        source: StagedReader,
        algorithm: Algorithm,
        key: &[u8],
    ) -> Result<Spread, ReplicationError> {
        self.start(
            Source::Staged {
                reader: source,
                algorithm,
            },
            key,
        )
    }

    /// The same for a small blob that is in memory as a whole; it is sent when [`Spread::finish`] tells its digest.
    ///
    /// # Errors
    /// [`ReplicationError::State`].
    pub fn spread_small(
        self: &Arc<Self>,
        body: Bytes,
        key: &[u8],
    ) -> Result<Spread, ReplicationError> {
        self.start(Source::Body(body), key)
    }

    fn start(self: &Arc<Self>, source: Source, key: &[u8]) -> Result<Spread, ReplicationError> {
        let cluster = state::cluster(self.log.as_ref())?;
        let counts_own = cluster.counts_own;
        let (wanted, needed) = cluster.elsewhere(counts_own);
        let (end, end_seen) = watch::channel(None);
        let (publish, progress) = watch::channel(Progress::default());
        let mut settle = None;
        if wanted > 0 {
            let (settle_sender, settled) = oneshot::channel();
            settle = Some(settle_sender);
            let coordinator = Coordinator::new(
                self.clone(),
                source,
                key.to_vec(),
                (wanted, needed),
                end_seen,
                publish,
            );
            self.shutdown.spawn("blob copies", coordinator.run(settled));
        }
        Ok(Spread {
            replication: self.clone(),
            end,
            progress,
            settle,
            counted: Vec::new(),
            counts_own,
        })
    }
}

impl Spread {
    /// Tells the peers how the blob ends and waits until W copies are durable, counting the one the caller makes
    /// itself meanwhile where that counts. Waits a little longer for copies that are almost there.
    ///
    /// May be called again after an error, with the same end: peers that failed are tried anew.
    /// Cancel safe.
    ///
    /// # Errors
    /// [`ReplicationError::TooFewCopies`] after `ReplicationOptions::copies_timeout`.
    pub async fn finish(&mut self, end: PushEnd) -> Result<Copies, ReplicationError> {
        let cluster = state::cluster(self.replication.log.as_ref())?;
        self.end.send_replace(Some(end));
        // A node that came back meanwhile counts its copy, too: it is pinned. One that left meanwhile counts it still.
        self.counts_own |= cluster.counts_own;
        let (all, needed) = cluster.elsewhere(self.counts_own);
        let options = &self.replication.options;
        if needed > 0 {
            self.wait_for(needed, options.copies_timeout).await?;
        }
        let linger = options.linger;
        let mut progress = self.progress.clone();
        let almost = progress.wait_for(|now| now.durable.len() >= all || now.running == 0);
        // Neither the timeout nor a coordinator that stopped matters: W copies are durable.
        let _ = timeout(linger, almost).await;
        let now = self.progress.borrow().clone();
        self.counted = now.durable.clone();
        let missing = u32::try_from(all.saturating_sub(now.durable.len())).unwrap_or(u32::MAX);
        Ok(Copies {
            stragglers: now.running.min(missing),
            holders: now.durable,
            counts_own: self.counts_own,
        })
    }

    /// After `CommitBlob`: lets the copies that are still on their way be counted later, under the repair ticket it
    /// answered. Without a ticket they are abandoned. The work goes on in the background; it is bounded, and the
    /// ticket is closed at its end.
    pub fn stragglers(mut self, repair_ticket: Option<TicketId>) {
        if let (Some(ticket), Some(settle)) = (repair_ticket, self.settle.take()) {
            let settlement = Settlement {
                counted: self.counted,
                ticket,
                end: self.end,
            };
            // A coordinator that is gone was stopped by the shutdown; the ticket expires on its own.
            let _ = settle.send(settlement);
        }
    }

    async fn wait_for(&self, wanted: usize, limit: Duration) -> Result<(), ReplicationError> {
        let mut progress = self.progress.clone();
        let enough = progress.wait_for(|now| now.durable.len() >= wanted);
        match timeout(limit, enough).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(_)) if self.settle.is_some() => return Err(ReplicationError::ShuttingDown),
            Ok(Err(_)) | Err(_) => {}
        }
        let own = usize::from(self.counts_own);
        let count = |copies: usize| u32::try_from(copies + own).unwrap_or(u32::MAX);
        let reached = count(self.progress.borrow().durable.len());
        Err(ReplicationError::TooFewCopies {
            reached,
            wanted: count(wanted),
        })
    }
}
