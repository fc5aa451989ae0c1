//! Group commit: one thread that syncs the log for everyone who waits.
//!
//! It takes all requests that have arrived, syncs the write-ahead log once, and answers them in order. It is also
//! the only writer of the high-water mark, so the mark needs no lock and can never overtake a sync.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Database;
use super::hwm::{HighWater, Mark};
use crate::error::StorageError;
use crate::failpoints;
use crate::log::Synced;

/// Requests that can wait, and the largest group. A caller that finds the queue full blocks.
const QUEUE: usize = 1024;

/// The mark follows synced appends within this time (protocols.md section 9).
const MARK_DELAY: Duration = Duration::from_secs(1);

type Reply = SyncSender<Result<(), StorageError>>;

/// What the thread is asked for. The write itself has happened already, in the order of the queue.
enum Request {
    /// Call back once the entries before `end` are durable.
    Append { end: u64, synced: Synced },
    /// Make everything written durable, and the mark with it when a vote was written.
    HardState { votes: Option<u64>, reply: Reply },
    /// Lower the mark: the entries from `end` on are about to be removed.
    Lower { end: u64, reply: Reply },
}

/// The thread and the way to ask it. Dropping this waits until the thread has answered everything.
pub(super) struct LogSync {
    queue: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
    syncs: Arc<AtomicU64>,
    started: Started,
}

/// When the group that is being synced began to be.
type Started = Arc<Mutex<Option<Instant>>>;

impl LogSync {
    /// Starts the thread.
    pub(super) fn start(
        database: Arc<Database>,
        high_water: HighWater,
    ) -> Result<LogSync, StorageError> {
        let (queue, requests) = sync_channel(QUEUE);
        let syncs = Arc::new(AtomicU64::new(0));
        let started = Started::default();
        let durable = high_water.mark();
        let state = SyncThread {
            database,
            high_water,
            durable,
            mark_due: None,
            failure: None,
            syncs: Arc::clone(&syncs),
            started: Arc::clone(&started),
        };
        let thread = std::thread::Builder::new()
            .name("log-sync".to_owned())
            .spawn(move || state.run(&requests))
            .map_err(StorageError::database(
                "start the thread that syncs the log",
            ))?;
        Ok(LogSync {
            queue: Some(queue),
            thread: Some(thread),
            syncs,
            started,
        })
    }

    /// Has `synced` called once the entries before `end`, which are written, are durable.
    pub(super) fn append(&self, end: u64, synced: Synced) -> Result<(), StorageError> {
        self.send(Request::Append { end, synced })
    }

    /// Waits until everything written is durable, and the mark too when `votes` were written.
    /// Returns the wait, so that a caller can give up its lock before waiting.
    pub(super) fn hard_state(
        &self,
        votes: Option<u64>,
    ) -> Result<impl FnOnce() -> Result<(), StorageError> + use<>, StorageError> {
        let (reply, outcome) = sync_channel(1);
        self.send(Request::HardState { votes, reply })?;
        Ok(move || outcome.recv().unwrap_or(Err(StorageError::Closed)))
    }

    /// Waits until the mark is not above `end`.
    pub(super) fn lower(&self, end: u64) -> Result<(), StorageError> {
        let (reply, outcome) = sync_channel(1);
        self.send(Request::Lower { end, reply })?;
        outcome.recv().unwrap_or(Err(StorageError::Closed))
    }

    /// How often the write-ahead log was synced.
    pub(super) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// How long the group that is being synced has been; zero when there is none.
    pub(super) fn age(&self) -> Duration {
        let started = *self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.map_or(Duration::ZERO, |started| started.elapsed())
    }

    fn send(&self, request: Request) -> Result<(), StorageError> {
        let queue = self.queue.as_ref().ok_or(StorageError::Closed)?;
        queue.send(request).map_err(|_| StorageError::Closed)
    }
}

impl Drop for LogSync {
    fn drop(&mut self) {
        self.queue = None;
        // RocksDB's static objects must outlive every thread that syncs, or the process aborts at exit.
        // A callback may hold the last reference to the log: that thread cannot wait for itself.
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the thread that syncs the log panicked");
        }
    }
}

struct SyncThread {
    database: Arc<Database>,
    high_water: HighWater,
    /// What is durable; the file may lag behind it until `mark_due`.
    durable: Mark,
    mark_due: Option<Instant>,
    /// The first failure. Nothing is durable after it, whatever a later sync says.
    failure: Option<String>,
    syncs: Arc<AtomicU64>,
    started: Started,
}

