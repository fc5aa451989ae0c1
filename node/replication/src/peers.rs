//! Other nodes, as the replication of blobs sees them.

use std::pin::Pin;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use metadata::ids::{NodeId, TicketId};
use oci::{Algorithm, ContentRange, Digest, RepositoryName};
use storage::blob::StagedReader;
use tokio::sync::watch;

use crate::error::PeerError;

/// Bytes of a request body or of a fetched blob.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, PeerError>> + Send>>;

/// How a push ends: known once the client has named the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushEnd {
    /// What the bytes must hash to on the peer.
    pub digest: Digest,
    /// How many they are.
    pub size_bytes: u64,
    /// Pinned by the peer before it answers.
    pub ticket: TicketId,
}

/// A blob on its way from a peer.
pub struct Fetched {
    /// Length of the whole blob.
    pub size_bytes: u64,
    /// The bytes from the requested offset on; the peer verified each chunk before it sent it.
    pub bytes: ByteStream,
}

/// A chunk of an upload, as the client sent it.
pub struct UploadChunk {
    /// Where the client says it belongs.
    pub range: Option<ContentRange>,
    /// How long the client says it is.
    pub length_bytes: Option<u64>,
    /// Its bytes.
    pub bytes: ByteStream,
}

/// What the owner of an upload session answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadAnswer {
    /// The session goes on; bytes `0..offset_bytes` have arrived.
    Open {
        /// Bytes that have arrived.
        offset_bytes: u64,
    },
    /// The blob is committed.
    Finished {
        /// Its length.
        size_bytes: u64,
        /// The log index that made it visible.
        revision: u64,
    },
    /// The session is cancelled.
    Cancelled,
    /// No such session.
    Unknown,
    /// The chunk does not start where the session stands.
    OutOfOrder {
        /// Where it stands.
        offset_bytes: u64,
    },
    /// The length of the body is not what its headers say.
    SizeMismatch {
        /// Where the session stands.
        offset_bytes: u64,
    },
    /// The bytes have another digest.
    DigestMismatch,
    /// The client's body ended early; what arrived is kept.
    BodyInterrupted,
    /// Another request is writing to the session.
    Busy {
        /// Where it stands.
        offset_bytes: u64,
    },
    /// No space is left.
    NoSpace,
    /// The owner has as many uploads as it takes; the client may retry.
    Overloaded,
    /// The owner refuses pushes.
    ReadOnly,
    /// The blob is larger than the owner takes; its session is over.
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The session cannot go on now (no quorum, too few copies); the client may retry.
    Unavailable {
        /// For the log; clients see only the kind.
        reason: String,
    },
}

/// A request to an upload session on the node that owns it.
pub struct UploadRequest {
    /// The opaque upload id of the URL; the owner verifies it.
    pub upload: String,
    /// The repository of the URL.
    pub repository: RepositoryName,
    /// Who asks.
    pub subject: String,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// What to do.
    pub action: UploadAction,
}

/// What can be done to an upload session.
pub enum UploadAction {
    /// Append a chunk (PATCH).
    Append(UploadChunk),
    /// Tell the offset (GET).
    Status,
    /// Throw it away (DELETE).
    Cancel,
    /// Append the last chunk and commit under this digest (PUT).
    Finish(Digest, UploadChunk),
}

/// Round-trip times and reachability are measured on the way. Two implementations: gRPC and in-process.
#[async_trait]
pub trait BlobPeers: Send + Sync + 'static {
    /// Streams `source` to `node` while it grows; when `end` becomes `Some`, the peer verifies, makes the blob
    /// durable and pins it. Returns once that is done. Dropping the sender of `end` abandons the push. A broken
    /// stream is resumed from where the peer stands.
    async fn push(
        &self,
        node: NodeId,
        source: StagedReader,
        algorithm: Algorithm,
        end: watch::Receiver<Option<PushEnd>>,
    ) -> Result<(), PeerError>;

    /// Pushes a small blob whole, in one message.
    async fn push_small(&self, node: NodeId, end: PushEnd, body: Bytes) -> Result<(), PeerError>;

    /// Pins a blob that `node` already has; false when it does not have it.
    async fn pin(&self, node: NodeId, digest: &Digest, ticket: TicketId)
    -> Result<bool, PeerError>;

    /// Reads a blob from `node`, from `offset_bytes` on.
    async fn fetch(
        &self,
        node: NodeId,
        digest: &Digest,
        offset_bytes: u64,
    ) -> Result<Fetched, PeerError>;

    /// Asks the owner of an upload session.
    async fn upload(&self, node: NodeId, request: UploadRequest)
    -> Result<UploadAnswer, PeerError>;

    /// Smoothed round-trip time in microseconds; `None` while the node is unreachable or was never tried.
    fn round_trip_us(&self, node: NodeId) -> Option<u64>;

    /// Whether a node, this one or another, serves clients now, as far as is known.
    fn serves_clients(&self, node: NodeId) -> bool;

    /// Nodes that answered lately (or were never tried), this one excluded.
    fn reachable(&self) -> Vec<NodeId>;
}
