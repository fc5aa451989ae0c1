//! Reads that services need, over any view.
//!
//! Pages are `after` (exclusive) and `limit`; lists of names are in plain byte order. A repository that does not
//! exist answers `None`, or an empty page where the specification asks for that.

use bytes::Bytes;
use oci::{Digest, MediaType, RepositoryName, Tag};

use crate::codec;
use crate::ids::{LogIndex, LogTime, NodeId, RepositoryId, TicketId};
use crate::key::{self, Reader, Table};
use crate::record::{
    LinkRecord, RepositoryRecord, RepositoryStateRecord, RevisionRecord, TimeRecord,
};
use crate::scan;
use crate::view::{MetadataView, ViewError};

mod copies;
mod explain;
mod gc;
mod lists;

pub use copies::{
    BlobCursor, Stats, SurplusBlobs, ThinBlobs, UnderReplicated, blobs_elsewhere, blobs_of_node,
    copies_on, is_referenced, lasting_copies, needed_copies_on, stats, surplus_blobs,
    under_replicated, under_replicated_of_node,
};
pub use explain::{Deletion, ExplainedLink, ExplainedManifest, Explanation, Naming, explain};
pub use gc::{
    Due, DueStep, GcPlan, GcStatus, QueueHeads, Unneeded, condemned_blobs, gc, gc_plan,
    unneeded_manifests,
};
pub use lists::{
    DeletedBlob, DeletedManifest, ManifestBody, deleted_blob, deleted_blobs, deleted_manifest,
    deleted_manifests, manifest_bodies, tag_history_before,
};

pub use crate::record::{
    BlobRecord, ClusterRecord, Collected, DeleteReason, DeletedBlobRecord, DeletedManifestRecord,
    ManifestRecord, NodeRecord, PurgedManifestRecord, Referrer, TagChange, TagRecord, TicketRecord,
};

/// What is true for the whole cluster; `None` before it was initialised.
///
/// # Errors
/// [`ViewError`], as every function here: the state cannot be read or decoded.
pub fn cluster(view: &dyn MetadataView) -> Result<Option<ClusterRecord>, ViewError> {
    scan::load(view, &key::single(Table::Cluster))
}

/// All registered nodes, by id.
///
/// # Errors
/// [`ViewError`].
pub fn nodes(view: &dyn MetadataView) -> Result<Vec<NodeRecord>, ViewError> {
    scan::page(
        view,
        &key::table(Table::Node),
        None,
        usize::MAX,
        |key, value| Ok(Some(<NodeRecord as codec::Record>::decode(key, value)?)),
    )
}

/// One registered node.
///
/// # Errors
/// [`ViewError`].
pub fn node(view: &dyn MetadataView, node: NodeId) -> Result<Option<NodeRecord>, ViewError> {
    scan::load(view, &key::node(node))
}

/// Whether the node was registered once and is gone for good.
///
/// # Errors
/// [`ViewError`].
pub fn is_removed(view: &dyn MetadataView, node: NodeId) -> Result<bool, ViewError> {
    Ok(view.get(&key::removed_node(node))?.is_some())
}

/// Log time and the number of ticks applied.
///
/// # Errors
/// [`ViewError`].
pub fn time(view: &dyn MetadataView) -> Result<(LogTime, u64), ViewError> {
    let time: TimeRecord = scan::load(view, &key::single(Table::Time))?.unwrap_or_default();
    Ok((time.now, time.sequence))
}

/// Whether anything was ever pushed to the repository.
///
/// # Errors
/// [`ViewError`].
pub fn repository_exists(
    view: &dyn MetadataView,
    name: &RepositoryName,
) -> Result<bool, ViewError> {
    Ok(repository(view, name)?.is_some())
}

fn repository(
    view: &dyn MetadataView,
    name: &RepositoryName,
) -> Result<Option<RepositoryId>, ViewError> {
    let record: Option<RepositoryRecord> = scan::load(view, &key::repository(name))?;
    Ok(record.map(|record| record.id))
}

/// The name of a repository that exists.
///
/// # Errors
/// [`ViewError`].
pub fn repository_name(
    view: &dyn MetadataView,
    repository: RepositoryId,
) -> Result<Option<RepositoryName>, ViewError> {
    let state: Option<RepositoryStateRecord> =
        scan::load(view, &key::repository_state(repository))?;
    Ok(state.map(|state| state.name))
}

