//! What can be tuned about the blobs of a node.

use std::time::Duration;

use super::CHUNK_BYTES;

/// Plain options; every default is chosen for a small machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobOptions {
    /// Blobs up to this many bytes are kept inside the local index and never become files: one synced batch,
    /// shared with whoever else commits at that moment, instead of a file sync and a directory sync each.
    /// At most 256 KiB (one chunk); more counts as that. Default 128 KiB.
    pub inline_limit_bytes: usize,
    /// Bytes of staged blobs that may be in memory, all together. A staged blob that finds no room becomes a file,
    /// however small it is. The batches of those that are files may have as much again; beyond it they are smaller.
    /// Default 32 MiB.
    pub inline_memory_bytes: u64,
    /// Bytes that are hashed and written in one go on a blocking thread. An upload holds at most two such
    /// batches, of 64 KiB when there is no memory for larger ones. Default 512 KiB.
    pub batch_bytes: usize,
    /// Dirty bytes of one upload after which the kernel is told to start writing them out, so that the sync
    /// at the end finds little left to do. Default 8 MiB.
    pub write_back_bytes: u64,
    /// Free space that uploads must leave. Below it nothing new is staged (`BlobError::NoSpace`), so that the
    /// logs and the index, which share the disk, can still be written. `None`: 256 MiB or 1 % of the file
    /// system, whichever is smaller.
    pub min_free_bytes: Option<u64>,
    /// How long the file of an unlinked blob stays in the trash. Zero: no trash. Default 24 h.
    pub trash_ttl: Duration,
    /// Most that the trash holds; then unlinked files go at once. Default 16 GiB.
    pub trash_max_bytes: u64,
    /// Free space below which there is no trash. `None`: a tenth of the file system.
    pub trash_min_free_bytes: Option<u64>,
    /// Most damaged copies in quarantine; then more are left where they are. Default 1,000.
    pub quarantine_max_files: u64,
    /// Most that the quarantine holds. Default 16 GiB.
    pub quarantine_max_bytes: u64,
    /// Write buffer of inline blobs; at most two exist. Default 16 MiB.
    pub index_write_buffer_bytes: usize,
    /// Removed inline blobs after which, when they are also a third of all, their space is reclaimed by copying
    /// those that are left. Default 64 MiB.
    pub index_reclaim_bytes: u64,
    /// Write-ahead log of the index, which bounds what is replayed at start. Default 64 MiB.
    pub index_max_wal_bytes: u64,
    /// Cache for blocks of the index. Default 4 MiB.
    pub index_cache_bytes: usize,
    /// Files the index keeps open. Default 256.
    pub index_max_open_files: i32,
}

impl Default for BlobOptions {
    fn default() -> Self {
        BlobOptions {
            inline_limit_bytes: 128 << 10,
            inline_memory_bytes: 32 << 20,
            batch_bytes: 512 << 10,
            write_back_bytes: 8 << 20,
            min_free_bytes: None,
            trash_ttl: Duration::from_secs(24 * 3600),
            trash_max_bytes: 16 << 30,
            trash_min_free_bytes: None,
            quarantine_max_files: 1000,
            quarantine_max_bytes: 16 << 30,
            index_write_buffer_bytes: 16 << 20,
            index_reclaim_bytes: 64 << 20,
            index_max_wal_bytes: 64 << 20,
            index_cache_bytes: 4 << 20,
            index_max_open_files: 256,
        }
    }
}

impl BlobOptions {
    /// The inline limit that is in force.
    pub(super) fn inline_limit(&self) -> u64 {
        self.inline_limit_bytes.min(CHUNK_BYTES) as u64
    }
}
