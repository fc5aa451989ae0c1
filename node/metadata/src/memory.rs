//! The replicated state in memory, and a log of one member over it: for tests of everything above this floor.

// Deadlines are instants handed through; nothing here reads a clock.
#![allow(clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;

use crate::apply::apply_outcome;
use crate::changes::{Changes, Overlay};
use crate::codec::{decode_entry, encode_entry};
use crate::command::{Command, InitializeCluster, RegisterNode, Tick};
use crate::entry::Entry;
use crate::ids::{LogIndex, NodeId, RequestId, Timestamp};
use crate::log::{LogError, MetadataLog};
use crate::query;
use crate::response::Outcome;
use crate::view::{MetadataView, ViewError};

/// The whole state as an ordered map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryView {
    pairs: BTreeMap<Vec<u8>, Vec<u8>>,
    applied: LogIndex,
}

impl MemoryView {
    /// The empty state at index zero.
    pub fn new() -> MemoryView {
        MemoryView::default()
    }

    /// Makes the changes of entries up to `applied` visible.
    pub fn commit(&mut self, changes: Changes, applied: LogIndex) {
        for (key, value) in changes {
            match value {
                Some(value) => self.pairs.insert(key, value),
                None => self.pairs.remove(&key),
            };
        }
        self.applied = applied;
    }
}

impl MetadataView for MemoryView {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        Ok(self.pairs.get(key).cloned())
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), ViewError> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        for (key, value) in self.pairs.range::<[u8], _>((start, Bound::Unbounded)) {
            if !key.starts_with(prefix) || visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn applied(&self) -> LogIndex {
        self.applied
    }
}

/// A [`MetadataLog`] without consensus: what is proposed is applied at once.
///
/// Clones share the state; [`MemoryLog::on_node`] gives each member of an imagined cluster its own handle.
/// Every entry passes through the codec, as it would on its way through Raft.
#[derive(Clone)]
pub struct MemoryLog {
    node: NodeId,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    view: MemoryView,
    leader: NodeId,
    wall_clock: Timestamp,
    sequence: u64,
    failure: Option<LogError>,
    lost_outcomes: u32,
}

impl MemoryLog {
    /// An empty log, not initialised. `node` is this node and the leader.
    pub fn new(node: NodeId) -> MemoryLog {
        let shared = Shared {
            view: MemoryView::new(),
            leader: node,
            wall_clock: Timestamp(0),
            sequence: 0,
            failure: None,
            lost_outcomes: 0,
        };
        MemoryLog {
            node,
            shared: Arc::new(Mutex::new(shared)),
        }
    }

    /// An initialised cluster of `nodes` (the first leads and is this node) with R = `copies` and
    /// W = `write_copies`.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when the cluster cannot be set up that way.
    pub fn with_nodes(
        nodes: &[NodeId],
        copies: u32,
        write_copies: u32,
    ) -> Result<MemoryLog, LogError> {
        let log = MemoryLog::new(nodes.first().copied().unwrap_or(NodeId(1)));
        log.apply(Command::InitializeCluster(InitializeCluster {
            cluster_id: "00000000000000000000000000000000".to_owned(),
            upload_key: Bytes::from_static(&[7; 32]),
            copies,
            write_copies,
        }))?;
        for node in nodes {
            log.apply(Command::RegisterNode(RegisterNode {
                node: *node,
                http_address: format!("127.0.0.{node}:5000"),
                grpc_address: format!("127.0.0.{node}:5100"),
                disk_id: format!("disk-{node}"),
            }))?;
        }
        Ok(log)
    }

    /// The same state, seen from another node.
    pub fn on_node(&self, node: NodeId) -> MemoryLog {
        MemoryLog {
            node,
            shared: self.shared.clone(),
        }
    }

    /// Moves the leadership, which only [`MetadataLog::is_leader`] shows.
    pub fn set_leader(&self, leader: NodeId) {
        self.shared().leader = leader;
    }

    /// From now on every proposal, barrier and wait fails like this and nothing is applied; `None` heals.
    pub fn set_failure(&self, failure: Option<LogError>) {
        self.shared().failure = failure;
    }

