//! Writing the index: one thread, one sync for everybody who waits.
//!
//! RocksDB can group concurrent synced writes itself, but it stops a group that starts with a small write at
//! about 128 KiB more, which is one body. Here everything that came while the last sync ran goes into one
//! batch, and callers need no thread of their own to wait in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use rocksdb::{WriteBatch, WriteOptions};
use tokio::sync::{mpsc, oneshot};

use super::database::{Database, family};
use super::edit::{Change, Edit};
use super::mark::IndexMark;
use super::reclaim::Reclaimer;
use crate::blob::options::BlobOptions;
use crate::blob::space::Disk;
use crate::error::{BlobError, StorageError};
use crate::failpoints;
use crate::rocks::owner::Owner;

/// Edits that may wait. Bodies among them are held by their uploads anyway.
const QUEUE_EDITS: usize = 256;

/// Bytes after which a batch takes no further edit: RocksDB copies all of it before the first byte is written.
const BATCH_BYTES: usize = 4 << 20;

/// An edit on its way to the disk.
#[must_use = "an edit is durable only when its outcome is known"]
pub(in crate::blob) struct Written(oneshot::Receiver<Result<(), BlobError>>);

impl Written {
    pub(in crate::blob) async fn wait(self) -> Result<(), BlobError> {
        self.0.await.unwrap_or(Err(closed()))
    }

    /// For blocking threads.
    pub(in crate::blob) fn wait_blocking(self) -> Result<(), BlobError> {
        self.0.blocking_recv().unwrap_or(Err(closed()))
    }
}

struct Request {
    edit: Edit,
    done: oneshot::Sender<Result<(), BlobError>>,
}

/// The thread that writes.
pub(super) struct Writer {
    target: Arc<Target>,
    /// `None` only while the writer is dropped.
    queue: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(
        database: Arc<Database>,
        keeping: Option<(IndexMark, Owner)>,
        disk: Arc<Disk>,
        options: &BlobOptions,
    ) -> Result<Self, StorageError> {
        let path = database.path().to_owned();
        let reclaimer = Reclaimer::new(Arc::clone(&database), Arc::clone(&disk), options);
        let target = Arc::new(Target::new(database, keeping, disk, reclaimer));
        let (queue, requests) = mpsc::channel(QUEUE_EDITS);
        let thread_target = Arc::clone(&target);
        let thread = std::thread::Builder::new()
            .name("blob-index".to_owned())
            .spawn(move || thread_target.run(requests))
            .map_err(StorageError::io("start a thread for", &path))?;
        Ok(Writer {
            target,
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    pub(super) async fn submit(&self, edit: Edit) -> Result<Written, BlobError> {
        let (done, written) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        queue
            .send(Request { edit, done })
            .await
            .map_err(|_| closed())?;
        Ok(Written(written))
    }

    pub(super) fn submit_blocking(&self, edit: Edit) -> Result<Written, BlobError> {
        let (done, written) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        queue
            .blocking_send(Request { edit, done })
            .map_err(|_| closed())?;
        Ok(Written(written))
    }

    /// Writes on the calling thread, whichever it is. May overtake what is queued.
    pub(super) fn write_alone(&self, edit: Edit) -> Result<(), BlobError> {
        let mut batch = WriteBatch::default();
        self.target.add(&mut batch, edit);
        self.target.write(batch)
    }

    pub(super) fn sync_count(&self) -> u64 {
        self.target.syncs.load(Ordering::Relaxed)
    }
}

impl Drop for Writer {
    /// Waits for the edit in hand, so that the database is closed when its owner is gone.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // The thread only panics when RocksDB's binding does; there is nobody left to tell.
            let _ = thread.join();
        }
        self.target.reclaimer.stop();
    }
}

/// What is written to.
struct Target {
    database: Arc<Database>,
    /// What every write keeps true; `None` when nothing is to be written.
    keeping: Option<(IndexMark, Owner)>,
    disk: Arc<Disk>,
    reclaimer: Reclaimer,
    synced: WriteOptions,
    syncs: AtomicU64,
}

impl Target {
    fn new(
        database: Arc<Database>,
        keeping: Option<(IndexMark, Owner)>,
        disk: Arc<Disk>,
        reclaimer: Reclaimer,
    ) -> Self {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        Target {
            database,
            keeping,
            disk,
            reclaimer,
            synced,
            syncs: AtomicU64::new(0),
        }
    }

    fn run(&self, mut requests: mpsc::Receiver<Request>) {
        let mut waiting = Vec::with_capacity(QUEUE_EDITS);
        while let Some(first) = requests.blocking_recv() {
            let mut batch = WriteBatch::default();
            let mut removed_bytes = 0;
            let mut next = Some(first);
            while let Some(request) = next {
                removed_bytes += request.edit.removed_bytes();
                self.add(&mut batch, request.edit);
                waiting.push(request.done);
                let has_room = batch.size_in_bytes() < BATCH_BYTES && waiting.len() < QUEUE_EDITS;
                next = if has_room {
                    requests.try_recv().ok()
                } else {
                    None
                };
            }
            let outcome = self.write(batch);
            if outcome.is_ok() {
                self.reclaimer.add_garbage(removed_bytes);
            }
            for done in waiting.drain(..) {
                // A caller that went away does not need the answer.
                let _ = done.send(match &outcome {
                    Ok(()) => Ok(()),
                    Err(BlobError::NoSpace) => Err(BlobError::NoSpace),
                    Err(_) => Err(BlobError::Failed),
                });
            }
        }
    }

    fn add(&self, batch: &mut WriteBatch, edit: Edit) {
        for Change {
            family: which,
            key,
            value,
        } in edit.into_changes()
        {
            match value {
                Some(value) => batch.put_cf(&family(&self.database, which), key, value),
                None => batch.delete_cf(&family(&self.database, which), key),
            }
        }
    }

    /// An injected failure counts like one of the database.
    fn hit(&self, point: &'static str) -> Result<(), BlobError> {
        failpoints::hit(point).map_err(|error| {
            let path = self.database.path();
            self.disk.sync_failed(path, error)
        })
    }

    /// A full disk fails this batch; RocksDB then refuses writes until, some seconds after there is room again,
    /// it has moved to a new log. Anything else leaves unknown what is durable and ends all writing.
    fn write(&self, mut batch: WriteBatch) -> Result<(), BlobError> {
        self.disk.check_writable()?;
        if let Some((_, owner)) = &self.keeping {
            owner.sign(&self.database, &mut batch);
        }
        self.hit("index_before_sync")?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let Err(error) = self.database.write_opt(batch, &self.synced) else {
            if let Some((mark, _)) = &self.keeping {
                mark.reached(self.database.latest_sequence_number());
            }
            return self.hit("index_after_sync");
        };
        // The binding tells the kind of an error, not its subcode; RocksDB keeps the text of strerror.
        let text = error.to_string();
        if text.contains("No space left") || text.contains("quota exceeded") {
            return Err(BlobError::NoSpace);
        }
        self.disk.fail(&error);
        Err(BlobError::Failed)
    }
}

fn closed() -> BlobError {
    BlobError::Index(StorageError::Closed)
}
