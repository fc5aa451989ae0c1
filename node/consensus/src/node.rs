//! One node of the cluster: the replicated log as services see it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use metadata::codec;
use metadata::command::Command;
use metadata::entry::Entry;
use metadata::ids::{LogIndex, NodeId, RequestId, Timestamp};
use metadata::log::{LogError, MetadataLog};
use metadata::response::{Outcome, Rejection, Response};
use metadata::view::{MetadataView, ViewError};
use openraft::async_runtime::watch::WatchReceiver;
use runtime::Shutdown;
use storage::log::LogStore;
use storage::state::StateStore;
use tokio::sync::{Semaphore, watch};

use crate::barrier::Reads;
use crate::error::{Obstacle, StartError};
use crate::facts;
use crate::forward::{Attempt, Cluster};
use crate::log_store::LogAdapter;
use crate::network::client::Network;
use crate::network::peers::Peers;
use crate::options::{MAX_ENTRY_BYTES, RaftOptions};
use crate::snapshot;
use crate::state_machine::StateMachine;
use crate::types::Raft;

/// How soon a refused attempt is repeated when nothing is seen to change. A new leader refuses writes until
/// its first quorum has answered, a few milliseconds after it became leader.
const RETRY: Duration = Duration::from_millis(20);
/// The longest pause after attempts that may have been proposed: each repetition is one more entry in the log.
const LONGEST_RETRY: Duration = Duration::from_millis(320);

/// A node of the cluster. Implements [`MetadataLog`].
///
/// Life: [`RaftNode::open`], mount [`crate::service`], [`RaftNode::join`], serve, [`RaftNode::shutdown`].
pub struct RaftNode {
    pub(crate) options: RaftOptions,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) reads: Reads,
    pub(crate) state: Arc<dyn StateStore>,
    pub(crate) log: LogAdapter,
    /// Snapshots being received.
    pub(crate) receiving: Semaphore,
    /// Held while the membership changes.
    pub(crate) changing_membership: tokio::sync::Mutex<()>,
    /// The duties of this node.
    pub(crate) tasks: Shutdown,
    applied: watch::Receiver<LogIndex>,
    joined: AtomicBool,
    /// Set when a peer knows this node with another disk.
    disk_refused: watch::Sender<bool>,
    /// Set when another cluster knows this node with another disk.
    claimed: AtomicBool,
    /// Set when a peer says that this node was removed.
    removed: AtomicBool,
    last_heard: Mutex<Option<Instant>>,
    in_flight: Semaphore,
    boot: u64,
    sequence: AtomicU64,
}

impl RaftNode {
    /// Opens the node over its stores. It votes and follows only after [`RaftNode::join`].
    ///
    /// # Errors
    /// Impossible options, a failed store, or a state that knows this node with another disk.
    pub async fn open(
        options: RaftOptions,
        log: Arc<dyn LogStore>,
        state: Arc<dyn StateStore>,
    ) -> Result<Arc<RaftNode>, StartError> {
        let config = options
            .raft_config()
            .validate()
            .map_err(|error| StartError::Options(error.to_string()))?;
        snapshot::prepare_directory(&options.snapshot_directory)?;
        let peers = Arc::new(Peers::new(&options.members));
        let log = LogAdapter::new(log, state.clone());
        log.check_covered_by_state()?;
        let machine = StateMachine::new(state.clone(), options.snapshot_directory.clone())
            .map_err(|error| StartError::Raft(error.to_string()))?;
        let applied = machine.watch_applied();
        let network = Network {
            peers: peers.clone(),
        };
        let raft = Raft::new(
            options.node.0,
            Arc::new(config),
            network,
            log.clone(),
            machine,
        )
        .await
        .map_err(|error| StartError::Raft(error.to_string()))?;
        let cluster = Arc::new(Cluster {
            node: options.node,
            raft,
            peers,
        });
        Ok(Arc::new(RaftNode {
            reads: Reads::new(cluster.clone(), options.election_timeout_max),
            in_flight: Semaphore::new(kibibytes(options.proposals_in_flight_bytes) as usize),
            options,
            cluster,
            state,
            log,
            receiving: Semaphore::new(1),
            changing_membership: tokio::sync::Mutex::new(()),
            tasks: Shutdown::new(),
            applied,
            joined: AtomicBool::new(false),
            disk_refused: watch::Sender::new(false),
            claimed: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            last_heard: Mutex::new(None),
            boot: rand::random(),
            sequence: AtomicU64::new(0),
        }))
    }

