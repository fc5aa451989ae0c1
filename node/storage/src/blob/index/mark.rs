//! How far the index got, in a file beside the blobs.
//!
//! Every write of the index is synced, but an index whose write-ahead log lost its end, or that is gone altogether,
//! opens without complaint, and then pins and records that were acknowledged are missing. So its last sequence number
//! is remembered here, as the log of Raft does (`rocks::hwm`): at most a second late, and when the index is closed.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::database::Database;
use crate::error::{REPLACE, StorageError};
use crate::rocks::hwm::{HighWater, Mark};

/// The mark follows the index within this time.
const DELAY: Duration = Duration::from_secs(1);

/// The file, and the thread that writes it while the index changes.
pub(super) struct IndexMark {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    reached: u64,
    is_stopping: bool,
}

/// Refuses an index that is behind its mark. Returns the mark: 0 for a new index, or one that an earlier version made.
pub(super) fn check(path: &Path, database: &Database) -> Result<u64, StorageError> {
    let reached = HighWater::peek(path)?.map_or(0, |mark| mark.end);
    let found = database.latest_sequence_number();
    if found >= reached {
        return Ok(reached);
    }
    let why = format!(
        "the index in {} lost its end: it has {found} writes, and had {reached}; {REPLACE}",
        database.path().display()
    );
    Err(StorageError::Refused {
        path: path.to_path_buf(),
        why,
    })
}

impl IndexMark {
    /// Checks the index and begins to follow it.
    pub(super) fn start(path: &Path, database: &Database) -> Result<IndexMark, StorageError> {
        let written = check(path, database)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                reached: database.latest_sequence_number(),
                is_stopping: false,
            }),
            changed: Condvar::new(),
        });
        let (of_thread, file) = (Arc::clone(&shared), path.to_path_buf());
        let thread = std::thread::Builder::new()
            .name("index-mark".to_owned())
            .spawn(move || of_thread.follow(&file, written))
            .map_err(StorageError::io("start a thread for", path))?;
        Ok(IndexMark {
            shared,
            thread: Some(thread),
        })
    }

    /// Says that the index is durable up to a sequence number.
    pub(super) fn reached(&self, sequence: u64) {
        self.shared.state().reached = sequence;
        self.shared.changed.notify_one();
    }
}

impl Drop for IndexMark {
    fn drop(&mut self) {
        self.shared.state().is_stopping = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // It has nothing that can panic; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, path: &Path, mut written: u64) {
        let mut is_failing = false;
        loop {
            let (reached, is_stopping) = self.next(written);
            if reached > written {
                let outcome = write(path, reached);
                if let (Err(error), false) = (&outcome, is_failing) {
                    tracing::warn!(%error, "how far the local index got cannot be noted");
                }
                is_failing = outcome.is_err();
                // A disk that refuses is not asked again before there is news.
                written = reached;
            }
            if is_stopping {
                return;
            }
        }
    }

    /// Waits for something to write, and then for what else comes in a while.
    fn next(&self, written: u64) -> (u64, bool) {
        let mut state = self.state();
        while state.reached <= written && !state.is_stopping {
            state = (self.changed.wait(state)).unwrap_or_else(PoisonError::into_inner);
        }
        let due = Instant::now() + DELAY;
        while !state.is_stopping {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = (self.changed.wait_timeout(state, left))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        (state.reached, state.is_stopping)
    }
}

/// The file is not kept open: a blob directory can be made read-only while nothing is written to it.
fn write(path: &Path, reached: u64) -> Result<(), StorageError> {
    let mut file = match HighWater::load(path)? {
        Some(file) => file,
        None => HighWater::create(path)?,
    };
    file.write(Mark {
        end: reached,
        votes: 0,
    })
}
