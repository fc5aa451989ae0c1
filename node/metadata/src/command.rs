//! Everything that can be asked of the replicated state.
//!
//! A command carries all that `apply` needs: facts parsed from user content, chosen holders, wanted
//! preconditions. `apply` never parses, never asks a clock, and decides every precondition itself.

use bytes::Bytes;
use oci::{Descriptor, Digest, MediaType, RepositoryName, Tag};
use std::collections::BTreeMap;

use crate::ids::{LogIndex, LogTime, NodeId, RepositoryId, TicketId};

/// A change of the replicated state.
// Commands are handled one at a time: a box around the largest would only add an allocation.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// First command of every cluster.
    InitializeCluster(InitializeCluster),
    /// Sets how many copies blobs get.
    SetReplication(SetReplication),
    /// Makes a node known, or updates its addresses.
    RegisterNode(RegisterNode),
    /// Opens a block of tickets.
    OpenTickets(OpenTickets),
    /// Moves the deadline of open tickets.
    RenewTickets(RenewTickets),
    /// Closes tickets whose bytes are no longer in flight.
    CloseTickets(CloseTickets),
    /// Makes an uploaded blob visible in a repository.
    CommitBlob(CommitBlob),
    /// Links an existing blob into another repository.
    MountBlob(MountBlob),
    /// Restarts the grace of an unreferenced blob (protocols.md section 4, step 4).
    TouchBlob(TouchBlob),
    /// Removes a blob from a repository.
    UnlinkBlob(UnlinkBlob),
    /// Stores a manifest and moves tags to it.
    PutManifest(PutManifest),
    /// Removes a manifest and every tag that points to it.
    DeleteManifest(DeleteManifest),
    /// Removes a tag.
    DeleteTag(DeleteTag),
    /// Counts one more copy of a blob.
    AddPlacement(AddPlacement),
    /// Stops counting a surplus copy.
    DropPlacement(DropPlacement),
    /// Stops counting a copy that is gone or damaged.
    ReportLost(ReportLost),
    /// Advances log time.
    Tick(Tick),
    /// Moves what is due through the stages of garbage collection.
    GcStep(GcStep),
    /// Deletes condemned blobs: the last stage, which a verifier must have agreed to.
    DeleteBlobs(DeleteBlobs),
    /// Stops garbage collection; steps that are under way become stale.
    PauseGc(PauseGc),
    /// Lets garbage collection go on.
    ResumeGc,
    /// Deletes manifests that nothing needs.
    CollectManifests(CollectManifests),
    /// Brings a deleted manifest back.
    RestoreManifest(RestoreManifest),
    /// Brings a deleted tag back.
    RestoreTag(RestoreTag),
    /// Says whether a node's copies count.
    SetNodeState(SetNodeState),
    /// Forgets a node for good.
    RemoveNode(RemoveNode),
    /// Goes on under another name after the quorum was lost.
    RecoverCluster(RecoverCluster),
}

/// Fixes what is true for the life of a cluster. Accepted once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitializeCluster {
    /// Random name of this cluster (32 hexadecimal digits).
    pub cluster_id: String,
    /// Signs upload ids on every node (invariant I14). 32 random bytes.
    pub upload_key: Bytes,
    /// Copies a blob converges to (R).
    pub copies: u32,
    /// Copies that must be durable before a push is acknowledged (W).
    pub write_copies: u32,
}

/// Changes R and W.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetReplication {
    /// Copies a blob converges to (R).
    pub copies: u32,
    /// Copies that must be durable before a push is acknowledged (W).
    pub write_copies: u32,
}

/// Makes a node known. The same node may register again with new addresses, never with another disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterNode {
    /// Which node.
    pub node: NodeId,
    /// Where clients and other nodes reach its HTTP front, `host:port`.
    pub http_address: String,
    /// Where other nodes reach its gRPC services, `host:port`.
    pub grpc_address: String,
    /// Random name of its data directory: a wiped or copied disk has another one.
    pub disk_id: String,
}

/// What a ticket protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TicketKind {
    /// Bytes a client uploads.
    Upload,
    /// A further copy of a committed blob.
    Repair,
    /// Blobs of an archive being imported.
    Import,
}

/// Opens `count` tickets for a node: the ids are `TicketId::new(index of this entry, 0..count)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTickets {
    /// What they protect.
    pub kind: TicketKind,
    /// Whose bytes they protect.
    pub node: NodeId,
    /// 1 to `TICKETS_PER_ENTRY`.
    pub count: u32,
    /// Log time until they expire, in milliseconds.
    pub ttl_ms: u64,
}

