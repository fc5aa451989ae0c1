//! What can go wrong, and the mapping from openraft's errors.

use metadata::ids::{LogIndex, NodeId};
use metadata::log::LogError;
use metadata::view::ViewError;
use openraft::errors::Fatal;
use storage::error::StorageError;

use crate::types::TypeConfig;

/// A node cannot take part in the cluster.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The options contradict themselves.
    #[error("raft options: {0}")]
    Options(String),
    /// The cluster, or this node's own state, knows the node with another disk. An empty disk that voted
    /// could undo what the lost one had acknowledged (invariant I8).
    #[error("the disk of node {node} is empty or not the one registered; replace the node")]
    DiskReplaced {
        /// This node.
        node: NodeId,
    },
    /// Members that start together must agree on who they are: two lists could become two clusters.
    #[error(
        "node {node} is configured with other members: {theirs} there, {ours} here; give every member the same list, \
         and a node that is to be added later cluster.wait_for_init = true"
    )]
    MembersDiffer {
        /// The other member.
        node: NodeId,
        /// Its list.
        theirs: String,
        /// The list of this node.
        ours: String,
    },
    /// The state lacks entries that the log no longer has.
    #[error(
        "the state ends at entry {applied}, the log begins behind entry {purged}; replace the node"
    )]
    StateTooOld {
        /// Last entry of the state.
        applied: LogIndex,
        /// Last entry that was removed from the log.
        purged: LogIndex,
    },
    /// The log lacks votes or entries that the state has seen.
    #[error(
        "the log in raft/log is not the one that the state, with entries through {applied}, was made from: it is \
         older, or its beginning is missing; replace the node"
    )]
    LogLost {
        /// Last entry of the state.
        applied: LogIndex,
    },
    /// A store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The state could not be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// Raft refused to start or stopped.
    #[error("raft: {0}")]
    Raft(String),
}

/// A change of the membership was refused or not finished.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// Only the leader changes the membership.
    #[error("node {} leads, not this one", .leader.map_or_else(|| "?".to_string(), |id| id.to_string()))]
    NotLeader {
        /// Who leads, when known.
        leader: Option<NodeId>,
    },
    /// Another change is under way.
    #[error("another membership change is under way")]
    Busy,
    /// The cluster was formed before.
    #[error("the cluster is already initialised")]
    AlreadyInitialized,
    /// The given members are not possible.
    #[error("members: {0}")]
    Invalid(String),
    /// The new member did not catch up in time. It stays a learner.
    #[error("node {node} is still {lag_entries} entries behind")]
    TooFarBehind {
        /// The new member.
        node: NodeId,
        /// Entries it lacks.
        lag_entries: u64,
    },
    /// The change was proposed and may or may not take effect.
    #[error("the outcome of the membership change is unknown")]
    OutcomeUnknown,
    /// This node cannot go on.
    #[error("fatal: {0}")]
    Fatal(String),
}

/// Why an attempt reached nobody who could answer. Nothing was proposed; trying again is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    NoLeader,
    NoQuorum,
    ShuttingDown,
}

impl From<Obstacle> for LogError {
    fn from(obstacle: Obstacle) -> LogError {
        match obstacle {
            Obstacle::NoLeader => LogError::NoLeader,
            Obstacle::NoQuorum => LogError::QuorumLost,
            Obstacle::ShuttingDown => LogError::ShuttingDown,
        }
    }
}

/// Passes a failpoint where failures are those of the log.
#[inline]
pub(crate) fn log_hit(name: &'static str) -> Result<(), LogError> {
    storage::failpoints::hit(name).map_err(|error| LogError::Fatal(error.to_string()))
}

pub(crate) fn log_error(fatal: Fatal<TypeConfig>) -> LogError {
    match fatal {
        Fatal::Stopped => LogError::ShuttingDown,
        Fatal::Panicked => LogError::Fatal("raft panicked".into()),
        Fatal::StorageError(error) => LogError::Fatal(error.to_string()),
    }
}