    /// Hands leadership over, stops Raft and makes the state durable. Proposals afterwards fail with
    /// [`LogError::ShuttingDown`].
    ///
    /// # Errors
    /// The state could not be flushed. Leadership that could not be handed over in time is no error: the
    /// others elect a leader when they miss this one.
    pub async fn shutdown(&self, deadline: Instant) -> Result<(), StartError> {
        let remaining = deadline.saturating_duration_since(Instant::now());
        if let Err(late) = self.tasks.close_and_wait(remaining / 4).await {
            tracing::warn!(%late, "duties still running");
        }
        self.hand_over(Instant::now() + remaining / 2).await;
        if let Err(error) = self.cluster.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop in order");
        }
        let state = self.state.clone();
        crate::log_store::blocking(move || state.flush())
            .await
            .map_err(|error| StartError::Raft(error.to_string()))
    }

    /// Completes when this node must not go on: a store failed, an entry could not be applied, or the cluster
    /// knows the node with another disk. The process must then end (invariant I7: it comes up again from what is durable). Never completes after
    /// [`RaftNode::shutdown`].
    pub async fn failed(&self) -> LogError {
        tokio::select! {
            error = self.raft_failed() => error,
            () = self.disk_was_refused() => LogError::Fatal(self.disk_replaced().to_string()),
        }
    }

    async fn raft_failed(&self) -> LogError {
        let mut metrics = self.cluster.raft.metrics();
        loop {
            match self.cluster.raft_stopped() {
                Some(LogError::ShuttingDown) => std::future::pending::<()>().await,
                Some(error) => return error,
                None => {}
            }
            if metrics.changed().await.is_err() && self.cluster.raft_stopped().is_none() {
                return LogError::Fatal("raft is gone".into());
            }
        }
    }

    /// A peer knows this node with another disk.
    pub(crate) fn refuse_disk(&self) {
        if !self.disk_refused.send_replace(true) {
            tracing::error!(error = %self.disk_replaced(), "a peer knows this node with another disk");
        }
    }

    /// Whether this node was removed from its cluster: the log says so, or, to a node that was away meanwhile, a peer.
    pub fn is_removed(&self) -> bool {
        let node = self.options.node;
        self.removed.load(Ordering::Acquire)
            || facts::is_removed(&*self.state, node).unwrap_or(false)
    }

    /// A peer says that this node was removed.
    pub(crate) fn note_removal(&self) {
        if !self.removed.swap(true, Ordering::AcqRel) {
            tracing::error!("this node was removed from the cluster; stop it");
        }
    }

    /// Another cluster knows this node with another disk. Either this disk was emptied and this node then formed a
    /// cluster of its own, or that cluster has the address of a stranger. Here they look the same, so this node
    /// stays up for an operator to look at, but acknowledges nothing until it is restarted.
    pub(crate) fn refuse_cluster(&self, theirs: &str, disk: &str) {
        if !self.claimed.swap(true, Ordering::AcqRel) {
            tracing::error!(
                cluster = theirs,
                disk,
                "another cluster knows this node with another disk; nothing is served until it is replaced there \
                 or that cluster has the right addresses, and this node is restarted"
            );
        }
    }

    /// Whether another cluster knows this node with another disk: what this node says may be about the wrong cluster.
    pub fn is_claimed_elsewhere(&self) -> bool {
        self.claimed.load(Ordering::Acquire)
    }

    /// Whether a sync of the log has taken longer than a disk may.
    pub fn disk_hangs(&self) -> bool {
        self.log.sync_age() > self.options.sync_max
    }

    pub(crate) fn disk_replaced(&self) -> StartError {
        StartError::DiskReplaced {
            node: self.options.node,
        }
    }

    /// Completes when a peer knew this node with another disk.
    pub(crate) async fn disk_was_refused(&self) {
        let mut refused = self.disk_refused.subscribe();
        // The sender is a part of this node, so it cannot be gone.
        let _ = refused.wait_for(|refused| *refused).await;
    }

    pub(crate) fn has_joined(&self) -> bool {
        self.joined.load(Ordering::Acquire)
    }

    pub(crate) fn set_joined(&self) {
        self.joined.store(true, Ordering::Release);
    }

    pub(crate) fn heard_from_leader(&self) {
        *self
            .last_heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago a leader was heard; `None` when never.
    pub(crate) fn last_heard(&self) -> Option<Duration> {
        self.last_heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .map(|heard| heard.elapsed())
    }

    pub(crate) fn applied(&self) -> LogIndex {
        *self.applied.borrow()
    }

    fn entry(&self, command: Command, subject: &str) -> Entry {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let since_epoch = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Entry {
            proposed_at: Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)),
            subject: subject.to_owned(),
            request: Some(RequestId {
                node: self.options.node,
                boot: self.boot,
                sequence,
            }),
            command,
        }
    }

    /// Sends one encoded entry until it is answered. After an ambiguous error the very same bytes are sent
    /// again: their request id makes them apply once (protocols.md 3.4).
    pub(crate) async fn propose_entry(
        &self,
        entry: Bytes,
        deadline: Instant,
    ) -> Result<Outcome, LogError> {
        let mut is_ambiguous = false;
        let mut pause = RETRY;
        loop {
            let obstacle = match self.cluster.propose(entry.clone(), deadline).await {
                Attempt::Done(Outcome {
                    response: Response::Rejected(Rejection::RequestTooOld),
                    ..
                }) if is_ambiguous => {
                    // An earlier attempt may have been applied; its answer is forgotten.
                    return Err(LogError::OutcomeUnknown);
                }
                Attempt::Done(outcome) => return self.applied_here(outcome, deadline).await,
                Attempt::Stopped(_) if is_ambiguous => return Err(LogError::OutcomeUnknown),
                Attempt::Stopped(error) => return Err(error),
                Attempt::NotProposed(obstacle) => obstacle,
                Attempt::Unknown => {
                    pause = LONGEST_RETRY.min(pause * 2);
                    is_ambiguous = true;
                    Obstacle::NoLeader
                }
            };
            if !self.retry_before(deadline, pause).await {
                return Err(if is_ambiguous {
                    LogError::OutcomeUnknown
                } else {
                    obstacle.into()
                });
            }
        }
    }

    /// The command is applied by the leader. Not seeing it here in time must not look like a refusal.
    async fn applied_here(&self, outcome: Outcome, deadline: Instant) -> Result<Outcome, LogError> {
        match self.wait_applied(outcome.index, deadline).await {
            Ok(()) => Ok(outcome),
            Err(_) => Err(LogError::OutcomeUnknown),
        }
    }

    /// Waits for `pause`, or until who leads changes. False when the deadline has passed.
    async fn retry_before(&self, deadline: Instant, pause: Duration) -> bool {
        let remaining = deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return false;
        }
        self.cluster
            .leader_may_have_changed(remaining.min(pause))
            .await;
        Instant::now() < deadline
    }
}