/// Moves the deadline of open tickets to now + `ttl_ms`; closed ones stay closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewTickets {
    /// At most 4,096.
    pub tickets: Vec<TicketId>,
    /// Log time until they expire, in milliseconds.
    pub ttl_ms: u64,
}

/// Closes tickets; closing a closed one is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseTickets {
    /// At most 4,096.
    pub tickets: Vec<TicketId>,
}

/// Accepted while the ticket is open, the size agrees with what is known, and at least W distinct
/// registered nodes hold the blob. Closes the ticket and opens a repair ticket for stragglers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitBlob {
    /// The upload ticket under which the holders pinned the bytes.
    pub ticket: TicketId,
    /// Where the blob becomes visible; created when unknown.
    pub repository: RepositoryName,
    /// Its content.
    pub digest: Digest,
    /// Its length.
    pub size_bytes: u64,
    /// Nodes on which it is durable and pinned.
    pub holders: Vec<NodeId>,
    /// Nodes that still receive it; each may `AddPlacement` itself under the repair ticket.
    pub stragglers: u32,
}

/// Accepted when the source links the blob; without a source, when any repository does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountBlob {
    /// Source repository.
    pub from: Option<RepositoryName>,
    /// Target repository; created when unknown.
    pub repository: RepositoryName,
    /// Which blob.
    pub digest: Digest,
}

/// Accepted when the repository links the blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TouchBlob {
    /// Where.
    pub repository: RepositoryName,
    /// Which blob.
    pub digest: Digest,
}

/// Accepted when the repository links the blob and no manifest of it names the blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnlinkBlob {
    /// Where.
    pub repository: RepositoryName,
    /// Which blob.
    pub digest: Digest,
}

/// What must hold of every tag of a push, decided at apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// `If-Match: "<digest>"`: the tag points to one of these digests.
    Matches(Vec<Digest>),
    /// `If-Match: *`: the tag exists.
    Exists,
    /// `If-None-Match: *`: the tag does not exist.
    Absent,
}

/// What a manifest says, parsed by the proposer so that `apply` need not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestFacts {
    /// Whether it is an image index (or Docker manifest list).
    pub is_index: bool,
    /// Blobs that must be linked in the repository, without duplicates, in order.
    pub blobs: Vec<ManifestReference>,
    /// Child manifests that must exist in the repository, without duplicates, in order.
    pub manifests: Vec<ManifestReference>,
    /// The manifest this one refers to; it need not exist.
    pub subject: Option<Digest>,
    /// Effective artifact type (spec: `artifactType`, else the config's media type).
    pub artifact_type: Option<MediaType>,
    /// Annotations as listed to clients of the referrers API.
    pub annotations: BTreeMap<String, String>,
}

/// One blob or manifest named by a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestReference {
    /// Its content.
    pub digest: Digest,
    /// The length the descriptor claims.
    pub size_bytes: u64,
}

impl From<&Descriptor> for ManifestReference {
    fn from(descriptor: &Descriptor) -> Self {
        ManifestReference {
            digest: descriptor.digest,
            size_bytes: descriptor.size_bytes,
        }
    }
}

/// Accepted when every named blob is linked here with W copies, every child manifest is here (unless the command
/// allows gaps), and the precondition holds for every tag. All tags move, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutManifest {
    /// Where; created when unknown.
    pub repository: RepositoryName,
    /// Digest of `body`, in the algorithm the client chose.
    pub digest: Digest,
    /// Served as Content-Type.
    pub media_type: MediaType,
    /// The exact bytes pushed.
    pub body: Bytes,
    /// What the body says.
    pub facts: ManifestFacts,
    /// Tags to move, without duplicates.
    pub tags: Vec<Tag>,
    /// What must hold of each of them.
    pub precondition: Precondition,
    /// Whether child manifests may be missing. Carried by the command, because every node has to decide alike
    /// whatever its own configuration says.
    pub allows_missing_manifests: bool,
}

/// Accepted when the manifest exists. It can be restored until garbage collection purges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteManifest {
    /// Where.
    pub repository: RepositoryName,
    /// Which manifest.
    pub digest: Digest,
}

/// Accepted when the tag exists and the precondition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteTag {
    /// Where.
    pub repository: RepositoryName,
    /// Which tag.
    pub tag: Tag,
    /// What must hold of it.
    pub precondition: Precondition,
}

/// Accepted while the repair ticket is open, the node is up and the blob exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddPlacement {
    /// The repair ticket under which the node pinned the bytes.
    pub ticket: TicketId,
    /// The new holder.
    pub node: NodeId,
    /// Which blob.
    pub digest: Digest,
}