impl SyncThread {
    fn run(mut self, requests: &Receiver<Request>) {
        loop {
            let received = match self.mark_due {
                None => requests.recv().map_err(RecvTimeoutError::from),
                Some(due) => requests.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match received {
                Ok(first) => {
                    let group = std::iter::once(first)
                        .chain(requests.try_iter())
                        .take(QUEUE)
                        .collect();
                    self.note_started(Some(Instant::now()));
                    self.commit(group);
                    self.note_started(None);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.mark_due.is_some_and(|due| due <= Instant::now()) {
                self.write_mark_or_log();
            }
        }
        if self.mark_due.is_some() {
            self.write_mark_or_log();
        }
    }

    fn note_started(&self, at: Option<Instant>) {
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    fn commit(&mut self, group: Vec<Request>) {
        self.sync();
        for request in group {
            match request {
                Request::Append { end, synced } => {
                    if self.failure.is_none() {
                        self.durable.end = end;
                        self.mark_due
                            .get_or_insert_with(|| Instant::now() + MARK_DELAY);
                    }
                    synced(self.outcome());
                }
                Request::HardState { votes, reply } => {
                    if let Some(votes) = votes {
                        self.durable.votes = votes;
                        // Aborts or delays between the vote and its mark; its failure is that of the mark.
                        if let Err(error) = failpoints::hit("vote_before_mark") {
                            self.failure = Some(format!("writing a vote failed: {error}"));
                        }
                        self.write_mark();
                    }
                    // A caller that is gone needs no answer.
                    let _ = reply.send(self.outcome());
                }
                Request::Lower { end, reply } => {
                    self.durable.end = self.durable.end.min(end);
                    self.write_mark();
                    let _ = reply.send(self.outcome());
                }
            }
        }
    }

    fn sync(&mut self) {
        if self.failure.is_some() {
            return;
        }
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let synced = failpoints::hit("raft_before_sync")
            .and_then(|()| self.database.flush_wal(true).map_err(std::io::Error::other))
            .and_then(|()| failpoints::hit("raft_after_sync"));
        if let Err(error) = synced {
            self.failure = Some(format!("syncing the log failed: {error}"));
        }
    }

    /// Writes the mark unless something failed before, or the file says it already.
    fn write_mark(&mut self) {
        self.mark_due = None;
        if self.failure.is_some() || self.high_water.mark() == self.durable {
            return;
        }
        if let Err(error) = self.high_water.write(self.durable) {
            self.failure = Some(format!("writing the high-water mark failed: {error}"));
        }
    }

    /// For marks that nobody waits for: the next request reports the failure as well.
    fn write_mark_or_log(&mut self) {
        let failed_before = self.failure.is_some();
        self.write_mark();
        if let (false, Some(failure)) = (failed_before, &self.failure) {
            tracing::error!(error = failure.as_str(), "the log takes no more writes");
        }
    }

    fn outcome(&self) -> Result<(), StorageError> {
        match &self.failure {
            None => Ok(()),
            Some(failure) => Err(StorageError::database("sync the log")(failure.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::log::expect_sync;
    use crate::rocks::StorageOptions;

    /// A disk that fails once and then works again has lost what it was asked for in between.
    #[test]
    fn nothing_is_durable_after_a_failure_that_went_away() {
        let dir = tempfile::tempdir().expect("a directory");
        let options = StorageOptions::default();
        let database = crate::rocks::open(dir.path(), &options.log_database(), Vec::new())
            .expect("an empty database");
        let high_water = HighWater::create(&dir.path().join("mark")).expect("created");
        let mut thread = SyncThread {
            database: Arc::new(database),
            durable: high_water.mark(),
            high_water,
            mark_due: None,
            failure: Some("an earlier sync failed".to_owned()),
            syncs: Arc::default(),
            started: Started::default(),
        };
        let (synced, appended) = expect_sync();
        let (reply, voted) = sync_channel(1);
        let (lowered, lower) = sync_channel(1);
        thread.commit(vec![
            Request::Append { end: 7, synced },
            Request::HardState {
                votes: Some(1),
                reply,
            },
            Request::Lower {
                end: 0,
                reply: lowered,
            },
        ]);
        assert!(appended.recv().expect("called back").is_err());
        assert!(voted.recv().expect("answered").is_err());
        assert!(lower.recv().expect("answered").is_err());
        assert_eq!(
            thread.high_water.mark(),
            Mark::default(),
            "nothing was written"
        );
        assert_eq!(
            thread.syncs.load(Ordering::Relaxed),
            0,
            "nothing was synced"
        );
    }
}
