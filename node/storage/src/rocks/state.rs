//! The applied state in RocksDB.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use metadata::changes::Changes;
use metadata::ids::LogIndex;
use metadata::view::{MetadataView, ViewError};
use rocksdb::{
    BoundColumnFamily, Cache, PrefixRange, ReadOptions, SnapshotWithThreadMode, WriteBatch,
};
use std::io::Read;

use super::generation::{
    APPLIED, Generation, KEYS, META, Pointer, checkpoint_path, decode_applied, encode_applied,
    load_applied, remove_leftovers,
};
use super::owner::Owner;
use super::snapshot::{RocksCheckpoint, fill};
use super::{Database, StorageOptions, family};
use crate::alarm::Alarm;
use crate::error::StorageError;
use crate::failpoints;
use crate::layout::RAFT;
use crate::state::{Applied, StateCheckpoint, StateStore};

/// The state on disk.
pub struct RocksState {
    dir: PathBuf,
    options: StorageOptions,
    cache: Cache,
    current: RwLock<Arc<Generation>>,
    /// Held while the state changes or is copied: a commit during an install would be lost with the old
    /// generation, one during a checkpoint could be in it by half.
    writer: Mutex<()>,
    /// A swap failed half-way: which generation the disk names is not known until the next start.
    is_failed: AtomicBool,
    checkpoints: AtomicU64,
    owner: Owner,
    alarm: Alarm,
}

impl RocksState {
    /// Opens the state in `dir`, an existing directory, creating it when that is empty. Removes what interrupted
    /// installs and exports left.
    ///
    /// The state may be older than it was before a crash. The log has the rest; a caller whose log was purged
    /// beyond what this state has applied must refuse to run.
    pub fn open(dir: &Path, options: &StorageOptions) -> Result<RocksState, StorageError> {
        let pointer = Pointer::load_or_start(dir)?;
        remove_leftovers(dir, pointer.number)?;
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let generation = Generation::open(dir, pointer.number, pointer.creating, options, &cache)?;
        let owner = owner_of(dir)?;
        owner.check(generation.database())?;
        if pointer.creating {
            Pointer {
                creating: false,
                ..pointer
            }
            .save(dir)?;
        }
        Ok(RocksState {
            dir: dir.to_path_buf(),
            options: options.clone(),
            cache,
            current: RwLock::new(Arc::new(generation)),
            writer: Mutex::new(()),
            is_failed: AtomicBool::new(false),
            checkpoints: AtomicU64::new(0),
            owner,
            alarm: Alarm::new(),
        })
    }

    /// Completes when a read meets stored bytes that are not what was written: a node with such a state must stop.
    pub async fn damaged(&self) -> StorageError {
        self.alarm.rung().await
    }

    fn generation(&self) -> Arc<Generation> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The right to change the state.
    fn writer(&self) -> Result<MutexGuard<'_, ()>, StorageError> {
        let guard = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_failed.load(Ordering::Acquire) {
            Err(StorageError::Closed)
        } else {
            Ok(guard)
        }
    }

    /// Makes a filled generation the current one.
    fn swap(&self, next: Generation) -> Result<(), StorageError> {
        // From here on the pointer may name it, even when saving reports a failure.
        next.set_obsolete(false);
        if let Err(error) = (Pointer {
            number: next.number,
            creating: false,
        })
        .save(&self.dir)
        {
            self.is_failed.store(true, Ordering::Release);
            return Err(error);
        }
        if let Err(error) = failpoints::hit("snapshot_install_after_swap") {
            self.is_failed.store(true, Ordering::Release);
            return Err(StorageError::database("install a state")(error));
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let previous = std::mem::replace(&mut *current, Arc::new(next));
        drop(current);
        // Readers in flight keep it until they are done.
        previous.set_obsolete(true);
        Ok(())
    }
}

/// The identity is in the directory beside the state's.
pub(super) fn owner_of(dir: &Path) -> Result<Owner, StorageError> {
    Owner::load(&dir.with_file_name(RAFT), META)
}

impl StateStore for RocksState {
    fn applied(&self) -> Result<Applied, StorageError> {
        load_applied(self.generation().database())
    }

    fn read(
        &self,
        reader: &mut dyn FnMut(&dyn MetadataView) -> Result<(), ViewError>,
    ) -> Result<(), ViewError> {
        let generation = self.generation();
        let read = RocksView::new(generation.database()).and_then(|view| reader(&view));
        read.inspect_err(|error| self.alarm.notice(error))
    }

