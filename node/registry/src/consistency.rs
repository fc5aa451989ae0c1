//! When a read asks the cluster, and when this node's own state is enough.
//!
//! Tags and lists change, so they are read behind a barrier unless the operator accepted older answers. Content by
//! digest can only appear and be deleted. What was deleted through one node must be gone from all (invariant I11), so
//! these reads ask as well, but not for long: without a quorum nothing can be deleted either, and what this node knows
//! is served (protocols.md section 10, rule 7). A "no" is only given by a node that is known to be up to date.

use std::time::Instant;

use metadata::command::Command;
use metadata::ids::LogIndex;
use metadata::log::LogError;
use metadata::response::Response;
use metadata::view::{MetadataView, ViewError};

use crate::error::{About, RegistryError, no_answer, refused, unreadable};
use crate::{Caller, Registry, Result, Seen};

impl Registry {
    /// Reads what may change under one name: tags and lists.
    pub(crate) async fn read_names<T>(
        &self,
        caller: &Caller,
        query: impl FnOnce(&dyn MetadataView) -> std::result::Result<T, ViewError>,
    ) -> Result<Seen<T>> {
        self.catch_up(caller).await?;
        if self.options.linearizable_tags {
            self.barrier(caller.deadline).await?;
        }
        self.look(query)
    }

    /// Reads content by digest. `query` says with `Err` that there is none, and why.
    pub(crate) async fn read_content<T>(
        &self,
        caller: &Caller,
        query: impl Fn(&dyn MetadataView) -> std::result::Result<Result<T>, ViewError>,
    ) -> Result<Seen<T>> {
        self.catch_up(caller).await?;
        let asked = match self.options.linearizable_tags {
            true => {
                self.barrier(caller.deadline.min(Instant::now() + CONTENT_PATIENCE))
                    .await
            }
            false => Ok(()),
        };
        let mut seen = self.look(&query)?;
        if seen.value.is_err() {
            // A "no" of a node that may lag is no answer.
            match self.options.linearizable_tags {
                true => asked?,
                false => self.barrier(caller.deadline).await?,
            }
            seen = self.look(&query)?;
        }
        let revision = seen.revision;
        seen.value.map(|value| Seen { revision, value })
    }

    /// Proposes what the caller asked for; a refusal becomes an error that speaks of `about`.
    pub(crate) async fn submit(
        &self,
        command: Command,
        caller: &Caller,
        about: About<'_>,
    ) -> Result<Seen<Response>> {
        let proposed = self.log.propose(command, &caller.subject, caller.deadline);
        let outcome = proposed.await.map_err(no_answer)?;
        match outcome.response {
            Response::Rejected(rejection) => Err(refused(rejection, outcome.index, &about)),
            value => Ok(Seen {
                revision: outcome.index,
                value,
            }),
        }
    }

    /// Waits for the state the caller already knows of.
    pub(crate) async fn catch_up(&self, caller: &Caller) -> Result<()> {
        match caller.min_revision {
            Some(index) => self.wait_applied(index, caller.deadline).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn wait_applied(&self, index: LogIndex, deadline: Instant) -> Result<()> {
        self.log
            .wait_applied(index, deadline)
            .await
            .map_err(no_answer)
    }

    pub(crate) async fn barrier(&self, deadline: Instant) -> Result<()> {
        self.log
            .barrier(deadline)
            .await
            .map(drop)
            .map_err(no_answer)
    }

    /// What this node has applied, in one view.
    pub(crate) fn look<T>(
        &self,
        query: impl FnOnce(&dyn MetadataView) -> std::result::Result<T, ViewError>,
    ) -> Result<Seen<T>> {
        let read = |view: &dyn MetadataView| {
            Ok(Seen {
                revision: view.applied(),
                value: query(view)?,
            })
        };
        metadata::log::read(&*self.log, read).map_err(unreadable)
    }

    /// What this node has applied; `None` when the state cannot be read. For answers that found nothing: the state they
    /// saw is at most this old.
    pub fn revision(&self) -> Option<LogIndex> {
        self.look(|_| Ok(())).ok().map(|seen| seen.revision)
    }

    /// Runs what must not stop halfway in a task of its own, and waits for it. A client that goes away takes the
    /// waiting with it, not the task.
    pub(crate) async fn run<T, F>(&self, name: &'static str, task: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        match self.shutdown.spawn(name, task).await {
            Ok(outcome) => outcome,
            Err(error) if error.is_panic() => {
                Err(RegistryError::Internal(format!("{name} panicked")))
            }
            Err(_) => Err(no_answer(LogError::ShuttingDown)),
        }
    }

    /// Proposes upkeep of this node.
    pub(crate) async fn upkeep(&self, command: Command) -> Result<Seen<Response>> {
        let deadline = Instant::now() + UPKEEP_TIMEOUT;
        let caller = Caller {
            subject: String::new(),
            min_revision: None,
            deadline,
        };
        self.submit(command, &caller, About::Upkeep).await
    }
}

/// How long a read by digest waits for the cluster before it answers from what this node knows. Longer than a
/// barrier takes on a busy cluster, short for a client when there is no quorum.
const CONTENT_PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// How long upkeep waits for the log. Long enough for an election; what fails is done again later.
const UPKEEP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
