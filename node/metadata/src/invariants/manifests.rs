//! Manifests, their references and referrers, tags and their history.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use oci::Digest;

use super::Checker;
use crate::codec;
use crate::ids::{LogIndex, RepositoryId};
use crate::key::{self, Table};
use crate::record::{
    ManifestRecord, ReferencesRecord, Referrer, RevisionRecord, TagChange, TagRecord,
};
use crate::scan;
use crate::view::ViewError;

pub(super) fn check(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    manifests(checker)?;
    parts_of_manifests(checker)?;
    edges(checker)?;
    referrers(checker)?;
    tags(checker)?;
    tag_history(checker)?;
    tag_lists(checker)
}

fn manifests(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    checker.each_record::<ManifestRecord>(Table::Manifest, |checker, key, mut parts, record| {
        let (repository, digest) = (RepositoryId(parts.number()?), parts.digest()?);
        checker.expect_repository(repository, key);
        let body = checker.view.get(&key::manifest_body(repository, &digest))?;
        let has_body = body.as_ref().is_some_and(|body| {
            body.len() as u64 == record.size_bytes && Digest::of(digest.algorithm(), body) == digest
        });
        checker.expect(
            has_body,
            "every manifest has the body of its digest and size",
            key,
        );
        if let Some(subject) = &record.subject {
            let referrer: Option<Referrer> =
                checker.load(&key::referrer(repository, subject, &digest))?;
            let is_listed = referrer.is_some_and(|referrer| {
                referrer.media_type == record.media_type && referrer.size_bytes == record.size_bytes
            });
            checker.expect(
                is_listed,
                "a manifest with a subject is listed as referrer",
                key,
            );
        }
        checker.expect_key(
            &key::references(repository, &digest),
            "every manifest has references",
            key,
        )?;
        let hidden = key::deleted_manifest(repository, &digest);
        let is_hidden = scan::exists(checker.view, &hidden)?;
        checker.expect(!is_hidden, "no manifest exists and is deleted", key);
        if let Some(since) = record.unneeded_since {
            let listed = key::unneeded_manifest(since, repository, &digest);
            checker.expect_key(&listed, "an unneeded manifest is on its list", key)?;
        }
        need(checker, key, repository, &digest, &record)?;
        checker.totals.manifests += 1;
        checker.totals.manifest_bytes += record.size_bytes;
        Ok(())
    })
}

/// Nothing else says whether a manifest is needed, but a subject under review may not have told its referrers yet.
fn need(
    checker: &mut Checker<'_>,
    key: &[u8],
    repository: RepositoryId,
    digest: &Digest,
    record: &ManifestRecord,
) -> Result<(), ViewError> {
    let mut is_needed = false;
    for prefix in [
        key::tags_of(repository, digest),
        key::edges_of(digest, repository),
        key::deleted_edges_of(digest, repository),
    ] {
        is_needed |= scan::first_key(checker.view, &prefix)?.is_some();
    }
    let mut is_reviewed = false;
    if let Some(subject) = &record.subject {
        is_needed |= exists(checker, repository, subject)?;
        is_reviewed = scan::exists(checker.view, &key::referrer_review(repository, subject))?;
    }
    let agrees = record.unneeded_since.is_none() == is_needed;
    checker.expect(
        agrees || is_reviewed,
        "a manifest is unneeded since some time, or has a tag, an index or a subject",
        key,
    );
    Ok(())
}

/// Whether the manifest is there or can be restored.
fn exists(
    checker: &Checker<'_>,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<bool, ViewError> {
    Ok(
        scan::exists(checker.view, &key::manifest(repository, digest))?
            || scan::exists(checker.view, &key::deleted_manifest(repository, digest))?,
    )
}

fn parts_of_manifests(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    for table in [Table::ManifestBody, Table::References] {
        checker.each(table, |checker, key, mut parts| {
            let (repository, digest) = (RepositoryId(parts.number()?), parts.digest()?);
            let belongs = exists(checker, repository, &digest)?;
            let law = "bodies and references belong to a manifest, perhaps a deleted one";
            checker.expect(belongs, law, key);
            Ok(())
        })?;
    }
    Ok(())
}

/// Every reference has an edge, and there are no more edges than references: so they are the same.
fn edges(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    let references = std::cell::Cell::new(0_u64);
    checker.each_record::<ReferencesRecord>(
        Table::References,
        |checker, key, mut parts, record| {
            let (repository, manifest) = (RepositoryId(parts.number()?), parts.digest()?);
            if !scan::exists(checker.view, &key::manifest(repository, &manifest))? {
                return Ok(());
            }
            for (named, kind) in record.edges() {
                let edge = checker
                    .view
                    .get(&key::edge(&named, repository, &manifest))?;
                let is_right = edge == Some(kind.encode());
                checker.expect(is_right, "every reference has an edge of its kind", key);
                references.set(references.get() + 1);
            }
            for blob in &record.blobs {
                let link = key::link(repository, blob);
                checker.expect_key(&link, "every referenced blob is linked", key)?;
            }
            Ok(())
        },
    )?;
    let edges = std::cell::Cell::new(0_u64);
    checker.each(Table::Edge, |checker, key, mut parts| {
        let (_named, repository, manifest) = (
            parts.digest()?,
            RepositoryId(parts.number()?),
            parts.digest()?,
        );
        edges.set(edges.get() + 1);
        let manifest = key::manifest(repository, &manifest);
        checker.expect_key(&manifest, "every edge comes from a manifest", key)
    })?;
    let law = "there are as many edges as references";
    checker.expect(edges == references, law, &key::table(Table::Edge));
    Ok(())
}

