//! What a request can end with. The fronts map these to HTTP and gRPC; nothing here knows either.

use metadata::log::LogError;
use metadata::response::Rejection;
use metadata::view::ViewError;
use oci::{Digest, ParseError, Reference};
use replication::error::ReplicationError;
use storage::error::BlobError;

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
    /// The blob is larger than the limit; its upload is over.
    #[error("the blob is larger than {limit_bytes} bytes")]
    BlobTooLarge {
        /// The limit.
        limit_bytes: u64,
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
    },
    /// Pushes and deletes are switched off.
    #[error("the registry is read-only")]
    ReadOnly,
    /// Deletes are switched off.
    #[error("deleting is switched off")]
    DeletesDisabled,
    /// Too much at once; the client may retry.
    #[error("too many requests")]
    Overloaded,
    /// The blob directory of this node takes no writes; other nodes take the upload.
    #[error("this node takes no uploads: its blob directory is failing or read-only")]
    Unwritable,
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

/// What a command was about, for refusals that do not repeat it.
pub(crate) enum About<'a> {
    /// A blob of a repository.
    Blob(&'a Digest),
    /// A manifest or a tag, as the client named it.
    Manifest(&'a Reference),
    /// Tickets, holders: nothing a client named.
    Upkeep,
}

/// What the refusal of a command means to the client who caused it.
pub(crate) fn refused(rejection: Rejection, about: &About<'_>) -> RegistryError {
    match rejection {
        Rejection::RepositoryUnknown => match about {
            // A blob is looked up by its digest; that its repository is missing too tells the client nothing new.
            About::Blob(digest) => RegistryError::BlobUnknown(**digest),
            About::Manifest(_) | About::Upkeep => RegistryError::RepositoryUnknown,
        },
        Rejection::BlobUnknown => match about {
            About::Blob(digest) => RegistryError::BlobUnknown(**digest),
            About::Manifest(_) | About::Upkeep => unexpected(&rejection),
        },
        Rejection::ManifestUnknown | Rejection::TagUnknown => match about {
            About::Manifest(reference) => RegistryError::ManifestUnknown {
                reference: reference.to_string(),
            },
            About::Blob(_) | About::Upkeep => unexpected(&rejection),
        },
        Rejection::ReferencesUnknown(digests) => RegistryError::ReferencesUnknown(digests),
        Rejection::SizeMismatch {
            digest,
            claimed_bytes,
            actual_bytes,
        } => RegistryError::ReferenceSizeInvalid {
            digest,
            claimed_bytes,
            actual_bytes,
        },
        Rejection::BlobReferenced { manifest } => RegistryError::BlobReferenced { manifest },
        Rejection::PreconditionFailed { current } => RegistryError::PreconditionFailed { current },
        Rejection::TicketClosed(_) => RegistryError::UploadUnknown,
        Rejection::TooFewCopies { reached, wanted } => {
            RegistryError::TooFewCopies { reached, wanted }
        }
        // The request was sent to the log for longer than answers are remembered: it may have been applied.
        Rejection::RequestTooOld => RegistryError::Unavailable(LogError::OutcomeUnknown),
        Rejection::NotInitialized => RegistryError::Unavailable(LogError::NoLeader),
        // This node is not registered yet, so it cannot hold anything; it may be in a moment.
        Rejection::NodeUnknown(_) => RegistryError::Unavailable(LogError::Lagging),
        // What a removed node is asked for, others do.
        Rejection::NodeRemoved(_) => RegistryError::Unavailable(LogError::ShuttingDown),
        Rejection::AlreadyInitialized
        | Rejection::DiskMismatch(_)
        | Rejection::NodeNotUp(_)
        | Rejection::NodeHoldsCopies(_)
        | Rejection::NotAHolder(_)
        | Rejection::OutOfBounds
        // Only operators and the cluster itself cause these.
        | Rejection::StaleEpoch { .. }
        | Rejection::GcPaused
        | Rejection::NotDeleted => unexpected(&rejection),
    }
}

fn unexpected(rejection: &Rejection) -> RegistryError {
    RegistryError::Internal(format!("the log refused: {rejection}"))
}

/// The log gave no answer. None of its reasons is the client's fault, and each may pass.
pub(crate) fn no_answer(error: LogError) -> RegistryError {
    RegistryError::Unavailable(error)
}

/// The state could not be read.
pub(crate) fn unreadable(error: ViewError) -> RegistryError {
    RegistryError::Internal(error.to_string())
}

/// The blob store of this node could not take or keep bytes.
pub(crate) fn not_stored(error: BlobError) -> RegistryError {
    match error {
        BlobError::NoSpace => RegistryError::NoSpace,
        BlobError::DigestMismatch { .. } => RegistryError::DigestInvalid,
        // An earlier request to the same upload is still ending.
        BlobError::InUse { .. } => RegistryError::Overloaded,
        error if error.is_failing_disk() => {
            tracing::error!(%error, "the blob directory does not take bytes");
            RegistryError::Unwritable
        }
        BlobError::Io { .. }
        | BlobError::Corrupt { .. }
        | BlobError::Gone
        | BlobError::View(_)
        | BlobError::Failed
        | BlobError::Index(_) => RegistryError::Internal(error.to_string()),
    }
}

/// Copies could not be made.
pub(crate) fn not_copied(error: ReplicationError) -> RegistryError {
    match error {
        ReplicationError::TooFewCopies { reached, wanted } => {
            RegistryError::TooFewCopies { reached, wanted }
        }
        ReplicationError::NoSource(digest) | ReplicationError::Interrupted(digest) => {
            RegistryError::ContentUnavailable(digest)
        }
        ReplicationError::State(error) => unreadable(error),
        ReplicationError::Local(error) => not_stored(error),
        ReplicationError::ShuttingDown => RegistryError::Unavailable(LogError::ShuttingDown),
    }
}
