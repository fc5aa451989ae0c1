//! Reading a blob that this node does not have from one that does.
//!
//! There is one transfer per digest, however many readers wait: its bytes go into a staged blob, and readers follow
//! it while it grows. When a source fails, the next one continues at the same offset. The last bytes are held back
//! until the digest of the whole is verified, so nobody ever receives a complete wrong blob.
//!
//! **What becomes of the bytes.** A copy that is missing (this node is named as a holder, or fewer than R nodes are)
//! is committed under a repair ticket and counted by `AddPlacement`; such a transfer goes on when its readers leave.
//! Any other copy is not kept: it is discarded some seconds after its last reader left, and a transfer that nobody
//! reads any more is stopped. A cache of uncounted copies is a matter of its own, with a policy for its size.

mod direct;
mod pace;
mod reader;
mod suspects;
#[cfg(test)]
mod tests;
mod transfer;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use metadata::ids::NodeId;
use oci::Digest;
use storage::blob::StagedReader;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use self::direct::Wanted;
pub use self::reader::FetchReader;
use self::suspects::Suspects;
use self::transfer::{Purpose, Transfer};
use crate::error::{PeerError, ReplicationError};
use crate::peers::ByteStream;
use crate::{Replication, state};

/// Staged names of fetches start with this, then the boot, so that leftovers of an earlier boot are recognised.
const STAGED_PREFIX: &str = "fetch-";

/// The transfers of this node.
pub(crate) struct Fetches {
    boot: u64,
    running: Mutex<HashMap<Digest, Arc<watch::Sender<State>>>>,
    turns: Arc<Semaphore>,
    suspects: Suspects,
}

/// Where a transfer stands. Readers hold receivers; the transfer counts them to know whether anybody reads.
#[derive(Clone, Default)]
struct State {
    /// The bytes, once there is a place for them.
    staged: Option<StagedReader>,
    /// A source has answered.
    connected: bool,
    /// Bytes that readers may have.
    released_bytes: u64,
    /// Known at the end: whether the bytes became a counted copy of this node.
    is_kept: Option<bool>,
    failure: Option<Failure>,
}

/// Why a transfer ended without the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// No holder could deliver it, or what they delivered has another digest.
    NoSource,
    /// This disk is full, read-only or failing: readers do without it.
    NoSpace,
    /// This node failed in another way; the log says how.
    Local,
    ShuttingDown,
    /// Nobody read it any more.
    Unread,
}

impl Failure {
    fn into_error(self, digest: Digest) -> ReplicationError {
        match self {
            Failure::NoSource => ReplicationError::NoSource(digest),
            Failure::NoSpace => ReplicationError::Local(storage::error::BlobError::NoSpace),
            Failure::Local | Failure::Unread => ReplicationError::Interrupted(digest),
            Failure::ShuttingDown => ReplicationError::ShuttingDown,
        }
    }
}

impl Fetches {
    pub(crate) fn new(fetches_max: usize) -> Fetches {
        Fetches {
            boot: rand::random(),
            running: Mutex::default(),
            turns: Arc::new(Semaphore::new(fetches_max)),
            suspects: Suspects::default(),
        }
    }

    fn staged_name(&self) -> String {
        format!(
            "{STAGED_PREFIX}{:016x}-{:016x}",
            self.boot,
            rand::random::<u64>()
        )
    }

    /// Whether a staged name was left behind by a fetch of an earlier boot.
    pub(crate) fn is_leftover(&self, name: &str) -> bool {
        name.strip_prefix(STAGED_PREFIX)
            .is_some_and(|rest| !rest.starts_with(&format!("{:016x}-", self.boot)))
    }

