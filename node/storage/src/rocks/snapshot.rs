//! Copying the whole state: out of a checkpoint, into a new generation.

use std::io::{Read, Write};
use std::path::PathBuf;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{Cache, ReadOptions, WriteBatch, WriteOptions};

use super::generation::{APPLIED, KEYS, META, TAKEN_OVER, encode_applied, families, load_applied};
use super::{Database, StorageOptions, family};
use crate::durable;
use crate::error::StorageError;
use crate::failpoints;
use crate::snapshot_stream::{SnapshotReader, SnapshotWriter};
use crate::state::{Applied, StateCheckpoint};

/// Records are written to a new generation in batches of about this size.
const BATCH_BYTES: usize = 4 << 20;

/// A checkpoint: hard links to the tables of the state, in a directory that goes away with this value.
pub(super) struct RocksCheckpoint {
    files: CheckpointFiles,
    /// `None` only while dropping.
    database: Option<Database>,
    applied: Applied,
}

/// Removes the directory, also when opening the copy fails.
struct CheckpointFiles(PathBuf);

impl RocksCheckpoint {
    /// Copies `database` to `path`. The caller keeps commits out meanwhile, so that keys and the applied index,
    /// which are in different column families, are of one batch.
    pub(super) fn take(
        database: &Database,
        path: PathBuf,
        options: &StorageOptions,
        cache: &Cache,
    ) -> Result<RocksCheckpoint, StorageError> {
        let files = CheckpointFiles(path);
        failpoints::hit("snapshot_build")
            .map_err(StorageError::database("take a checkpoint of the state"))?;
        Checkpoint::new(database)
            .and_then(|checkpoint| checkpoint.create_checkpoint(&files.0))
            .map_err(StorageError::database("take a checkpoint of the state"))?;
        let database = Database::open_cf_descriptors_read_only(
            &options.state_database(),
            &files.0,
            families(options, cache),
            false,
        )
        .map_err(StorageError::database("open a checkpoint of the state"))?;
        let applied = load_applied(&database)?;
        Ok(RocksCheckpoint {
            files,
            database: Some(database),
            applied,
        })
    }
}

impl StateCheckpoint for RocksCheckpoint {
    fn applied(&self) -> &Applied {
        &self.applied
    }

    fn export(&self, sink: &mut dyn Write) -> Result<(), StorageError> {
        let Some(database) = &self.database else {
            return Err(StorageError::Closed);
        };
        let mut options = ReadOptions::default();
        // One pass over everything must not push out what requests use.
        options.fill_cache(false);
        options.set_readahead_size(1 << 20);
        let mut iterator = database.raw_iterator_cf_opt(&family(database, KEYS), options);
        let mut writer = SnapshotWriter::new(sink, &self.applied)?;
        iterator.seek_to_first();
        while let Some((key, value)) = iterator.item() {
            writer.record(key, value)?;
            iterator.next();
        }
        // The end of an iterator is the end of the data only without an error.
        iterator
            .status()
            .map_err(StorageError::database("read a checkpoint of the state"))?;
        writer.finish()
    }
}

impl Drop for RocksCheckpoint {
    fn drop(&mut self) {
        // Close the files before they are removed.
        self.database = None;
        tracing::debug!(path = %self.files.0.display(), "checkpoint closed");
    }
}

impl Drop for CheckpointFiles {
    fn drop(&mut self) {
        if let Err(error) = durable::remove_dir_all(&self.0) {
            // It is removed at the next start.
            tracing::warn!(error = %error, "a checkpoint was not removed");
        }
    }
}

/// Reads a snapshot stream into an empty database and makes it durable. Nothing may point to the database before
/// this returns: what it holds is checked at the end of the stream.
pub(super) fn fill(database: &Database, source: &mut dyn Read) -> Result<Applied, StorageError> {
    let mut reader = SnapshotReader::new(source)?;
    let keys = family(database, KEYS);
    let meta = family(database, META);
    let mut batch = WriteBatch::default();
    while reader.next_frame(&mut |key, value| batch.put_cf(&keys, key, value))? {
        if batch.size_in_bytes() >= BATCH_BYTES {
            write_unlogged(database, std::mem::take(&mut batch))?;
        }
    }
    let applied = reader.applied().clone();
    batch.put_cf(&meta, APPLIED, encode_applied(&applied)?);
    batch.put_cf(&meta, TAKEN_OVER, applied.index.0.to_be_bytes());
    write_unlogged(database, batch)?;
    for column_family in [&keys, &meta] {
        database
            .flush_cf(column_family)
            .map_err(StorageError::database("sync a new state"))?;
    }
    durable::sync_dir(database.path())?;
    Ok(applied)
}

/// Writes without a write-ahead log: the database counts only once it is flushed and pointed to.
fn write_unlogged(database: &Database, batch: WriteBatch) -> Result<(), StorageError> {
    failpoints::hit("snapshot_install_chunk")
        .map_err(StorageError::database("fill a new state"))?;
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    database
        .write_opt(batch, &options)
        .map_err(StorageError::database("fill a new state"))
}
