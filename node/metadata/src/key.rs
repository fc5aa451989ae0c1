//! The key space: one ordered map, every key a table byte and binary parts.
//!
//! Numbers are big-endian, so that they sort; a digest is its algorithm byte and raw value, which tells where it
//! ends; text comes last in its key, or behind its length. Nothing is joined with separators, and repositories
//! are numbers everywhere but in their own table, so no name can disturb a scan for another.
//!
//! The layout is part of the disk format: table bytes and orders of parts never change (golden tests below).

use oci::{Digest, RepositoryName, Tag};

use crate::ids::{LogIndex, LogTime, NodeId, RepositoryId, TicketId};

mod gc;
mod reader;

pub use gc::{
    copies_from, deleted_at, deleted_blob, deleted_blob_at, deleted_edge, deleted_edges_of,
    deleted_manifest, empty_repository, of_digest, purged_manifest, purged_manifest_at,
    referrer_review, removed_repository, repository_state, unneeded_manifest,
};
pub use reader::Reader;

/// The tables, by their first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// The one `Cluster` record.
    Cluster = 0x01,
    /// The one `Time` record.
    Time = 0x02,
    /// The one `Totals` record.
    Totals = 0x03,
    /// node -> `Node`.
    Node = 0x04,
    /// The one `Revision` of the catalog: when it last got or lost a name.
    Catalog = 0x05,
    /// The one `Gc` record.
    Gc = 0x06,
    /// node -> `Revision`: nodes that were removed, and when.
    RemovedNode = 0x07,
    /// name -> `Repository`. In byte order of the names.
    Repository = 0x10,
    /// repository, digest -> `Manifest`.
    Manifest = 0x11,
    /// repository, digest -> the bytes pushed. Apart from the record, because a HEAD must not read them.
    ManifestBody = 0x12,
    /// repository, digest -> `References`.
    References = 0x13,
    /// repository, tag -> `Tag`. In byte order of the tags.
    Tag = 0x14,
    /// repository, digest, tag -> nothing: which tags point to a manifest.
    TagOf = 0x15,
    /// repository, length of tag, tag, log index inverted -> `TagChange`. The newest change first.
    TagHistory = 0x16,
    /// repository, subject, manifest -> `Referrer`.
    Referrer = 0x17,
    /// repository -> `Revision`: when its list of tags last got or lost a name.
    TagList = 0x18,
    /// repository -> `RepositoryState`: the inverse of `Repository`, and whether there is anything in it.
    RepositoryState = 0x19,
    /// repository, digest -> `DeletedManifest`. Body and references stay in their tables, so that deleting and
    /// restoring move no bytes; only the record decides what exists.
    DeletedManifest = 0x1a,
    /// repository -> nothing: removed ones whose tag history is not cleared yet.
    RemovedRepository = 0x1b,
    /// digest -> `Blob`.
    Blob = 0x20,
    /// repository, digest -> `Link`: which blobs a repository may serve.
    Link = 0x21,
    /// digest, repository -> nothing: the inverse of `Link`.
    LinkedBy = 0x22,
    /// digest, repository, manifest -> nothing: who names a blob or a child manifest.
    Edge = 0x23,
    /// node, digest -> nothing: the inverse of a blob's holders.
    Placement = 0x24,
    /// digest, repository, manifest -> nothing: which deleted manifest will name it again when restored.
    DeletedEdge = 0x26,
    /// digest -> `DeletedBlob`.
    DeletedBlob = 0x27,
    /// nodes, ascending -> `HolderSet`: how many blobs exactly these nodes hold. The number of copies that are missing
    /// follows from it, whichever nodes are down, without a look at any blob.
    HolderSet = 0x28,
    /// digest, repository -> `PurgedManifest`.
    PurgedManifest = 0x29,
    /// ticket -> `Ticket`. Only open tickets are here.
    Ticket = 0x30,
    /// log time, ticket -> nothing: when open tickets expire.
    TicketExpiry = 0x31,
    /// log time, repository, digest -> nothing: links that no manifest needs, since when.
    UnreferencedLink = 0x40,
    /// log time, digest -> nothing: blobs that no repository links, since when.
    UnlinkedBlob = 0x41,
    /// log time, digest -> nothing: condemned blobs, since when.
    CondemnedBlob = 0x42,
    /// copies, digest -> nothing: every blob that is not condemned, fewest copies first. Holding all of them
    /// and not only those below R makes a change of R a matter of one record.
    Copies = 0x43,
    /// log time, repository, digest -> nothing: deleted manifests, since when.
    DeletedAt = 0x44,
    /// log time, repository, digest -> nothing: manifests that nothing needs, since when.
    UnneededManifest = 0x45,
    /// log time, repository -> nothing: repositories that had no content, since when.
    EmptyRepository = 0x46,
    /// repository, subject -> `ReferrerReview`: subjects that appeared or vanished.
    ReferrerReview = 0x47,
    /// log index, digest -> nothing: deleted blobs by the entry that deleted them.
    DeletedBlobAt = 0x48,
    /// log index, digest, repository -> nothing: purged manifests by the entry that purged them.
    PurgedManifestAt = 0x49,
    /// node, boot -> `Session`.
    Session = 0x50,
    /// node, boot, slot -> `Answer`.
    Answer = 0x51,
    /// log time, node, boot -> nothing: when a session is due for review.
    SessionDue = 0x52,
}

