//! What a request can end with. The fronts map these to HTTP and gRPC; nothing here knows either.

use metadata::ids::LogIndex;
use metadata::log::LogError;
use oci::{Digest, ParseError};

/// Why a registry operation failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The repository does not exist.
    #[error("the repository is unknown")]
    RepositoryUnknown,
    /// The repository does not have the blob.
    #[error("the blob {0} is unknown to the repository")]
    BlobUnknown(Digest),
    /// The repository does not have the manifest or tag.
    #[error("the manifest {reference} is unknown to the repository")]
    ManifestUnknown {
        /// Tag or digest, as asked for.
        reference: String,
    },
    /// The upload session does not exist, is finished, or belongs to another repository.
    #[error("the upload is unknown")]
    UploadUnknown,
    /// A chunk does not start where the upload stands.
    #[error("the chunk does not start at offset {offset_bytes}")]
    RangeInvalid {
        /// Where it stands.
        offset_bytes: u64,
    },
    /// A body is not as long as its headers say.
    #[error("the length of the body is not what its headers say")]
    SizeInvalid {
        /// Where the upload stands.
        offset_bytes: u64,
    },
    /// The content does not hash to the digest.
    #[error("the content does not match the digest")]
    DigestInvalid,
    /// The body ended before its announced length; what arrived is kept.
    #[error("the request body ended early")]
    BodyInterrupted,
    /// The manifest cannot be accepted.
    #[error("the manifest is invalid: {0}")]
    ManifestInvalid(ParseError),
    /// The manifest is larger than the limit.
    #[error("the manifest is larger than {limit_bytes} bytes")]
    ManifestTooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// Blobs or manifests named by a manifest are not in the repository.
    #[error("the manifest names content that the repository does not have")]
    ReferencesUnknown(Vec<Digest>),
    /// A descriptor claims a wrong size.
    #[error("the size of {digest} is {actual_bytes} bytes, the manifest says {claimed_bytes}")]
    ReferenceSizeInvalid {
        /// Which content.
        digest: Digest,
        /// What the manifest says.
        claimed_bytes: u64,
        /// What is stored.
        actual_bytes: u64,
    },
    /// A manifest of the repository names the blob.
    #[error("the blob is named by manifest {manifest}")]
    BlobReferenced {
        /// One such manifest.
        manifest: Digest,
    },
    /// `If-Match` or `If-None-Match` did not hold.
    #[error("the precondition failed")]
    PreconditionFailed {
        /// Where the tag points now.
        current: Option<Digest>,
        /// The log index at which that was decided.
        revision: LogIndex,
    },
    /// Deletes are switched off.
    #[error("deleting is switched off")]
    DeletesDisabled,
    /// Too much at once; the client may retry.
    #[error("too many requests")]
    Overloaded,
    /// No space is left on enough nodes.
    #[error("no space left")]
    NoSpace,
    /// Fewer nodes than W took the bytes in time; the client may retry.
    #[error("{reached} of {wanted} copies became durable")]
    TooFewCopies {
        /// Durable copies.
        reached: u32,
        /// W.
        wanted: u32,
    },
    /// The node that owns the upload is unreachable; the client may retry or start anew.
    #[error("the node that holds the upload is unreachable")]
    OwnerUnreachable,
    /// The log could not decide; the client may retry.
    #[error("the cluster is unavailable: {0}")]
    Unavailable(#[source] LogError),
    /// Content that is acknowledged could not be read now.
    #[error("no holder of {0} is reachable")]
    ContentUnavailable(Digest),
    /// A failure of this node. The text is for the log only.
    #[error("internal: {0}")]
    Internal(String),
}
