//! The values of the key space. What a key says is not repeated in its value.

use std::collections::BTreeMap;

use bytes::Bytes;
use oci::{Digest, MediaType, RepositoryName, Tag};

use crate::command::{NodeState, TicketKind};
use crate::ids::{LogIndex, LogTime, NodeId, RepositoryId, Timestamp};
use crate::response::Outcome;

/// What is true for the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRecord {
    /// Random name of this cluster.
    pub cluster_id: String,
    /// Signs upload ids on every node.
    pub upload_key: Bytes,
    /// Copies a blob converges to (R).
    pub copies: u32,
    /// Copies that must be durable before a push is acknowledged (W).
    pub write_copies: u32,
}

/// Log time and the number of ticks it is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeRecord {
    /// Now.
    pub now: LogTime,
    /// Counts the ticks applied.
    pub sequence: u64,
}

/// Running totals, so that a status needs no scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TotalsRecord {
    /// Repositories.
    pub repositories: u64,
    /// Tags.
    pub tags: u64,
    /// Manifests, counted once per repository.
    pub manifests: u64,
    /// Their lengths.
    pub manifest_bytes: u64,
    /// Blobs, condemned ones included.
    pub blobs: u64,
    /// Their lengths, each blob once, however many copies it has.
    pub blob_bytes: u64,
    /// Deleted manifests that can be restored.
    pub deleted_manifests: u64,
    /// Their lengths.
    pub deleted_manifest_bytes: u64,
}

/// When something last changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RevisionRecord {
    /// The entry that changed it.
    pub changed_at: LogIndex,
}

/// A registered node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Which node (from the key).
    pub node: NodeId,
    /// `host:port` of its HTTP front.
    pub http_address: String,
    /// `host:port` of its gRPC services.
    pub grpc_address: String,
    /// Random name of its data directory.
    pub disk_id: String,
    /// The entry that registered it first.
    pub registered_at: LogIndex,
    /// What its copies are worth.
    pub state: NodeState,
    /// Since when.
    pub state_since: LogTime,
}

/// A repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepositoryRecord {
    /// Its number in all other keys.
    pub id: RepositoryId,
}

/// A repository as its id finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryStateRecord {
    /// Its name.
    pub name: RepositoryName,
    /// Since when it has had no link and no manifest, deleted ones included. A repository that got content again
    /// keeps the time until garbage collection looks at it.
    pub empty_since: Option<LogTime>,
}

/// A manifest without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestRecord {
    /// Served as Content-Type.
    pub media_type: MediaType,
    /// Length of the body.
    pub size_bytes: u64,
    /// The manifest this one refers to; it need not exist.
    pub subject: Option<Digest>,
    /// Whether it is an image index (or Docker manifest list).
    pub is_index: bool,
    /// The entry that stored it.
    pub pushed_at: LogIndex,
    /// Set while no tag points to it, no index that exists or can be restored names it, and it has no subject that
    /// exists or can be restored.
    pub unneeded_since: Option<LogTime>,
    /// Whether it was pushed as one whose child manifests need not be there; they need not be when it is restored.
    pub allows_missing_manifests: bool,
}

/// A deleted manifest that can be restored. Its body and references stay where they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedManifestRecord {
    /// As it was; needed by nothing.
    pub manifest: ManifestRecord,
    /// How it was listed, when it has a subject.
    pub referrer: Option<Referrer>,
    /// The tags that pointed to it, ascending.
    pub tags: Vec<Tag>,
    /// When it was deleted.
    pub deleted_at: LogTime,
    /// The entry that deleted it.
    pub deleted_index: LogIndex,
    /// Why.
    pub reason: DeleteReason,
}

/// Why a manifest was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeleteReason {
    /// It was asked for.
    Asked {
        /// By whom, as the history of tags names it; empty: anonymous.
        by: String,
    },
    /// Garbage collection: no tag, index or subject needed it.
    Unneeded {
        /// Since when.
        since: LogTime,
    },
}

/// A manifest that can no longer be restored, remembered for a while. Its repository may be gone, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgedManifestRecord {
    /// Where it was.
    pub repository: RepositoryName,
    /// Its length.
    pub size_bytes: u64,
    /// The manifest it referred to.
    pub subject: Option<Digest>,
    /// The first tags that pointed to it when it was deleted, ascending.
    pub tags: Vec<Tag>,
    /// How many more there were.
    pub more_tags: u64,
    /// When it was deleted.
    pub deleted_at: LogTime,
    /// The entry that deleted it.
    pub deleted_index: LogIndex,
    /// Why.
    pub reason: DeleteReason,
    /// When it was purged.
    pub purged_at: LogTime,
    /// The entry that purged it.
    pub purged_index: LogIndex,
}

/// What a manifest names, kept so that its edges can be removed without its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReferencesRecord {
    /// Blobs, in the order of the manifest.
    pub blobs: Vec<Digest>,
    /// Child manifests, in the order of the manifest.
    pub manifests: Vec<Digest>,
}