/// Names of repositories after `after`, which need not be a name that exists.
///
/// # Errors
/// [`ViewError`].
pub fn repositories(
    view: &dyn MetadataView,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<RepositoryName>, ViewError> {
    let after = after.map(key::repository_text);
    scan::page(
        view,
        &key::table(Table::Repository),
        after.as_deref(),
        limit,
        |key, _| {
            let name = Reader::new(Table::Repository, key)?.text()?;
            let name = RepositoryName::parse(name).map_err(|_| codec::CodecError::Invalid {
                field: "repository",
            })?;
            Ok(Some(name))
        },
    )
}

/// Where a tag points.
///
/// # Errors
/// [`ViewError`].
pub fn tag(
    view: &dyn MetadataView,
    name: &RepositoryName,
    tag: &Tag,
) -> Result<Option<TagRecord>, ViewError> {
    match repository(view, name)? {
        Some(repository) => scan::load(view, &key::tag(repository, tag)),
        None => Ok(None),
    }
}

/// Tags after `after`, which need not be a tag that exists. `None` when the repository is unknown.
///
/// # Errors
/// [`ViewError`].
pub fn tags(
    view: &dyn MetadataView,
    name: &RepositoryName,
    after: Option<&str>,
    limit: usize,
) -> Result<Option<Vec<Tag>>, ViewError> {
    let Some(repository) = repository(view, name)? else {
        return Ok(None);
    };
    let after = after.map(|after| key::tag_text(repository, after));
    let prefix = key::of_repository(Table::Tag, repository);
    let tags = scan::page(view, &prefix, after.as_deref(), limit, |key, _| {
        let mut parts = Reader::new(Table::Tag, key)?;
        let _repository = parts.number()?;
        Ok(Some(codec::tag(parts.text()?)?))
    })?;
    Ok(Some(tags))
}

/// Identifies a list of names: two views that give the same answer have the same list. The repository's id makes
/// that true of tags in every repository, also of one that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListRevision {
    /// Whose tags; `None` for the catalog.
    pub repository: Option<RepositoryId>,
    /// The entry after which a name appeared or disappeared last; 0 when none ever did.
    pub changed_at: LogIndex,
}

/// Which list [`tags`] reads from. `None` when the repository is unknown.
///
/// # Errors
/// [`ViewError`].
pub fn tag_list(
    view: &dyn MetadataView,
    name: &RepositoryName,
) -> Result<Option<ListRevision>, ViewError> {
    let Some(repository) = repository(view, name)? else {
        return Ok(None);
    };
    let key = key::of_repository(Table::TagList, repository);
    let record: RevisionRecord = scan::load(view, &key)?.unwrap_or_default();
    Ok(Some(ListRevision {
        repository: Some(repository),
        changed_at: record.changed_at,
    }))
}

/// Which list [`repositories`] reads from.
///
/// # Errors
/// [`ViewError`].
pub fn catalog(view: &dyn MetadataView) -> Result<ListRevision, ViewError> {
    let record: RevisionRecord =
        scan::load(view, &key::single(Table::Catalog))?.unwrap_or_default();
    Ok(ListRevision {
        repository: None,
        changed_at: record.changed_at,
    })
}

/// The latest changes of a tag, newest first, whether it exists now or not.
///
/// # Errors
/// [`ViewError`].
pub fn tag_history(
    view: &dyn MetadataView,
    name: &RepositoryName,
    tag: &Tag,
    limit: usize,
) -> Result<Vec<TagChange>, ViewError> {
    let Some(repository) = repository(view, name)? else {
        return Ok(Vec::new());
    };
    scan::page(
        view,
        &key::tag_history(repository, tag),
        None,
        limit,
        |key, value| Ok(Some(<TagChange as codec::Record>::decode(key, value)?)),
    )
}

