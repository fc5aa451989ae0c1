//! Manifests: put and delete, with their edges, referrers and tags.

use std::collections::BTreeMap;

use oci::{Digest, Tag};

use super::node::Nodes;
use super::{ApplyError, Refusal, Scope, index, restore, review, tag};
use crate::command::{DeleteManifest, ManifestReference, PutManifest};
use crate::ids::RepositoryId;
use crate::key::{self, Reader, Table};
use crate::record::{
    BlobRecord, DeleteReason, DeletedManifestRecord, ManifestRecord, ReferencesRecord, Referrer,
    TagRecord,
};
use crate::response::{Rejection, Response};
use crate::scan;
use crate::view::ViewError;

pub(super) fn put(scope: &mut Scope<'_, '_>, command: &PutManifest) -> Result<Response, Refusal> {
    let write_copies = scope.cluster()?.write_copies;
    let known = scope.repository(&command.repository)?;
    check_references(scope, known, command, write_copies)?;
    let tags = check_tags(scope, known, command)?;

    let repository = scope.repository_or_new(&command.repository)?;
    store(scope, repository, command)?;
    for (tag, before) in tags {
        index::put_tag(scope, repository, tag, before, Some(command.digest))?;
    }
    review::manifest_pushed(scope, repository, &command.digest)?;
    Ok(Response::ManifestPut)
}

/// What is unknown is reported whole; then the first wrong size; then the first blob with too few copies, which
/// is the only reason that passes by itself.
fn check_references(
    scope: &Scope<'_, '_>,
    repository: Option<RepositoryId>,
    command: &PutManifest,
    write_copies: u32,
) -> Result<(), Refusal> {
    let facts = &command.facts;
    let nodes = Nodes::load(scope)?;
    let mut unknown = Vec::new();
    let mut wrong_size = None;
    let mut too_few = None;
    for reference in &facts.blobs {
        let Some(blob) = linked_blob(scope, repository, &reference.digest)? else {
            unknown.push(reference.digest);
            continue;
        };
        wrong_size = wrong_size.or(size_mismatch(reference, blob.size_bytes));
        let reached = nodes.live_copies(&blob.holders);
        if reached < write_copies && too_few.is_none() {
            too_few = Some(Rejection::TooFewCopies {
                reached,
                wanted: write_copies,
            });
        }
    }
    for reference in &facts.manifests {
        match child(scope, repository, &reference.digest)? {
            Some(child) => wrong_size = wrong_size.or(size_mismatch(reference, child.size_bytes)),
            // Its edge is stored all the same: it is there when the child comes, as after the child was deleted.
            None if command.allows_missing_manifests => {}
            None => unknown.push(reference.digest),
        }
    }
    if !unknown.is_empty() {
        return Err(Rejection::ReferencesUnknown(unknown).into());
    }
    wrong_size
        .or(too_few)
        .map_or(Ok(()), |rejection| Err(rejection.into()))
}

fn linked_blob(
    scope: &Scope<'_, '_>,
    repository: Option<RepositoryId>,
    digest: &Digest,
) -> Result<Option<BlobRecord>, ApplyError> {
    match repository {
        Some(repository) if scope.exists(&key::link(repository, digest))? => scope
            .load_promised(&key::blob(digest), "every link has a blob")
            .map(Some),
        _ => Ok(None),
    }
}

fn child(
    scope: &Scope<'_, '_>,
    repository: Option<RepositoryId>,
    digest: &Digest,
) -> Result<Option<ManifestRecord>, ApplyError> {
    match repository {
        Some(repository) => scope.load(&key::manifest(repository, digest)),
        None => Ok(None),
    }
}

fn size_mismatch(reference: &ManifestReference, actual_bytes: u64) -> Option<Rejection> {
    let claimed_bytes = reference.size_bytes;
    (claimed_bytes != actual_bytes).then_some(Rejection::SizeMismatch {
        digest: reference.digest,
        claimed_bytes,
        actual_bytes,
    })
}

/// The tags to move with where they point now, once the precondition holds for all of them.
fn check_tags<'c>(
    scope: &Scope<'_, '_>,
    repository: Option<RepositoryId>,
    command: &'c PutManifest,
) -> Result<BTreeMap<&'c Tag, Option<TagRecord>>, Refusal> {
    let mut tags = BTreeMap::new();
    for tag in &command.tags {
        let before = match repository {
            Some(repository) => tag::load(scope, repository, tag)?,
            None => None,
        };
        tag::check(&command.precondition, before.map(|before| before.digest))?;
        tags.insert(tag, before);
    }
    Ok(tags)
}

/// Everything stored of a manifest but its body and tags.
#[derive(PartialEq)]
pub(super) struct Stored {
    pub(super) record: ManifestRecord,
    pub(super) references: ReferencesRecord,
    pub(super) referrer: Option<Referrer>,
}

fn describe(scope: &Scope<'_, '_>, command: &PutManifest) -> Stored {
    let facts = &command.facts;
    let digests = |references: &[ManifestReference]| references.iter().map(|r| r.digest).collect();
    let size_bytes = command.body.len() as u64;
    Stored {
        record: ManifestRecord {
            media_type: command.media_type.clone(),
            size_bytes,
            subject: facts.subject,
            is_index: facts.is_index,
            pushed_at: scope.at,
            unneeded_since: None,
            allows_missing_manifests: command.allows_missing_manifests,
        },
        references: ReferencesRecord {
            blobs: digests(&facts.blobs),
            manifests: digests(&facts.manifests),
        },
        referrer: facts.subject.is_some().then(|| Referrer {
            digest: command.digest,
            media_type: command.media_type.clone(),
            size_bytes,
            artifact_type: facts.artifact_type.clone(),
            annotations: facts.annotations.clone(),
        }),
    }
}

