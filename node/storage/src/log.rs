//! Where the Raft log and Raft's hard state live. Entries are opaque bytes: consensus encodes them.

use bytes::Bytes;
use std::ops::Range;
use std::time::Duration;

use crate::error::StorageError;

/// Called once when what it belongs to is durable, or failed. Runs on the syncing thread: must be short.
pub type Synced = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// Name of the hard state that says which candidate this node voted for. A store remembers elsewhere how often it
/// was written with `sync`, to notice that it was rolled back.
pub const VOTE: &str = "vote";

/// The ends of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogEnds {
    /// Index purged through and the marker saved with it.
    pub purged: Option<(u64, Bytes)>,
    /// Index and bytes of the last entry.
    pub last: Option<(u64, Bytes)>,
}

/// A durable log. Two implementations: RocksDB and memory; both pass `contract::log`.
pub trait LogStore: Send + Sync + 'static {
    /// The ends of the log.
    fn ends(&self) -> Result<LogEnds, StorageError>;

    /// Entries in `range` that exist, in order, stopping after `max_bytes` (but never before the first).
    fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<(u64, Bytes)>, StorageError>;

    /// Appends consecutive entries. They are readable on return; `synced` is called once they are durable.
    /// Concurrent appends share one fsync (group commit), and callbacks come in the order of the calls.
    /// When this returns an error, `synced` is not called.
    fn append(&self, entries: Vec<(u64, Bytes)>, synced: Synced) -> Result<(), StorageError>;

    /// Removes the entries at and after `index`, durably.
    fn truncate_from(&self, index: u64) -> Result<(), StorageError>;

    /// Removes the entries through `index` and remembers `marker`. The caller has made the state that
    /// covers them durable (protocols.md 10.4).
    fn purge_through(&self, index: u64, marker: Bytes) -> Result<(), StorageError>;

    /// A named value of Raft's hard state (vote, committed).
    fn hard_state(&self, name: &str) -> Result<Option<Bytes>, StorageError>;

    /// Sets a named value. Durable on return when `sync`.
    fn set_hard_state(&self, name: &str, value: Bytes, sync: bool) -> Result<(), StorageError>;

    /// How long the sync that runs now has taken; zero when none runs. A disk that hangs reports no error: it shows
    /// only here.
    fn sync_age(&self) -> Duration;
}
