//! Records that others are derived from. Each `put_*` takes the record as it was and as it shall be, and keeps
//! every derived key in step, so no command can forget one.

use std::ops::ControlFlow;

use oci::{Digest, Tag};

use super::{ApplyError, Scope, review};
use crate::codec::Record;
use crate::ids::{LogTime, NodeId, RepositoryId, TicketId};
use crate::key::{self, Table};
use crate::record::{
    BlobRecord, DeletedManifestRecord, HolderSetRecord, LinkRecord, ManifestRecord,
    RepositoryStateRecord, RevisionRecord, TagChange, TagRecord, TicketRecord,
};
use crate::scan;
use crate::view::ViewError;

/// Changes of one tag that are remembered, at least; at most [`TRIM_EVERY`] more.
pub const TAG_HISTORY_MAX: usize = 1000;

/// Changes of one tag after which those that are too old are looked for.
const TRIM_EVERY: u64 = 64;

/// Derived: `Placement`, `Copies`, `HolderSet`, `UnlinkedBlob`, `CondemnedBlob`, totals.
pub(super) fn put_blob(
    scope: &mut Scope<'_, '_>,
    digest: &Digest,
    before: Option<&BlobRecord>,
    after: &BlobRecord,
) -> Result<(), ApplyError> {
    if before == Some(after) {
        return Ok(());
    }
    scope.save(key::blob(digest), after);
    let held = before.map_or(&[][..], |blob| &blob.holders);
    for node in held.iter().filter(|node| !after.holders.contains(node)) {
        scope.delete(key::placement(*node, digest));
    }
    for node in after.holders.iter().filter(|node| !held.contains(node)) {
        scope.mark(key::placement(*node, digest));
    }
    let since = |of: fn(&BlobRecord) -> Option<LogTime>| (before.and_then(of), of(after));
    // A condemned blob has left the list of those to condemn, or it would be looked at again and again.
    let waiting = |blob: &BlobRecord| {
        blob.unlinked_since
            .filter(|_| blob.condemned_since.is_none())
    };
    move_key(scope, since(waiting), |since| {
        key::unlinked_blob(since, digest)
    });
    move_key(scope, since(|blob| blob.condemned_since), |since| {
        key::condemned_blob(since, digest)
    });
    let holders = (before.and_then(counted), counted(after));
    let copies = (
        holders.0.map(<[NodeId]>::len),
        holders.1.map(<[NodeId]>::len),
    );
    move_key(scope, copies, |copies| key::copies(copies as u64, digest));
    if holders.0 != holders.1 {
        let size = after.size_bytes;
        count_holders(scope, holders.0, |count, one| count.checked_sub(one), size)?;
        count_holders(scope, holders.1, |count, one| count.checked_add(one), size)?;
    }
    if before.is_none() {
        let totals = scope.totals()?;
        totals.blobs += 1;
        totals.blob_bytes += after.size_bytes;
    }
    Ok(())
}

fn count_holders(
    scope: &mut Scope<'_, '_>,
    holders: Option<&[NodeId]>,
    change: impl Fn(u64, u64) -> Option<u64>,
    size_bytes: u64,
) -> Result<(), ApplyError> {
    let Some(key) = holders.map(key::holder_set) else {
        return Ok(());
    };
    let before: HolderSetRecord = scope.load(&key)?.unwrap_or_default();
    match (change(before.blobs, 1), change(before.bytes, size_bytes)) {
        (Some(0), Some(0)) => scope.delete(key),
        (Some(blobs @ 1..), Some(bytes)) => scope.save(key, &HolderSetRecord { blobs, bytes }),
        _ => {
            return Err(ApplyError::Broken {
                law: "every blob is counted with those of the same holders",
            });
        }
    }
    Ok(())
}

/// Deletes a condemned blob with everything derived from it.
pub(super) fn remove_condemned_blob(
    scope: &mut Scope<'_, '_>,
    digest: &Digest,
    blob: &BlobRecord,
    condemned_since: LogTime,
) -> Result<(), ApplyError> {
    scope.delete(key::blob(digest));
    for node in &blob.holders {
        scope.delete(key::placement(*node, digest));
    }
    scope.delete(key::condemned_blob(condemned_since, digest));
    let totals = scope.totals()?;
    totals.blobs = totals.blobs.saturating_sub(1);
    totals.blob_bytes = totals.blob_bytes.saturating_sub(blob.size_bytes);
    Ok(())
}

