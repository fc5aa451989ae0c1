//! What is remembered of deleted blobs and purged manifests: nodes follow the first to unlink their copies, operators ask
//! about both. Each has a record, and a key in a list by the entry that deleted it, in which the oldest comes first.

use oci::Digest;

use super::{ApplyError, Scope};
use crate::codec::CodecError;
use crate::ids::{LogTime, RepositoryId};
use crate::key::{self, Reader, Table};
use crate::record::{
    DeletedBlobRecord, DeletedManifestRecord, PurgedManifestRecord, RepositoryStateRecord,
};
use crate::scan;
use crate::view::ViewError;

/// How long a deleted blob or purged manifest is remembered: log time, in milliseconds.
pub const DELETED_TTL_MS: u64 = 24 * 60 * 60 * 1000;

/// Tags of a purged manifest that are remembered by name.
const TAGS_MAX: usize = 10;

const LISTED_ARE_REMEMBERED: &str = "everything on a list of what was deleted is remembered";

pub(super) fn deleted_blob(
    scope: &mut Scope<'_, '_>,
    digest: &Digest,
    size_bytes: u64,
) -> Result<(), ApplyError> {
    let before: Option<DeletedBlobRecord> = scope.load(&key::deleted_blob(digest))?;
    if let Some(before) = before {
        scope.delete(key::deleted_blob_at(before.deleted_index, digest));
    }
    let after = DeletedBlobRecord {
        size_bytes,
        deleted_at: scope.now,
        deleted_index: scope.at,
    };
    scope.mark(key::deleted_blob_at(scope.at, digest));
    scope.save(key::deleted_blob(digest), &after);
    Ok(())
}

pub(super) fn purged_manifest(
    scope: &mut Scope<'_, '_>,
    repository: RepositoryId,
    digest: &Digest,
    deleted: &DeletedManifestRecord,
) -> Result<(), ApplyError> {
    let key = key::purged_manifest(digest, repository);
    let before: Option<PurgedManifestRecord> = scope.load(&key)?;
    if let Some(before) = before {
        let listed = key::purged_manifest_at(before.purged_index, digest, repository);
        scope.delete(listed);
    }
    let state: RepositoryStateRecord = scope.load_promised(
        &key::repository_state(repository),
        "every repository with content has a state",
    )?;
    let named = deleted.tags.len().min(TAGS_MAX);
    let after = PurgedManifestRecord {
        repository: state.name,
        size_bytes: deleted.manifest.size_bytes,
        subject: deleted.manifest.subject,
        tags: deleted.tags[..named].to_vec(),
        more_tags: (deleted.tags.len() - named) as u64,
        deleted_at: deleted.deleted_at,
        deleted_index: deleted.deleted_index,
        reason: deleted.reason.clone(),
        purged_at: scope.now,
        purged_index: scope.at,
    };
    scope.mark(key::purged_manifest_at(scope.at, digest, repository));
    scope.save(key, &after);
    Ok(())
}

/// The keys of one thing that was remembered for long enough: of its record and of its place in its list.
pub(super) fn overdue(scope: &Scope<'_, '_>) -> Result<Option<[Vec<u8>; 2]>, ApplyError> {
    let is_over = |since: LogTime| since.plus_ms(DELETED_TTL_MS) <= scope.now;
    if let Some(listed) = first(scope, Table::DeletedBlobAt)? {
        let key = key::deleted_blob(&digest_of(Table::DeletedBlobAt, &listed)?.0);
        let record: DeletedBlobRecord = scope.load_promised(&key, LISTED_ARE_REMEMBERED)?;
        if is_over(record.deleted_at) {
            return Ok(Some([key, listed]));
        }
    }
    if let Some(listed) = first(scope, Table::PurgedManifestAt)? {
        let (digest, mut rest) = digest_of(Table::PurgedManifestAt, &listed)?;
        let repository = RepositoryId(rest.number().map_err(ViewError::from)?);
        let key = key::purged_manifest(&digest, repository);
        let record: PurgedManifestRecord = scope.load_promised(&key, LISTED_ARE_REMEMBERED)?;
        if is_over(record.purged_at) {
            return Ok(Some([key, listed]));
        }
    }
    Ok(None)
}

fn first(scope: &Scope<'_, '_>, list: Table) -> Result<Option<Vec<u8>>, ApplyError> {
    Ok(scan::first_key(scope.state, &key::table(list))?)
}

/// The digest behind the log index, and what follows it.
fn digest_of(list: Table, listed: &[u8]) -> Result<(Digest, Reader<'_>), ApplyError> {
    let read = || -> Result<_, CodecError> {
        let mut parts = Reader::new(list, listed)?;
        let _at = parts.number()?;
        Ok((parts.digest()?, parts))
    };
    Ok(read().map_err(ViewError::from)?)
}
