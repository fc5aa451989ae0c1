//! Proposes the steps of garbage collection on the node that leads.
//!
//! Whether this node leads is a hint. A node that leads no longer cannot commit; steps that an earlier leader left in the
//! log are checked when they are applied, and those of an earlier epoch are refused.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Instant;

use metadata::apply::{DELETED_TTL_MS, MAX_BLOBS_PER_COMMAND, MAX_MANIFESTS_PER_COMMAND};
use metadata::command::{
    CollectManifests, Command, CondemnedBlob, DeleteBlobs, GcLimits, GcStep, PauseGc,
    UnneededManifest,
};
use metadata::ids::LogTime;
use metadata::query::{self, GcStatus, Unneeded};
use metadata::response::{GcStepped, Response};
use storage::failpoints::blob_hit;
use tokio::sync::{mpsc, oneshot};

use super::verifier::{Verdict, verify};
use super::{GcError, GcRound, PROPOSAL_TIMEOUT, Reply};
use crate::{GcOptions, Registry};

/// Steps of one round: what is more waits for the next, so that a round ends.
const STEPS_PER_ROUND: usize = 200;

/// Blobs that one scan of all manifests can confirm: bounds the memory of a scan, about 80 bytes each.
const CANDIDATES_MAX: usize = 100_000;

/// Unneeded manifests looked at in one view. A round that the clock started looks at no more: the next one goes on there.
const UNNEEDED_PAGE: usize = 2_000;

/// What the stepper remembers between rounds.
#[derive(Default)]
pub(crate) struct Memory {
    /// When the last scan of all manifests ended.
    verified_at: Option<Instant>,
    /// Where the search for untagged manifests goes on, rule by rule.
    unneeded_after: Vec<Option<UnneededManifest>>,
}

pub(super) fn start(registry: &Arc<Registry>, mut requests: mpsc::Receiver<Reply>) {
    let options = registry.options.gc.clone();
    let stop = registry.shutdown.token();
    let collected: Weak<Registry> = Arc::downgrade(registry);
    drop(registry.shutdown.spawn("garbage collection", async move {
        let mut memory = Memory::default();
        loop {
            let reply = tokio::select! {
                request = requests.recv() => match request {
                    Some(reply) => Some(reply),
                    None => return,
                },
                () = tokio::time::sleep(options.interval) => None,
                () = stop.cancelled() => return,
            };
            let Some(registry) = collected.upgrade() else {
                return;
            };
            tokio::select! {
                () = registry.step(&mut memory, reply) => {}
                () = stop.cancelled() => return,
            }
        }
    }));
}

