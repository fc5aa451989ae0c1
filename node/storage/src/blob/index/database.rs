//! The RocksDB under the local index.

use std::path::Path;
use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBCompressionType,
    DBRecoveryMode, DEFAULT_COLUMN_FAMILY_NAME, Options,
};

use crate::blob::options::BlobOptions;
use crate::error::StorageError;
pub(super) use crate::rocks::Database;
use crate::rocks::StorageOptions;

/// The tables of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Blobs,
    Bodies,
    Pins,
    Strays,
    Notes,
}

impl Family {
    const ALL: [Family; 5] = [
        Family::Blobs,
        Family::Bodies,
        Family::Pins,
        Family::Strays,
        Family::Notes,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Family::Blobs => "blobs",
            Family::Bodies => "bodies",
            Family::Pins => "pins",
            Family::Strays => "strays",
            Family::Notes => "notes",
        }
    }
}

/// Write buffer of the families with small values.
const SMALL_WRITE_BUFFER_BYTES: usize = 2 << 20;

/// Smallest value that goes to a blob file instead of a sorted table.
const BODY_IN_FILE_BYTES: u64 = 1 << 10;

/// Largest blob file. A flush writes one of the size of the write buffer.
const BODY_FILE_BYTES: u64 = 64 << 20;

pub(super) fn open(directory: &Path, options: &BlobOptions) -> Result<Database, StorageError> {
    crate::rocks::open(directory, &whole(options), families(options))
}

pub(super) fn open_read_only(
    directory: &Path,
    options: &BlobOptions,
) -> Result<Database, StorageError> {
    crate::rocks::offline::open(directory, &whole(options), families(options))
}

fn families(options: &BlobOptions) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(options.index_cache_bytes);
    let descriptor = |name, which| ColumnFamilyDescriptor::new(name, table(which, options, &cache));
    let mut families: Vec<_> = Family::ALL
        .map(|which| descriptor(which.name(), which))
        .into();
    // RocksDB insists on a family of this name. Nothing is in it, but after a full disk RocksDB wants as much
    // free space as the largest write buffer before it goes on, and 64 MiB is its default.
    families.push(descriptor(DEFAULT_COLUMN_FAMILY_NAME, Family::Strays));
    families
}

pub(super) fn family(database: &Database, which: Family) -> Arc<BoundColumnFamily<'_>> {
    crate::rocks::family(database, which.name())
}

fn whole(options: &BlobOptions) -> Options {
    let storage = StorageOptions {
        max_wal_bytes: options.index_max_wal_bytes,
        max_open_files: options.index_max_open_files,
        ..StorageOptions::default()
    };
    let mut whole = storage.database();
    // Pins and records are synced promises: a log damaged anywhere but at its torn end must not open quietly
    // with less (protocols.md section 10.3).
    whole.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    whole
}

fn table(which: Family, options: &BlobOptions, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_bloom_filter(10.0, false);
    let mut table = Options::default();
    table.set_compression_type(DBCompressionType::None);
    table.set_max_write_buffer_number(2);
    table.set_write_buffer_size(SMALL_WRITE_BUFFER_BYTES);
    if which == Family::Bodies {
        table.set_write_buffer_size(options.index_write_buffer_bytes);
        table.set_enable_blob_files(true);
        table.set_min_blob_size(BODY_IN_FILE_BYTES);
        table.set_blob_file_size(BODY_FILE_BYTES);
        // Only in passes of `reclaim.rs`.
        table.set_enable_blob_gc(false);
    }
    table.set_block_based_table_factory(&blocks);
    table
}
