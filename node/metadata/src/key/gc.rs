//! Keys of what garbage collection knows.

use oci::Digest;

use super::{Table, Writer};
use crate::ids::{LogIndex, LogTime, RepositoryId};

/// [`Table::RepositoryState`].
pub fn repository_state(repository: RepositoryId) -> Vec<u8> {
    super::of_repository(Table::RepositoryState, repository)
}

/// [`Table::RemovedRepository`].
pub fn removed_repository(repository: RepositoryId) -> Vec<u8> {
    super::of_repository(Table::RemovedRepository, repository)
}

/// [`Table::DeletedManifest`].
pub fn deleted_manifest(repository: RepositoryId, digest: &Digest) -> Vec<u8> {
    Writer::new(Table::DeletedManifest)
        .number(repository.0)
        .digest(digest)
        .0
}

/// [`Table::DeletedEdge`].
pub fn deleted_edge(digest: &Digest, repository: RepositoryId, manifest: &Digest) -> Vec<u8> {
    Writer::new(Table::DeletedEdge)
        .digest(digest)
        .number(repository.0)
        .digest(manifest)
        .0
}

/// The deleted manifests of one repository that name a blob or child manifest.
pub fn deleted_edges_of(digest: &Digest, repository: RepositoryId) -> Vec<u8> {
    Writer::new(Table::DeletedEdge)
        .digest(digest)
        .number(repository.0)
        .0
}

/// Every key of a table that begins with this digest.
pub fn of_digest(table: Table, digest: &Digest) -> Vec<u8> {
    Writer::new(table).digest(digest).0
}

/// [`Table::DeletedAt`].
pub fn deleted_at(at: LogTime, repository: RepositoryId, digest: &Digest) -> Vec<u8> {
    Writer::new(Table::DeletedAt)
        .number(at.0)
        .number(repository.0)
        .digest(digest)
        .0
}

/// [`Table::UnneededManifest`].
pub fn unneeded_manifest(since: LogTime, repository: RepositoryId, digest: &Digest) -> Vec<u8> {
    Writer::new(Table::UnneededManifest)
        .number(since.0)
        .number(repository.0)
        .digest(digest)
        .0
}

/// [`Table::EmptyRepository`].
pub fn empty_repository(since: LogTime, repository: RepositoryId) -> Vec<u8> {
    Writer::new(Table::EmptyRepository)
        .number(since.0)
        .number(repository.0)
        .0
}

/// [`Table::ReferrerReview`].
pub fn referrer_review(repository: RepositoryId, subject: &Digest) -> Vec<u8> {
    Writer::new(Table::ReferrerReview)
        .number(repository.0)
        .digest(subject)
        .0
}

/// Where the blobs with `copies` counted copies begin: before the first of them.
pub fn copies_from(copies: u64) -> Vec<u8> {
    Writer::new(Table::Copies).number(copies).0
}

/// [`Table::DeletedBlob`].
pub fn deleted_blob(digest: &Digest) -> Vec<u8> {
    Writer::new(Table::DeletedBlob).digest(digest).0
}

/// [`Table::DeletedBlobAt`].
pub fn deleted_blob_at(at: LogIndex, digest: &Digest) -> Vec<u8> {
    Writer::new(Table::DeletedBlobAt)
        .number(at.0)
        .digest(digest)
        .0
}

/// [`Table::PurgedManifest`].
pub fn purged_manifest(digest: &Digest, repository: RepositoryId) -> Vec<u8> {
    Writer::new(Table::PurgedManifest)
        .digest(digest)
        .number(repository.0)
        .0
}

/// [`Table::PurgedManifestAt`].
pub fn purged_manifest_at(at: LogIndex, digest: &Digest, repository: RepositoryId) -> Vec<u8> {
    Writer::new(Table::PurgedManifestAt)
        .number(at.0)
        .digest(digest)
        .number(repository.0)
        .0
}
