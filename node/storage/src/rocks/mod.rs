//! RocksDB: the durable log and the durable state.
//!
//! They are two databases with one write-ahead log each, so that applying never waits for the log's fsync.
//! Every option that durability or memory depends on is stated here, not left to RocksDB's defaults.

pub mod log;
pub mod snapshot;
pub mod state;

mod generation;
pub(crate) mod hwm;
pub mod offline;
pub(crate) mod owner;
mod sync;

use std::path::Path;
use std::sync::Arc;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor,
    DBCompressionType, DBRecoveryMode, DBWithThreadMode, MultiThreaded, Options,
};

use crate::error::{REPLACE, StorageError};

pub use log::RocksLog;
pub use state::RocksState;

/// Names the description of a database that is in force.
pub(crate) const CURRENT: &str = "CURRENT";

pub(crate) type Database = DBWithThreadMode<MultiThreaded>;

/// What can be tuned. The defaults keep an idle node below 60 MB of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageOptions {
    /// Memory for blocks, indexes and filters of the state's tables. More makes reads of a large state quicker.
    /// Default 8 MiB.
    pub block_cache_bytes: usize,
    /// Size of one write buffer of the state; at most two exist. Default 8 MiB.
    pub state_write_buffer_bytes: usize,
    /// Size of one write buffer of the log; at most two exist. Default 8 MiB.
    pub log_write_buffer_bytes: usize,
    /// Write-ahead logs of one database together; reaching it flushes the oldest write buffer.
    /// Bounds what is replayed at start. Default 64 MiB.
    pub max_wal_bytes: u64,
    /// Values of the state from this size on live outside the sorted tables, so that compaction does not
    /// copy large manifests again and again. Default 64 KiB.
    pub large_value_bytes: u64,
    /// Files that the state's database keeps open. The log takes a quarter of it more. Default 256.
    pub max_open_files: i32,
    /// Background threads for flushes and compactions, shared by all databases of the process. Default 2.
    pub background_threads: i32,
}

impl Default for StorageOptions {
    fn default() -> Self {
        StorageOptions {
            block_cache_bytes: 8 << 20,
            state_write_buffer_bytes: 8 << 20,
            log_write_buffer_bytes: 8 << 20,
            max_wal_bytes: 64 << 20,
            large_value_bytes: 64 << 10,
            max_open_files: 256,
            background_threads: 2,
        }
    }
}

/// The write buffer of a column family that holds a handful of small keys.
const SMALL_WRITE_BUFFER_BYTES: usize = 1 << 20;
/// Size of the parts of an index or a filter.
const METADATA_BLOCK_BYTES: usize = 4 << 10;

impl StorageOptions {
    /// What every database here shares.
    pub(crate) fn database(&self) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_paranoid_checks(true);
        options.set_max_background_jobs(self.background_threads);
        options.set_max_subcompactions(1);
        options.set_max_file_opening_threads(self.background_threads);
        options.set_max_open_files(self.max_open_files);
        options.set_max_total_wal_size(self.max_wal_bytes);
        options.set_max_manifest_file_size(4 << 20);
        // RocksDB's own information log: two files of 1 MiB at most.
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(1 << 20);
        // No periodic statistics: they cost a thread and write to the information log while idle.
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options
    }

    /// Options of the log's database.
    ///
    /// The recovery mode is part of the safety argument (protocols.md 10.3): with the default mode one flipped
    /// bit in the middle of the write-ahead log silently drops every acknowledged entry behind it.
    pub(crate) fn log_database(&self) -> Options {
        let mut options = self.database();
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_max_open_files((self.max_open_files / 4).max(16));
        options
    }

    /// Options of the state's database.
    ///
    /// It is not synced per commit, so after a power cut its write-ahead log may end in any garbage: recovery
    /// keeps what precedes it, and the Raft log, which is never purged ahead of `flush`, replays the rest.
    pub(crate) fn state_database(&self) -> Options {
        let mut options = self.database();
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        options
    }

    /// Entries: written once, read in order, removed in order. Not compressed: most die before a compaction.
    pub(crate) fn log_entries(&self) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(1 << 20));
        self.column_family(self.log_write_buffer_bytes, DBCompressionType::None, &table)
    }

    /// A handful of small keys that are overwritten often.
    pub(crate) fn few_keys(&self) -> Options {
        let mut table = BlockBasedOptions::default();
        table.disable_cache();
        self.column_family(SMALL_WRITE_BUFFER_BYTES, DBCompressionType::None, &table)
    }

    /// The key space of the replicated state. `cache` is shared by the generations of one store.
    pub(crate) fn state_keys(&self, cache: &Cache) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(cache);
        table.set_bloom_filter(10.0, false);
        table.set_whole_key_filtering(true);
        // Indexes and filters count against the cache, so memory does not grow with the state. They are in small parts:
        // a whole filter of a large table is larger than the cache takes, and would be read from the file and
        // checked again for each key.
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_partition_filters(true);
        table.set_metadata_block_size(METADATA_BLOCK_BYTES);
        table.set_pin_top_level_index_and_filter(true);
        let mut options = self.column_family(
            self.state_write_buffer_bytes,
            DBCompressionType::Lz4,
            &table,
        );
        options.set_bottommost_compression_type(DBCompressionType::Zstd);
        options.set_enable_blob_files(true);
        options.set_min_blob_size(self.large_value_bytes);
        options.set_blob_file_size(64 << 20);
        options.set_blob_compression_type(DBCompressionType::Zstd);
        options.set_enable_blob_gc(true);
        options
    }

    fn column_family(
        &self,
        buffer_bytes: usize,
        compression: DBCompressionType,
        table: &BlockBasedOptions,
    ) -> Options {
        let mut options = Options::default();
        options.set_write_buffer_size(buffer_bytes);
        options.set_max_write_buffer_number(2);
        options.set_compression_type(compression);
        options.set_block_based_table_factory(table);
        options
    }
}

/// Opens a database with exactly these column families, creating what is missing.
///
/// Refuses one that lost its `CURRENT`: RocksDB would create a new database over the files of the old one.
pub(crate) fn open(
    path: &Path,
    options: &Options,
    families: Vec<ColumnFamilyDescriptor>,
) -> Result<Database, StorageError> {
    let current = path.join(CURRENT);
    if !current.is_file() && has_content(path)? {
        let why = format!("it is missing, but the database around it is not new; {REPLACE}");
        return Err(StorageError::Refused { path: current, why });
    }
    Database::open_cf_descriptors(options, path, families).map_err(open_failed(path))
}

/// Whether there are files that RocksDB makes only after `CURRENT`. What an interrupted creation leaves does not count.
fn has_content(path: &Path) -> Result<bool, StorageError> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        entries => entries.map_err(StorageError::io("list", path))?,
    };
    for entry in entries {
        let name = entry.map_err(StorageError::io("list", path))?.file_name();
        let name = name.to_string_lossy();
        let is_content = [".sst", ".log", ".blob"]
            .iter()
            .any(|suffix| name.ends_with(suffix));
        if is_content || name.starts_with("OPTIONS-") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A database that does not open: RocksDB names the file of it that is to blame, if one is.
pub(crate) fn open_failed(path: &Path) -> impl FnOnce(rocksdb::Error) -> StorageError {
    move |source| StorageError::Unopenable {
        path: path.to_path_buf(),
        source: Box::new(source),
    }
}

/// A column family that the database was opened with.
pub(crate) fn family<'db>(database: &'db Database, name: &str) -> Arc<BoundColumnFamily<'db>> {
    database
        .cf_handle(name)
        .expect("the database was opened with this column family and never drops one")
}

#[cfg(test)]
mod tests;
