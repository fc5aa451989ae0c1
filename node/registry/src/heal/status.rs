//! What an operator wants to know of self-healing.

use std::time::Duration;

use metadata::command::NodeState;
use metadata::ids::NodeId;
use metadata::query;
use oci::Digest;
use storage::blob::{BlobHealth, QuarantineUsage, ScrubProgress};

use crate::error::not_stored;
use crate::{Registry, Result};

/// What one node did since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealCounts {
    /// Copies fetched and counted.
    pub repaired: u64,
    /// Their bytes.
    pub repaired_bytes: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Copies counted that were on this disk already.
    pub adopted: u64,
    /// Copies dropped because there were too many.
    pub trimmed: u64,
    /// Bad copies found, missing ones included.
    pub damaged: u64,
    /// Of them, moved to quarantine.
    pub quarantined: u64,
    /// Of them, reported lost.
    pub reported_lost: u64,
    /// Comparisons of the directory with the state that ended.
    pub checks: u64,
}

/// What the cluster, or its leader, thinks of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeHealth {
    /// Which node.
    pub node: NodeId,
    /// Its state.
    pub state: NodeState,
    /// Known on the leader: it has been silent for this long, and is suspect.
    pub silence: Option<Duration>,
}

/// Repair as one node sees it.
#[derive(Clone, Debug)]
pub struct RepairStatus {
    /// Blobs of the cluster that lack copies.
    pub under_replicated_blobs: u64,
    /// Copies to make.
    pub missing_copies: u64,
    /// Copies this node is making.
    pub running: Vec<Digest>,
    /// Blobs that wait here because an attempt failed.
    pub backed_off: usize,
    /// What this node did.
    pub counts: HealCounts,
    /// The nodes.
    pub nodes: Vec<NodeHealth>,
    /// The blob directory of this node.
    pub health: BlobHealth,
    /// Copies of this node that somebody found bad and that are being read again.
    pub suspect_copies: usize,
    /// How long ago the directory was last compared with the state; `None` before the first time.
    pub checked_ago: Option<Duration>,
    /// How long until it is compared again; zero while it is, or while this node is not up to date.
    pub next_check_in: Duration,
}

/// Scrub as one node sees it.
#[derive(Clone, Debug)]
pub struct ScrubStatus {
    /// The pass that runs, or the last one; `None` before the first.
    pub progress: Option<ScrubProgress>,
    /// What this node did.
    pub counts: HealCounts,
    /// Damaged copies that are the last of their blob.
    pub unrecoverable: Vec<Digest>,
    /// Manifests that are damaged in the state of this node.
    pub damaged_manifests: Vec<Digest>,
    /// What is in quarantine.
    pub quarantine: QuarantineUsage,
}

impl Registry {
    /// Where repair stands.
    ///
    /// # Errors
    /// The state or the blob directory cannot be read.
    pub async fn repair_status(&self) -> Result<RepairStatus> {
        let (stats, nodes) = self
            .look(|view| Ok((query::stats(view)?, query::nodes(view)?)))?
            .value;
        let health = self.blobs.health().await.map_err(not_stored)?;
        let now = self.heal_clock();
        let memory = self.heal.memory();
        Ok(RepairStatus {
            under_replicated_blobs: stats.under_replicated_blobs,
            missing_copies: stats.missing_copies,
            running: memory.running.iter().copied().collect(),
            backed_off: memory.planner.backed_off(now),
            counts: memory.counts,
            nodes: nodes
                .into_iter()
                .map(|known| NodeHealth {
                    node: known.node,
                    state: known.state,
                    silence: memory.silent.get(&known.node).copied(),
                })
                .collect(),
            health,
            suspect_copies: memory.inspected.len(),
            checked_ago: memory.last_check.map(|at| now.saturating_sub(at)),
            next_check_in: memory.next_check.saturating_sub(now),
        })
    }

    /// Where the scrub stands.
    ///
    /// # Errors
    /// The blob directory cannot be read.
    pub async fn scrub_status(&self) -> Result<ScrubStatus> {
        let quarantine = self.blobs.quarantine_usage().await.map_err(not_stored)?;
        let memory = self.heal.memory();
        Ok(ScrubStatus {
            progress: memory.scrub,
            counts: memory.counts,
            unrecoverable: memory.unrecoverable.iter().copied().collect(),
            damaged_manifests: memory.damaged_manifests.iter().copied().collect(),
            quarantine,
        })
    }

    /// Why an operator must look at this node, though it serves.
    pub fn alarm(&self) -> Option<String> {
        let memory = self.heal.memory();
        let damaged = memory.damaged_manifests.len();
        (damaged > 0).then(|| {
            format!("{damaged} manifests in the state of this node are damaged: replace the node")
        })
    }

    /// Time since this registry began, for what needs no other.
    pub(super) fn heal_clock(&self) -> Duration {
        self.started.elapsed()
    }
}
