//! The one place where gaining or losing a reference moves something through the stages of garbage collection
//! (protocols.md section 5). Commands call these hooks; the work lists follow from the records (`index.rs`).
//!
//! A link without an edge waits since some log time; a blob without a link waits since some log time; a manifest
//! without tag, index or subject waits; a repository without content waits. Losing the last reference and entering
//! the list happen in the same entry, so nothing is ever forgotten, and a new reference takes it out again,
//! whatever stage it had reached.

use oci::Digest;

use super::{ApplyError, Scope, index};
use crate::ids::{LogTime, RepositoryId};
use crate::key::{self, Table};
use crate::record::{
    BlobRecord, LinkRecord, ManifestRecord, ReferrerReviewRecord, RepositoryStateRecord,
};
use crate::scan;

/// The repository shall link the blob: a new link starts its grace, one that no manifest needs starts it again.
/// `blob` leaves the work lists.
pub(super) fn link(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
    blob: &mut BlobRecord,
) -> Result<(), ApplyError> {
    let before: Option<LinkRecord> = scope.load(&key::link(repository, digest))?;
    let is_needed = match before {
        Some(link) => link.unreferenced_since.is_none(),
        // A child manifest may be uploaded as a blob as well, after an index that names it.
        None => index::is_needed(scope, repository, digest)?,
    };
    let after = LinkRecord {
        unreferenced_since: (!is_needed).then_some(scope.now),
        // Remembered for the day when only a deleted manifest needs it, and that one is purged.
        touched_at: scope.now,
    };
    index::put_link(scope, repository, digest, before, Some(after));
    blob.unlinked_since = None;
    blob.condemned_since = None;
    Ok(())
}

