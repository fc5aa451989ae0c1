//! What garbage collection and restoring can end with.

use metadata::log::LogError;
use metadata::response::{Rejection, Response};
use metadata::view::ViewError;
use storage::error::BlobError;

/// Why a round, or what an operator asked for, did not happen.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// Rounds happen on the leader only.
    #[error("this node does not lead the cluster")]
    NotLeader,
    /// An operator or the verifier paused garbage collection.
    #[error("garbage collection is paused: {0}")]
    Paused(String),
    /// As many rounds wait as may.
    #[error("too many rounds are asked for at once")]
    Busy,
    /// The log refused.
    #[error("{0}")]
    Refused(Rejection),
    /// The log gave no answer.
    #[error("the cluster is unavailable: {0}")]
    Unavailable(#[source] LogError),
    /// The state could not be read.
    #[error(transparent)]
    Unreadable(#[from] ViewError),
    /// The blobs of this node could not be looked at.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The log answered something else than was asked.
    #[error("unexpected answer of the log: {0:?}")]
    Unexpected(Box<Response>),
    /// This node stops.
    #[error("shutting down")]
    Stopping,
}
