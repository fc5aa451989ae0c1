//! Blobs, links, counted copies and the work lists of garbage collection.

use super::Checker;
use crate::ids::{LogTime, NodeId, RepositoryId};
use crate::key::{self, Table};
use crate::record::{BlobRecord, HolderSetRecord, LinkRecord};
use crate::scan;
use crate::view::ViewError;

pub(super) fn check(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    blobs(checker)?;
    blob_indexes(checker)?;
    holder_sets(checker)?;
    links(checker)?;
    link_indexes(checker)
}

fn blobs(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    checker.each_record::<BlobRecord>(Table::Blob, |checker, key, mut parts, blob| {
        let digest = parts.digest()?;
        let ascending = blob.holders.is_sorted_by(|a, b| a < b);
        checker.expect(ascending, "holders are ascending and distinct", key);
        for node in &blob.holders {
            let registered = checker.nodes.contains(node);
            checker.expect(registered, "every holder is registered", key);
            let placement = key::placement(*node, &digest);
            checker.expect_key(&placement, "every holder has a placement", key)?;
        }
        let is_linked = scan::first_key(checker.view, &key::links_of(&digest))?.is_some();
        let agrees = blob.unlinked_since.is_none() == is_linked;
        checker.expect(
            agrees,
            "a blob is unlinked since some time or has a link",
            key,
        );
        let agrees = blob.condemned_since.is_none() || blob.unlinked_since.is_some();
        checker.expect(agrees, "only an unlinked blob is condemned", key);
        if let Some(since) = blob
            .unlinked_since
            .filter(|_| blob.condemned_since.is_none())
        {
            let listed = key::unlinked_blob(since, &digest);
            checker.expect_key(&listed, "an unlinked blob is on its work list", key)?;
        }
        let copies = blob.holders.len();
        match blob.condemned_since {
            Some(since) => {
                let listed = key::condemned_blob(since, &digest);
                checker.expect_key(&listed, "a condemned blob is on its work list", key)?;
            }
            None => {
                let listed = key::copies(copies as u64, &digest);
                checker.expect_key(&listed, "a live blob is listed by its copies", key)?;
                let set = key::holder_set(&blob.holders);
                let set = checker.holder_sets.entry(set).or_default();
                set.blobs += 1;
                set.bytes += blob.size_bytes;
            }
        }
        checker.totals.blobs += 1;
        checker.totals.blob_bytes += blob.size_bytes;
        Ok(())
    })
}

fn blob_indexes(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    checker.each(Table::Placement, |checker, key, mut parts| {
        let (node, digest) = (NodeId(parts.number()?), parts.digest()?);
        let blob: Option<BlobRecord> = checker.load(&key::blob(&digest))?;
        let holds = blob.is_some_and(|blob| blob.holders.contains(&node));
        checker.expect(holds, "every placement is a holder", key);
        Ok(())
    })?;
    checker.each(Table::Copies, |checker, key, mut parts| {
        let (copies, digest) = (parts.number()?, parts.digest()?);
        let blob: Option<BlobRecord> = checker.load(&key::blob(&digest))?;
        let holds = blob.is_some_and(|blob| {
            blob.holders.len() as u64 == copies && blob.condemned_since.is_none()
        });
        checker.expect(
            holds,
            "a blob listed by its copies is live and has as many",
            key,
        );
        Ok(())
    })?;
    checker.each(Table::UnlinkedBlob, |checker, key, mut parts| {
        let (since, digest) = (LogTime(parts.number()?), parts.digest()?);
        let blob: Option<BlobRecord> = checker.load(&key::blob(&digest))?;
        let holds = blob.is_some_and(|blob| {
            blob.unlinked_since == Some(since) && blob.condemned_since.is_none()
        });
        checker.expect(
            holds,
            "a blob on the unlinked list is unlinked since then",
            key,
        );
        Ok(())
    })?;
    checker.each(Table::CondemnedBlob, |checker, key, mut parts| {
        let (since, digest) = (LogTime(parts.number()?), parts.digest()?);
        let blob: Option<BlobRecord> = checker.load(&key::blob(&digest))?;
        let holds = blob.is_some_and(|blob| blob.condemned_since == Some(since));
        checker.expect(
            holds,
            "a blob on the condemned list is condemned since then",
            key,
        );
        Ok(())
    })
}

fn holder_sets(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    checker.each_record::<HolderSetRecord>(Table::HolderSet, |checker, key, _, set| {
        let counted = checker.holder_sets.remove(key);
        let law = "as many blobs and bytes as are counted have these holders";
        checker.expect(counted == Some(set), law, key);
        Ok(())
    })?;
    for key in std::mem::take(&mut checker.holder_sets).into_keys() {
        checker.expect(false, "every blob is counted by its holders", &key);
    }
    Ok(())
}

fn links(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    checker.each_record::<LinkRecord>(Table::Link, |checker, key, mut parts, link| {
        let (repository, digest) = (RepositoryId(parts.number()?), parts.digest()?);
        checker.expect_repository(repository, key);
        checker.expect_key(&key::blob(&digest), "every link has a blob", key)?;
        let inverse = key::linked_by(&digest, repository);
        checker.expect_key(&inverse, "every link is found by its digest", key)?;
        let edge = scan::first_key(checker.view, &key::edges_of(&digest, repository))?;
        let deleted_edge =
            scan::first_key(checker.view, &key::deleted_edges_of(&digest, repository))?;
        let is_needed = edge.is_some() || deleted_edge.is_some();
        let agrees = link.unreferenced_since.is_none() == is_needed;
        checker.expect(
            agrees,
            "a link is unreferenced since some time or has an edge, perhaps of a deleted manifest",
            key,
        );
        if let Some(since) = link.unreferenced_since {
            let listed = key::unreferenced_link(since, repository, &digest);
            checker.expect_key(&listed, "an unreferenced link is on its work list", key)?;
        }
        Ok(())
    })
}

fn link_indexes(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    checker.each(Table::LinkedBy, |checker, key, mut parts| {
        let (digest, repository) = (parts.digest()?, RepositoryId(parts.number()?));
        let link = key::link(repository, &digest);
        checker.expect_key(&link, "a link found by its digest exists", key)
    })?;
    checker.each(Table::UnreferencedLink, |checker, key, mut parts| {
        let (since, repository, digest) = (
            LogTime(parts.number()?),
            RepositoryId(parts.number()?),
            parts.digest()?,
        );
        let link: Option<LinkRecord> = checker.load(&key::link(repository, &digest))?;
        let holds = link.is_some_and(|link| link.unreferenced_since == Some(since));
        checker.expect(
            holds,
            "a link on the unreferenced list is so since then",
            key,
        );
        Ok(())
    })
}
