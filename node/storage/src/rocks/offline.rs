//! The log and the state of a node that does not run, read without changing a byte.

use std::path::Path;

use metadata::ids::LogIndex;
use metadata::view::{MetadataView, ViewError};
use rocksdb::Cache;

use super::generation::{
    META, POINTER, Pointer, TAKEN_OVER, families, generation_path, load_applied,
};
use super::hwm::{HighWater, Mark};
use super::log::{HIGH_WATER, STATE, Tail, compare_with_mark, load_votes, log_families, log_path};
use super::owner::Owner;
use super::state::{RocksView, owner_of};
use super::{Database, StorageOptions, family};
use crate::error::StorageError;
use crate::state::Applied;

/// What the log of a node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSummary {
    /// Entries through this index are gone on purpose.
    pub purged_through: Option<u64>,
    /// The index after the last entry, purged ones included.
    pub end: u64,
    /// How far the high-water mark says that the log got.
    pub mark_end: u64,
}

/// Reads the log in `dir` and compares it with its high-water mark.
///
/// # Errors
/// What would keep the node from starting: a hole, a damaged file, a log that was rolled back.
pub fn inspect_log(dir: &Path, options: &StorageOptions) -> Result<LogSummary, StorageError> {
    let path = log_path(dir);
    let database = open(&path, &options.log_database(), log_families(options))?;
    Owner::load(dir, STATE)?.check(&database)?;
    let tail = Tail::load(&database, &path)?;
    let found = Mark {
        end: tail.end(),
        votes: load_votes(&database, &path)?,
    };
    let mark_path = dir.join(HIGH_WATER);
    let mark = HighWater::load(&mark_path)?.map(|high_water| high_water.mark());
    compare_with_mark(&mark_path, found, mark)?;
    Ok(LogSummary {
        purged_through: tail.purged_through(),
        end: found.end,
        mark_end: mark.unwrap_or_default().end,
    })
}

/// The state of a node that does not run.
pub struct OfflineState {
    database: Database,
}

impl OfflineState {
    /// Opens the state in `dir`. What only its write-ahead log has is read into memory.
    pub fn open(dir: &Path, options: &StorageOptions) -> Result<OfflineState, StorageError> {
        let pointer = Pointer::load(dir)?.ok_or_else(|| StorageError::Refused {
            path: dir.join(POINTER),
            why: "it is missing: there is no state, or nothing says which it is".to_owned(),
        })?;
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let path = generation_path(dir, pointer.number);
        let database = open(&path, &options.state_database(), families(options, &cache))?;
        owner_of(dir)?.check(&database)?;
        Ok(OfflineState { database })
    }

    /// What was applied last.
    pub fn applied(&self) -> Result<Applied, StorageError> {
        load_applied(&self.database)
    }

    /// Through which index it came from another node, if it did. A log that ends before such a state, and a state that
    /// has applied nothing since, are a node that was cut off while it took it over: the next start goes on.
    pub fn taken_over(&self) -> Result<Option<LogIndex>, StorageError> {
        let meta = family(&self.database, META);
        let stored = self.database.get_cf(&meta, TAKEN_OVER);
        let stored = stored.map_err(StorageError::database("read where the state came from"))?;
        let Some(bytes) = stored else {
            return Ok(None);
        };
        let index = bytes.try_into().map_err(|_| StorageError::Corrupt {
            path: self.database.path().to_path_buf(),
            what: "where the state came from",
        })?;
        Ok(Some(LogIndex(u64::from_be_bytes(index))))
    }

    /// Runs `reader` over it.
    pub fn read<T>(
        &self,
        reader: impl FnOnce(&dyn MetadataView) -> Result<T, ViewError>,
    ) -> Result<T, ViewError> {
        reader(&RocksView::new(&self.database)?)
    }
}

/// Opens a database without the right to write.
pub(crate) fn open(
    path: &Path,
    options: &rocksdb::Options,
    families: Vec<rocksdb::ColumnFamilyDescriptor>,
) -> Result<Database, StorageError> {
    let lock = path.join("LOCK");
    if lock.exists() && !lock.is_file() {
        // Opened like this, a database is not locked; a node would stop here.
        let why = "it is no file; remove it".to_owned();
        return Err(StorageError::Refused { path: lock, why });
    }
    let mut options = options.clone();
    options.create_if_missing(false);
    options.create_missing_column_families(false);
    Database::open_cf_descriptors_read_only(&options, path, families, false)
        .map_err(super::open_failed(path))
}
