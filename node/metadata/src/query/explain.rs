//! Why something is kept, or why and when it goes.

use oci::{Digest, RepositoryName, Tag};

use super::{BlobRecord, DeletedBlobRecord, PurgedManifestRecord, blob, repository_name};
use crate::codec::{self, Record};
use crate::ids::{LogIndex, LogTime, RepositoryId};
use crate::key::{self, Reader, Table};
use crate::record::{DeleteReason, DeletedManifestRecord, LinkRecord, ManifestRecord};
use crate::scan;
use crate::view::{MetadataView, ViewError};

/// All that is known of a digest. Every list ends at the limit that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// The blob, with since when it is unlinked or condemned.
    pub blob: Option<BlobRecord>,
    /// When it was deleted last, as long as that is remembered.
    pub deleted: Option<DeletedBlobRecord>,
    /// Repositories that link it.
    pub links: Vec<ExplainedLink>,
    /// Manifests that name it.
    pub edges: Vec<Naming>,
    /// Deleted manifests that name it, as long as they can be restored.
    pub deleted_edges: Vec<Naming>,
    /// Repositories that hold it as a manifest, among those that link or name it and those asked for.
    pub manifests: Vec<ExplainedManifest>,
    /// Repositories that held it as a manifest until it was purged, as long as that is remembered and they do not hold
    /// it again.
    pub purged: Vec<PurgedManifestRecord>,
}

/// A repository that links the blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedLink {
    /// Which repository.
    pub repository: RepositoryName,
    /// Since when no manifest needs it there; `None` while one does.
    pub unreferenced_since: Option<LogTime>,
    /// When a client last used it.
    pub touched_at: LogTime,
}

/// A manifest that names the digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// In which repository.
    pub repository: RepositoryName,
    /// Which manifest.
    pub manifest: Digest,
    /// The tags that point to it; of a deleted one, those that did.
    pub tags: Vec<Tag>,
    /// When it was deleted.
    pub deleted_at: Option<LogTime>,
}

/// The digest as a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedManifest {
    /// In which repository.
    pub repository: RepositoryName,
    /// Since when nothing needs it.
    pub unneeded_since: Option<LogTime>,
    /// When and why it was deleted.
    pub deleted: Option<Deletion>,
    /// The tags that point to it; of a deleted one, those that did.
    pub tags: Vec<Tag>,
}

/// A delete that can be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// When.
    pub at: LogTime,
    /// By which entry.
    pub index: LogIndex,
    /// Why.
    pub reason: DeleteReason,
}

/// Why the digest is kept, or why and when it goes. The digest is looked up as a manifest in `repository`, and
/// wherever it is linked or named.
///
/// # Errors
/// [`ViewError`].
pub fn explain(
    view: &dyn MetadataView,
    repository: Option<&RepositoryName>,
    digest: &Digest,
    limit: usize,
) -> Result<Explanation, ViewError> {
    let linking = scan::page(view, &key::links_of(digest), None, limit, |key, _| {
        let mut parts = Reader::new(Table::LinkedBy, key)?;
        let _digest = parts.digest()?;
        Ok(Some(RepositoryId(parts.number()?)))
    })?;
    let naming = naming(view, Table::Edge, digest, limit)?;
    let deleted_naming = self::naming(view, Table::DeletedEdge, digest, limit)?;
    let mut wanted: Vec<RepositoryId> = Vec::new();
    if let Some(name) = repository {
        wanted.extend(super::repository(view, name)?);
    }
    wanted.extend(&linking);
    wanted.extend(naming.iter().chain(&deleted_naming).map(|(id, _)| *id));
    wanted.sort();
    wanted.dedup();

    let mut explanation = Explanation {
        blob: blob(view, digest)?,
        deleted: scan::load(view, &key::deleted_blob(digest))?,
        purged: purged(view, digest, limit)?,
        ..Explanation::default()
    };
    for id in linking {
        let link: Option<LinkRecord> = scan::load(view, &key::link(id, digest))?;
        if let (Some(repository), Some(link)) = (repository_name(view, id)?, link) {
            explanation.links.push(ExplainedLink {
                repository,
                unreferenced_since: link.unreferenced_since,
                touched_at: link.touched_at,
            });
        }
    }
    for (id, manifest) in naming {
        if let Some(found) = explain_manifest(view, id, &manifest, limit)? {
            explanation.edges.push(found.naming(manifest));
        }
    }
    for (id, manifest) in deleted_naming {
        if let Some(found) = explain_manifest(view, id, &manifest, limit)? {
            explanation.deleted_edges.push(found.naming(manifest));
        }
    }
    for id in wanted.into_iter().take(limit) {
        explanation
            .manifests
            .extend(explain_manifest(view, id, digest, limit)?);
    }
    Ok(explanation)
}

impl ExplainedManifest {
    fn naming(self, manifest: Digest) -> Naming {
        Naming {
            repository: self.repository,
            manifest,
            tags: self.tags,
            deleted_at: self.deleted.map(|deleted| deleted.at),
        }
    }
}

fn naming(
    view: &dyn MetadataView,
    table: Table,
    digest: &Digest,
    limit: usize,
) -> Result<Vec<(RepositoryId, Digest)>, ViewError> {
    let prefix = key::of_digest(table, digest);
    scan::page(view, &prefix, None, limit, |key, _| {
        let mut parts = Reader::new(table, key)?;
        let _named = parts.digest()?;
        Ok(Some((RepositoryId(parts.number()?), parts.digest()?)))
    })
}

fn purged(
    view: &dyn MetadataView,
    digest: &Digest,
    limit: usize,
) -> Result<Vec<PurgedManifestRecord>, ViewError> {
    let prefix = key::of_digest(Table::PurgedManifest, digest);
    scan::page(view, &prefix, None, limit, |key, value| {
        let mut parts = Reader::new(Table::PurgedManifest, key)?;
        let _digest = parts.digest()?;
        let id = RepositoryId(parts.number()?);
        // Pushed again since.
        if scan::exists(view, &key::manifest(id, digest))?
            || scan::exists(view, &key::deleted_manifest(id, digest))?
        {
            return Ok(None);
        }
        Ok(Some(<PurgedManifestRecord as Record>::decode(key, value)?))
    })
}

fn explain_manifest(
    view: &dyn MetadataView,
    id: RepositoryId,
    digest: &Digest,
    limit: usize,
) -> Result<Option<ExplainedManifest>, ViewError> {
    let Some(repository) = repository_name(view, id)? else {
        return Ok(None);
    };
    if let Some(record) = scan::load::<ManifestRecord>(view, &key::manifest(id, digest))? {
        let prefix = key::tags_of(id, digest);
        let tags = scan::page(view, &prefix, None, limit, |key, _| {
            let mut parts = Reader::new(Table::TagOf, key)?;
            let (_repository, _digest) = (parts.number()?, parts.digest()?);
            Ok(Some(codec::tag(parts.text()?)?))
        })?;
        return Ok(Some(ExplainedManifest {
            repository,
            unneeded_since: record.unneeded_since,
            deleted: None,
            tags,
        }));
    }
    let deleted: Option<DeletedManifestRecord> =
        scan::load(view, &key::deleted_manifest(id, digest))?;
    Ok(deleted.map(|deleted| ExplainedManifest {
        repository,
        unneeded_since: None,
        deleted: Some(Deletion {
            at: deleted.deleted_at,
            index: deleted.deleted_index,
            reason: deleted.reason,
        }),
        tags: deleted.tags.into_iter().take(limit).collect(),
    }))
}
