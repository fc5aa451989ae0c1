//! Self-healing (protocols.md section 7): copies that are missing are made, copies too many are dropped, what is on
//! disk is compared with what the state says, and every byte is read again now and then.
//!
//! ```text
//! watch    leader: nodes that stay silent become Down, nodes that answer again become Up
//! repair   every node: fetches the missing copies that are its own to make (planner decides)
//! trim     every node: drops its copies that are too many for a while
//! check    every node, soon after its start and then hourly: placements against the directory
//! scrub    every node, fortnightly: every blob and manifest against its digest
//! damage   what becomes of a copy that somebody found bad
//! ```
//!
//! A node heals itself only: it makes, drops and reports its own copies. So the work of the cluster is bounded by what
//! each node does at once, and nothing needs to be handed out by a leader.

mod check;
mod damage;
mod planner;
mod repair;
mod scrub;
mod status;
mod trim;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use metadata::ids::NodeId;
use oci::Digest;
use runtime::Pacer;
use tokio::sync::Semaphore;

use crate::Registry;
use crate::options::HealOptions;
use planner::Planner;
pub use status::{HealCounts, NodeHealth, RepairStatus, ScrubStatus};
use watch::Watch;

/// Copies verified at the same time because a read failed.
const INSPECTIONS_AT_ONCE: usize = 4;

/// What the workers of one node remember and share.
pub(crate) struct Heal {
    memory: Mutex<Memory>,
    scrub_pacer: Pacer,
    inspections: Semaphore,
}

#[derive(Default)]
struct Memory {
    planner: Planner,
    watch: Watch,
    counts: HealCounts,
    running: BTreeSet<Digest>,
    /// Copies being looked at because a read failed.
    inspected: BTreeSet<Digest>,
    /// Damaged copies that are the last of their blob.
    unrecoverable: BTreeSet<Digest>,
    /// Manifests whose bytes in the state of this node do not match their digest.
    damaged_manifests: BTreeSet<Digest>,
    /// How far the copies of this node were given up while it drains.
    drained: Option<Digest>,
    /// Since when, in log time, this node has seen too many copies of a blob.
    surplus_since: BTreeMap<Digest, u64>,
    /// Silent nodes, as this node sees them while it leads.
    silent: BTreeMap<NodeId, Duration>,
    /// When the directory is compared with the state next, and when it was last.
    next_check: Duration,
    last_check: Option<Duration>,
    scrub_wanted: bool,
    scrub: Option<storage::blob::ScrubProgress>,
}

impl Heal {
    /// Nothing remembered. Must be called within a tokio runtime.
    pub(crate) fn new(options: &HealOptions) -> Heal {
        let memory = Memory {
            next_check: check::first_at(options, rand::random()),
            ..Memory::default()
        };
        Heal {
            memory: Mutex::new(memory),
            scrub_pacer: Pacer::new(options.scrub_bytes_per_second),
            inspections: Semaphore::new(INSPECTIONS_AT_ONCE),
        }
    }

    /// Whether this node keeps a damaged copy because it is the last one.
    pub(crate) fn is_damaged(&self, digest: &Digest) -> bool {
        self.memory().unrecoverable.contains(digest)
    }

    /// Good bytes were committed here: the store has put them in the place of what was damaged.
    pub(crate) fn mended(&self, digest: &Digest) {
        self.memory().unrecoverable.remove(digest);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Counters and hints: a panic elsewhere is no reason to lose them.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts every worker; they end when `registry` is dropped or its shutdown begins.
pub(crate) fn start(registry: &Arc<Registry>) {
    let options = &registry.options.heal;
    let round = options.repair_interval;
    every(registry, "repair", round, |registry| {
        Box::pin(async move { registry.repair_round().await })
    });
    every(registry, "node states", round, |registry| {
        Box::pin(async move { registry.watch_nodes().await })
    });
    every(registry, "surplus copies", round, |registry| {
        Box::pin(async move { registry.trim_surplus().await })
    });
    let look = round.min(options.check_interval);
    every(registry, "check copies", look, |registry| {
        Box::pin(async move { registry.check_if_due().await })
    });
    every(registry, "scrub", round, |registry| {
        Box::pin(async move { registry.scrub_if_due().await })
    });
}

/// Runs `step` again and again, `pause` apart, until the registry is gone.
fn every(
    registry: &Arc<Registry>,
    name: &'static str,
    pause: Duration,
    step: impl Fn(Arc<Registry>) -> BoxFuture<'static, ()> + Send + Sync + 'static,
) {
    let stop = registry.shutdown.token();
    let healed: Weak<Registry> = Arc::downgrade(registry);
    drop(registry.shutdown.spawn(name, async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            let Some(registry) = healed.upgrade() else {
                return;
            };
            tokio::select! {
                () = step(registry) => {}
                () = stop.cancelled() => return,
            }
        }
    }));
}