/// Permits count KiB, so that they fit 32 bits.
fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

#[async_trait]
impl MetadataLog for RaftNode {
    async fn propose(
        &self,
        command: Command,
        subject: &str,
        deadline: Instant,
    ) -> Result<Outcome, LogError> {
        if self.tasks.is_closing() {
            return Err(LogError::ShuttingDown);
        }
        if self.is_claimed_elsewhere() {
            return Err(LogError::NoLeader);
        }
        let mut entry = self.entry(command, subject);
        let encoded = codec::encode_entry(&entry);
        if encoded.len() > MAX_ENTRY_BYTES {
            // An entry that fits no message would stop replication for ever: it must not enter the log.
            let response = Response::Rejected(Rejection::OutOfBounds);
            return Ok(Outcome {
                index: self.applied(),
                response,
            });
        }
        let permits = kibibytes(encoded.len().min(self.options.proposals_in_flight_bytes));
        let turn =
            tokio::time::timeout_at(deadline.into(), self.in_flight.acquire_many(permits)).await;
        let _turn = turn
            .map_err(|_| LogError::QuorumLost)?
            .map_err(|_| LogError::ShuttingDown)?;
        let outcome = self.propose_entry(encoded, deadline).await?;
        if outcome.response != Response::Rejected(Rejection::RequestTooOld) {
            return Ok(outcome);
        }
        // Sent once and overtaken by more requests than are remembered: certainly not applied, so a new id
        // is as good as the first one.
        entry.request = self.entry(entry.command.clone(), subject).request;
        self.propose_entry(codec::encode_entry(&entry), deadline)
            .await
    }