impl Table {
    /// Every table, for checks that must not miss one.
    pub const ALL: [Table; 43] = [
        Table::Cluster,
        Table::Time,
        Table::Totals,
        Table::Node,
        Table::Catalog,
        Table::Gc,
        Table::RemovedNode,
        Table::Repository,
        Table::Manifest,
        Table::ManifestBody,
        Table::References,
        Table::Tag,
        Table::TagOf,
        Table::TagHistory,
        Table::Referrer,
        Table::TagList,
        Table::RepositoryState,
        Table::DeletedManifest,
        Table::RemovedRepository,
        Table::Blob,
        Table::Link,
        Table::LinkedBy,
        Table::Edge,
        Table::Placement,
        Table::DeletedEdge,
        Table::DeletedBlob,
        Table::HolderSet,
        Table::PurgedManifest,
        Table::Ticket,
        Table::TicketExpiry,
        Table::UnreferencedLink,
        Table::UnlinkedBlob,
        Table::CondemnedBlob,
        Table::Copies,
        Table::DeletedAt,
        Table::UnneededManifest,
        Table::EmptyRepository,
        Table::ReferrerReview,
        Table::DeletedBlobAt,
        Table::PurgedManifestAt,
        Table::Session,
        Table::Answer,
        Table::SessionDue,
    ];
}

/// Builds one key.
struct Writer(Vec<u8>);

impl Writer {
    fn new(table: Table) -> Writer {
        let mut bytes = Vec::with_capacity(64);
        bytes.push(table as u8);
        Writer(bytes)
    }