    /// The next `count` proposals are applied and answered with [`LogError::OutcomeUnknown`].
    pub fn lose_outcomes(&self, count: u32) {
        self.shared().lost_outcomes = count;
    }

    /// What following entries are stamped with.
    pub fn set_wall_clock(&self, now: Timestamp) {
        self.shared().wall_clock = now;
    }

    /// Lets log time pass, in steps a leader would take.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when the state cannot be read.
    pub fn advance_ms(&self, mut elapsed_ms: u64) -> Result<(), LogError> {
        while elapsed_ms > 0 {
            let step_ms = elapsed_ms.min(crate::apply::MAX_TICK_MS);
            let (_, previous_sequence) = query::time(&self.shared().view).map_err(fatal)?;
            self.apply(Command::Tick(Tick {
                previous_sequence,
                elapsed_ms: step_ms,
            }))?;
            elapsed_ms -= step_ms;
        }
        Ok(())
    }

    /// Applies a command without the failures set for proposals.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when the state cannot be read or the command does not survive the codec.
    pub fn apply(&self, command: Command) -> Result<Outcome, LogError> {
        self.shared().apply(self.node, "", command)
    }

    /// Puts another value under a key, or removes it, and changes nothing that depends on it, as a fault would.
    pub fn damage(&self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let mut shared = self.shared();
        let applied = shared.view.applied;
        shared.view.commit(Changes::from([(key, value)]), applied);
    }

    /// A copy of the state as it is now.
    pub fn snapshot(&self) -> MemoryView {
        self.shared().view.clone()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // A panic of another test thread leaves a whole state behind: commits are the last step.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn apply(
        &mut self,
        node: NodeId,
        subject: &str,
        command: Command,
    ) -> Result<Outcome, LogError> {
        self.sequence += 1;
        let entry = Entry {
            proposed_at: self.wall_clock,
            subject: subject.to_owned(),
            request: Some(RequestId {
                node,
                boot: 1,
                sequence: self.sequence,
            }),
            command,
        };
        let entry = decode_entry(encode_entry(&entry)).map_err(fatal)?;
        let at = LogIndex(self.view.applied.0 + 1);
        let mut overlay = Overlay::new(&self.view);
        let outcome = apply_outcome(&mut overlay, at, &entry).map_err(fatal)?;
        let changes = overlay.into_changes();
        self.view.commit(changes, at);
        Ok(outcome)
    }

    fn check(&self) -> Result<(), LogError> {
        self.failure.clone().map_or(Ok(()), Err)
    }
}

fn fatal(error: impl std::fmt::Display) -> LogError {
    LogError::Fatal(error.to_string())
}

#[async_trait]
impl MetadataLog for MemoryLog {
    async fn propose(
        &self,
        command: Command,
        subject: &str,
        _deadline: Instant,
    ) -> Result<Outcome, LogError> {
        let mut shared = self.shared();
        shared.check()?;
        let outcome = shared.apply(self.node, subject, command)?;
        if shared.lost_outcomes > 0 {
            shared.lost_outcomes -= 1;
            return Err(LogError::OutcomeUnknown);
        }
        Ok(outcome)
    }

    async fn barrier(&self, _deadline: Instant) -> Result<LogIndex, LogError> {
        let shared = self.shared();
        shared.check()?;
        Ok(shared.view.applied)
    }

    /// Nothing is ever on its way here: an index that is not applied yet will not be before the deadline.
    async fn wait_applied(&self, index: LogIndex, _deadline: Instant) -> Result<(), LogError> {
        let shared = self.shared();
        shared.check()?;
        if index <= shared.view.applied {
            Ok(())
        } else {
            Err(LogError::Lagging)
        }
    }

    fn read(
        &self,
        reader: &mut dyn FnMut(&dyn MetadataView) -> Result<(), ViewError>,
    ) -> Result<(), ViewError> {
        reader(&self.shared().view)
    }

    fn node_id(&self) -> NodeId {
        self.node
    }

    fn is_leader(&self) -> bool {
        self.shared().leader == self.node
    }
}

#[cfg(test)]
mod tests;