fn referrers(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    checker.each(Table::Referrer, |checker, key, mut parts| {
        let (repository, subject, digest) = (
            RepositoryId(parts.number()?),
            parts.digest()?,
            parts.digest()?,
        );
        let manifest: Option<ManifestRecord> = checker.load(&key::manifest(repository, &digest))?;
        let refers = manifest.is_some_and(|manifest| manifest.subject == Some(subject));
        checker.expect(
            refers,
            "every referrer is a manifest with that subject",
            key,
        );
        Ok(())
    })
}

fn tags(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    checker.each_record::<TagRecord>(Table::Tag, |checker, key, mut parts, record| {
        let repository = RepositoryId(parts.number()?);
        let tag = codec::tag(parts.text()?)?;
        let manifest = key::manifest(repository, &record.digest);
        checker.expect_key(&manifest, "every tag points to a manifest", key)?;
        let inverse = key::tag_of(repository, &record.digest, &tag);
        checker.expect_key(&inverse, "every tag is found by its digest", key)?;
        let change: Option<TagChange> =
            checker.load(&key::tag_change(repository, &tag, record.index))?;
        let is_known = change.is_some_and(|change| change.digest == Some(record.digest));
        checker.expect(
            is_known,
            "the history knows how a tag came where it is",
            key,
        );
        checker.totals.tags += 1;
        Ok(())
    })?;
    checker.each(Table::TagOf, |checker, key, mut parts| {
        let (repository, digest) = (RepositoryId(parts.number()?), parts.digest()?);
        let tag = codec::tag(parts.text()?)?;
        let record: Option<TagRecord> = checker.load(&key::tag(repository, &tag))?;
        let points = record.is_some_and(|record| record.digest == digest);
        checker.expect(points, "a tag found by a digest points there", key);
        Ok(())
    })
}

/// The newest change of a tag is its present state.
fn tag_history(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    checker.each_record::<TagChange>(Table::TagHistory, |checker, key, mut parts, change| {
        let repository = RepositoryId(parts.number()?);
        let tag = codec::tag(parts.counted_text()?)?;
        if scan::exists(checker.view, &key::removed_repository(repository))? {
            return Ok(());
        }
        checker.expect_repository(repository, key);
        let newest = scan::first_key(checker.view, &key::tag_history(repository, &tag))?;
        if newest.as_deref() == Some(key) {
            let record: Option<TagRecord> = checker.load(&key::tag(repository, &tag))?;
            let ends = change.digest.map(|digest| TagRecord {
                digest,
                index: change.index,
            });
            checker.expect(record == ends, "a tag is where its history ends", key);
        }
        Ok(())
    })
}

/// The revision of a list is the last entry after which a tag was there that had not been, or the reverse.
fn tag_lists(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    // The change read last, and by repository the newest one that changed its list. The history of a tag comes
    // newest first, so a change is judged when the one before it is read.
    let later: RefCell<Option<(RepositoryId, String, TagChange)>> = RefCell::default();
    let newest: RefCell<BTreeMap<RepositoryId, LogIndex>> = RefCell::default();
    // Where old changes were forgotten, perhaps the one that is looked for.
    let trimmed: RefCell<BTreeSet<RepositoryId>> = RefCell::default();
    let judge = |(repository, _, change): &(RepositoryId, String, TagChange),
                 earlier: Option<&TagChange>| {
        if earlier.is_none() && change.number > 1 {
            trimmed.borrow_mut().insert(*repository);
            return;
        }
        let was_there = earlier.is_some_and(|earlier| earlier.digest.is_some());
        if change.digest.is_some() != was_there {
            let mut newest = newest.borrow_mut();
            let known = newest.entry(*repository).or_default();
            *known = change.index.max(*known);
        }
    };
    checker.each_record::<TagChange>(Table::TagHistory, |_, _, mut parts, change| {
        let repository = RepositoryId(parts.number()?);
        let this = (repository, parts.counted_text()?.to_owned(), change);
        if let Some(later) = later.borrow().as_ref() {
            let is_same_tag = (later.0, &later.1) == (this.0, &this.1);
            judge(later, is_same_tag.then_some(&this.2));
        }
        *later.borrow_mut() = Some(this);
        Ok(())
    })?;
    if let Some(later) = later.borrow().as_ref() {
        judge(later, None);
    }
    let (newest, trimmed) = (newest.into_inner(), trimmed.into_inner());
    let law = "a list of tags changed when a tag last came or went";
    checker.each_record::<RevisionRecord>(Table::TagList, |checker, key, mut parts, record| {
        let repository = RepositoryId(parts.number()?);
        let changed_at = newest.get(&repository);
        let is_right = changed_at == Some(&record.changed_at)
            || trimmed.contains(&repository) && changed_at <= Some(&record.changed_at);
        checker.expect(is_right, law, key);
        Ok(())
    })?;
    for repository in newest.keys() {
        // The list of a removed repository is gone at once, its history in pieces.
        if scan::exists(checker.view, &key::removed_repository(*repository))? {
            continue;
        }
        let key = key::of_repository(Table::TagList, *repository);
        checker.expect_key(&key, law, &key)?;
    }
    Ok(())
}