impl ReferencesRecord {
    /// Blobs, then child manifests.
    pub fn all(&self) -> impl Iterator<Item = &Digest> {
        self.blobs.iter().chain(&self.manifests)
    }

    /// Everything it names, once, and as what: what is named as both is needed as a blob.
    pub(crate) fn edges(&self) -> BTreeMap<Digest, EdgeKind> {
        let children = self.manifests.iter().map(|child| (*child, EdgeKind::Child));
        let blobs = self.blobs.iter().map(|blob| (*blob, EdgeKind::Blob));
        children.chain(blobs).collect()
    }
}

/// What a manifest names something as: the value of an edge, so that nobody must read the manifest's references.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EdgeKind {
    /// A blob.
    Blob,
    /// A child manifest, which is no need of the blob of the same digest.
    Child,
}

impl EdgeKind {
    /// As it is stored.
    pub(crate) fn encode(self) -> Vec<u8> {
        vec![match self {
            EdgeKind::Blob => 1,
            EdgeKind::Child => 2,
        }]
    }

    /// As it was stored; `None` for anything else.
    pub(crate) fn decode(value: &[u8]) -> Option<EdgeKind> {
        match value {
            [1] => Some(EdgeKind::Blob),
            [2] => Some(EdgeKind::Child),
            _ => None,
        }
    }
}

/// Where a tag points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagRecord {
    /// The manifest.
    pub digest: Digest,
    /// The entry that moved the tag there.
    pub index: LogIndex,
}

/// One change of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagChange {
    /// The entry that made it (from the key).
    pub index: LogIndex,
    /// Where the tag pointed from then on; `None` when it was deleted.
    pub digest: Option<Digest>,
    /// The proposer's clock.
    pub proposed_at: Timestamp,
    /// Who asked.
    pub subject: String,
    /// Counts the changes of the tag, those no longer remembered included; the first is 1.
    pub number: u64,
}

/// A manifest with a subject, as listed by the referrers API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// The referring manifest (from the key).
    pub digest: Digest,
    /// Its media type.
    pub media_type: MediaType,
    /// Its length.
    pub size_bytes: u64,
    /// Its effective artifact type.
    pub artifact_type: Option<MediaType>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A blob, whichever repositories link it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRecord {
    /// Its length.
    pub size_bytes: u64,
    /// Nodes with a counted copy, ascending.
    pub holders: Vec<NodeId>,
    /// Set while no repository links it.
    pub unlinked_since: Option<LogTime>,
    /// Set while it is condemned; only an unlinked blob can be (protocols.md section 5).
    pub condemned_since: Option<LogTime>,
}

/// A blob known in a repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkRecord {
    /// Set while no manifest of the repository names the blob, deleted ones that can be restored included.
    pub unreferenced_since: Option<LogTime>,
    /// When a client last pushed, mounted or touched it, or the last live manifest let go of it while a deleted one
    /// still names it. When that one is purged, the grace counts from here or from its delete.
    pub touched_at: LogTime,
}

/// An open ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TicketRecord {
    /// What it protects.
    pub kind: TicketKind,
    /// Whose bytes it protects.
    pub node: NodeId,
    /// When it closes by itself.
    pub expires_at: LogTime,
    /// How many more placements may be counted under it.
    pub uses: u32,
}

/// What is known of one run of one node's process (protocols.md section 3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionRecord {
    /// When it is reviewed next, unless it is used before.
    pub due_at: LogTime,
    /// Requests up to this one are too old, whether an answer is remembered or not.
    pub floor: u64,
    /// The answers were forgotten; only the floor is left.
    pub is_retired: bool,
}

/// The remembered answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerRecord {
    /// Which request of its session.
    pub sequence: u64,
    /// What was answered.
    pub outcome: Outcome,
}

/// Garbage collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcRecord {
    /// Steps of another epoch are refused.
    pub epoch: u64,
    /// Why it is paused; `None` while it runs.
    pub paused: Option<String>,
    /// What was ever collected.
    pub collected: Collected,
}

/// What garbage collection ever collected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Links removed because no manifest needed them.
    pub links: u64,
    /// Blobs deleted.
    pub blobs: u64,
    /// Their lengths, each blob once.
    pub blob_bytes: u64,
    /// Their lengths, each counted copy.
    pub copy_bytes: u64,
    /// Manifests purged, whoever deleted them.
    pub manifests: u64,
    /// Repositories without content removed.
    pub repositories: u64,
}

/// A subject appeared or vanished: its referrers are reviewed in pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReferrerReviewRecord {
    /// The last one reviewed.
    pub after: Option<Digest>,
}

/// The blobs that exactly the nodes in the key hold, condemned ones left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HolderSetRecord {
    /// How many; none are not recorded.
    pub blobs: u64,
    /// Their sizes, each blob once.
    pub bytes: u64,
}

/// A blob that garbage collection deleted, remembered for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeletedBlobRecord {
    /// Its length.
    pub size_bytes: u64,
    /// When it was deleted.
    pub deleted_at: LogTime,
    /// The entry that deleted it.
    pub deleted_index: LogIndex,
}