/// Derived: `UnneededManifest`, totals.
pub(super) fn put_manifest(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
    before: Option<&ManifestRecord>,
    after: Option<&ManifestRecord>,
) -> Result<(), ApplyError> {
    if before == after {
        return Ok(());
    }
    match after {
        Some(manifest) => scope.save(key::manifest(repository, digest), manifest),
        None => scope.delete(key::manifest(repository, digest)),
    }
    let since = |record: Option<&ManifestRecord>| record.and_then(|record| record.unneeded_since);
    move_key(scope, (since(before), since(after)), |since| {
        key::unneeded_manifest(since, repository, digest)
    });
    let totals = scope.totals()?;
    let size = |record: Option<&ManifestRecord>| record.map_or((0, 0), |r| (1, r.size_bytes));
    let (gone, come) = (size(before), size(after));
    totals.manifests = (totals.manifests + come.0).saturating_sub(gone.0);
    totals.manifest_bytes = (totals.manifest_bytes + come.1).saturating_sub(gone.1);
    Ok(())
}

/// Derived: `DeletedAt`, totals.
pub(super) fn put_deleted_manifest(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
    before: Option<&DeletedManifestRecord>,
    after: Option<&DeletedManifestRecord>,
) -> Result<(), ApplyError> {
    match after {
        Some(deleted) => scope.save(key::deleted_manifest(repository, digest), deleted),
        None => scope.delete(key::deleted_manifest(repository, digest)),
    }
    let at = |record: Option<&DeletedManifestRecord>| record.map(|record| record.deleted_at);
    move_key(scope, (at(before), at(after)), |at| {
        key::deleted_at(at, repository, digest)
    });
    let totals = scope.totals()?;
    let size = |record: Option<&DeletedManifestRecord>| {
        record.map_or((0, 0), |record| (1, record.manifest.size_bytes))
    };
    let (gone, come) = (size(before), size(after));
    totals.deleted_manifests = (totals.deleted_manifests + come.0).saturating_sub(gone.0);
    totals.deleted_manifest_bytes = (totals.deleted_manifest_bytes + come.1).saturating_sub(gone.1);
    Ok(())
}

/// Derived: `EmptyRepository`.
pub(super) fn put_repository_state(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    before: &RepositoryStateRecord,
    after: Option<&RepositoryStateRecord>,
) {
    match after {
        Some(state) => scope.save(key::repository_state(repository), state),
        None => scope.delete(key::repository_state(repository)),
    }
    let since = (
        before.empty_since,
        after.and_then(|state| state.empty_since),
    );
    move_key(scope, since, |since| {
        key::empty_repository(since, repository)
    });
}

/// Condemned blobs are not worth repairing, so they are not counted.
fn counted(blob: &BlobRecord) -> Option<&[NodeId]> {
    blob.condemned_since.is_none().then_some(&blob.holders)
}

/// Moves a key that exists for `Some` position only.
fn move_key<P: PartialEq>(
    scope: &mut Scope<'_, '_>,
    (before, after): (Option<P>, Option<P>),
    key: impl Fn(P) -> Vec<u8>,
) {
    if before == after {
        return;
    }
    if let Some(before) = before {
        scope.delete(key(before));
    }
    if let Some(after) = after {
        scope.mark(key(after));
    }
}

/// Derived: `LinkedBy`, `UnreferencedLink`.
pub(super) fn put_link(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
    before: Option<LinkRecord>,
    after: Option<LinkRecord>,
) {
    if before == after {
        return;
    }
    match &after {
        Some(link) => scope.save(key::link(repository, digest), link),
        None => scope.delete(key::link(repository, digest)),
    }
    if before.is_none() {
        scope.mark(key::linked_by(digest, repository));
    }
    if after.is_none() {
        scope.delete(key::linked_by(digest, repository));
    }
    let since = |link: Option<LinkRecord>| link.and_then(|link| link.unreferenced_since);
    move_key(scope, (since(before), since(after)), |since| {
        key::unreferenced_link(since, repository, digest)
    });
}

