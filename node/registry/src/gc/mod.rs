//! Garbage collection (protocols.md sections 5 and 6): what nothing needs goes away by itself.
//!
//! ```text
//! link without a manifest   --grace-->          removed     GcStep       \
//! blob without a link       --condemn delay-->  condemned   GcStep        > decided by the log, on every node alike
//! condemned blob            --quarantine-->     deleted     DeleteBlobs  /
//! copy of a deleted blob                        unlinked    each node, over its own files
//! ```
//!
//! - [`stepper`] proposes the steps, on the node that leads. Two leaders, or one that leads no longer, do no harm: every
//!   step is checked again when it is applied, and carries the epoch in which it was proposed.
//! - [`verifier`] asks the manifests themselves before anything is deleted.
//! - [`sweeper`] runs on every node. It follows the state, not events: it may lag, crash or skip as it likes.
//!
//! Nothing here is ever needed for safety. When all of it stands still, garbage stays.

mod admin;
mod error;
mod explain;
mod pattern;
mod restore;
pub(crate) mod stepper;
mod sweeper;
mod verifier;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

pub use admin::{Candidate, GcStatus, Listed, Local, LocalCopy, OpenTicket};
pub use error::GcError;
pub use explain::Explanation;
pub use pattern::{RepositoryPattern, UntaggedRule};

use crate::Registry;

/// What one round did. Bytes are those of blobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcRound {
    /// Untagged manifests deleted by the rules for untagged manifests. They can be restored.
    pub collected_manifests: u64,
    /// Deleted manifests that can no longer be restored.
    pub purged_manifests: u64,
    /// Links that no manifest needed.
    pub removed_links: u64,
    /// Blobs that no repository links.
    pub condemned_blobs: u64,
    /// Blobs deleted from the state.
    pub deleted_blobs: u64,
    /// Their lengths, each blob once.
    pub blob_bytes: u64,
    /// Their lengths, each counted copy.
    pub copy_bytes: u64,
    /// Repositories without content.
    pub removed_repositories: u64,
    /// Manifests scanned to confirm what was deleted.
    pub verified_manifests: u64,
    /// Blobs that are due, but the last scan was too short a time ago.
    pub unverified_blobs: u64,
    /// Blobs that are due, but a deleted manifest that can be restored names them.
    pub held_blobs: u64,
    /// The round ended before the work did.
    pub is_more_due: bool,
    /// Why the scan did not agree; collection is paused then.
    pub disagreement: Option<String>,
}

/// What the workers of this node do and did since it started.
#[derive(Default)]
pub(crate) struct Activity {
    last_round: Mutex<Option<(Instant, GcRound)>>,
    rounds: AtomicU64,
    /// Those that found something to do.
    busy_rounds: AtomicU64,
    /// Counts the manifests of the scan under way; `None` between scans.
    scan: Mutex<Option<Arc<AtomicU64>>>,
    removed_blobs: AtomicU64,
    removed_bytes: AtomicU64,
    walks: AtomicU64,
}

/// Who asked for a round waits for this.
type Reply = oneshot::Sender<Result<GcRound, GcError>>;

/// Requests for a round that may wait; each gets a round of its own.
const WAITING_ROUNDS: usize = 8;

/// How the registry speaks to the workers.
pub(crate) struct Gc {
    rounds: mpsc::Sender<Reply>,
    pub(crate) activity: Activity,
}

impl Gc {
    /// The handle, and what the stepper receives.
    pub(crate) fn new() -> (Gc, mpsc::Receiver<Reply>) {
        let (rounds, requests) = mpsc::channel(WAITING_ROUNDS);
        let activity = Activity::default();
        (Gc { rounds, activity }, requests)
    }
}

/// Starts the workers of this node. They end with `registry`, or when its shutdown begins.
pub(crate) fn start(registry: &Arc<Registry>, requests: mpsc::Receiver<Reply>) {
    stepper::start(registry, requests);
    sweeper::start(registry);
}

/// How long a command of garbage collection waits for the log.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(10);
