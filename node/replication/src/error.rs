//! What can go wrong between nodes.

use metadata::ids::NodeId;
use metadata::view::ViewError;
use oci::Digest;
use storage::error::BlobError;

/// A failed exchange with one peer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// It could not be reached, or the connection broke.
    #[error("node {node} is unreachable: {reason}")]
    Unreachable {
        /// Which peer.
        node: NodeId,
        /// What the transport said.
        reason: String,
    },
    /// Its address is not known.
    #[error("node {0} has no known address")]
    UnknownNode(NodeId),
    /// It does not hold the blob.
    #[error("node {node} does not hold {digest}")]
    Absent {
        /// Which peer.
        node: NodeId,
        /// Which blob.
        digest: Digest,
    },
    /// It refused the bytes or failed to store them.
    #[error("node {node} refused: {reason}")]
    Refused {
        /// Which peer.
        node: NodeId,
        /// What it said.
        reason: String,
    },
    /// The client's own body failed on the way through.
    #[error("the request body ended early")]
    BodyInterrupted,
    /// The source of a push failed on this node.
    #[error(transparent)]
    Source(#[from] BlobError),
    /// The deadline passed.
    #[error("node {0} did not answer in time")]
    Timeout(NodeId),
    /// The push was abandoned.
    #[error("abandoned")]
    Abandoned,
}

/// A failed replication as a whole.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// Fewer copies than W became durable in time.
    #[error("{reached} of {wanted} copies became durable")]
    TooFewCopies {
        /// Durable copies, this node included.
        reached: u32,
        /// W.
        wanted: u32,
    },
    /// No holder could deliver the blob.
    #[error("no holder could deliver {0}")]
    NoSource(Digest),
    /// The transfer of a blob failed on this node; the log says how.
    #[error("the transfer of {0} was interrupted on this node")]
    Interrupted(Digest),
    /// The local store failed.
    #[error(transparent)]
    Local(#[from] BlobError),
    /// The replicated state could not be read.
    #[error(transparent)]
    State(#[from] ViewError),
    /// The node is stopping.
    #[error("shutting down")]
    ShuttingDown,
}
