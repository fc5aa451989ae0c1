//! What an operator asks of garbage collection.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metadata::command::{Command, PauseGc, UnneededManifest};
use metadata::ids::{LogTime, NodeId, RepositoryId, TicketId};
use metadata::key::{self, Reader, Table};
use metadata::query::{self, Due, TicketRecord, TicketState, Unneeded};
use metadata::response::Rejection;
use oci::Digest;
use storage::blob::TrashUsage;

use super::stepper::limits;
use super::{GcError, GcRound, PROPOSAL_TIMEOUT};
use crate::{GcOptions, Registry};

/// How garbage collection is doing.
#[derive(Clone, Debug)]
pub struct GcStatus {
    /// Of the cluster.
    pub cluster: query::GcStatus,
    /// Log time.
    pub now: LogTime,
    /// Of this node.
    pub options: GcOptions,
    /// This node.
    pub local: Local,
}

/// What the workers of one node do.
#[derive(Clone, Debug)]
pub struct Local {
    /// Which node.
    pub node: NodeId,
    /// Whether it leads.
    pub is_leader: bool,
    /// The last round it did, and how long ago.
    pub last_round: Option<(Duration, GcRound)>,
    /// Rounds it finished since it started.
    pub rounds: u64,
    /// Those that found something to do.
    pub busy_rounds: u64,
    /// Manifests looked at by the scan under way.
    pub verifying_manifests: Option<u64>,
    /// Blobs it unlinked since it started.
    pub removed_blobs: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Walks over all its blobs that it finished.
    pub walks: u64,
    /// What is in its trash.
    pub trash: TrashUsage,
}

/// Something that will be collected, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Candidate {
    /// An untagged manifest of a repository where those go.
    Untagged {
        /// Which and where.
        unneeded: Unneeded,
        /// Its length.
        size_bytes: u64,
        /// When it is deleted.
        due_at: LogTime,
    },
    /// Anything else.
    Due(Due),
}

/// What one node has of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCopy {
    /// Which node.
    pub node: NodeId,
    /// Its length; `None` without bytes.
    pub size_bytes: Option<u64>,
    /// The open tickets that protect the bytes: uploads, repairs and imports that are not done.
    pub tickets: Vec<OpenTicket>,
}

/// A ticket that is not closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenTicket {
    /// Which.
    pub id: TicketId,
    /// What it is for; `None` while this node has not applied the entry that opened it.
    pub record: Option<TicketRecord>,
}

/// A page of a list and where the next one goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// The items.
    pub items: Vec<T>,
    /// `None` after the last page.
    pub next: Option<Vec<u8>>,
    /// Log time when they were read.
    pub now: LogTime,
}

