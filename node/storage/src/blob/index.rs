//! The local index: what this node knows about its blobs, durable in one RocksDB of its own.
//!
//! | family | key | value |
//! |---|---|---|
//! | `blobs` | digest | size, where the bytes are, checksum per chunk |
//! | `bodies` | digest | bytes of an inline blob; in RocksDB's blob files, so compaction does not copy them |
//! | `pins` | digest, ticket | nothing |
//! | `strays` | digest | nothing: a file may lie under this digest although there is no record |
//! | `notes` | name | what background work remembers, such as how far a scrub got |
//!
//! Nothing of this is replicated. Every write is synced and atomic; writes that arrive while a sync runs share
//! the next one.

mod database;
mod edit;
mod mark;
mod reclaim;
mod record;
mod writer;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use metadata::ids::TicketId;
use oci::Digest;
use rocksdb::{Direction, IteratorMode};

use super::BlobStat;
use super::options::BlobOptions;
use super::space::Disk;
use crate::alarm::Alarm;
use crate::error::{BlobError, StorageError};
use crate::rocks::owner::Owner;
use database::{Database, Family, family};
pub(super) use edit::Edit;
use mark::IndexMark;
pub(super) use record::{Place, Record};
use writer::Writer;
pub(super) use writer::Written;

/// Takes a key and a value of a family, and says whether to go on.
type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StorageError> + 'a;

/// The index of one node's blobs.
pub(super) struct LocalIndex {
    database: Arc<Database>,
    writer: Writer,
    alarm: Alarm,
}

/// The identity is beside the mark. Refuses an index that somebody else wrote to.
fn owner_of(mark: &Path, database: &Database) -> Result<Owner, StorageError> {
    let owner = Owner::load(mark.parent().unwrap_or(mark), Family::Notes.name())?;
    owner.check(database)?;
    Ok(owner)
}

impl LocalIndex {
    /// Opens or creates the index in `directory`. Refuses one that is behind the mark in the file `mark`.
    pub(super) fn open(
        directory: &Path,
        mark: &Path,
        options: &BlobOptions,
        disk: Arc<Disk>,
    ) -> Result<Self, StorageError> {
        let database = Arc::new(database::open(directory, options)?);
        let owner = owner_of(mark, &database)?;
        let mark = IndexMark::start(mark, &database)?;
        let keeping = Some((mark, owner));
        let writer = Writer::start(Arc::clone(&database), keeping, disk, options)?;
        Ok(LocalIndex {
            database,
            writer,
            alarm: Alarm::new(),
        })
    }

    /// Opens the index in `directory` to be read only: every write fails.
    pub(super) fn open_read_only(
        directory: &Path,
        mark: &Path,
        options: &BlobOptions,
        disk: Arc<Disk>,
    ) -> Result<Self, StorageError> {
        let database = Arc::new(database::open_read_only(directory, options)?);
        owner_of(mark, &database)?;
        mark::check(mark, &database)?;
        let writer = Writer::start(Arc::clone(&database), None, disk, options)?;
        Ok(LocalIndex {
            database,
            writer,
            alarm: Alarm::new(),
        })
    }