    fn number(mut self, number: u64) -> Writer {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn digest(mut self, digest: &Digest) -> Writer {
        self.0.extend_from_slice(&digest.to_key());
        self
    }

    fn text(mut self, text: &str) -> Writer {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// Text with its length in front, where something follows it.
    fn counted_text(mut self, text: &str) -> Writer {
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.text(text)
    }
}

/// All keys of a table.
pub fn table(table: Table) -> Vec<u8> {
    Writer::new(table).0
}

/// The only key of a table with one record.
pub fn single(table: Table) -> Vec<u8> {
    Writer::new(table).0
}

/// [`Table::Node`].
pub fn node(node: NodeId) -> Vec<u8> {
    Writer::new(Table::Node).number(node.0).0
}

/// [`Table::RemovedNode`].
pub fn removed_node(node: NodeId) -> Vec<u8> {
    Writer::new(Table::RemovedNode).number(node.0).0
}

/// [`Table::Repository`].
pub fn repository(name: &RepositoryName) -> Vec<u8> {
    repository_text(name.as_str())
}

/// [`Table::Repository`] for text that need not be a valid name: where a page of a listing starts.
pub fn repository_text(name: &str) -> Vec<u8> {
    Writer::new(Table::Repository).text(name).0
}

/// Every key of a table whose keys begin with a repository.
pub fn of_repository(table: Table, repository: RepositoryId) -> Vec<u8> {
    Writer::new(table).number(repository.0).0
}

/// [`Table::Manifest`].
pub fn manifest(repository: RepositoryId, digest: &Digest) -> Vec<u8> {
    Writer::new(Table::Manifest)
        .number(repository.0)
        .digest(digest)
        .0
}

/// [`Table::ManifestBody`].
pub fn manifest_body(repository: RepositoryId, digest: &Digest) -> Vec<u8> {
    Writer::new(Table::ManifestBody)
        .number(repository.0)
        .digest(digest)
        .0
}

/// [`Table::References`].
pub fn references(repository: RepositoryId, digest: &Digest) -> Vec<u8> {
    Writer::new(Table::References)
        .number(repository.0)
        .digest(digest)
        .0
}

/// [`Table::Tag`].
pub fn tag(repository: RepositoryId, tag: &Tag) -> Vec<u8> {
    tag_text(repository, tag.as_str())
}

/// [`Table::Tag`] for text that need not be a valid tag: where a page of a listing starts.
pub fn tag_text(repository: RepositoryId, tag: &str) -> Vec<u8> {
    Writer::new(Table::Tag).number(repository.0).text(tag).0
}

/// [`Table::TagOf`].
pub fn tag_of(repository: RepositoryId, digest: &Digest, tag: &Tag) -> Vec<u8> {
    Writer::new(Table::TagOf)
        .number(repository.0)
        .digest(digest)
        .text(tag.as_str())
        .0
}

/// The tags that point to one manifest.
pub fn tags_of(repository: RepositoryId, digest: &Digest) -> Vec<u8> {
    Writer::new(Table::TagOf)
        .number(repository.0)
        .digest(digest)
        .0
}

/// [`Table::TagHistory`].
pub fn tag_change(repository: RepositoryId, tag: &Tag, at: LogIndex) -> Vec<u8> {
    Writer::new(Table::TagHistory)
        .number(repository.0)
        .counted_text(tag.as_str())
        .number(!at.0)
        .0
}

/// The history of one tag.
pub fn tag_history(repository: RepositoryId, tag: &Tag) -> Vec<u8> {
    Writer::new(Table::TagHistory)
        .number(repository.0)
        .counted_text(tag.as_str())
        .0
}

/// [`Table::Referrer`].
pub fn referrer(repository: RepositoryId, subject: &Digest, manifest: &Digest) -> Vec<u8> {
    Writer::new(Table::Referrer)
        .number(repository.0)
        .digest(subject)
        .digest(manifest)
        .0
}

/// The referrers of one subject.
pub fn referrers(repository: RepositoryId, subject: &Digest) -> Vec<u8> {
    Writer::new(Table::Referrer)
        .number(repository.0)
        .digest(subject)
        .0
}

/// [`Table::Blob`].
pub fn blob(digest: &Digest) -> Vec<u8> {
    Writer::new(Table::Blob).digest(digest).0
}

/// [`Table::Link`].
pub fn link(repository: RepositoryId, digest: &Digest) -> Vec<u8> {
    Writer::new(Table::Link)
        .number(repository.0)
        .digest(digest)
        .0
}

/// [`Table::LinkedBy`].
pub fn linked_by(digest: &Digest, repository: RepositoryId) -> Vec<u8> {
    Writer::new(Table::LinkedBy)
        .digest(digest)
        .number(repository.0)
        .0
}

/// The repositories that link one blob.
pub fn links_of(digest: &Digest) -> Vec<u8> {
    Writer::new(Table::LinkedBy).digest(digest).0
}

/// [`Table::Edge`].
pub fn edge(digest: &Digest, repository: RepositoryId, manifest: &Digest) -> Vec<u8> {
    Writer::new(Table::Edge)
        .digest(digest)
        .number(repository.0)
        .digest(manifest)
        .0
}

/// The manifests of one repository that name a blob or child manifest.
pub fn edges_of(digest: &Digest, repository: RepositoryId) -> Vec<u8> {
    Writer::new(Table::Edge)
        .digest(digest)
        .number(repository.0)
        .0
}

/// [`Table::Placement`].
pub fn placement(node: NodeId, digest: &Digest) -> Vec<u8> {
    Writer::new(Table::Placement)
        .number(node.0)
        .digest(digest)
        .0
}

/// The blobs one node holds.
pub fn placements_of(node: NodeId) -> Vec<u8> {
    Writer::new(Table::Placement).number(node.0).0
}

/// [`Table::HolderSet`].
pub fn holder_set(nodes: &[NodeId]) -> Vec<u8> {
    let writer = Writer::new(Table::HolderSet);
    nodes
        .iter()
        .fold(writer, |writer, node| writer.number(node.0))
        .0
}

/// [`Table::Ticket`].
pub fn ticket(ticket: TicketId) -> Vec<u8> {
    Writer::new(Table::Ticket).number(ticket.as_u64()).0
}

/// [`Table::TicketExpiry`].
pub fn ticket_expiry(at: LogTime, ticket: TicketId) -> Vec<u8> {
    Writer::new(Table::TicketExpiry)
        .number(at.0)
        .number(ticket.as_u64())
        .0
}

/// [`Table::UnreferencedLink`].
pub fn unreferenced_link(since: LogTime, repository: RepositoryId, digest: &Digest) -> Vec<u8> {
    Writer::new(Table::UnreferencedLink)
        .number(since.0)
        .number(repository.0)
        .digest(digest)
        .0
}

/// [`Table::UnlinkedBlob`].
pub fn unlinked_blob(since: LogTime, digest: &Digest) -> Vec<u8> {
    Writer::new(Table::UnlinkedBlob)
        .number(since.0)
        .digest(digest)
        .0
}

/// [`Table::CondemnedBlob`].
pub fn condemned_blob(since: LogTime, digest: &Digest) -> Vec<u8> {
    Writer::new(Table::CondemnedBlob)
        .number(since.0)
        .digest(digest)
        .0
}

/// [`Table::Copies`].
pub fn copies(copies: u64, digest: &Digest) -> Vec<u8> {
    Writer::new(Table::Copies).number(copies).digest(digest).0
}

/// [`Table::Session`].
pub fn session(node: NodeId, boot: u64) -> Vec<u8> {
    Writer::new(Table::Session).number(node.0).number(boot).0
}

/// [`Table::Answer`].
pub fn answer(node: NodeId, boot: u64, slot: u64) -> Vec<u8> {
    Writer::new(Table::Answer)
        .number(node.0)
        .number(boot)
        .number(slot)
        .0
}

/// The remembered answers of one session.
pub fn answers_of(node: NodeId, boot: u64) -> Vec<u8> {
    Writer::new(Table::Answer).number(node.0).number(boot).0
}

/// [`Table::SessionDue`].
pub fn session_due(at: LogTime, node: NodeId, boot: u64) -> Vec<u8> {
    Writer::new(Table::SessionDue)
        .number(at.0)
        .number(node.0)
        .number(boot)
        .0
}

#[cfg(test)]
mod tests;
