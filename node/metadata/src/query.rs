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
    LinkRecord, RepositoryRecord, RevisionRecord, TicketRecord, TimeRecord, TotalsRecord,
};
use crate::scan;
use crate::view::{MetadataView, ViewError};

pub use crate::record::{
    BlobRecord, ClusterRecord, ManifestRecord, NodeRecord, Referrer, TagChange, TagRecord,
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
    match repository(view, name)? {
        Some(repository) => Ok(view
            .get(&key::manifest_body(repository, digest))?
            .map(Bytes::from)),
        None => Ok(None),
    }
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
    /// Since when no manifest of this repository names it; `None` while one does. Its grace counts from here.
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
    let linked = blob(view, digest)?.map(|blob| LinkedBlob {
        size_bytes: blob.size_bytes,
        holders: blob.holders,
        unreferenced_since: link.unreferenced_since,
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

/// The blobs of which `node` holds a counted copy, by digest, after `after`.
///
/// # Errors
/// [`ViewError`].
pub fn blobs_of_node(
    view: &dyn MetadataView,
    node: NodeId,
    after: Option<&Digest>,
    limit: usize,
) -> Result<Vec<Digest>, ViewError> {
    let after = after.map(|after| key::placement(node, after));
    scan::page(
        view,
        &key::placements_of(node),
        after.as_deref(),
        limit,
        |key, _| {
            let mut parts = Reader::new(Table::Placement, key)?;
            let _node = parts.number()?;
            Ok(Some(parts.digest()?))
        },
    )
}

/// A blob with fewer counted copies than it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnderReplicated {
    /// Which blob.
    pub digest: Digest,
    /// How many copies it has.
    pub copies: u32,
}

/// The blobs with fewer than R copies, fewest first. R counts no further than the registered nodes: a copy that
/// has no place to go is not missing.
///
/// # Errors
/// [`ViewError`].
pub fn under_replicated(
    view: &dyn MetadataView,
    limit: usize,
) -> Result<Vec<UnderReplicated>, ViewError> {
    let target = attainable_copies(view)?;
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    scan::visit(view, &key::table(Table::Copies), None, &mut |key, _| {
        let mut parts = Reader::new(Table::Copies, key)?;
        let copies = parts.number()?;
        if copies >= target {
            return Ok(std::ops::ControlFlow::Break(()));
        }
        let copies = u32::try_from(copies).unwrap_or(u32::MAX);
        found.push(UnderReplicated {
            digest: parts.digest()?,
            copies,
        });
        Ok(if found.len() == limit {
            std::ops::ControlFlow::Break(())
        } else {
            std::ops::ControlFlow::Continue(())
        })
    })?;
    Ok(found)
}

/// R, but no more than there are nodes.
fn attainable_copies(view: &dyn MetadataView) -> Result<u64, ViewError> {
    let copies = cluster(view)?.map_or(0, |cluster| u64::from(cluster.copies));
    Ok(copies.min(nodes(view)?.len() as u64))
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
    } else if scan::load::<TicketRecord>(view, &key::ticket(ticket))?.is_some() {
        TicketState::Open
    } else {
        TicketState::Closed
    })
}

/// Running totals of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Repositories ever pushed to.
    pub repositories: u64,
    /// Tags.
    pub tags: u64,
    /// Manifests, counted once per repository.
    pub manifests: u64,
    /// Their lengths.
    pub manifest_bytes: u64,
    /// Blobs.
    pub blobs: u64,
    /// Their lengths, each blob once.
    pub blob_bytes: u64,
    /// Blobs with fewer than R copies.
    pub under_replicated_blobs: u64,
    /// Copies to make until every blob has R.
    pub missing_copies: u64,
}

/// Totals without a scan.
///
/// # Errors
/// [`ViewError`].
pub fn stats(view: &dyn MetadataView) -> Result<Stats, ViewError> {
    let totals: TotalsRecord = scan::load(view, &key::single(Table::Totals))?.unwrap_or_default();
    let target = attainable_copies(view)?;
    let mut stats = Stats {
        repositories: totals.repositories,
        tags: totals.tags,
        manifests: totals.manifests,
        manifest_bytes: totals.manifest_bytes,
        blobs: totals.blobs,
        blob_bytes: totals.blob_bytes,
        under_replicated_blobs: 0,
        missing_copies: 0,
    };
    for (copies, blobs) in (0..target).zip(&totals.blobs_by_copies) {
        stats.under_replicated_blobs += blobs;
        stats.missing_copies += blobs * (target - copies);
    }
    Ok(stats)
}

#[cfg(test)]
mod tests;