    /// Pins of all blobs together.
    pub(super) fn pin_count(&self) -> Result<u64, StorageError> {
        let mut count = 0;
        self.scan(Family::Pins, &[], &mut |_, _| {
            count += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(count)
    }

    /// What is recorded of a blob.
    pub(super) fn record(&self, digest: &Digest) -> Result<Option<Record>, StorageError> {
        let value = self
            .database
            .get_pinned_cf(&family(&self.database, Family::Blobs), digest.to_key());
        let value = value.map_err(self.unreadable("read the local index"))?;
        value
            .map(|value| Record::decode(&value).ok_or_else(|| self.damaged("a record")))
            .transpose()
    }

    /// The bytes of an inline blob, not verified. What cannot be read is gone, like a file that is: the record says that
    /// there should be bytes, and other nodes have them.
    pub(super) fn body(&self, digest: &Digest) -> Option<Bytes> {
        let value = self
            .database
            .get_cf(&family(&self.database, Family::Bodies), digest.to_key());
        match value {
            Ok(value) => value.map(Bytes::from),
            Err(error) => {
                tracing::error!(%digest, %error, "the bytes of a small blob cannot be read");
                None
            }
        }
    }

    /// The tickets a blob is pinned with, in order.
    pub(super) fn pins(&self, digest: &Digest) -> Result<Vec<TicketId>, StorageError> {
        let prefix = digest.to_key();
        let mut pins = Vec::new();
        self.scan(Family::Pins, &prefix, &mut |key, _| {
            let Some(ticket) = key.strip_prefix(prefix.as_slice()) else {
                return Ok(ControlFlow::Break(()));
            };
            let ticket = ticket.try_into().map_err(|_| self.damaged("a pin"))?;
            pins.push(TicketId::from_u64(u64::from_be_bytes(ticket)));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(pins)
    }

    /// Recorded blobs after `after`, in order, at most `limit`.
    pub(super) fn list(
        &self,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<BlobStat>, StorageError> {
        let after = after.map(Digest::to_key).unwrap_or_default();
        let mut found = Vec::new();
        self.scan(Family::Blobs, &after, &mut |key, value| {
            if found.len() >= limit {
                return Ok(ControlFlow::Break(()));
            }
            if key != after {
                let digest = Digest::from_key(key).ok_or_else(|| self.damaged("a key"))?;
                let record = Record::decode(value).ok_or_else(|| self.damaged("a record"))?;
                found.push(BlobStat {
                    digest,
                    size_bytes: record.size_bytes,
                });
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// Digests under which a file may lie that no record knows.
    pub(super) fn strays(&self) -> Result<Vec<Digest>, StorageError> {
        let mut strays = Vec::new();
        self.scan(Family::Strays, &[], &mut |key, _| {
            strays.push(Digest::from_key(key).ok_or_else(|| self.damaged("a stray"))?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(strays)
    }

    /// What was remembered under a name.
    pub(super) fn note(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
        self.database
            .get_cf(&family(&self.database, Family::Notes), name)
            .map_err(self.unreadable("read the local index"))
    }

    /// That stored bytes of the index are not what was written.
    pub(super) fn damaged(&self, what: &'static str) -> StorageError {
        let error = StorageError::Corrupt {
            path: self.database.path().to_owned(),
            what,
        };
        self.alarm.notice(&error);
        error
    }

    /// Completes when a read has met damage.
    pub(super) async fn rung(&self) -> StorageError {
        self.alarm.rung().await
    }

    /// For `map_err` on reads: names the action.
    fn unreadable(&self, action: &'static str) -> impl FnOnce(rocksdb::Error) -> StorageError + '_ {
        move |error| {
            self.alarm.notice(&error);
            StorageError::database(action)(error)
        }
    }

    /// Writes, and returns when it is durable.
    pub(super) async fn write(&self, edit: Edit) -> Result<(), BlobError> {
        self.writer.submit(edit).await?.wait().await
    }

    /// Starts a write from a blocking thread, to be waited for there.
    pub(super) fn submit_blocking(&self, edit: Edit) -> Result<Written, BlobError> {
        self.writer.submit_blocking(edit)
    }

    /// Writes from a blocking thread, and returns when it is durable.
    pub(super) fn write_blocking(&self, edit: Edit) -> Result<(), BlobError> {
        self.submit_blocking(edit)?.wait_blocking()
    }

    /// Writes without the thread and without sharing a sync: for the start, from any thread.
    pub(super) fn write_alone(&self, edit: Edit) -> Result<(), BlobError> {
        self.writer.write_alone(edit)
    }

    /// Syncs since the index was opened; less than the number of writes when they shared.
    pub(super) fn sync_count(&self) -> u64 {
        self.writer.sync_count()
    }

    /// Visits a family in key order from `from` on.
    fn scan(&self, which: Family, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        let mode = IteratorMode::From(from, Direction::Forward);
        for item in self
            .database
            .iterator_cf(&family(&self.database, which), mode)
        {
            let (key, value) = item.map_err(self.unreadable("scan the local index"))?;
            if visit(&key, &value)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}
