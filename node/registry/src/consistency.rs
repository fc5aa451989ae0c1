//! When a read asks the cluster, and when this node's own state is enough.
//!
//! Tags and lists change, so they are read behind a barrier unless the operator accepted older answers. Content by
//! digest can only appear and be deleted. What was deleted through one node must be gone from all (invariant I11), so
//! these reads ask as well. A node that is cut off cannot know what the others delete meanwhile. Manifests, which say
//! what an image is, it then refuses; blobs it serves for a while, because a pull that has its manifest should end
//! (protocols.md section 10, rule 7). A "no" is only given by a node that is known to be up to date.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use metadata::command::Command;
use metadata::ids::LogIndex;
use metadata::log::LogError;
use metadata::response::Response;
use metadata::view::{MetadataView, ViewError};

use crate::error::{About, RegistryError, no_answer, refused, unreadable};
use crate::{Caller, Registry, Result, Seen, SeenState};

/// The last moment of which this node's state is known to have everything that was acknowledged until then.
#[derive(Default)]
pub(crate) struct Confirmed(Mutex<Option<Instant>>);

impl Confirmed {
    /// A quorum answered a question that was asked at `moment`.
    fn at(&self, moment: Instant) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = (*last).max(Some(moment));
    }

    fn is_within(&self, limit: Duration) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|moment| moment.elapsed() < limit)
    }
}

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
        self.look_for(caller, query)
    }

    /// Reads a manifest by digest. `query` says with `Err` that there is none, and why.
    pub(crate) async fn read_manifest<T>(
        &self,
        caller: &Caller,
        query: impl Fn(&dyn MetadataView) -> std::result::Result<Result<T>, ViewError>,
    ) -> Result<Seen<T>> {
        self.catch_up(caller).await?;
        let asks = self.options.linearizable_tags;
        if asks {
            self.barrier(caller.deadline).await?;
        }
        self.find(caller, asks, query).await
    }

    /// Reads a blob. `query` says with `Err` that there is none, and why.
    pub(crate) async fn read_blob<T>(
        &self,
        caller: &Caller,
        query: impl Fn(&dyn MetadataView) -> std::result::Result<Result<T>, ViewError>,
    ) -> Result<Seen<T>> {
        self.catch_up(caller).await?;
        let is_recent = || self.confirmed.is_within(self.options.offline_reads);
        let mut is_current = false;
        if self.options.linearizable_tags {
            let deadline = match is_recent() {
                true => caller.deadline.min(Instant::now() + BLOB_PATIENCE),
                false => caller.deadline,
            };
            match self.barrier(deadline).await {
                Ok(()) => is_current = true,
                Err(error) if !is_recent() => return Err(error),
                Err(_) => {}
            }
        }
        self.find(caller, is_current, query).await
    }

    /// Looks; when there is nothing and the state may be older than this call, asks the cluster and looks again.
    async fn find<T>(
        &self,
        caller: &Caller,
        is_current: bool,
        query: impl Fn(&dyn MetadataView) -> std::result::Result<Result<T>, ViewError>,
    ) -> Result<Seen<T>> {
        let mut seen = self.look_for(caller, &query)?;
        if seen.value.is_err() && !is_current {
            self.barrier(caller.deadline).await?;
            seen = self.look_for(caller, &query)?;
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
        let asked = Instant::now();
        let proposed = self.log.propose(command, &caller.subject, caller.deadline);
        let outcome = proposed.await.map_err(no_answer)?;
        // Applied here, behind everything that was acknowledged before.
        self.confirmed.at(asked);
        caller.seen.note(outcome.index);
        match outcome.response {
            Response::Rejected(rejection) => Err(refused(rejection, &about)),
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
        let asked = Instant::now();
        self.log.barrier(deadline).await.map_err(no_answer)?;
        self.confirmed.at(asked);
        Ok(())
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

    /// The same on behalf of a request.
    pub(crate) fn look_for<T>(
        &self,
        caller: &Caller,
        query: impl FnOnce(&dyn MetadataView) -> std::result::Result<T, ViewError>,
    ) -> Result<Seen<T>> {
        let seen = self.look(query)?;
        caller.seen.note(seen.revision);
        Ok(seen)
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
            seen: SeenState::default(),
        };
        self.submit(command, &caller, About::Upkeep).await
    }
}

/// How long a read of a blob waits for the cluster before it answers from what this node knew a moment ago. Longer
/// than a barrier takes on a busy cluster, short for a client when there is no quorum.
const BLOB_PATIENCE: Duration = Duration::from_secs(1);

/// How long upkeep waits for the log. Long enough for an election; what fails is done again later.
const UPKEEP_TIMEOUT: Duration = Duration::from_secs(10);
