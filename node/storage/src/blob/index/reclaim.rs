//! Space of removed bodies.
//!
//! RocksDB can collect garbage in its blob files as part of every compaction. The keys of this index are so
//! small that each compaction sees all of them, and so it would rewrite the same bodies every few megabytes.
//! Instead its collection is off, and on for one pass whenever enough has been removed to be worth copying
//! what is left: a body is copied at most twice for each byte that comes back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rocksdb::{BottommostLevelCompaction, CompactOptions};

use super::database::{Database, Family, family};
use crate::blob::options::BlobOptions;
use crate::blob::space::Disk;

/// Starts passes when enough bodies were removed; one at a time, on a thread of its own.
pub(super) struct Reclaimer {
    pass: Arc<Pass>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Pass {
    database: Arc<Database>,
    disk: Arc<Disk>,
    least_bytes: u64,
    garbage_bytes: AtomicU64,
    is_running: AtomicBool,
    is_stopped: AtomicBool,
}

impl Reclaimer {
    pub(super) fn new(database: Arc<Database>, disk: Arc<Disk>, options: &BlobOptions) -> Self {
        let pass = Pass {
            database,
            disk,
            least_bytes: options.index_reclaim_bytes,
            garbage_bytes: AtomicU64::new(0),
            is_running: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
        };
        // What RocksDB has noticed so far. What was removed shortly before the last stop is missing until a
        // compaction comes across it.
        let noticed = pass.property("rocksdb.live-blob-file-garbage-size");
        pass.garbage_bytes.store(noticed, Ordering::Relaxed);
        Reclaimer {
            pass: Arc::new(pass),
            thread: Mutex::default(),
        }
    }

    /// Counts removed bodies.
    pub(super) fn add_garbage(&self, bytes: u64) {
        self.pass.garbage_bytes.fetch_add(bytes, Ordering::Relaxed);
        if bytes > 0 && self.pass.is_due() && !self.pass.is_running.swap(true, Ordering::AcqRel) {
            self.start();
        }
    }

    /// Abandons a pass under way. If there was one, the database takes no more writes after this.
    pub(super) fn stop(&self) {
        self.pass.is_stopped.store(true, Ordering::Release);
        if let Some(thread) = self.thread().take() {
            self.pass.database.cancel_all_background_work(true);
            // A panic there is none of this thread, which may be in the middle of a drop.
            let _ = thread.join();
        }
    }

    fn start(&self) {
        let pass = Arc::clone(&self.pass);
        match std::thread::Builder::new()
            .name("blob-reclaim".to_owned())
            .spawn(move || pass.run())
        {
            Ok(thread) => *self.thread() = Some(thread),
            Err(error) => {
                self.pass.is_running.store(false, Ordering::Release);
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "no thread to reclaim space with"
                );
            }
        }
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    fn is_due(&self) -> bool {
        let garbage_bytes = self.garbage_bytes.load(Ordering::Relaxed);
        garbage_bytes >= self.least_bytes
            && garbage_bytes >= self.property("rocksdb.total-blob-file-size") / 3
    }

    fn run(&self) {
        while self.is_due() && !self.is_stopped.load(Ordering::Acquire) {
            let before_bytes = self.property("rocksdb.total-blob-file-size");
            let garbage_bytes = self.garbage_bytes.swap(0, Ordering::Relaxed);
            self.collect(before_bytes);
            let after_bytes = self.property("rocksdb.total-blob-file-size");
            tracing::debug!(
                garbage_bytes,
                before_bytes,
                after_bytes,
                "space of removed blobs was reclaimed"
            );
        }
        self.is_running.store(false, Ordering::Release);
    }

    /// Copies the bodies that are left. The old files go at the end, so what is copied must fit beside them:
    /// with little room only the oldest files take part.
    fn collect(&self, total_bytes: u64) {
        let Ok(usage) = self.disk.usage() else { return };
        #[allow(
            clippy::cast_precision_loss,
            reason = "a share of the files, nothing exact"
        )]
        let share = (usage.free_bytes / 2) as f64 / total_bytes.max(1) as f64;
        let share = format!("{:.3}", share.clamp(0.0, 1.0));
        let bodies = family(&self.database, Family::Bodies);
        let set = |name, value| self.database.set_options_cf(&bodies, &[(name, value)]);
        let mut outcome = set("blob_garbage_collection_age_cutoff", share.as_str());
        outcome = outcome.and_then(|()| set("enable_blob_garbage_collection", "true"));
        if outcome.is_ok() {
            let mut options = CompactOptions::default();
            options.set_exclusive_manual_compaction(false);
            options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
            self.database
                .compact_range_cf_opt(&bodies, None::<&[u8]>, None::<&[u8]>, &options);
            outcome = set("enable_blob_garbage_collection", "false");
        }
        let is_stopped = self.is_stopped.load(Ordering::Acquire);
        if let Some(error) = outcome.err().filter(|_| !is_stopped) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot reclaim space of removed blobs"
            );
        }
    }

    fn property(&self, name: &str) -> u64 {
        let bodies = family(&self.database, Family::Bodies);
        self.database
            .property_int_value_cf(&bodies, name)
            .ok()
            .flatten()
            .unwrap_or(0)
    }
}
