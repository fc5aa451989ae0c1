//! What can go wrong, and the mapping from openraft's errors.

use metadata::ids::{LogIndex, NodeId};
use metadata::log::LogError;
use metadata::response::Rejection;
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
    /// The cluster removed a node with this number. An empty disk under it could vote before it is out.
    #[error("node {node} was removed from the cluster; a number is never used again")]
    Removed {
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
    /// No such node is registered.
    #[error("node {node} does not belong to the cluster")]
    Unknown {
        /// Which node.
        node: NodeId,
    },
    /// The number is spent: what is registered under it was removed.
    #[error(
        "node {node} was removed, and a number is never used again; give the new node another one"
    )]
    Removed {
        /// Which node.
        node: NodeId,
    },
    /// Without the node, pushes would find too few nodes for their copies.
    #[error("only {up} other nodes are up, and a push needs {needed}")]
    TooFewNodes {
        /// Nodes that are up, without it.
        up: usize,
        /// Copies a push has to make.
        needed: u32,
    },
    /// A leader does not remove itself.
    #[error("node {node} leads; give leadership to another one first (leader transfer)")]
    Leads {
        /// This node.
        node: NodeId,
    },
    /// A node that is up must give its copies away before it goes.
    #[error("node {node} is up; let it drain first (member drain)")]
    NotDraining {
        /// Which node.
        node: NodeId,
    },
    /// A cluster of one or two voters stops with the first loss.
    #[error(
        "{left} voters would be left, which do not survive the loss of one; --allow-few removes it all the same"
    )]
    TooFewVoters {
        /// Voters without the node.
        left: usize,
    },
    /// Without the node there would be no quorum.
    #[error("of the voters that would be left {answering} answer, and a majority is {needed}")]
    NoMajority {
        /// Those that answer, the leader among them.
        answering: usize,
        /// What it takes.
        needed: usize,
    },
    /// Copies on the node are needed.
    #[error(
        "of {copies} blobs on node {node} the others have too few copies, and of {last} of them none; wait until they \
         have (member drain shows it), or give them up with --force, which lists them"
    )]
    CopiesLeft {
        /// Which node.
        node: NodeId,
        /// Blobs with too few copies elsewhere.
        copies: usize,
        /// Blobs without any copy elsewhere.
        last: usize,
    },
    /// A step was refused in the order of the log.
    #[error(transparent)]
    Refused(Rejection),
    /// A step could not be proposed, or nobody knows whether it was accepted.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state could not be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// It did not answer, for longer than an election takes or until the deadline.
    #[error("node {node} does not answer")]
    Silent {
        /// Who should lead, or belong.
        node: NodeId,
    },
    /// Leadership cannot go to anybody.
    #[error("no other node with a vote answers")]
    NoSuccessor,
    /// The leader still leads. Trying again is safe.
    #[error("node {node} did not take leadership over in time")]
    NotTakenOver {
        /// Who should lead.
        node: NodeId,
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