    async fn barrier(&self, deadline: Instant) -> Result<LogIndex, LogError> {
        loop {
            if self.is_claimed_elsewhere() {
                return Err(LogError::NoLeader);
            }
            let asked = tokio::time::timeout_at(deadline.into(), self.reads.read_index()).await;
            let obstacle = match asked {
                Ok(Ok(index)) => {
                    self.wait_applied(index, deadline).await?;
                    return Ok(index);
                }
                Ok(Err(Obstacle::ShuttingDown)) => return Err(LogError::ShuttingDown),
                Ok(Err(obstacle)) => obstacle,
                Err(_) => return Err(LogError::QuorumLost),
            };
            if !self.retry_before(deadline, RETRY).await {
                return Err(obstacle.into());
            }
        }
    }

    async fn wait_applied(&self, index: LogIndex, deadline: Instant) -> Result<(), LogError> {
        let mut applied = self.applied.clone();
        let waited = tokio::time::timeout_at(
            deadline.into(),
            applied.wait_for(|applied| *applied >= index),
        );
        match waited.await {
            Ok(Ok(_)) => Ok(()),
            // The state machine is gone: Raft stopped.
            Ok(Err(_)) => Err(self
                .cluster
                .raft_stopped()
                .unwrap_or(LogError::ShuttingDown)),
            Err(_) => Err(LogError::Lagging),
        }
    }

    fn read(
        &self,
        reader: &mut dyn FnMut(&dyn MetadataView) -> Result<(), ViewError>,
    ) -> Result<(), ViewError> {
        self.state.read(reader)
    }

    fn node_id(&self) -> NodeId {
        self.options.node
    }

    fn is_leader(&self) -> bool {
        self.cluster.is_leader()
    }

    fn silence(&self, node: NodeId) -> Option<Duration> {
        RaftNode::silence_of(self, node)
    }
}

#[cfg(test)]
impl RaftNode {
    /// Last purged log index.
    pub(crate) fn purged(&self) -> u64 {
        let metrics = self.cluster.raft.metrics();
        metrics
            .borrow_watched()
            .purged
            .map_or(0, |purged| purged.index)
    }

    /// Applies a request that is as far ahead of this node's next one as answers are remembered.
    pub(crate) async fn overtake_next_request(&self, entry: impl Fn(Option<RequestId>) -> Bytes) {
        let sequence =
            self.sequence.load(Ordering::Relaxed) + 1 + metadata::apply::ANSWERS_PER_SESSION;
        let request = RequestId {
            node: self.options.node,
            boot: self.boot,
            sequence,
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        let outcome = self.propose_entry(entry(Some(request)), deadline).await;
        assert!(outcome.is_ok(), "{outcome:?}");
    }
}
