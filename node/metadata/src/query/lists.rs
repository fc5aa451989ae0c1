//! Pages of what was deleted, of histories, and of the bodies a verifier reads.

use std::ops::ControlFlow;

use bytes::Bytes;
use oci::{Digest, MediaType, RepositoryName, Tag};

use super::{DeletedBlobRecord, DeletedManifestRecord, ManifestRecord, TagChange, repository};
use crate::codec::Record;
use crate::ids::{LogIndex, RepositoryId};
use crate::key::{self, Reader, Table};
use crate::scan;
use crate::view::{MetadataView, ViewError};

/// Changes of a tag before the log index `before`, newest first, whether it exists now or not.
///
/// # Errors
/// [`ViewError`].
pub fn tag_history_before(
    view: &dyn MetadataView,
    name: &RepositoryName,
    tag: &Tag,
    before: Option<LogIndex>,
    limit: usize,
) -> Result<Vec<TagChange>, ViewError> {
    let Some(repository) = repository(view, name)? else {
        return Ok(Vec::new());
    };
    let after = before.map(|before| key::tag_change(repository, tag, before));
    let prefix = key::tag_history(repository, tag);
    scan::page(view, &prefix, after.as_deref(), limit, |key, value| {
        Ok(Some(<TagChange as Record>::decode(key, value)?))
    })
}

/// A deleted manifest that can be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedManifest {
    /// Which.
    pub digest: Digest,
    /// What is known of it.
    pub record: DeletedManifestRecord,
}

/// Deleted manifests of a repository that can be restored, by digest, after `after`.
///
/// # Errors
/// [`ViewError`].
pub fn deleted_manifests(
    view: &dyn MetadataView,
    name: &RepositoryName,
    after: Option<&Digest>,
    limit: usize,
) -> Result<Vec<DeletedManifest>, ViewError> {
    let Some(repository) = repository(view, name)? else {
        return Ok(Vec::new());
    };
    let after = after.map(|after| key::deleted_manifest(repository, after));
    let prefix = key::of_repository(Table::DeletedManifest, repository);
    scan::page(view, &prefix, after.as_deref(), limit, |key, value| {
        let mut parts = Reader::new(Table::DeletedManifest, key)?;
        let _repository = parts.number()?;
        Ok(Some(DeletedManifest {
            digest: parts.digest()?,
            record: <DeletedManifestRecord as Record>::decode(key, value)?,
        }))
    })
}

/// One deleted manifest, if it can be restored.
///
/// # Errors
/// [`ViewError`].
pub fn deleted_manifest(
    view: &dyn MetadataView,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Option<DeletedManifestRecord>, ViewError> {
    match repository(view, name)? {
        Some(repository) => scan::load(view, &key::deleted_manifest(repository, digest)),
        None => Ok(None),
    }
}

/// A blob deleted not long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletedBlob {
    /// Which.
    pub digest: Digest,
    /// When, and how long it was.
    pub record: DeletedBlobRecord,
}

/// Blobs deleted not long ago, in the order in which that was decided, after `after`. They may have been pushed again.
///
/// # Errors
/// [`ViewError`].
pub fn deleted_blobs(
    view: &dyn MetadataView,
    after: Option<(LogIndex, Digest)>,
    limit: usize,
) -> Result<Vec<DeletedBlob>, ViewError> {
    let after = after.map(|(at, digest)| key::deleted_blob_at(at, &digest));
    let table = key::table(Table::DeletedBlobAt);
    scan::page(view, &table, after.as_deref(), limit, |key, _| {
        let mut parts = Reader::new(Table::DeletedBlobAt, key)?;
        let _at = parts.number()?;
        let digest = parts.digest()?;
        let record = deleted_blob(view, &digest)?;
        Ok(record.map(|record| DeletedBlob { digest, record }))
    })
}

/// When a blob was deleted last, as long as that is remembered.
///
/// # Errors
/// [`ViewError`].
pub fn deleted_blob(
    view: &dyn MetadataView,
    digest: &Digest,
) -> Result<Option<DeletedBlobRecord>, ViewError> {
    scan::load(view, &key::deleted_blob(digest))
}

/// The bytes of a manifest, deleted or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestBody {
    /// Where.
    pub repository: RepositoryId,
    /// Which.
    pub digest: Digest,
    /// Served as Content-Type; `None` when no record knows the manifest, which must not happen.
    pub media_type: Option<MediaType>,
    /// Whether it was deleted and can be restored.
    pub is_deleted: bool,
    /// The exact bytes pushed.
    pub body: Bytes,
}

/// Bodies of all manifests of all repositories, after `after`: at most `limit`, and no more once they hold
/// `max_bytes`.
///
/// # Errors
/// [`ViewError`].
pub fn manifest_bodies(
    view: &dyn MetadataView,
    after: Option<(RepositoryId, Digest)>,
    limit: usize,
    max_bytes: usize,
) -> Result<Vec<ManifestBody>, ViewError> {
    let after = after.map(|(repository, digest)| key::manifest_body(repository, &digest));
    let table = key::table(Table::ManifestBody);
    let (mut bodies, mut bytes) = (Vec::new(), 0);
    if limit == 0 {
        return Ok(bodies);
    }
    scan::visit(view, &table, after.as_deref(), &mut |key, value| {
        let mut parts = Reader::new(Table::ManifestBody, key)?;
        let (repository, digest) = (RepositoryId(parts.number()?), parts.digest()?);
        let live: Option<ManifestRecord> = scan::load(view, &key::manifest(repository, &digest))?;
        let deleted: Option<DeletedManifestRecord> = match live {
            Some(_) => None,
            None => scan::load(view, &key::deleted_manifest(repository, &digest))?,
        };
        let is_deleted = deleted.is_some();
        let record = live.or(deleted.map(|deleted| deleted.manifest));
        bytes += value.len();
        bodies.push(ManifestBody {
            repository,
            digest,
            media_type: record.map(|record| record.media_type),
            is_deleted,
            body: Bytes::copy_from_slice(value),
        });
        Ok(if bodies.len() == limit || bytes >= max_bytes {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    Ok(bodies)
}
