//! What `apply` answers.

use oci::{Digest, Tag};

use crate::ids::{LogIndex, NodeId, RepositoryId, TicketId};

/// The outcome of a command that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Done; there is nothing more to say.
    Done,
    /// `OpenTickets`: the first of `count` consecutive tickets.
    TicketsOpened {
        /// First ticket.
        first: TicketId,
        /// How many.
        count: u32,
    },
    /// `CommitBlob`: the blob is visible.
    BlobCommitted {
        /// For nodes that receive their copy later; `None` when there are no stragglers.
        repair_ticket: Option<TicketId>,
    },
    /// `MountBlob`: the blob is visible in the target.
    BlobMounted {
        /// Its length.
        size_bytes: u64,
    },
    /// `PutManifest`: the manifest is visible and the tags point to it.
    ManifestPut,
    /// `GcStep`: what was done.
    GcStepped(GcStepped),
    /// `DeleteBlobs`: what passed the check.
    BlobsDeleted(BlobsDeleted),
    /// `CollectManifests`: what passed the check.
    ManifestsCollected(Vec<CollectedManifest>),
    /// `RestoreManifest`: the manifest is visible again.
    ManifestRestored {
        /// The tags that point to it again.
        tags: Vec<Tag>,
    },
    /// `RestoreTag`: the tag exists again.
    TagRestored {
        /// Where it points.
        digest: Digest,
        /// Whether the manifest had to be restored, too.
        is_manifest_restored: bool,
    },
    /// The command was refused and changed nothing.
    Rejected(Rejection),
}

/// What one step of garbage collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcStepped {
    /// Deleted manifests that can no longer be restored.
    pub purged_manifests: u64,
    /// Referrers reviewed because their subject appeared or vanished.
    pub reviewed_referrers: u64,
    /// Links that no manifest needed.
    pub removed_links: u64,
    /// Blobs that no repository links.
    pub condemned_blobs: u64,
    /// Repositories without content.
    pub removed_repositories: u64,
    /// The budget ended before the work did.
    pub is_more_due: bool,
}

/// Blobs that are gone from the state; each node unlinks its copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobsDeleted {
    /// Which, in the order of the command.
    pub digests: Vec<Digest>,
    /// Their lengths, each blob once.
    pub blob_bytes: u64,
    /// Their lengths, each counted copy: what is freed on the disks of the cluster.
    pub copy_bytes: u64,
}

/// A manifest deleted because nothing needed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectedManifest {
    /// Where.
    pub repository: RepositoryId,
    /// Which.
    pub digest: Digest,
}

/// Why a command was refused. Holds names and digests, never sentences: the edge writes those.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The cluster was initialised before.
    #[error("the cluster is already initialised")]
    AlreadyInitialized,
    /// No `InitializeCluster` was applied yet.
    #[error("the cluster is not initialised")]
    NotInitialized,
    /// The repository does not exist.
    #[error("repository unknown")]
    RepositoryUnknown,
    /// The repository does not link the blob.
    #[error("blob unknown")]
    BlobUnknown,
    /// The repository does not hold the manifest.
    #[error("manifest unknown")]
    ManifestUnknown,
    /// The repository has no such tag.
    #[error("tag unknown")]
    TagUnknown,
    /// Blobs or child manifests that the repository does not have, in the order of the manifest.
    #[error("the manifest names {} unknown blobs or manifests", .0.len())]
    ReferencesUnknown(Vec<Digest>),
    /// A descriptor claims another size than the blob has.
    #[error("the size of {digest} is {actual_bytes} bytes, not {claimed_bytes}")]
    SizeMismatch {
        /// Which blob.
        digest: Digest,
        /// What the descriptor says.
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
    /// A precondition did not hold.
    #[error("the precondition failed")]
    PreconditionFailed {
        /// Where the tag points now.
        current: Option<Digest>,
    },
    /// The ticket expired, was closed or never existed.
    #[error("ticket {0} is not open")]
    TicketClosed(TicketId),
    /// Fewer durable copies than W.
    #[error("{reached} of {wanted} copies")]
    TooFewCopies {
        /// Copies counted.
        reached: u32,
        /// W.
        wanted: u32,
    },
    /// The node was never registered.
    #[error("node {0} is unknown")]
    NodeUnknown(NodeId),
    /// The node is down or drains: it gets no new copies.
    #[error("node {0} is not up")]
    NodeNotUp(NodeId),
    /// The node cannot be forgotten while copies are counted on it.
    #[error("copies are counted on node {0}")]
    NodeHoldsCopies(NodeId),
    /// The node was removed. Its number is never used again.
    #[error("node {0} was removed")]
    NodeRemoved(NodeId),
    /// The node is registered with another disk.
    #[error("node {0} is registered with another disk")]
    DiskMismatch(NodeId),
    /// The node is no holder of the blob.
    #[error("node {0} holds no counted copy")]
    NotAHolder(NodeId),
    /// The counts cannot be fulfilled, or too many items were given.
    #[error("the command is out of bounds")]
    OutOfBounds,
    /// The request is older than the answers still remembered for its node.
    #[error("the request is too old to be repeated")]
    RequestTooOld,
    /// The step belongs to another epoch of garbage collection.
    #[error("garbage collection is in epoch {current}")]
    StaleEpoch {
        /// The one in force.
        current: u64,
    },
    /// Garbage collection is paused.
    #[error("garbage collection is paused")]
    GcPaused,
    /// What should be restored is there.
    #[error("it is not deleted")]
    NotDeleted,
}

/// A response and the log index that decided it: the revision clients see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Index of the entry. For a repeated request: of the entry that was applied first.
    pub index: LogIndex,
    /// What was decided.
    pub response: Response,
}