pub(super) fn load_stored(
    scope: &Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<Option<Stored>, ApplyError> {
    let Some(record) = scope.load::<ManifestRecord>(&key::manifest(repository, digest))? else {
        return Ok(None);
    };
    let references = scope.load_promised(
        &key::references(repository, digest),
        "every manifest has references",
    )?;
    let referrer = match &record.subject {
        Some(subject) => scope.load(&key::referrer(repository, subject, digest))?,
        None => None,
    };
    Ok(Some(Stored {
        record,
        references,
        referrer,
    }))
}

/// The same push again changes nothing. The same bytes with another media type, or read differently by a newer
/// parser, replace what was derived from them; body and tags stay. A push of a deleted manifest makes it a new one.
fn store(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    command: &PutManifest,
) -> Result<(), ApplyError> {
    let digest = &command.digest;
    let mut stored = describe(scope, command);
    if let Some(old) = load_stored(scope, repository, digest)? {
        stored.record.pushed_at = old.record.pushed_at;
        stored.record.unneeded_since = old.record.unneeded_since;
        if stored == old {
            return Ok(());
        }
        detach(scope, repository, digest, &old)?;
        return attach(scope, repository, digest, &stored);
    }
    match restore::load(scope, repository, digest)? {
        Some(deleted) => {
            let old = restore::references(scope, repository, digest)?;
            attach(scope, repository, digest, &stored)?;
            // After the new edges, so that what both name is needed all the time.
            restore::forget(scope, repository, digest, &deleted, &old)
        }
        None => {
            scope.state.put(
                key::manifest_body(repository, digest),
                command.body.to_vec(),
            );
            attach(scope, repository, digest, &stored)?;
            review::subject_changed(scope, repository, digest)
        }
    }
}

fn attach(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
    stored: &Stored,
) -> Result<(), ApplyError> {
    index::put_manifest(scope, repository, digest, None, Some(&stored.record))?;
    scope.save(key::references(repository, digest), &stored.references);
    for (named, kind) in stored.references.edges() {
        scope.save_edge(key::edge(&named, repository, digest), kind);
        review::edge_added(scope, repository, &named)?;
    }
    put_referrer(scope, repository, digest, stored);
    Ok(())
}

pub(super) fn put_referrer(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
    stored: &Stored,
) {
    if let (Some(subject), Some(referrer)) = (&stored.record.subject, &stored.referrer) {
        scope.save(key::referrer(repository, subject, digest), referrer);
    }
}

fn detach(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
    stored: &Stored,
) -> Result<(), ApplyError> {
    index::put_manifest(scope, repository, digest, Some(&stored.record), None)?;
    scope.delete(key::references(repository, digest));
    for named in stored.references.all() {
        scope.delete(key::edge(named, repository, digest));
        review::edge_removed(scope, repository, named)?;
    }
    if let Some(subject) = &stored.record.subject {
        scope.delete(key::referrer(repository, subject, digest));
    }
    Ok(())
}

pub(super) fn delete(
    scope: &mut Scope<'_, '_>,
    command: &DeleteManifest,
) -> Result<Response, Refusal> {
    let repository = scope.known_repository(&command.repository)?;
    let stored =
        load_stored(scope, repository, &command.digest)?.ok_or(Rejection::ManifestUnknown)?;
    let by = scope.entry.subject.clone();
    let reason = DeleteReason::Asked { by };
    hide(scope, repository, &command.digest, stored, reason)?;
    Ok(Response::Done)
}

/// Deletes the manifest so that it can be restored: its record moves, its edges become deleted edges, which keep
/// everything it names needed; body and references stay where they are. No referrer and no child loses its need.
pub(super) fn hide(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
    stored: Stored,
    reason: DeleteReason,
) -> Result<(), ApplyError> {
    let tags = tags_of(scope, repository, digest)?;
    index::put_manifest(scope, repository, digest, Some(&stored.record), None)?;
    for (named, kind) in stored.references.edges() {
        scope.delete(key::edge(&named, repository, digest));
        scope.save_edge(key::deleted_edge(&named, repository, digest), kind);
    }
    if let Some(subject) = &stored.record.subject {
        scope.delete(key::referrer(repository, subject, digest));
    }
    for tag in &tags {
        let before: TagRecord =
            scope.load_promised(&key::tag(repository, tag), "every tag of a manifest exists")?;
        index::put_tag(scope, repository, tag, Some(before), None)?;
    }
    let deleted = DeletedManifestRecord {
        manifest: ManifestRecord {
            unneeded_since: None,
            ..stored.record
        },
        referrer: stored.referrer,
        tags,
        deleted_at: scope.now,
        deleted_index: scope.at,
        reason,
    };
    index::put_deleted_manifest(scope, repository, digest, None, Some(&deleted))
}

fn tags_of(
    scope: &Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<Vec<Tag>, ViewError> {
    scan::page(
        scope.state,
        &key::tags_of(repository, digest),
        None,
        usize::MAX,
        |key, _| {
            let mut parts = Reader::new(Table::TagOf, key)?;
            let (_repository, _digest) = (parts.number()?, parts.digest()?);
            Ok(Some(crate::codec::tag(parts.text()?)?))
        },
    )
}
