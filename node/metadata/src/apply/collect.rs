//! Garbage collection (protocols.md section 5), one bounded step at a time.
//!
//! A step says how long things wait and how much it may do; what is due is decided here, from the work lists that
//! `review.rs` keeps, and every item is checked again before it is removed. The cost of a step is that of what it
//! removes: it reads the heads of lists ordered by time, never what is stored.

use std::ops::ControlFlow;

use oci::Digest;

use super::{ApplyError, Refusal, Scope, index, manifest, remember, restore, review, time};
use crate::codec::CodecError;
use crate::command::{CollectManifests, DeleteBlobs, GcLimits, GcStep, PauseGc};
use crate::ids::{LogTime, RepositoryId};
use crate::key::{self, Reader, Table};
use crate::record::{
    BlobRecord, Collected, DeleteReason, EdgeKind, GcRecord, LinkRecord, ReferrerReviewRecord,
    RepositoryStateRecord,
};
use crate::response::{BlobsDeleted, CollectedManifest, GcStepped, Rejection, Response};
use crate::scan;
use crate::view::ViewError;

/// The most work one step may do: items, and what purged manifests name.
pub const MAX_GC_BUDGET: u32 = 10_000;

/// How many blobs one command may delete.
pub const MAX_BLOBS_PER_COMMAND: usize = 1000;

/// How many manifests one command may collect.
pub const MAX_MANIFESTS_PER_COMMAND: usize = 1000;

/// The longest reason for a pause, in bytes.
pub const MAX_REASON_BYTES: usize = 1024;

/// Manifests looked at for one that names a condemned blob. More than that, and it is left alone.
const EDGES_CHECKED: usize = 100;

fn load(scope: &Scope<'_, '_>) -> Result<GcRecord, ApplyError> {
    Ok(scope.load(&key::single(Table::Gc))?.unwrap_or_default())
}

/// A step of an old leader, or one queued before a pause, must do nothing.
fn check_epoch(scope: &Scope<'_, '_>, epoch: u64) -> Result<GcRecord, Refusal> {
    let gc = load(scope)?;
    if gc.epoch != epoch {
        return Err(Rejection::StaleEpoch { current: gc.epoch }.into());
    }
    if gc.paused.is_some() {
        return Err(Rejection::GcPaused.into());
    }
    Ok(gc)
}

fn save_collected(scope: &mut Scope<'_, '_>, mut gc: GcRecord, add: impl FnOnce(&mut Collected)) {
    let before = gc.collected;
    add(&mut gc.collected);
    if gc.collected != before {
        scope.save(key::single(Table::Gc), &gc);
    }
}

pub(super) fn pause(scope: &mut Scope<'_, '_>, command: &PauseGc) -> Result<Response, Refusal> {
    if command.reason.len() > MAX_REASON_BYTES {
        return Err(Rejection::OutOfBounds.into());
    }
    set_paused(scope, Some(command.reason.clone()))
}

pub(super) fn resume(scope: &mut Scope<'_, '_>) -> Result<Response, Refusal> {
    set_paused(scope, None)
}

fn set_paused(scope: &mut Scope<'_, '_>, paused: Option<String>) -> Result<Response, Refusal> {
    let gc = load(scope)?;
    let after = GcRecord {
        epoch: gc.epoch + 1,
        paused,
        ..gc
    };
    scope.save(key::single(Table::Gc), &after);
    Ok(Response::Done)
}

pub(super) fn step(scope: &mut Scope<'_, '_>, command: &GcStep) -> Result<Response, Refusal> {
    if command.budget == 0 || command.budget > MAX_GC_BUDGET {
        return Err(Rejection::OutOfBounds.into());
    }
    let gc = check_epoch(scope, command.epoch)?;
    let limits = &command.limits;
    let mut step = Step {
        left: command.budget as usize,
        done: GcStepped::default(),
    };
    step.purge_manifests(scope, limits)?;
    step.review_referrers(scope)?;
    step.remove_links(scope, limits)?;
    step.condemn_blobs(scope, limits)?;
    step.clear_histories(scope)?;
    step.remove_repositories(scope, limits)?;
    step.forget_deleted(scope)?;
    step.done.is_more_due = is_more_due(scope, limits)?;
    let done = step.done;
    save_collected(scope, gc, |collected| {
        collected.manifests += done.purged_manifests;
        collected.links += done.removed_links;
        collected.repositories += done.removed_repositories;
    });
    Ok(Response::GcStepped(done))
}

