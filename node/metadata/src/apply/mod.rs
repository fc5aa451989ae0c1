//! Applying entries: the only code that changes the replicated state.
//!
//! Deterministic and synchronous: it reads through its overlay, writes into its overlay, and everything else it
//! needs is in the entry. Every command checks all its preconditions before its first write, so a rejected one
//! changes nothing. Work is proportional to the command, or to what it removes, never to a repository.

mod blob;
mod cluster;
mod collect;
mod index;
mod manifest;
mod node;
mod placement;
mod remember;
mod restore;
mod review;
mod session;
mod tag;
mod ticket;
mod time;

use oci::RepositoryName;

use crate::changes::Overlay;
use crate::codec::Record;
use crate::command::Command;
use crate::entry::Entry;
use crate::ids::{LogIndex, LogTime, RepositoryId};
use crate::key::{self, Table};
use crate::record::{
    ClusterRecord, EdgeKind, RepositoryRecord, RepositoryStateRecord, RevisionRecord, TimeRecord,
    TotalsRecord,
};
use crate::response::{Outcome, Rejection, Response};
use crate::scan;
use crate::view::ViewError;

pub use blob::REPAIR_TTL_MS;
pub use collect::{
    MAX_BLOBS_PER_COMMAND, MAX_GC_BUDGET, MAX_MANIFESTS_PER_COMMAND, MAX_REASON_BYTES,
};
pub use index::TAG_HISTORY_MAX;
pub use remember::DELETED_TTL_MS;
pub use session::{ANSWERS_PER_SESSION, SESSION_TTL_MS};
pub use ticket::{MAX_TICKET_TTL_MS, MAX_TICKETS_PER_COMMAND};
pub use time::{MAX_TICK_MS, TICKETS_EXPIRED_PER_TICK};

/// Applying failed. The node must stop: its state can no longer follow that of its peers.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The state could not be read or decoded.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The state contradicts itself; `invariants::check` says where.
    #[error("the replicated state is broken: {law}")]
    Broken {
        /// The law that does not hold.
        law: &'static str,
    },
}

/// Applies the entry at `at` and says what was decided.
///
/// # Errors
/// [`ApplyError`], after which nothing of the overlay may be committed.
pub fn apply(state: &mut Overlay<'_>, at: LogIndex, entry: &Entry) -> Result<Response, ApplyError> {
    apply_outcome(state, at, entry).map(|outcome| outcome.response)
}

/// [`apply`] with the index that decided: for a repeated request that of the entry that was applied first.
///
/// # Errors
/// As [`apply`].
pub fn apply_outcome(
    state: &mut Overlay<'_>,
    at: LogIndex,
    entry: &Entry,
) -> Result<Outcome, ApplyError> {
    let time: TimeRecord = scan::load(state, &key::single(Table::Time))?.unwrap_or_default();
    let mut scope = Scope {
        state,
        at,
        now: time.now,
        entry,
        totals: None,
    };
    if let Some(request) = entry.request {
        match session::look_up(&scope, request)? {
            session::Request::New => {}
            session::Request::Repeated(outcome) => return Ok(outcome),
            session::Request::TooOld => {
                return Ok(Outcome {
                    index: at,
                    response: Response::Rejected(Rejection::RequestTooOld),
                });
            }
        }
    }
    let response = match run(&mut scope, &entry.command) {
        Ok(response) => response,
        Err(Refusal::Rejected(rejection)) => Response::Rejected(rejection),
        Err(Refusal::Fatal(error)) => return Err(error),
    };
    scope.save_totals();
    let outcome = Outcome {
        index: at,
        response,
    };
    if let Some(request) = entry.request {
        session::remember(&mut scope, request, &outcome)?;
    }
    Ok(outcome)
}

fn run(scope: &mut Scope<'_, '_>, command: &Command) -> Result<Response, Refusal> {
    match command {
        Command::InitializeCluster(command) => cluster::initialize(scope, command),
        Command::SetReplication(command) => cluster::set_replication(scope, command),
        Command::RegisterNode(command) => node::register(scope, command),
        Command::OpenTickets(command) => ticket::open(scope, command),
        Command::RenewTickets(command) => ticket::renew(scope, command),
        Command::CloseTickets(command) => ticket::close(scope, command),
        Command::CommitBlob(command) => blob::commit(scope, command),
        Command::MountBlob(command) => blob::mount(scope, command),
        Command::TouchBlob(command) => blob::touch(scope, command),
        Command::UnlinkBlob(command) => blob::unlink(scope, command),
        Command::PutManifest(command) => manifest::put(scope, command),
        Command::DeleteManifest(command) => manifest::delete(scope, command),
        Command::DeleteTag(command) => tag::delete(scope, command),
        Command::AddPlacement(command) => placement::add(scope, command),
        Command::DropPlacement(command) => placement::drop_surplus(scope, command),
        Command::ReportLost(command) => placement::report_lost(scope, command),
        Command::Tick(command) => time::tick(scope, command),
        Command::GcStep(command) => collect::step(scope, command),
        Command::DeleteBlobs(command) => collect::delete_blobs(scope, command),
        Command::PauseGc(command) => collect::pause(scope, command),
        Command::ResumeGc => collect::resume(scope),
        Command::CollectManifests(command) => collect::collect_manifests(scope, command),
        Command::RestoreManifest(command) => restore::manifest(scope, command),
        Command::RestoreTag(command) => restore::tag(scope, command),
        Command::SetNodeState(command) => node::set_state(scope, command),
        Command::RemoveNode(command) => node::remove(scope, command),
        Command::RecoverCluster(command) => cluster::recover(scope, command),
    }
}