    fn with_running<T>(
        &self,
        body: impl FnOnce(&mut HashMap<Digest, Arc<watch::Sender<State>>>) -> T,
    ) -> T {
        // Every change of the map is one call; a panic elsewhere leaves it whole.
        body(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// New readers start a new transfer from now on. Another transfer that was started meanwhile stays.
    fn forget(&self, digest: &Digest, state: &Arc<watch::Sender<State>>) {
        self.with_running(|running| {
            if running
                .get(digest)
                .is_some_and(|current| Arc::ptr_eq(current, state))
            {
                running.remove(digest);
            }
        });
    }

    /// The same, but only while nobody reads; whether that was so. New readers are found under the same lock, so
    /// none can slip in between.
    fn forget_unread(&self, digest: &Digest, state: &Arc<watch::Sender<State>>) -> bool {
        self.with_running(|running| {
            let unread = state.receiver_count() == 0;
            if unread {
                running.remove(digest);
            }
            unread
        })
    }
}

impl Replication {
    /// Opens a blob that is not on this node, following a transfer that may be running already. Returns once a
    /// holder has answered. `holders` are those of the replicated state; the nearest is asked first.
    ///
    /// # Errors
    /// [`ReplicationError::NoSource`] when no holder can deliver it. A disk that takes no bytes is no error: readers then have a
    /// stream each, and nothing is staged.
    pub async fn open_remote(
        self: &Arc<Self>,
        digest: &Digest,
        size_bytes: u64,
        holders: Vec<NodeId>,
    ) -> Result<FetchReader, ReplicationError> {
        let reader = self.follow(*digest, size_bytes, holders, Purpose::Read);
        reader.connected().await?;
        Ok(reader)
    }

    /// Makes the copy of this node that is missing, from whichever holder can deliver it, and returns once it is
    /// counted. Nobody reads it meanwhile, so it keeps to the pace of the options; a transfer that runs already is only waited for.
    ///
    /// # Errors
    /// As [`Replication::open_remote`]; [`ReplicationError::Interrupted`] when the bytes came, but the copy was not
    /// counted: it is not missing any more, or the log did not answer.
    pub async fn copy_here(
        self: &Arc<Self>,
        digest: &Digest,
        size_bytes: u64,
        holders: Vec<NodeId>,
    ) -> Result<(), ReplicationError> {
        let reader = self.follow(*digest, size_bytes, holders, Purpose::Repair);
        reader.kept().await
    }

    /// A reader of the transfer of a blob, which is started when there is none.
    fn follow(
        self: &Arc<Self>,
        digest: Digest,
        size_bytes: u64,
        holders: Vec<NodeId>,
        purpose: Purpose,
    ) -> FetchReader {
        let mut started = None;
        let state = self
            .fetches
            .with_running(|running| match running.entry(digest) {
                Entry::Occupied(entry) => entry.get().subscribe(),
                Entry::Vacant(entry) => {
                    let (sender, receiver) = watch::channel(State::default());
                    started = Some(entry.insert(Arc::new(sender)).clone());
                    receiver
                }
            });
        if let Some(state) = started {
            let replication = self.clone();
            let holders = holders.clone();
            let transfer = Transfer::new(replication, digest, size_bytes, holders, state, purpose);
            self.shutdown.spawn("blob fetch", transfer.run());
        }
        let wanted = Wanted {
            replication: self.clone(),
            digest,
            size_bytes,
            holders,
        };
        FetchReader::new(wanted, state)
    }

    /// Begins to read a blob from one node. A node whose blob has another size is suspect.
    async fn fetch_from(
        &self,
        node: NodeId,
        digest: &Digest,
        size_bytes: u64,
        offset_bytes: u64,
    ) -> Result<ByteStream, PeerError> {
        let fetched = self.peers.fetch(node, digest, offset_bytes);
        let patience = self.options.fetch_answer_timeout;
        let fetched = timeout(patience, fetched)
            .await
            .map_err(|_| PeerError::Timeout(node))??;
        if fetched.size_bytes == size_bytes {
            return Ok(fetched.bytes);
        }
        self.fetches.suspects.add(node, *digest);
        let reason = format!("it has {} bytes, not {size_bytes}", fetched.size_bytes);
        Err(PeerError::Refused { node, reason })
    }

    /// Holders by round trip; unreachable ones and suspects last. Those that became holders meanwhile count as well.
    fn nearest_first(&self, digest: &Digest, holders: &[NodeId]) -> Vec<NodeId> {
        let mut nodes = holders.to_vec();
        nodes.extend(state::holders(self.log.as_ref(), digest).unwrap_or_default());
        nodes.sort_unstable();
        nodes.dedup();
        nodes.retain(|&node| node != self.log.node_id());
        nodes.sort_by_key(|&node| {
            let suspect = self.fetches.suspects.contains(node, digest);
            (suspect, self.peers.round_trip_us(node).unwrap_or(u64::MAX))
        });
        nodes
    }
}