/// A manifest of the repository names the digest from now on. The link or the child manifest is needed.
pub(super) fn edge_added(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<(), ApplyError> {
    let before: Option<LinkRecord> = scope.load(&key::link(repository, digest))?;
    if let Some(link) = before {
        let after = LinkRecord {
            unreferenced_since: None,
            ..link
        };
        index::put_link(scope, repository, digest, before, Some(after));
    }
    manifest_needed(scope, repository, digest)
}

/// A manifest of the repository named the digest until now. The last one lost starts the grace of the link.
pub(super) fn edge_removed(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<(), ApplyError> {
    let before: Option<LinkRecord> = scope.load(&key::link(repository, digest))?;
    if before.is_some() && !index::is_referenced(scope, repository, digest)? {
        let is_needed = index::is_needed(scope, repository, digest)?;
        let after = LinkRecord {
            unreferenced_since: (!is_needed).then_some(scope.now),
            touched_at: scope.now,
        };
        index::put_link(scope, repository, digest, before, Some(after));
    }
    manifest(scope, repository, digest)
}

/// A manifest deleted at `deleted_at` can no longer be restored. Had it not been kept for that, the link would have
/// been without need since then, or since a client last used it: its grace counts from there, so that an undelete
/// window does not add to the grace.
pub(super) fn deleted_edge_removed(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
    deleted_at: LogTime,
) -> Result<(), ApplyError> {
    let before: Option<LinkRecord> = scope.load(&key::link(repository, digest))?;
    if let Some(link) = before
        && !index::is_needed(scope, repository, digest)?
    {
        let after = LinkRecord {
            unreferenced_since: Some(deleted_at.max(link.touched_at)),
            ..link
        };
        index::put_link(scope, repository, digest, before, Some(after));
    }
    manifest(scope, repository, digest)
}

/// A link was removed. The last one lost puts the blob on its way out.
pub(super) fn link_removed(scope: &mut Scope<'_, '_>, digest: &Digest) -> Result<(), ApplyError> {
    if scan::first_key(scope.state, &key::links_of(digest))?.is_some() {
        return Ok(());
    }
    let before: BlobRecord = scope.load_promised(&key::blob(digest), "every link has a blob")?;
    let after = BlobRecord {
        unlinked_since: Some(scope.now),
        ..before.clone()
    };
    index::put_blob(scope, digest, Some(&before), &after)
}

/// Something was removed from the repository. The last thing lost puts it on its way out. What is added later does
/// not take it out again: garbage collection looks before it removes, and a push need not pay for that.
pub(super) fn repository_left(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
) -> Result<(), ApplyError> {
    if !is_empty(scope, repository)? {
        return Ok(());
    }
    let before: RepositoryStateRecord = scope.load_promised(
        &key::repository_state(repository),
        "every repository has a state",
    )?;
    let after = RepositoryStateRecord {
        empty_since: Some(scope.now),
        ..before.clone()
    };
    index::put_repository_state(scope, repository, &before, Some(&after));
    Ok(())
}

/// Whether nothing is left of it but the history of its tags.
pub(super) fn is_empty(
    scope: &Scope<'_, '_>,
    repository: RepositoryId,
) -> Result<bool, ApplyError> {
    for table in [Table::Link, Table::Manifest, Table::DeletedManifest] {
        if scan::first_key(scope.state, &key::of_repository(table, repository))?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A tag points elsewhere.
pub(super) fn tag_moved(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    before: Option<Digest>,
    after: Option<Digest>,
) -> Result<(), ApplyError> {
    if let Some(before) = before {
        manifest(scope, repository, &before)?;
    }
    match after {
        Some(after) => manifest_needed(scope, repository, &after),
        None => Ok(()),
    }
}

/// The manifest was pushed, perhaps not for the first time: if nothing needs it, its time starts.
pub(super) fn manifest_pushed(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<(), ApplyError> {
    let now = scope.now;
    decide(scope, repository, digest, |_| now)
}

/// Something about the manifest changed: decides again whether it is needed.
pub(super) fn manifest(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<(), ApplyError> {
    let now = scope.now;
    decide(scope, repository, digest, |since| since.unwrap_or(now))
}

fn decide(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
    since: impl Fn(Option<LogTime>) -> LogTime,
) -> Result<(), ApplyError> {
    let Some(before) = scope.load::<ManifestRecord>(&key::manifest(repository, digest))? else {
        return Ok(());
    };
    let is_needed = is_manifest_needed(scope, repository, digest, &before)?;
    let after = ManifestRecord {
        unneeded_since: (!is_needed).then(|| since(before.unneeded_since)),
        ..before.clone()
    };
    index::put_manifest(scope, repository, digest, Some(&before), Some(&after))
}

/// The shorter way when it is known that something needs it.
fn manifest_needed(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<(), ApplyError> {
    let before: Option<ManifestRecord> = scope.load(&key::manifest(repository, digest))?;
    let Some(before) = before.filter(|record| record.unneeded_since.is_some()) else {
        return Ok(());
    };
    let after = ManifestRecord {
        unneeded_since: None,
        ..before.clone()
    };
    index::put_manifest(scope, repository, digest, Some(&before), Some(&after))
}

/// Whether a tag points to it, a manifest names it, or its subject is there. What can be restored counts as there.
pub(super) fn is_manifest_needed(
    scope: &Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
    record: &ManifestRecord,
) -> Result<bool, ApplyError> {
    if scan::first_key(scope.state, &key::tags_of(repository, digest))?.is_some()
        || index::is_needed(scope, repository, digest)?
    {
        return Ok(true);
    }
    match &record.subject {
        Some(subject) => Ok(scope.exists(&key::manifest(repository, subject))?
            || scope.exists(&key::deleted_manifest(repository, subject))?),
        None => Ok(false),
    }
}

/// The subject appeared or vanished for good. It may have any number of referrers, so they are looked at later, in
/// pieces; until then only the check before each removal knows whether they are needed.
pub(super) fn subject_changed(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    subject: &Digest,
) -> Result<(), ApplyError> {
    if scan::first_key(scope.state, &key::referrers(repository, subject))?.is_some() {
        scope.save(
            key::referrer_review(repository, subject),
            &ReferrerReviewRecord { after: None },
        );
    }
    Ok(())
}