    fn commit(&self, changes: Changes, applied: Applied) -> Result<(), StorageError> {
        let _writer = self.writer()?;
        let generation = self.generation();
        let database = generation.database();
        let keys = family(database, KEYS);
        let mut batch = WriteBatch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.put_cf(&keys, key, value),
                None => batch.delete_cf(&keys, key),
            }
        }
        batch.put_cf(&family(database, META), APPLIED, encode_applied(&applied)?);
        self.owner.sign(database, &mut batch);
        failpoints::hit("apply_before_batch")
            .and_then(|()| database.write(batch).map_err(std::io::Error::other))
            .and_then(|()| failpoints::hit("apply_after_batch"))
            .map_err(StorageError::database("commit to the state"))
    }

    fn flush(&self) -> Result<(), StorageError> {
        // Commits go on meanwhile: they need not wait for what precedes them.
        if self.is_failed.load(Ordering::Acquire) {
            return Err(StorageError::Closed);
        }
        failpoints::hit("purge_before_state_sync")
            .and_then(|()| {
                let generation = self.generation();
                let flushed = generation.database().flush_wal(true);
                flushed.map_err(std::io::Error::other)
            })
            .map_err(StorageError::database("sync the state"))
    }

    fn checkpoint(&self) -> Result<Box<dyn StateCheckpoint>, StorageError> {
        let _writer = self.writer()?;
        let number = self.checkpoints.fetch_add(1, Ordering::Relaxed);
        let path = checkpoint_path(&self.dir, number);
        let generation = self.generation();
        let checkpoint =
            RocksCheckpoint::take(generation.database(), path, &self.options, &self.cache)?;
        Ok(Box::new(checkpoint))
    }

    fn install(&self, source: &mut dyn Read) -> Result<Applied, StorageError> {
        let _writer = self.writer()?;
        failpoints::hit("snapshot_install_begin")
            .map_err(StorageError::database("install a state"))?;
        let number = self.generation().number + 1;
        let next = Generation::open(&self.dir, number, true, &self.options, &self.cache)?;
        // Unless it gets whole, it goes away with this variable.
        next.set_obsolete(true);
        let applied = fill(next.database(), source)?;
        self.swap(next)?;
        Ok(applied)
    }
}

/// One consistent view: a RocksDB snapshot.
pub(super) struct RocksView<'a> {
    snapshot: SnapshotWithThreadMode<'a, Database>,
    keys: Arc<BoundColumnFamily<'a>>,
    applied: LogIndex,
}

impl<'a> RocksView<'a> {
    pub(super) fn new(database: &'a Database) -> Result<RocksView<'a>, ViewError> {
        let snapshot = database.snapshot();
        let applied = snapshot
            .get_cf(&family(database, META), APPLIED)
            .map_err(view_error)?;
        let applied = match applied {
            None => LogIndex::default(),
            Some(bytes) => {
                let path = database.path().to_path_buf();
                let corrupt = StorageError::Corrupt {
                    path,
                    what: "what was applied",
                };
                decode_applied(&Bytes::from(bytes))
                    .ok_or(corrupt)
                    .map_err(|error| ViewError(Box::new(error)))?
                    .index
            }
        };
        Ok(RocksView {
            snapshot,
            keys: family(database, KEYS),
            applied,
        })
    }
}

impl MetadataView for RocksView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        self.snapshot.get_cf(&self.keys, key).map_err(view_error)
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), ViewError> {
        let mut options = ReadOptions::default();
        // Bounds keep the iterator from reading its way through deleted keys of the next prefix.
        options.set_iterate_range(PrefixRange(prefix));
        let mut iterator = self.snapshot.raw_iterator_cf_opt(&self.keys, options);
        match after {
            Some(after) if after >= prefix => {
                iterator.seek(after);
                if iterator.key() == Some(after) {
                    iterator.next();
                }
            }
            _ => iterator.seek_to_first(),
        }
        while let Some((key, value)) = iterator.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            iterator.next();
        }
        iterator.status().map_err(view_error)
    }

    fn applied(&self) -> LogIndex {
        self.applied
    }
}

fn view_error(source: rocksdb::Error) -> ViewError {
    ViewError(Box::new(StorageError::database("read the state")(source)))
}

#[cfg(test)]
mod tests;
