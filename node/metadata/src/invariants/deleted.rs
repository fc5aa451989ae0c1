//! What can be restored, what waits for garbage collection, and what it remembers.

use oci::Digest;

use super::Checker;
use crate::ids::{LogIndex, LogTime, RepositoryId};
use crate::key::{self, Reader, Table};
use crate::record::{
    DeletedBlobRecord, DeletedManifestRecord, ManifestRecord, PurgedManifestRecord,
    ReferencesRecord, ReferrerReviewRecord, RepositoryStateRecord,
};
use crate::scan;
use crate::view::ViewError;

pub(super) fn check(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    deleted_manifests(checker)?;
    deleted_edges(checker)?;
    manifest_lists(checker)?;
    repositories(checker)?;
    repository_lists(checker)?;
    deleted_blobs(checker)?;
    purged_manifests(checker)
}

fn deleted_manifests(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    checker.each_record::<DeletedManifestRecord>(
        Table::DeletedManifest,
        |checker, key, mut parts, record| {
            let (repository, digest) = (RepositoryId(parts.number()?), parts.digest()?);
            checker.expect_repository(repository, key);
            let body = checker.view.get(&key::manifest_body(repository, &digest))?;
            let has_body = body.as_ref().is_some_and(|body| {
                body.len() as u64 == record.manifest.size_bytes
                    && Digest::of(digest.algorithm(), body) == digest
            });
            let law = "every deleted manifest has the body of its digest and size";
            checker.expect(has_body, law, key);
            let listed = key::deleted_at(record.deleted_at, repository, &digest);
            checker.expect_key(&listed, "every deleted manifest is on its list", key)?;
            let agrees = record.manifest.subject.is_some() == record.referrer.is_some();
            checker.expect(agrees, "a deleted referrer knows how it was listed", key);
            let is_needed = record.manifest.unneeded_since.is_none();
            checker.expect(is_needed, "a deleted manifest waits for nothing else", key);
            let tags = record.tags.is_sorted_by(|a, b| a.as_str() < b.as_str());
            checker.expect(tags, "the tags of a deleted manifest are ascending", key);
            let is_past = record.deleted_index <= checker.view.applied();
            checker.expect(is_past, "a manifest was deleted by an applied entry", key);
            checker.totals.deleted_manifests += 1;
            checker.totals.deleted_manifest_bytes += record.manifest.size_bytes;
            Ok(())
        },
    )
}

/// Every reference of a deleted manifest has a deleted edge, and there are no more of them.
fn deleted_edges(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    let references = std::cell::Cell::new(0_u64);
    checker.each(Table::DeletedManifest, |checker, key, mut parts| {
        let (repository, manifest) = (RepositoryId(parts.number()?), parts.digest()?);
        let record: Option<ReferencesRecord> =
            checker.load(&key::references(repository, &manifest))?;
        checker.expect(record.is_some(), "every manifest has references", key);
        for (named, kind) in record.unwrap_or_default().edges() {
            let edge = key::deleted_edge(&named, repository, &manifest);
            let law = "every reference of a deleted manifest has a deleted edge of its kind";
            checker.expect(checker.view.get(&edge)? == Some(kind.encode()), law, key);
            references.set(references.get() + 1);
        }
        Ok(())
    })?;
    let edges = std::cell::Cell::new(0_u64);
    checker.each(Table::DeletedEdge, |checker, key, mut parts| {
        let _named = parts.digest()?;
        let (repository, manifest) = (RepositoryId(parts.number()?), parts.digest()?);
        edges.set(edges.get() + 1);
        let manifest = key::deleted_manifest(repository, &manifest);
        let law = "every deleted edge comes from a deleted manifest";
        checker.expect_key(&manifest, law, key)
    })?;
    let law = "there are as many deleted edges as references of deleted manifests";
    checker.expect(edges == references, law, &key::table(Table::DeletedEdge));
    Ok(())
}

