//! The one place where gaining or losing a reference moves a blob through the stages of garbage collection
//! (protocols.md section 5). Commands call these hooks; the work lists follow from the records (`index.rs`).
//!
//! A link without an edge waits since some log time; a blob without a link waits since some log time. Losing
//! the last reference and entering the list happen in the same entry, so nothing is ever forgotten, and a new
//! reference takes the blob out again, whatever stage it had reached.

use oci::Digest;

use super::{ApplyError, Scope, index};
use crate::ids::RepositoryId;
use crate::key;
use crate::record::{BlobRecord, LinkRecord};
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
    let is_referenced = match before {
        Some(link) => link.unreferenced_since.is_none(),
        // A child manifest may be uploaded as a blob as well, after an index that names it.
        None => index::is_referenced(scope, repository, digest)?,
    };
    let after = LinkRecord {
        unreferenced_since: (!is_referenced).then_some(scope.now),
        touched_at: scope.now,
    };
    index::put_link(scope, repository, digest, before, Some(after));
    blob.unlinked_since = None;
    blob.condemned_since = None;
    Ok(())
}

/// A manifest of the repository names the digest from now on. The link, if there is one, is needed.
pub(super) fn edge_added(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<(), ApplyError> {
    let before: Option<LinkRecord> = scope.load(&key::link(repository, digest))?;
    if before.is_some() {
        index::put_link(
            scope,
            repository,
            digest,
            before,
            Some(LinkRecord {
                unreferenced_since: None,
                touched_at: scope.now,
            }),
        );
    }
    Ok(())
}

/// A manifest of the repository named the digest until now. The last one lost starts the grace of the link.
pub(super) fn edge_removed(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<(), ApplyError> {
    let before: Option<LinkRecord> = scope.load(&key::link(repository, digest))?;
    if before.is_some() && !index::is_referenced(scope, repository, digest)? {
        let after = LinkRecord {
            unreferenced_since: Some(scope.now),
            touched_at: scope.now,
        };
        index::put_link(scope, repository, digest, before, Some(after));
    }
    Ok(())
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