impl Registry {
    /// Rounds of collection that this node finished since it started, and those of them that found something to do.
    pub fn gc_rounds(&self) -> (u64, u64) {
        let activity = &self.gc.activity;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&activity.rounds), count(&activity.busy_rounds))
    }

    /// What was configured.
    pub fn gc_options(&self) -> &GcOptions {
        &self.options.gc
    }

    /// How garbage collection is doing.
    ///
    /// # Errors
    /// [`GcError`].
    pub async fn gc_status(&self) -> Result<GcStatus, GcError> {
        self.gc_barrier().await?;
        let local = self.gc_local(self.blobs.trash_usage().await?);
        self.gc_look(|view| {
            Ok(GcStatus {
                cluster: query::gc(view)?,
                now: query::time(view)?.0,
                options: self.options.gc.clone(),
                local,
            })
        })
    }

    fn gc_local(&self, trash: TrashUsage) -> Local {
        let activity = &self.gc.activity;
        let last = activity
            .last_round
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let scan = activity.scan.lock().unwrap_or_else(PoisonError::into_inner);
        let (rounds, busy_rounds) = self.gc_rounds();
        Local {
            node: self.log.node_id(),
            is_leader: self.log.is_leader(),
            last_round: last
                .as_ref()
                .map(|(at, round)| (at.elapsed(), round.clone())),
            rounds,
            busy_rounds,
            verifying_manifests: scan.as_ref().map(|count| count.load(Ordering::Relaxed)),
            removed_blobs: activity.removed_blobs.load(Ordering::Relaxed),
            removed_bytes: activity.removed_bytes.load(Ordering::Relaxed),
            walks: activity.walks.load(Ordering::Relaxed),
            trash,
        }
    }

    /// A page of what waits to be collected, step by step, oldest first. `after` is what the last page said.
    ///
    /// # Errors
    /// [`GcError`]; `Refused(OutOfBounds)` for an `after` that no page said.
    pub async fn gc_candidates(
        &self,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Listed<Candidate>, GcError> {
        self.gc_barrier().await?;
        let is_untagged =
            |position: &[u8]| position.first() == Some(&(Table::UnneededManifest as u8));
        if after.is_none_or(is_untagged) {
            let listed = self.untagged_candidates(after, limit)?;
            if listed.next.is_some() {
                return Ok(listed);
            }
            let mut listed = listed;
            let rest = self.due_candidates(None, limit)?;
            listed.items.extend(rest.items);
            listed.next = rest.next;
            return Ok(listed);
        }
        self.due_candidates(after, limit)
    }

    /// Untagged manifests that a rule matches, whether they are old enough or not.
    fn untagged_candidates(
        &self,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Listed<Candidate>, GcError> {
        let after = match after {
            Some(position) => {
                Some(unneeded_at(position).ok_or(GcError::Refused(Rejection::OutOfBounds))?)
            }
            None => None,
        };
        let rules = &self.options.gc.untagged;
        self.gc_look(|view| {
            let now = query::time(view)?.0;
            let page = match rules.is_empty() {
                true => Vec::new(),
                false => query::unneeded_manifests(view, 0, after.as_ref(), limit)?,
            };
            let last = page.last().filter(|_| page.len() == limit);
            let next = last.map(|last| {
                let manifest = &last.manifest;
                key::unneeded_manifest(
                    manifest.unneeded_since,
                    manifest.repository,
                    &manifest.digest,
                )
            });
            let mut items = Vec::new();
            for unneeded in page {
                let name = &unneeded.repository;
                let rule = rules.iter().find(|rule| rule.pattern.matches(name));
                let manifest = query::manifest(view, name, &unneeded.manifest.digest)?;
                if let (Some(rule), Some(manifest)) = (rule, manifest) {
                    items.push(Candidate::Untagged {
                        size_bytes: manifest.size_bytes,
                        due_at: unneeded.manifest.unneeded_since.plus_ms(rule.min_age_ms),
                        unneeded,
                    });
                }
            }
            Ok(Listed { items, next, now })
        })
    }

    fn due_candidates(
        &self,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Listed<Candidate>, GcError> {
        let options = &self.options.gc;
        self.gc_look(|view| {
            let limits = limits(options);
            let plan = query::gc_plan(view, &limits, options.quarantine_ms, after, limit)?;
            Ok(Listed {
                items: plan.items.into_iter().map(Candidate::Due).collect(),
                next: plan.next,
                now: query::time(view)?.0,
            })
        })
    }

    /// Stops garbage collection on all nodes.
    ///
    /// # Errors
    /// [`GcError`].
    pub async fn gc_pause(&self, reason: &str, subject: &str) -> Result<(), GcError> {
        let command = Command::PauseGc(PauseGc {
            reason: reason.to_owned(),
        });
        self.gc_propose(command, subject).await.map(drop)
    }

    /// Lets garbage collection go on.
    ///
    /// # Errors
    /// [`GcError`].
    pub async fn gc_resume(&self, subject: &str) -> Result<(), GcError> {
        self.gc_propose(Command::ResumeGc, subject).await.map(drop)
    }

    /// What this node has of a blob, whether the cluster knows it yet or not.
    ///
    /// # Errors
    /// [`GcError`].
    pub async fn local_copy(&self, digest: &Digest) -> Result<LocalCopy, GcError> {
        let stat = self.blobs.stat(digest).await?;
        let pins = self.blobs.pins(digest).await?;
        let tickets = self.gc_look(|view| {
            let mut tickets = Vec::new();
            for id in pins {
                if query::ticket(view, id)? != TicketState::Closed {
                    let record = query::open_ticket(view, id)?;
                    tickets.push(OpenTicket { id, record });
                }
            }
            Ok(tickets)
        })?;
        Ok(LocalCopy {
            node: self.log.node_id(),
            size_bytes: stat.map(|stat| stat.size_bytes),
            tickets,
        })
    }

    /// What was done before the question is in the answer.
    pub(super) async fn gc_barrier(&self) -> Result<(), GcError> {
        let deadline = Instant::now() + PROPOSAL_TIMEOUT;
        let barrier = self.log.barrier(deadline).await;
        barrier.map(drop).map_err(GcError::Unavailable)
    }
}

/// The manifest at a key of the list of unneeded ones.
fn unneeded_at(position: &[u8]) -> Option<UnneededManifest> {
    let mut parts = Reader::new(Table::UnneededManifest, position).ok()?;
    Some(UnneededManifest {
        unneeded_since: LogTime(parts.number().ok()?),
        repository: RepositoryId(parts.number().ok()?),
        digest: parts.digest().ok()?,
    })
}