/// Up to `limit` keys of a list that have waited for `wait_ms`.
fn waited(
    scope: &Scope<'_, '_>,
    table: Table,
    wait_ms: u64,
    limit: usize,
) -> Result<Vec<Vec<u8>>, ApplyError> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    time::due(scope, table, limit, |at, now| at.plus_ms(wait_ms) <= now)
}

/// The parts of a key (log time, repository, digest).
fn repository_and_digest(table: Table, key: &[u8]) -> Result<(RepositoryId, Digest), ApplyError> {
    let read = || -> Result<_, CodecError> {
        let mut parts = Reader::new(table, key)?;
        let _since = parts.number()?;
        Ok((RepositoryId(parts.number()?), parts.digest()?))
    };
    Ok(read().map_err(ViewError::from)?)
}

/// The digest behind a number.
fn digest_behind(table: Table, key: &[u8]) -> Result<Digest, ApplyError> {
    let mut parts = Reader::new(table, key).map_err(ViewError::from)?;
    let digest = parts.number().and_then(|_| parts.digest());
    Ok(digest.map_err(ViewError::from)?)
}

fn is_more_due(scope: &Scope<'_, '_>, limits: &GcLimits) -> Result<bool, ApplyError> {
    for (table, wait_ms) in [
        (Table::DeletedAt, limits.undelete_ms),
        (Table::UnreferencedLink, limits.grace_ms),
        (Table::UnlinkedBlob, limits.condemn_delay_ms),
        (Table::EmptyRepository, limits.grace_ms),
    ] {
        if !waited(scope, table, wait_ms, 1)?.is_empty() {
            return Ok(true);
        }
    }
    if remember::overdue(scope)?.is_some() {
        return Ok(true);
    }
    for table in [Table::ReferrerReview, Table::RemovedRepository] {
        if scan::first_key(scope.state, &key::table(table))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

struct Step {
    /// What is left of the budget.
    left: usize,
    done: GcStepped,
}

impl Step {
    fn spend(&mut self, work: usize) {
        self.left = self.left.saturating_sub(work);
    }

    /// A manifest that names more than is left is purged all the same: the last one may exceed the budget.
    fn purge_manifests(
        &mut self,
        scope: &mut Scope<'_, '_>,
        limits: &GcLimits,
    ) -> Result<(), ApplyError> {
        for key in waited(scope, Table::DeletedAt, limits.undelete_ms, self.left)? {
            if self.left == 0 {
                break;
            }
            let (repository, digest) = repository_and_digest(Table::DeletedAt, &key)?;
            let named = restore::purge(scope, repository, &digest)?;
            self.spend(1 + named);
            self.done.purged_manifests += 1;
        }
        Ok(())
    }

    fn review_referrers(&mut self, scope: &mut Scope<'_, '_>) -> Result<(), ApplyError> {
        while self.left > 0 {
            let table = key::table(Table::ReferrerReview);
            let Some(key) = scan::first_key(scope.state, &table)? else {
                break;
            };
            self.review_one(scope, &key)?;
        }
        Ok(())
    }

    fn review_one(&mut self, scope: &mut Scope<'_, '_>, key: &[u8]) -> Result<(), ApplyError> {
        let mut parts = Reader::new(Table::ReferrerReview, key).map_err(ViewError::from)?;
        let repository = RepositoryId(parts.number().map_err(ViewError::from)?);
        let subject = parts.digest().map_err(ViewError::from)?;
        let review: ReferrerReviewRecord = scope.load(key)?.unwrap_or_default();
        let after = review
            .after
            .map(|after| key::referrer(repository, &subject, &after));
        let limit = self.left;
        let referrers = scan::page(
            scope.state,
            &key::referrers(repository, &subject),
            after.as_deref(),
            limit,
            |key, _| {
                let mut parts = Reader::new(Table::Referrer, key)?;
                let (_repository, _subject) = (parts.number()?, parts.digest()?);
                Ok(Some(parts.digest()?))
            },
        )?;
        for referrer in &referrers {
            review::manifest(scope, repository, referrer)?;
        }
        if referrers.len() < limit {
            scope.delete(key.to_vec());
        } else {
            let after = referrers.last().copied();
            scope.save(key.to_vec(), &ReferrerReviewRecord { after });
        }
        self.done.reviewed_referrers += referrers.len() as u64;
        self.spend(referrers.len().max(1));
        Ok(())
    }

    fn remove_links(
        &mut self,
        scope: &mut Scope<'_, '_>,
        limits: &GcLimits,
    ) -> Result<(), ApplyError> {
        for key in waited(scope, Table::UnreferencedLink, limits.grace_ms, self.left)? {
            let (repository, digest) = repository_and_digest(Table::UnreferencedLink, &key)?;
            self.spend(1);
            let link: LinkRecord = scope.load_promised(
                &key::link(repository, &digest),
                "every link on the unreferenced list exists",
            )?;
            if index::is_needed(scope, repository, &digest)? {
                return Err(ApplyError::Broken {
                    law: "a link on the unreferenced list is needed by nothing",
                });
            }
            index::put_link(scope, repository, &digest, Some(link), None);
            review::link_removed(scope, &digest)?;
            review::repository_left(scope, repository)?;
            self.done.removed_links += 1;
        }
        Ok(())
    }

    fn condemn_blobs(
        &mut self,
        scope: &mut Scope<'_, '_>,
        limits: &GcLimits,
    ) -> Result<(), ApplyError> {
        let wait_ms = limits.condemn_delay_ms;
        for key in waited(scope, Table::UnlinkedBlob, wait_ms, self.left)? {
            let digest = digest_behind(Table::UnlinkedBlob, &key)?;
            self.spend(1);
            let before: BlobRecord = scope.load_promised(
                &key::blob(&digest),
                "every blob on the unlinked list exists",
            )?;
            if scan::first_key(scope.state, &key::links_of(&digest))?.is_some() {
                return Err(ApplyError::Broken {
                    law: "a blob on the unlinked list has no link",
                });
            }
            let after = BlobRecord {
                condemned_since: Some(scope.now),
                ..before.clone()
            };
            index::put_blob(scope, &digest, Some(&before), &after)?;
            self.done.condemned_blobs += 1;
        }
        Ok(())
    }

    /// What removed repositories left behind.
    fn clear_histories(&mut self, scope: &mut Scope<'_, '_>) -> Result<(), ApplyError> {
        while self.left > 0 {
            let table = key::table(Table::RemovedRepository);
            let Some(key) = scan::first_key(scope.state, &table)? else {
                break;
            };
            let mut parts = Reader::new(Table::RemovedRepository, &key).map_err(ViewError::from)?;
            let repository = RepositoryId(parts.number().map_err(ViewError::from)?);
            let changes = scan::page(
                scope.state,
                &key::of_repository(Table::TagHistory, repository),
                None,
                self.left,
                |key, _| Ok(Some(key.to_vec())),
            )?;
            self.spend(changes.len().max(1));
            changes.into_iter().for_each(|change| scope.delete(change));
            let history = key::of_repository(Table::TagHistory, repository);
            if scan::first_key(scope.state, &history)?.is_none() {
                scope.delete(key);
            }
        }
        Ok(())
    }

    /// The name is free at once; a push that comes later makes a new repository. Its history goes in pieces.
    fn remove_repositories(
        &mut self,
        scope: &mut Scope<'_, '_>,
        limits: &GcLimits,
    ) -> Result<(), ApplyError> {
        for key in waited(scope, Table::EmptyRepository, limits.grace_ms, self.left)? {
            let mut parts = Reader::new(Table::EmptyRepository, &key).map_err(ViewError::from)?;
            let repository = parts.number().and_then(|_| parts.number());
            let repository = RepositoryId(repository.map_err(ViewError::from)?);
            self.spend(1);
            let before: RepositoryStateRecord = scope.load_promised(
                &key::repository_state(repository),
                "every repository on the empty list has a state",
            )?;
            if !review::is_empty(scope, repository)? {
                let after = RepositoryStateRecord {
                    empty_since: None,
                    ..before.clone()
                };
                index::put_repository_state(scope, repository, &before, Some(&after));
                continue;
            }
            scope.delete(key::repository(&before.name));
            scope.catalog_changed();
            scope.delete(key::of_repository(Table::TagList, repository));
            index::put_repository_state(scope, repository, &before, None);
            let history = key::of_repository(Table::TagHistory, repository);
            if scan::first_key(scope.state, &history)?.is_some() {
                scope.mark(key::removed_repository(repository));
            }
            let totals = scope.totals()?;
            totals.repositories = totals.repositories.saturating_sub(1);
            self.done.removed_repositories += 1;
        }
        Ok(())
    }

    fn forget_deleted(&mut self, scope: &mut Scope<'_, '_>) -> Result<(), ApplyError> {
        while self.left > 0 {
            let Some(keys) = remember::overdue(scope)? else {
                break;
            };
            keys.into_iter().for_each(|key| scope.delete(key));
            self.spend(1);
        }
        Ok(())
    }
}

pub(super) fn delete_blobs(
    scope: &mut Scope<'_, '_>,
    command: &DeleteBlobs,
) -> Result<Response, Refusal> {
    if command.blobs.len() > MAX_BLOBS_PER_COMMAND {
        return Err(Rejection::OutOfBounds.into());
    }
    let gc = check_epoch(scope, command.epoch)?;
    let mut answer = BlobsDeleted::default();
    for condemned in &command.blobs {
        let (digest, since) = (&condemned.digest, condemned.condemned_since);
        let Some(blob) = scope.load::<BlobRecord>(&key::blob(digest))? else {
            continue;
        };
        if blob.condemned_since != Some(since)
            || since.plus_ms(command.quarantine_ms) > scope.now
            || is_wanted(scope, digest)?
        {
            continue;
        }
        index::remove_condemned_blob(scope, digest, &blob, since)?;
        remember::deleted_blob(scope, digest, blob.size_bytes)?;
        answer.digests.push(*digest);
        answer.blob_bytes += blob.size_bytes;
        answer.copy_bytes += blob.size_bytes * blob.holders.len() as u64;
    }
    save_collected(scope, gc, |collected| {
        collected.blobs += answer.digests.len() as u64;
        collected.blob_bytes += answer.blob_bytes;
        collected.copy_bytes += answer.copy_bytes;
    });
    Ok(Response::BlobsDeleted(answer))
}

/// Whether any repository links the blob, or any manifest, deleted ones that can be restored included, names it as a
/// blob. A condemned blob has neither; this is the last look.
fn is_wanted(scope: &Scope<'_, '_>, digest: &Digest) -> Result<bool, ApplyError> {
    if scan::first_key(scope.state, &key::links_of(digest))?.is_some() {
        return Ok(true);
    }
    for table in [Table::Edge, Table::DeletedEdge] {
        let (mut children, mut is_wanted) = (0, false);
        let prefix = key::of_digest(table, digest);
        scan::visit(scope.state, &prefix, None, &mut |_, value| {
            // An index may name it as a child manifest, which is no need of the blob of the same digest.
            is_wanted = EdgeKind::decode(value) != Some(EdgeKind::Child);
            children += 1;
            is_wanted |= children == EDGES_CHECKED;
            Ok(if is_wanted {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })?;
        if is_wanted {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn collect_manifests(
    scope: &mut Scope<'_, '_>,
    command: &CollectManifests,
) -> Result<Response, Refusal> {
    if command.manifests.len() > MAX_MANIFESTS_PER_COMMAND {
        return Err(Rejection::OutOfBounds.into());
    }
    check_epoch(scope, command.epoch)?;
    let mut collected = Vec::new();
    let mut left = MAX_GC_BUDGET as usize;
    for unneeded in &command.manifests {
        let (repository, digest) = (unneeded.repository, unneeded.digest);
        if left == 0 {
            break;
        }
        let Some(stored) = manifest::load_stored(scope, repository, &digest)? else {
            continue;
        };
        let since = unneeded.unneeded_since;
        let due_at: LogTime = since.plus_ms(command.min_age_ms);
        if stored.record.unneeded_since != Some(since)
            || due_at > scope.now
            || review::is_manifest_needed(scope, repository, &digest, &stored.record)?
        {
            continue;
        }
        left = left.saturating_sub(1 + stored.references.all().count());
        let reason = DeleteReason::Unneeded { since };
        manifest::hide(scope, repository, &digest, stored, reason)?;
        collected.push(CollectedManifest { repository, digest });
    }
    Ok(Response::ManifestsCollected(collected))
}
