//! Where garbage collection stands, and what it would do.

use oci::{Digest, RepositoryName};

use super::{Collected, blob, repository_name, time};
use crate::command::{CondemnedBlob, GcLimits, UnneededManifest};
use crate::ids::{LogTime, RepositoryId};
use crate::key::{self, Reader, Table};
use crate::record::{DeletedManifestRecord, GcRecord, PurgedManifestRecord, TotalsRecord};
use crate::scan;
use crate::view::{MetadataView, ViewError};

/// Where garbage collection stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcStatus {
    /// The epoch that steps must carry.
    pub epoch: u64,
    /// Why it is paused; `None` while it runs.
    pub paused: Option<String>,
    /// What was ever collected.
    pub collected: Collected,
    /// How long each list has waited.
    pub heads: QueueHeads,
    /// Whether referrers wait to be reviewed.
    pub has_reviews: bool,
    /// Deleted manifests that can be restored.
    pub deleted_manifests: u64,
    /// Their lengths.
    pub deleted_manifest_bytes: u64,
}

/// Since when the oldest item of each list has waited; `None` for an empty list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueHeads {
    /// Manifests that can be restored.
    pub deleted_manifests: Option<LogTime>,
    /// Links that no manifest needs.
    pub unreferenced_links: Option<LogTime>,
    /// Blobs that no repository links.
    pub unlinked_blobs: Option<LogTime>,
    /// Condemned blobs.
    pub condemned_blobs: Option<LogTime>,
    /// Repositories that had no content.
    pub empty_repositories: Option<LogTime>,
    /// Manifests that nothing needs.
    pub unneeded_manifests: Option<LogTime>,
    /// Deleted blobs that are remembered.
    pub deleted_blobs: Option<LogTime>,
    /// Purged manifests that are remembered.
    pub purged_manifests: Option<LogTime>,
}

/// Where garbage collection stands.
///
/// # Errors
/// [`ViewError`].
pub fn gc(view: &dyn MetadataView) -> Result<GcStatus, ViewError> {
    let gc: GcRecord = scan::load(view, &key::single(Table::Gc))?.unwrap_or_default();
    let totals: TotalsRecord = scan::load(view, &key::single(Table::Totals))?.unwrap_or_default();
    let head = |table: Table| -> Result<Option<LogTime>, ViewError> {
        match scan::first_key(view, &key::table(table))? {
            Some(key) => Ok(Some(LogTime(Reader::new(table, &key)?.number()?))),
            None => Ok(None),
        }
    };
    let reviews = key::table(Table::ReferrerReview);
    Ok(GcStatus {
        epoch: gc.epoch,
        paused: gc.paused,
        collected: gc.collected,
        heads: QueueHeads {
            deleted_manifests: head(Table::DeletedAt)?,
            unreferenced_links: head(Table::UnreferencedLink)?,
            unlinked_blobs: head(Table::UnlinkedBlob)?,
            condemned_blobs: head(Table::CondemnedBlob)?,
            empty_repositories: head(Table::EmptyRepository)?,
            unneeded_manifests: head(Table::UnneededManifest)?,
            deleted_blobs: super::deleted_blobs(view, None, 1)?
                .first()
                .map(|deleted| deleted.record.deleted_at),
            purged_manifests: oldest_purged(view)?,
        },
        has_reviews: scan::first_key(view, &reviews)?.is_some(),
        deleted_manifests: totals.deleted_manifests,
        deleted_manifest_bytes: totals.deleted_manifest_bytes,
    })
}

/// When the manifest that was purged first, of those that are remembered, was purged.
fn oldest_purged(view: &dyn MetadataView) -> Result<Option<LogTime>, ViewError> {
    let list = Table::PurgedManifestAt;
    let Some(listed) = scan::first_key(view, &key::table(list))? else {
        return Ok(None);
    };
    let mut parts = Reader::new(list, &listed)?;
    let (_at, digest) = (parts.number()?, parts.digest()?);
    let key = key::purged_manifest(&digest, RepositoryId(parts.number()?));
    let record: Option<PurgedManifestRecord> = scan::load(view, &key)?;
    Ok(record.map(|record| record.purged_at))
}

/// Condemned blobs whose quarantine is over, longest first, after `after`: what `DeleteBlobs` may name.
///
/// # Errors
/// [`ViewError`].
pub fn condemned_blobs(
    view: &dyn MetadataView,
    quarantine_ms: u64,
    after: Option<&CondemnedBlob>,
    limit: usize,
) -> Result<Vec<CondemnedBlob>, ViewError> {
    let (now, _) = time(view)?;
    let after = after.map(|after| key::condemned_blob(after.condemned_since, &after.digest));
    let table = key::table(Table::CondemnedBlob);
    let condemned = scan::page(view, &table, after.as_deref(), limit, |key, _| {
        let mut parts = Reader::new(Table::CondemnedBlob, key)?;
        let condemned_since = LogTime(parts.number()?);
        Ok(Some(CondemnedBlob {
            digest: parts.digest()?,
            condemned_since,
        }))
    })?;
    let due = |blob: &CondemnedBlob| blob.condemned_since.plus_ms(quarantine_ms) <= now;
    Ok(condemned.into_iter().take_while(due).collect())
}