/// Derived: `TicketExpiry`.
pub(super) fn put_ticket(
    scope: &mut Scope<'_, '_>,
    id: TicketId,
    before: Option<&TicketRecord>,
    after: Option<&TicketRecord>,
) {
    if before == after {
        return;
    }
    match after {
        Some(ticket) => scope.save(key::ticket(id), ticket),
        None => scope.delete(key::ticket(id)),
    }
    let expiry = |ticket: Option<&TicketRecord>| ticket.map(|ticket| ticket.expires_at);
    move_key(scope, (expiry(before), expiry(after)), |at| {
        key::ticket_expiry(at, id)
    });
}

/// Points a tag to `after`, or removes it. Derived: `TagOf`, `TagHistory`, `TagList`, totals.
///
/// A tag that already points there is left alone: nothing changed, so nothing is written to its history.
pub(super) fn put_tag(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    tag: &Tag,
    before: Option<TagRecord>,
    after: Option<Digest>,
) -> Result<(), ApplyError> {
    let old = before.map(|record| record.digest);
    if old == after {
        return Ok(());
    }
    match after {
        Some(digest) => scope.save(
            key::tag(repository, tag),
            &TagRecord {
                digest,
                index: scope.at,
            },
        ),
        None => scope.delete(key::tag(repository, tag)),
    }
    move_key(scope, (old, after), |digest| {
        key::tag_of(repository, &digest, tag)
    });
    remember_change(scope, repository, tag, after)?;
    if old.is_none() || after.is_none() {
        let changed_at = scope.at;
        scope.save(
            key::of_repository(Table::TagList, repository),
            &RevisionRecord { changed_at },
        );
    }
    let totals = scope.totals()?;
    match (old, after) {
        (None, Some(_)) => totals.tags += 1,
        (Some(_), None) => totals.tags = totals.tags.saturating_sub(1),
        _ => {}
    }
    review::tag_moved(scope, repository, old, after)
}

/// Writes the change to the history of the tag. Every so many changes those beyond the newest [`TAG_HISTORY_MAX`] are
/// forgotten: looking for them at each one would make every push of a busy tag read all of its history.
fn remember_change(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    tag: &Tag,
    digest: Option<Digest>,
) -> Result<(), ApplyError> {
    let history = key::tag_history(repository, tag);
    let decode = |key: &[u8], value: &[u8]| Ok(Some(<TagChange as Record>::decode(key, value)?));
    let newest = scan::page(scope.state, &history, None, 1, decode)?.pop();
    let change = TagChange {
        index: scope.at,
        digest,
        proposed_at: scope.entry.proposed_at,
        subject: scope.entry.subject.clone(),
        number: newest.map_or(0, |newest| newest.number) + 1,
    };
    scope.save(key::tag_change(repository, tag, scope.at), &change);
    if change.number <= TAG_HISTORY_MAX as u64 || !change.number.is_multiple_of(TRIM_EVERY) {
        return Ok(());
    }
    let (mut kept, mut old) = (0, Vec::new());
    scan::visit(scope.state, &history, None, &mut |key, _| {
        // Newest first.
        if kept == TAG_HISTORY_MAX {
            old.push(key.to_vec());
        } else {
            kept += 1;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    for key in old {
        scope.delete(key);
    }
    Ok(())
}

/// Whether a manifest of the repository names the digest.
pub(super) fn is_referenced(
    scope: &Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<bool, ApplyError> {
    Ok(scan::first_key(scope.state, &key::edges_of(digest, repository))?.is_some())
}

/// Whether a manifest of the repository names the digest, or would when it is restored.
pub(super) fn is_needed(
    scope: &Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<bool, ApplyError> {
    let deleted = key::deleted_edges_of(digest, repository);
    Ok(is_referenced(scope, repository, digest)?
        || scan::first_key(scope.state, &deleted)?.is_some())
}

/// One manifest of the repository that names the digest.
pub(super) fn referencing_manifest(
    scope: &Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<Option<Digest>, ApplyError> {
    let Some(edge) = scan::first_key(scope.state, &key::edges_of(digest, repository))? else {
        return Ok(None);
    };
    let mut parts = key::Reader::new(Table::Edge, &edge).map_err(ViewError::from)?;
    let manifest = parts
        .digest()
        .and_then(|_| parts.number())
        .and_then(|_| parts.digest());
    Ok(Some(manifest.map_err(ViewError::from)?))
}
