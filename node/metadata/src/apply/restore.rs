//! Deleted manifests and tags: bringing them back, and letting them go for good.

use oci::{Digest, Tag};

use super::manifest::{self, Stored};
use super::{ApplyError, Refusal, Scope, index, remember, review};
use crate::codec::Record;
use crate::command::{RestoreManifest, RestoreTag};
use crate::ids::{LogIndex, RepositoryId};
use crate::key;
use crate::record::{DeletedManifestRecord, ReferencesRecord, TagChange, TagRecord};
use crate::response::{Rejection, Response};
use crate::scan;

pub(super) fn load(
    scope: &Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<Option<DeletedManifestRecord>, ApplyError> {
    scope.load(&key::deleted_manifest(repository, digest))
}

pub(super) fn references(
    scope: &Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<ReferencesRecord, ApplyError> {
    scope.load_promised(
        &key::references(repository, digest),
        "every manifest has references",
    )
}

pub(super) fn manifest(
    scope: &mut Scope<'_, '_>,
    command: &RestoreManifest,
) -> Result<Response, Refusal> {
    let repository = scope.known_repository(&command.repository)?;
    if scope.exists(&key::manifest(repository, &command.digest))? {
        return Err(Rejection::NotDeleted.into());
    }
    let deleted = load(scope, repository, &command.digest)?.ok_or(Rejection::ManifestUnknown)?;
    let references = check(scope, repository, &command.digest, &deleted)?;
    bring_back(scope, repository, &command.digest, &deleted, references)?;
    let mut tags = Vec::new();
    for tag in deleted.tags {
        if !scope.exists(&key::tag(repository, &tag))? {
            index::put_tag(scope, repository, &tag, None, Some(command.digest))?;
            tags.push(tag);
        }
    }
    review::manifest_pushed(scope, repository, &command.digest)?;
    Ok(Response::ManifestRestored { tags })
}

/// Its blobs may have been removed from the repository, and its children deleted, while it was deleted.
fn check(
    scope: &Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
    deleted: &DeletedManifestRecord,
) -> Result<ReferencesRecord, Refusal> {
    let references = references(scope, repository, digest)?;
    let mut unknown = Vec::new();
    for blob in &references.blobs {
        if !scope.exists(&key::link(repository, blob))? {
            unknown.push(*blob);
        }
    }
    for child in &references.manifests {
        let may_be_missing = deleted.manifest.allows_missing_manifests;
        if !may_be_missing && !scope.exists(&key::manifest(repository, child))? {
            unknown.push(*child);
        }
    }
    if unknown.is_empty() {
        Ok(references)
    } else {
        Err(Rejection::ReferencesUnknown(unknown).into())
    }
}

fn bring_back(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
    deleted: &DeletedManifestRecord,
    references: ReferencesRecord,
) -> Result<(), ApplyError> {
    index::put_deleted_manifest(scope, repository, digest, Some(deleted), None)?;
    index::put_manifest(scope, repository, digest, None, Some(&deleted.manifest))?;
    for (named, kind) in references.edges() {
        scope.delete(key::deleted_edge(&named, repository, digest));
        scope.save_edge(key::edge(&named, repository, digest), kind);
    }
    let stored = Stored {
        record: deleted.manifest.clone(),
        references,
        referrer: deleted.referrer.clone(),
    };
    manifest::put_referrer(scope, repository, digest, &stored);
    Ok(())
}

pub(super) fn tag(scope: &mut Scope<'_, '_>, command: &RestoreTag) -> Result<Response, Refusal> {
    let repository = scope.known_repository(&command.repository)?;
    let before: Option<TagRecord> = scope.load(&key::tag(repository, &command.tag))?;
    if before.is_some() && command.revision.is_none() {
        return Err(Rejection::NotDeleted.into());
    }
    let digest = value(scope, repository, &command.tag, command.revision)?;
    let digest = digest.ok_or(Rejection::TagUnknown)?;
    let is_deleted = !scope.exists(&key::manifest(repository, &digest))?;
    if is_deleted {
        let deleted = load(scope, repository, &digest)?.ok_or(Rejection::ManifestUnknown)?;
        let references = check(scope, repository, &digest, &deleted)?;
        bring_back(scope, repository, &digest, &deleted, references)?;
    }
    index::put_tag(scope, repository, &command.tag, before, Some(digest))?;
    Ok(Response::TagRestored {
        digest,
        is_manifest_restored: is_deleted,
    })
}

/// Where the tag pointed at the revision, or last. Its newest change deleted it, and no two changes in a row do, so
/// two are enough.
fn value(
    scope: &Scope<'_, '_>,
    repository: RepositoryId,
    tag: &Tag,
    revision: Option<LogIndex>,
) -> Result<Option<Digest>, ApplyError> {
    // Newest first: strictly after the next index is at or before this one.
    let after = revision.map(|revision| {
        let next = LogIndex(revision.0.saturating_add(1));
        key::tag_change(repository, tag, next)
    });
    let limit = if revision.is_some() { 1 } else { 2 };
    let changes = scan::page(
        scope.state,
        &key::tag_history(repository, tag),
        after.as_deref(),
        limit,
        |key, value| Ok(Some(<TagChange as Record>::decode(key, value)?)),
    )?;
    Ok(changes.iter().find_map(|change| change.digest))
}

/// The manifest can no longer be restored, whether it is gone or was pushed again. Body and references are left to
/// the caller.
pub(super) fn forget(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
    deleted: &DeletedManifestRecord,
    references: &ReferencesRecord,
) -> Result<(), ApplyError> {
    index::put_deleted_manifest(scope, repository, digest, Some(deleted), None)?;
    for named in references.all() {
        scope.delete(key::deleted_edge(named, repository, digest));
        review::deleted_edge_removed(scope, repository, named, deleted.deleted_at)?;
    }
    Ok(())
}

/// The undelete window is over. Answers how many things the manifest named.
pub(super) fn purge(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<usize, ApplyError> {
    let deleted = scope.load_promised::<DeletedManifestRecord>(
        &key::deleted_manifest(repository, digest),
        "every deleted manifest on the list exists",
    )?;
    let references = references(scope, repository, digest)?;
    remember::purged_manifest(scope, repository, digest, &deleted)?;
    scope.delete(key::references(repository, digest));
    scope.delete(key::manifest_body(repository, digest));
    forget(scope, repository, digest, &deleted, &references)?;
    review::subject_changed(scope, repository, digest)?;
    review::repository_left(scope, repository)?;
    Ok(references.all().count())
}
