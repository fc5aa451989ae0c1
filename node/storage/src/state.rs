//! Where the applied state lives.

use bytes::Bytes;
use metadata::changes::Changes;
use metadata::ids::LogIndex;
use metadata::view::{MetadataView, ViewError};
use std::io::{Read, Write};

use crate::error::StorageError;

/// What commits together with the changes of an entry (house.md 4.8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Last applied index, what clients see as the revision.
    pub index: LogIndex,
    /// Its Raft log id, opaque here.
    pub log_id: Bytes,
    /// The last applied membership, opaque here.
    pub membership: Bytes,
}

/// The replicated state on this node. Two implementations: RocksDB and memory; both pass `contract::state`.
pub trait StateStore: Send + Sync + 'static {
    /// What was applied last; default when nothing was.
    fn applied(&self) -> Result<Applied, StorageError>;

    /// Runs `reader` over one consistent view of the committed state.
    fn read(
        &self,
        reader: &mut dyn FnMut(&dyn MetadataView) -> Result<(), ViewError>,
    ) -> Result<(), ViewError>;

    /// Commits changes and `applied` in one atomic batch. Readable on return, durable after `flush`
    /// (the log replays what a crash takes).
    fn commit(&self, changes: Changes, applied: Applied) -> Result<(), StorageError>;

    /// Makes everything committed durable.
    fn flush(&self) -> Result<(), StorageError>;

    /// Takes a consistent copy that later commits do not change, cheap and on disk (RocksDB checkpoint).
    fn checkpoint(&self) -> Result<Box<dyn StateCheckpoint>, StorageError>;

    /// Replaces the whole state by an exported one, atomically: after a crash either state is there, whole.
    /// Verifies the stream's checksum before the swap. Returns what the new state has applied.
    fn install(&self, source: &mut dyn Read) -> Result<Applied, StorageError>;
}

/// A consistent copy of the state; its files go away with it.
pub trait StateCheckpoint: Send + Sync {
    /// What the copy has applied.
    fn applied(&self) -> &Applied;

    /// Writes the copy as one stream (ordered key-value records, then a SHA-256 of it all), in bounded memory.
    fn export(&self, sink: &mut dyn Write) -> Result<(), StorageError>;
}