/// A manifest without its bytes.
///
/// # Errors
/// [`ViewError`].
pub fn manifest(
    view: &dyn MetadataView,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Option<ManifestRecord>, ViewError> {
    match repository(view, name)? {
        Some(repository) => scan::load(view, &key::manifest(repository, digest)),
        None => Ok(None),
    }
}

/// The exact bytes of a manifest.
///
/// # Errors
/// [`ViewError`].
pub fn manifest_body(
    view: &dyn MetadataView,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Option<Bytes>, ViewError> {
    let Some(repository) = repository(view, name)? else {
        return Ok(None);
    };
    // The body of a deleted manifest stays where it is: the record decides what exists.
    if !scan::exists(view, &key::manifest(repository, digest))? {
        return Ok(None);
    }
    let body = view.get(&key::manifest_body(repository, digest))?;
    Ok(body.map(Bytes::from))
}

/// Manifests of the repository whose subject is `subject`, by digest, after `after`. With an artifact type only
/// those that have it: a page is full unless it is the last. An unknown repository or subject has none.
///
/// # Errors
/// [`ViewError`].
pub fn referrers(
    view: &dyn MetadataView,
    name: &RepositoryName,
    subject: &Digest,
    artifact_type: Option<&MediaType>,
    after: Option<&Digest>,
    limit: usize,
) -> Result<Vec<Referrer>, ViewError> {
    let Some(repository) = repository(view, name)? else {
        return Ok(Vec::new());
    };
    let after = after.map(|after| key::referrer(repository, subject, after));
    scan::page(
        view,
        &key::referrers(repository, subject),
        after.as_deref(),
        limit,
        |key, value| {
            let referrer = <Referrer as codec::Record>::decode(key, value)?;
            let wanted =
                artifact_type.is_none_or(|wanted| referrer.artifact_type.as_ref() == Some(wanted));
            Ok(wanted.then_some(referrer))
        },
    )
}

/// A blob as seen from a repository that links it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedBlob {
    /// Its length.
    pub size_bytes: u64,
    /// Nodes with a counted copy, ascending.
    pub holders: Vec<NodeId>,
    /// Since when no manifest of this repository names it; `None` while one does. Its grace counts from here. While
    /// only deleted manifests name it: when a client last used it, because its grace may count from there.
    pub unreferenced_since: Option<LogTime>,
}

/// The blob, if the repository may serve it.
///
/// # Errors
/// [`ViewError`].
pub fn linked_blob(
    view: &dyn MetadataView,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Option<LinkedBlob>, ViewError> {
    let Some(repository) = repository(view, name)? else {
        return Ok(None);
    };
    let Some(link) = scan::load::<LinkRecord>(view, &key::link(repository, digest))? else {
        return Ok(None);
    };
    let edges = key::edges_of(digest, repository);
    let unreferenced_since = match link.unreferenced_since {
        None if scan::first_key(view, &edges)?.is_none() => Some(link.touched_at),
        since => since,
    };
    let linked = blob(view, digest)?.map(|blob| LinkedBlob {
        size_bytes: blob.size_bytes,
        holders: blob.holders,
        unreferenced_since,
    });
    Ok(linked)
}

/// A blob, whichever repositories link it. For nodes among themselves, never for clients.
///
/// # Errors
/// [`ViewError`].
pub fn blob(view: &dyn MetadataView, digest: &Digest) -> Result<Option<BlobRecord>, ViewError> {
    scan::load(view, &key::blob(digest))
}

/// What this view knows of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketState {
    /// Open at the view's index.
    Open,
    /// Closed for ever.
    Closed,
    /// Newer than the view. **Must be treated as open** (protocols.md section 6.2).
    Unknown,
}

/// The state of a ticket. Only for views without uncommitted changes: an overlay shows an older index than its
/// changes.
///
/// # Errors
/// [`ViewError`].
pub fn ticket(view: &dyn MetadataView, ticket: TicketId) -> Result<TicketState, ViewError> {
    Ok(if ticket.index() > view.applied() {
        TicketState::Unknown
    } else if open_ticket(view, ticket)?.is_some() {
        TicketState::Open
    } else {
        TicketState::Closed
    })
}

/// What is known of a ticket that is open at the view's index.
///
/// # Errors
/// [`ViewError`].
pub fn open_ticket(
    view: &dyn MetadataView,
    ticket: TicketId,
) -> Result<Option<TicketRecord>, ViewError> {
    scan::load(view, &key::ticket(ticket))
}

#[cfg(test)]
mod tests;