/// Why a command stopped. With `?` a precondition reads as one line.
enum Refusal {
    /// It was not accepted. Nothing was written.
    Rejected(Rejection),
    /// It could not be decided.
    Fatal(ApplyError),
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Refusal {
        Refusal::Rejected(rejection)
    }
}

impl From<ApplyError> for Refusal {
    fn from(error: ApplyError) -> Refusal {
        Refusal::Fatal(error)
    }
}

impl From<ViewError> for Refusal {
    fn from(error: ViewError) -> Refusal {
        Refusal::Fatal(error.into())
    }
}

/// What a command works in: the overlay, and the circumstances of its entry.
struct Scope<'s, 'v> {
    state: &'s mut Overlay<'v>,
    at: LogIndex,
    now: LogTime,
    entry: &'s Entry,
    /// Read on first use, written once per entry.
    totals: Option<TotalsRecord>,
}

impl Scope<'_, '_> {
    fn load<R: Record>(&self, key: &[u8]) -> Result<Option<R>, ApplyError> {
        Ok(scan::load(self.state, key)?)
    }

    /// The record that another record promises.
    fn load_promised<R: Record>(&self, key: &[u8], law: &'static str) -> Result<R, ApplyError> {
        self.load(key)?.ok_or(ApplyError::Broken { law })
    }

    fn exists(&self, key: &[u8]) -> Result<bool, ApplyError> {
        Ok(scan::exists(self.state, key)?)
    }

    fn save<R: Record>(&mut self, key: Vec<u8>, record: &R) {
        self.state.put(key, record.encode());
    }

    fn save_edge(&mut self, key: Vec<u8>, kind: EdgeKind) {
        self.state.put(key, kind.encode());
    }

    fn mark(&mut self, key: Vec<u8>) {
        self.state.put(key, Vec::new());
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.state.delete(key);
    }

    fn totals(&mut self) -> Result<&mut TotalsRecord, ApplyError> {
        let totals = match self.totals.take() {
            Some(totals) => totals,
            None => self.load(&key::single(Table::Totals))?.unwrap_or_default(),
        };
        Ok(self.totals.insert(totals))
    }

    fn save_totals(&mut self) {
        if let Some(totals) = self.totals.take() {
            self.save(key::single(Table::Totals), &totals);
        }
    }

    fn cluster(&self) -> Result<ClusterRecord, Refusal> {
        Ok(self
            .load(&key::single(Table::Cluster))?
            .ok_or(Rejection::NotInitialized)?)
    }

    fn repository(&self, name: &RepositoryName) -> Result<Option<RepositoryId>, ApplyError> {
        let record: Option<RepositoryRecord> = self.load(&key::repository(name))?;
        Ok(record.map(|record| record.id))
    }

    fn known_repository(&self, name: &RepositoryName) -> Result<RepositoryId, Refusal> {
        Ok(self.repository(name)?.ok_or(Rejection::RepositoryUnknown)?)
    }

    /// An entry creates at most one repository, so the log index is a number of its own.
    fn repository_or_new(&mut self, name: &RepositoryName) -> Result<RepositoryId, ApplyError> {
        if let Some(id) = self.repository(name)? {
            return Ok(id);
        }
        let id = RepositoryId(self.at.0);
        self.save(key::repository(name), &RepositoryRecord { id });
        let state = RepositoryStateRecord {
            name: name.clone(),
            empty_since: None,
        };
        self.save(key::repository_state(id), &state);
        self.catalog_changed();
        self.totals()?.repositories += 1;
        Ok(id)
    }

    /// A name of a repository came or went.
    fn catalog_changed(&mut self) {
        let changed_at = self.at;
        self.save(key::single(Table::Catalog), &RevisionRecord { changed_at });
    }
}

#[cfg(test)]
mod tests;