/// Accepted when at least R other copies remain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropPlacement {
    /// Whose copy.
    pub node: NodeId,
    /// Which blob.
    pub digest: Digest,
}

/// Accepted when the node is a holder, and either nothing is left of its copy or another copy on a node that is not
/// down is counted: the good chunks of a damaged copy may be all that is left of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportLost {
    /// Whose copy.
    pub node: NodeId,
    /// Which blob.
    pub digest: Digest,
    /// Nothing is left of it; otherwise it is damaged.
    pub is_gone: bool,
}

/// Advances log time by `elapsed_ms` (at most 20 s) when `previous_sequence` is still the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// The tick this one follows; anything else makes it a no-op, which kills duplicates.
    pub previous_sequence: u64,
    /// Monotonic time since the leader applied that tick, in milliseconds.
    pub elapsed_ms: u64,
}

/// How long things wait between the stages of garbage collection: log time, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcLimits {
    /// A link that no manifest needs, and a repository without content, before they are removed.
    pub grace_ms: u64,
    /// A blob that no repository links, before it is condemned.
    pub condemn_delay_ms: u64,
    /// A deleted manifest, before it can no longer be restored.
    pub undelete_ms: u64,
}

/// One bounded step of every stage but the last. Accepted when the epoch is the one in force and garbage collection
/// is not paused. What is due is decided at apply, so a step that is applied late or twice does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcStep {
    /// The epoch the proposer saw.
    pub epoch: u64,
    /// How long things wait.
    pub limits: GcLimits,
    /// At most this much work: 1 to `MAX_GC_BUDGET` items and references.
    pub budget: u32,
}

/// Deletes what passes the check at apply: condemned since then, quarantine over, no link, no manifest that names it.
/// Accepted as `GcStep` is; what does not pass is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteBlobs {
    /// The epoch the proposer saw.
    pub epoch: u64,
    /// How long a blob stays condemned: log time, in milliseconds.
    pub quarantine_ms: u64,
    /// At most `MAX_BLOBS_PER_COMMAND`.
    pub blobs: Vec<CondemnedBlob>,
}

/// A condemned blob as the proposer saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CondemnedBlob {
    /// Which blob.
    pub digest: Digest,
    /// A blob that was rescued and condemned again has another time.
    pub condemned_since: LogTime,
}

/// Stops garbage collection. Another reason replaces the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PauseGc {
    /// For people; at most `MAX_REASON_BYTES`.
    pub reason: String,
}

/// Deletes what passes the check at apply: unneeded since then, for at least `min_age_ms`, and still so. Accepted as
/// `GcStep` is. Whether a repository takes part is the proposer's affair. They can be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectManifests {
    /// The epoch the proposer saw.
    pub epoch: u64,
    /// How long a manifest was not needed: log time, in milliseconds.
    pub min_age_ms: u64,
    /// At most `MAX_MANIFESTS_PER_COMMAND`.
    pub manifests: Vec<UnneededManifest>,
}

/// A manifest without tag, index or subject, as the proposer saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnneededManifest {
    /// Where.
    pub repository: RepositoryId,
    /// Which manifest.
    pub digest: Digest,
    /// A manifest that was needed in between has another time.
    pub unneeded_since: LogTime,
}

/// Accepted when the manifest was deleted and not purged, every blob it names is linked and every child manifest is
/// there. Brings back the tags it had, but for those that exist now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreManifest {
    /// Where.
    pub repository: RepositoryName,
    /// Which manifest.
    pub digest: Digest,
}

/// Accepted when the history says where the tag pointed, and that manifest exists or can be restored, which is done
/// too. Without a revision, only a tag that does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreTag {
    /// Where.
    pub repository: RepositoryName,
    /// Which tag.
    pub tag: Tag,
    /// Where it pointed at this log index; `None` for where it pointed last.
    pub revision: Option<LogIndex>,
}

/// What a node's copies are worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeState {
    /// They count.
    #[default]
    Up,
    /// They do not count: the node was not heard of for too long.
    Down,
    /// They count for safety, not towards R: the node is about to leave and gets no new ones.
    Draining,
}

/// Accepted when the node is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetNodeState {
    /// Which node.
    pub node: NodeId,
    /// Its state from now on.
    pub state: NodeState,
}

/// Accepted when no copy is counted on the node, registered or not, and again when it was accepted before. The node never
/// registers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoveNode {
    /// Which node.
    pub node: NodeId,
}

/// Accepted when the survivor is registered. Every other node is down from then on: nobody knows what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoverCluster {
    /// A new random name (32 hexadecimal digits): what is left of the old cluster is another one.
    pub cluster_id: String,
    /// The node whose state and log go on.
    pub survivor: NodeId,
}