impl Registry {
    /// A round that the clock or an operator asked for.
    async fn step(&self, memory: &mut Memory, reply: Option<Reply>) {
        let is_wanted = reply.is_some();
        let is_on_duty = self.options.gc.is_automatic && self.log.is_leader();
        if !is_wanted && !is_on_duty {
            return;
        }
        let outcome = self.round(memory, is_wanted).await;
        if let Ok(round) = &outcome {
            let activity = &self.gc.activity;
            activity.rounds.fetch_add(1, Ordering::Relaxed);
            if *round != GcRound::default() {
                activity.busy_rounds.fetch_add(1, Ordering::Relaxed);
            }
            let last = activity.last_round.lock();
            *last.unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), round.clone()));
        }
        match (reply, outcome) {
            // Whoever asked may have gone.
            (Some(reply), outcome) => drop(reply.send(outcome)),
            (None, Ok(_) | Err(GcError::Paused(_))) => {}
            (None, Err(error)) => {
                tracing::debug!(error = %error, "a round of garbage collection ended early");
            }
        }
    }

    /// Asks the stepper of this node for a round now.
    ///
    /// # Errors
    /// [`GcError`]; `NotLeader` when another node leads.
    pub async fn gc_run(&self) -> Result<GcRound, GcError> {
        if !self.log.is_leader() {
            return Err(GcError::NotLeader);
        }
        let (reply, answer) = oneshot::channel();
        self.gc.rounds.try_send(reply).map_err(|_| GcError::Busy)?;
        answer.await.unwrap_or(Err(GcError::Stopping))
    }

    /// Everything that is due. `is_wanted` confirms by a scan at once, however short ago the last one was.
    pub(crate) async fn round(
        &self,
        memory: &mut Memory,
        is_wanted: bool,
    ) -> Result<GcRound, GcError> {
        let gc = self.gc_look(query::gc)?;
        if let Some(reason) = gc.paused {
            return Err(GcError::Paused(reason));
        }
        let mut round = GcRound::default();
        self.collect_untagged(gc.epoch, memory, is_wanted, &mut round)
            .await?;
        self.steps(gc.epoch, is_wanted, &mut round).await?;
        self.delete_condemned(gc.epoch, memory, is_wanted, &mut round)
            .await?;
        if round != GcRound::default() {
            tracing::info!(
                links = round.removed_links,
                blobs = round.deleted_blobs,
                manifests = round.purged_manifests,
                bytes = round.copy_bytes,
                "garbage collected"
            );
        }
        Ok(round)
    }

    /// The stages before the last.
    async fn steps(&self, epoch: u64, is_wanted: bool, round: &mut GcRound) -> Result<(), GcError> {
        let options = &self.options.gc;
        let limits = limits(options);
        // An idle cluster writes nothing to its log.
        let (gc, now) = self.gc_look(|view| Ok((query::gc(view)?, query::time(view)?.0)))?;
        if !is_wanted && !is_due(&gc, &limits, now) {
            return Ok(());
        }
        let command = Command::GcStep(GcStep {
            epoch,
            limits,
            budget: options.step_budget,
        });
        for _ in 0..STEPS_PER_ROUND {
            blob_hit("gc_step_before_propose")?;
            match self.gc_propose(command.clone(), "").await? {
                Response::GcStepped(stepped) => {
                    add(round, &stepped);
                    if !stepped.is_more_due {
                        return Ok(());
                    }
                }
                other => return Err(GcError::Unexpected(Box::new(other))),
            }
        }
        round.is_more_due = true;
        Ok(())
    }

    /// The last stage: what the manifests themselves confirm.
    async fn delete_condemned(
        &self,
        epoch: u64,
        memory: &mut Memory,
        is_wanted: bool,
        round: &mut GcRound,
    ) -> Result<(), GcError> {
        let options = &self.options.gc;
        let mut blobs = self.gc_look(|view| {
            query::condemned_blobs(view, options.quarantine_ms, None, CANDIDATES_MAX)
        })?;
        if blobs.is_empty() {
            return Ok(());
        }
        let last = memory.verified_at.map(|at| at.elapsed());
        if !is_wanted && last.is_some_and(|elapsed| elapsed < options.verify_interval) {
            round.unverified_blobs = blobs.len() as u64;
            return Ok(());
        }
        round.is_more_due |= blobs.len() == CANDIDATES_MAX;
        let verdict = self.verify(&blobs, round).await?;
        memory.verified_at = Some(Instant::now());
        let held = match verdict {
            Verdict::Agreed { held } => held,
            Verdict::Disagreed { reason } => {
                return self.raise_alarm(reason, round).await;
            }
        };
        round.held_blobs = held.len() as u64;
        blobs.retain(|blob| !held.contains(&blob.digest));
        let budget = (options.step_budget as usize).clamp(1, MAX_BLOBS_PER_COMMAND);
        for batch in blobs.chunks(budget) {
            let command = Command::DeleteBlobs(DeleteBlobs {
                epoch,
                quarantine_ms: options.quarantine_ms,
                blobs: batch.to_vec(),
            });
            blob_hit("gc_delete_before_propose")?;
            match self.gc_propose(command, "").await? {
                Response::BlobsDeleted(deleted) => {
                    round.deleted_blobs += deleted.digests.len() as u64;
                    round.blob_bytes += deleted.blob_bytes;
                    round.copy_bytes += deleted.copy_bytes;
                }
                other => return Err(GcError::Unexpected(Box::new(other))),
            }
        }
        Ok(())
    }

    async fn verify(
        &self,
        blobs: &[CondemnedBlob],
        round: &mut GcRound,
    ) -> Result<Verdict, GcError> {
        let candidates: HashSet<_> = blobs.iter().map(|blob| blob.digest).collect();
        let scanned = Arc::new(AtomicU64::new(0));
        let scan = &self.gc.activity.scan;
        *scan.lock().unwrap_or_else(PoisonError::into_inner) = Some(scanned.clone());
        let verdict = verify(&self.log, candidates, &scanned).await;
        *scan.lock().unwrap_or_else(PoisonError::into_inner) = None;
        round.verified_manifests = scanned.load(Ordering::Relaxed);
        verdict
    }

    /// A manifest needs what the indexes call unneeded: nothing is deleted until a person has looked.
    async fn raise_alarm(&self, reason: String, round: &mut GcRound) -> Result<(), GcError> {
        tracing::error!(%reason, "garbage collection is paused: the manifests contradict the indexes");
        let pause = Command::PauseGc(PauseGc {
            reason: format!("the verifier disagrees: {reason}"),
        });
        round.disagreement = Some(reason);
        self.gc_propose(pause, "").await.map(drop)
    }

    /// Deletes untagged manifests where the operator asked for it.
    async fn collect_untagged(
        &self,
        epoch: u64,
        memory: &mut Memory,
        is_wanted: bool,
        round: &mut GcRound,
    ) -> Result<(), GcError> {
        let rules = &self.options.gc.untagged;
        memory.unneeded_after.resize(rules.len(), None);
        for (rule, after) in rules.iter().zip(&mut memory.unneeded_after) {
            if is_wanted {
                *after = None;
            }
            loop {
                let page = self.gc_look(|view| {
                    let min_age_ms = rule.min_age_ms;
                    query::unneeded_manifests(view, min_age_ms, after.as_ref(), UNNEEDED_PAGE)
                })?;
                let last = page.last().map(|last| last.manifest);
                *after = last.filter(|_| page.len() == UNNEEDED_PAGE);
                let matches = |found: &Unneeded| rule.pattern.matches(&found.repository);
                let found: Vec<UnneededManifest> = page
                    .into_iter()
                    .filter(matches)
                    .map(|found| found.manifest)
                    .collect();
                self.collect_manifests(epoch, rule.min_age_ms, &found, round)
                    .await?;
                if !is_wanted || after.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn collect_manifests(
        &self,
        epoch: u64,
        min_age_ms: u64,
        manifests: &[UnneededManifest],
        round: &mut GcRound,
    ) -> Result<(), GcError> {
        for batch in manifests.chunks(MAX_MANIFESTS_PER_COMMAND) {
            let command = Command::CollectManifests(CollectManifests {
                epoch,
                min_age_ms,
                manifests: batch.to_vec(),
            });
            match self.gc_propose(command, "").await? {
                Response::ManifestsCollected(collected) => {
                    round.collected_manifests += collected.len() as u64;
                }
                other => return Err(GcError::Unexpected(Box::new(other))),
            }
        }
        Ok(())
    }

    /// Proposes; a refusal is an error.
    pub(super) async fn gc_propose(
        &self,
        command: Command,
        subject: &str,
    ) -> Result<Response, GcError> {
        let deadline = Instant::now() + PROPOSAL_TIMEOUT;
        let outcome = self.log.propose(command, subject, deadline).await;
        match outcome.map_err(GcError::Unavailable)?.response {
            Response::Rejected(rejection) => Err(GcError::Refused(rejection)),
            response => Ok(response),
        }
    }

    /// What this node has applied, in one view.
    pub(super) fn gc_look<T>(
        &self,
        query: impl FnOnce(&dyn metadata::view::MetadataView) -> Result<T, metadata::view::ViewError>,
    ) -> Result<T, GcError> {
        metadata::log::read(&*self.log, query).map_err(GcError::Unreadable)
    }
}

/// Whether a step would find something to do.
fn is_due(gc: &GcStatus, limits: &GcLimits, now: LogTime) -> bool {
    let heads = &gc.heads;
    let waits = [
        (heads.deleted_manifests, limits.undelete_ms),
        (heads.unreferenced_links, limits.grace_ms),
        (heads.unlinked_blobs, limits.condemn_delay_ms),
        (heads.empty_repositories, limits.grace_ms),
        (heads.deleted_blobs, DELETED_TTL_MS),
        (heads.purged_manifests, DELETED_TTL_MS),
    ];
    let has_waited = |(since, wait_ms): (Option<LogTime>, u64)| {
        since.is_some_and(|since| since.plus_ms(wait_ms) <= now)
    };
    gc.has_reviews || waits.into_iter().any(has_waited)
}

pub(super) fn limits(options: &GcOptions) -> GcLimits {
    GcLimits {
        grace_ms: options.grace_ms,
        condemn_delay_ms: options.condemn_delay_ms,
        undelete_ms: options.undelete_ms,
    }
}

fn add(round: &mut GcRound, stepped: &GcStepped) {
    round.purged_manifests += stepped.purged_manifests;
    round.removed_links += stepped.removed_links;
    round.condemned_blobs += stepped.condemned_blobs;
    round.removed_repositories += stepped.removed_repositories;
}