/// A manifest that nothing needs, and the name of its repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unneeded {
    /// Where.
    pub repository: RepositoryName,
    /// What `CollectManifests` takes.
    pub manifest: UnneededManifest,
}

/// Manifests that nothing has needed for `min_age_ms`, longest first, after `after`: what `CollectManifests` may name.
///
/// # Errors
/// [`ViewError`].
pub fn unneeded_manifests(
    view: &dyn MetadataView,
    min_age_ms: u64,
    after: Option<&UnneededManifest>,
    limit: usize,
) -> Result<Vec<Unneeded>, ViewError> {
    let (now, _) = time(view)?;
    let after = after
        .map(|after| key::unneeded_manifest(after.unneeded_since, after.repository, &after.digest));
    let table = key::table(Table::UnneededManifest);
    let unneeded = scan::page(view, &table, after.as_deref(), limit, |key, _| {
        let mut parts = Reader::new(Table::UnneededManifest, key)?;
        let (unneeded_since, repository) =
            (LogTime(parts.number()?), RepositoryId(parts.number()?));
        let manifest = UnneededManifest {
            repository,
            digest: parts.digest()?,
            unneeded_since,
        };
        let name = repository_name(view, repository)?;
        Ok(name.map(|repository| Unneeded {
            repository,
            manifest,
        }))
    })?;
    let due = |item: &Unneeded| item.manifest.unneeded_since.plus_ms(min_age_ms) <= now;
    Ok(unneeded.into_iter().take_while(due).collect())
}

/// What garbage collection would do to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DueStep {
    /// Purge a deleted manifest.
    PurgeManifest,
    /// Remove a link that no manifest needs.
    RemoveLink,
    /// Condemn a blob that no repository links.
    CondemnBlob,
    /// Delete a condemned blob.
    DeleteBlob,
    /// Remove a repository that had no content.
    RemoveRepository,
}

/// Something that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// For what.
    pub step: DueStep,
    /// Where, unless it is a blob of no repository.
    pub repository: Option<RepositoryName>,
    /// What, unless it is a repository.
    pub digest: Option<Digest>,
    /// Length of the blob or manifest.
    pub size_bytes: u64,
    /// Since when it waits.
    pub since: LogTime,
    /// When it is due; the past when it is due now.
    pub due_at: LogTime,
}

/// A page of what waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcPlan {
    /// In the order of the steps, oldest first within each.
    pub items: Vec<Due>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<Vec<u8>>,
}

/// What waits for garbage collection and would be removed unless something needs it before, from `after`, which a
/// page before this one answered.
///
/// # Errors
/// [`ViewError`].
pub fn gc_plan(
    view: &dyn MetadataView,
    limits: &GcLimits,
    quarantine_ms: u64,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<GcPlan, ViewError> {
    let steps = [
        (DueStep::PurgeManifest, Table::DeletedAt, limits.undelete_ms),
        (
            DueStep::RemoveLink,
            Table::UnreferencedLink,
            limits.grace_ms,
        ),
        (
            DueStep::CondemnBlob,
            Table::UnlinkedBlob,
            limits.condemn_delay_ms,
        ),
        (DueStep::DeleteBlob, Table::CondemnedBlob, quarantine_ms),
        (
            DueStep::RemoveRepository,
            Table::EmptyRepository,
            limits.grace_ms,
        ),
    ];
    let mut plan = GcPlan::default();
    let mut after = after;
    for (step, table, wait_ms) in steps {
        if after.is_some_and(|after| after.first() != Some(&(table as u8))) {
            continue;
        }
        let left = limit - plan.items.len();
        let found = scan::page(view, &key::table(table), after.take(), left, |key, _| {
            Ok(Some((key.to_vec(), due(view, step, table, wait_ms, key)?)))
        })?;
        for (key, item) in found {
            plan.next = Some(key);
            plan.items.push(item);
        }
        if plan.items.len() >= limit {
            return Ok(plan);
        }
    }
    plan.next = None;
    Ok(plan)
}

fn due(
    view: &dyn MetadataView,
    step: DueStep,
    table: Table,
    wait_ms: u64,
    key: &[u8],
) -> Result<Due, ViewError> {
    let mut parts = Reader::new(table, key)?;
    let since = LogTime(parts.number()?);
    let repository = match step {
        DueStep::PurgeManifest | DueStep::RemoveLink | DueStep::RemoveRepository => {
            Some(RepositoryId(parts.number()?))
        }
        DueStep::CondemnBlob | DueStep::DeleteBlob => None,
    };
    let digest = match step {
        DueStep::RemoveRepository => None,
        _ => Some(parts.digest()?),
    };
    let size_bytes = match (step, repository, digest) {
        (DueStep::PurgeManifest, Some(repository), Some(digest)) => {
            let deleted: Option<DeletedManifestRecord> =
                scan::load(view, &key::deleted_manifest(repository, &digest))?;
            deleted.map_or(0, |deleted| deleted.manifest.size_bytes)
        }
        (_, _, Some(digest)) => blob(view, &digest)?.map_or(0, |blob| blob.size_bytes),
        _ => 0,
    };
    Ok(Due {
        step,
        repository: match repository {
            Some(repository) => repository_name(view, repository)?,
            None => None,
        },
        digest,
        size_bytes,
        since,
        due_at: since.plus_ms(wait_ms),
    })
}