fn manifest_lists(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    let waiting = |parts: &mut Reader<'_>| -> Result<_, ViewError> {
        let at = LogTime(parts.number()?);
        Ok((at, RepositoryId(parts.number()?), parts.digest()?))
    };
    checker.each(Table::DeletedAt, |checker, key, mut parts| {
        let (at, repository, digest) = waiting(&mut parts)?;
        let record: Option<DeletedManifestRecord> =
            checker.load(&key::deleted_manifest(repository, &digest))?;
        let holds = record.is_some_and(|record| record.deleted_at == at);
        let law = "a manifest on the deleted list was deleted then";
        checker.expect(holds, law, key);
        Ok(())
    })?;
    checker.each(Table::UnneededManifest, |checker, key, mut parts| {
        let (since, repository, digest) = waiting(&mut parts)?;
        let record: Option<ManifestRecord> = checker.load(&key::manifest(repository, &digest))?;
        let holds = record.is_some_and(|record| record.unneeded_since == Some(since));
        let law = "a manifest on the unneeded list is so since then";
        checker.expect(holds, law, key);
        Ok(())
    })?;
    checker.each_record::<ReferrerReviewRecord>(
        Table::ReferrerReview,
        |checker, key, mut parts, _| {
            let repository = RepositoryId(parts.number()?);
            let _subject = parts.digest()?;
            checker.expect_repository(repository, key);
            Ok(())
        },
    )
}

fn repositories(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    checker.each_record::<RepositoryStateRecord>(
        Table::RepositoryState,
        |checker, key, mut parts, state| {
            let repository = RepositoryId(parts.number()?);
            checker.expect_repository(repository, key);
            if let Some(since) = state.empty_since {
                let listed = key::empty_repository(since, repository);
                checker.expect_key(&listed, "an empty repository is on its list", key)?;
            }
            let mut has_content = false;
            for table in [Table::Link, Table::Manifest, Table::DeletedManifest] {
                let content = key::of_repository(table, repository);
                has_content |= scan::first_key(checker.view, &content)?.is_some();
            }
            let holds = has_content || state.empty_since.is_some();
            let law = "a repository has content or is empty since some time";
            checker.expect(holds, law, key);
            Ok(())
        },
    )
}

fn repository_lists(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    checker.each(Table::EmptyRepository, |checker, key, mut parts| {
        let (since, repository) = (LogTime(parts.number()?), RepositoryId(parts.number()?));
        let state: Option<RepositoryStateRecord> =
            checker.load(&key::repository_state(repository))?;
        let holds = state.is_some_and(|state| state.empty_since == Some(since));
        let law = "a repository on the empty list is so since then";
        checker.expect(holds, law, key);
        Ok(())
    })?;
    checker.each(Table::RemovedRepository, |checker, key, mut parts| {
        let repository = RepositoryId(parts.number()?);
        let exists = checker.repositories.contains(&repository);
        checker.expect(!exists, "a removed repository does not exist", key);
        let history = key::of_repository(Table::TagHistory, repository);
        let has_history = scan::first_key(checker.view, &history)?.is_some();
        checker.expect(
            has_history,
            "a removed repository has history to clear",
            key,
        );
        Ok(())
    })
}

fn deleted_blobs(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    checker.each_record::<DeletedBlobRecord>(
        Table::DeletedBlob,
        |checker, key, mut parts, record| {
            let listed = key::deleted_blob_at(record.deleted_index, &parts.digest()?);
            checker.expect_key(&listed, "every deleted blob is on its list", key)
        },
    )?;
    checker.each(Table::DeletedBlobAt, |checker, key, mut parts| {
        let (at, digest) = (LogIndex(parts.number()?), parts.digest()?);
        let record: Option<DeletedBlobRecord> = checker.load(&key::deleted_blob(&digest))?;
        let holds = record.is_some_and(|record| record.deleted_index == at);
        checker.expect(holds, "a blob on the deleted list was deleted then", key);
        Ok(())
    })
}

fn purged_manifests(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    checker.each_record::<PurgedManifestRecord>(
        Table::PurgedManifest,
        |checker, key, mut parts, record| {
            let (digest, repository) = (parts.digest()?, RepositoryId(parts.number()?));
            let listed = key::purged_manifest_at(record.purged_index, &digest, repository);
            checker.expect_key(&listed, "every purged manifest is on its list", key)?;
            let in_order = record.deleted_index < record.purged_index
                && record.deleted_at <= record.purged_at
                && record.purged_index <= checker.view.applied();
            let law = "a manifest is purged by an applied entry after the one that deleted it";
            checker.expect(in_order, law, key);
            Ok(())
        },
    )?;
    checker.each(Table::PurgedManifestAt, |checker, key, mut parts| {
        let (at, digest) = (LogIndex(parts.number()?), parts.digest()?);
        let record = key::purged_manifest(&digest, RepositoryId(parts.number()?));
        let record: Option<PurgedManifestRecord> = checker.load(&record)?;
        let holds = record.is_some_and(|record| record.purged_index == at);
        let law = "a manifest on the purged list was purged then";
        checker.expect(holds, law, key);
        Ok(())
    })
}
