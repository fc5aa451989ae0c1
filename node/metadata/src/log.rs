//! The seam between services and consensus.

// Deadlines are instants handed through; nothing here reads a clock.
#![allow(clippy::disallowed_types)]

use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::command::Command;
use crate::ids::{LogIndex, NodeId};
use crate::response::Outcome;
use crate::view::{MetadataView, ViewError};

/// Why a proposal or a barrier gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// No leader is known, or it could not be reached before the deadline. Nothing was proposed.
    #[error("no leader")]
    NoLeader,
    /// The leader could not reach a quorum before the deadline. Nothing was proposed.
    #[error("no quorum")]
    QuorumLost,
    /// The command was proposed and may or may not be applied; the deadline passed.
    #[error("the outcome is unknown")]
    OutcomeUnknown,
    /// This node has not applied the wanted index before the deadline.
    #[error("this node lags behind")]
    Lagging,
    /// This node is stopping.
    #[error("shutting down")]
    ShuttingDown,
    /// This node cannot go on.
    #[error("fatal: {0}")]
    Fatal(String),
}

/// The replicated log as services see it. Two implementations: consensus, and one in memory for tests.
#[async_trait]
pub trait MetadataLog: Send + Sync + 'static {
    /// Returns once the command is applied **here**, so that a following [`MetadataLog::read`] sees it.
    /// Rejections are responses, not errors. Applied at most once. `subject` is written to the history.
    async fn propose(
        &self,
        command: Command,
        subject: &str,
        deadline: Instant,
    ) -> Result<Outcome, LogError>;

    /// After this returns, [`MetadataLog::read`] shows everything acknowledged before it was called
    /// (read index, batched over concurrent callers). Returns the index waited for.
    async fn barrier(&self, deadline: Instant) -> Result<LogIndex, LogError>;

    /// Waits until this node has applied `index`.
    async fn wait_applied(&self, index: LogIndex, deadline: Instant) -> Result<(), LogError>;

    /// Runs `reader` over one consistent view of what this node has applied.
    fn read(
        &self,
        reader: &mut dyn FnMut(&dyn MetadataView) -> Result<(), ViewError>,
    ) -> Result<(), ViewError>;

    /// This node.
    fn node_id(&self) -> NodeId;

    /// A hint for workers; safety never depends on it.
    fn is_leader(&self) -> bool;

    /// On the leader: how long ago `node` answered it. `None` on every other node, and when it has not answered this
    /// leader yet.
    fn silence(&self, _node: NodeId) -> Option<Duration> {
        None
    }
}

/// [`MetadataLog::read`] with a result.
pub fn read<T>(
    log: &dyn MetadataLog,
    reader: impl FnOnce(&dyn MetadataView) -> Result<T, ViewError>,
) -> Result<T, ViewError> {
    let mut reader = Some(reader);
    let mut result = None;
    log.read(&mut |view| {
        if let Some(reader) = reader.take() {
            result = Some(reader(view)?);
        }
        Ok(())
    })?;
    result.ok_or_else(|| ViewError("the reader was not run".into()))
}
