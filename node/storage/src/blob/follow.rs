//! Reading bytes while they arrive.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use crate::error::BlobError;

/// Most that one read returns.
const READ_BYTES: usize = 1 << 20;

/// Where the readable bytes are.
#[derive(Clone)]
enum Content {
    Memory(Bytes),
    File(Arc<File>),
    Gone,
}

/// The writing end: followers see no more once all of these are dropped.
pub(super) struct Feed {
    readable: watch::Sender<u64>,
    content: Arc<Mutex<Content>>,
}

impl Feed {
    pub(super) fn new() -> Self {
        Feed {
            readable: watch::Sender::new(0),
            content: Arc::new(Mutex::new(Content::Memory(Bytes::new()))),
        }
    }

    /// How many bytes followers may read.
    pub(super) fn readable_bytes(&self) -> u64 {
        *self.readable.borrow()
    }

    /// The bytes, while they are in memory.
    pub(super) fn memory(&self) -> Option<Bytes> {
        match &*lock(&self.content) {
            Content::Memory(bytes) => Some(bytes.clone()),
            Content::File(_) | Content::Gone => None,
        }
    }

    /// Appends to what is in memory. Copies, so that a small blob does not keep a large network buffer alive.
    pub(super) fn append(&self, more: &[u8]) {
        let mut content = lock(&self.content);
        let Content::Memory(bytes) = &mut *content else {
            return;
        };
        // Without a clone elsewhere the buffer is taken back and grows in place.
        let mut buffer = std::mem::take(bytes)
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        buffer.extend_from_slice(more);
        let len = buffer.len() as u64;
        *bytes = buffer.freeze();
        drop(content);
        self.readable.send_replace(len);
    }

    /// From now on the first `readable_bytes` are read from `file`.
    pub(super) fn publish(&self, file: &Arc<File>, readable_bytes: u64) {
        let mut content = lock(&self.content);
        if !matches!(*content, Content::File(_)) {
            *content = Content::File(Arc::clone(file));
        }
        drop(content);
        self.readable.send_replace(readable_bytes);
    }

    /// Nothing can be read any more.
    pub(super) fn discard(&self) {
        *lock(&self.content) = Content::Gone;
    }

    pub(super) fn reader(&self) -> StagedReader {
        StagedReader {
            readable: self.readable.subscribe(),
            content: Arc::clone(&self.content),
            furthest: Arc::default(),
        }
    }
}

/// Follows a staged blob: how much is readable, and the bytes. Stays valid after commit; after a discard it
/// reports `BlobError::Gone`.
#[derive(Clone)]
pub struct StagedReader {
    readable: watch::Receiver<u64>,
    content: Arc<Mutex<Content>>,
    /// Where the furthest read of this reader and its clones ends.
    furthest: Arc<AtomicU64>,
}

/// How far a [`StagedReader`] has read.
#[derive(Clone, Debug, Default)]
pub struct ReadMark(Arc<AtomicU64>);

impl ReadMark {
    /// Where the furthest read ends.
    pub fn offset_bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl StagedReader {
    /// The same bytes for another purpose, whose reading is marked on its own.
    #[must_use]
    pub fn marked(&self) -> (StagedReader, ReadMark) {
        let mark = ReadMark::default();
        let reader = StagedReader {
            furthest: Arc::clone(&mark.0),
            ..self.clone()
        };
        (reader, mark)
    }

    /// Waits until more than `offset` bytes are readable; returns how many are. `None` when the staged blob was
    /// committed or dropped and no more will come. Cancellation-safe.
    pub async fn wait_beyond(&mut self, offset: u64) -> Option<u64> {
        let readable = *self.readable.borrow_and_update();
        if readable > offset {
            return Some(readable);
        }
        self.readable
            .wait_for(|readable| *readable > offset)
            .await
            .ok()
            .map(|readable| *readable)
    }

    /// At most `limit_bytes` (and at most 1 MiB) from `offset`, empty at the readable end. Not verified: the
    /// digest of staged bytes is not known yet.
    pub async fn read_at(&self, offset: u64, limit_bytes: usize) -> Result<Bytes, BlobError> {
        let rest = self.readable.borrow().saturating_sub(offset);
        let len =
            usize::try_from(rest).map_or(READ_BYTES, |rest| rest.min(limit_bytes).min(READ_BYTES));
        self.furthest
            .fetch_max(offset.saturating_add(len as u64), Ordering::Relaxed);
        let content = lock(&self.content).clone();
        match content {
            Content::Gone => Err(BlobError::Gone),
            _ if len == 0 => Ok(Bytes::new()),
            Content::Memory(bytes) => {
                let start = usize::try_from(offset)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                Ok(bytes.slice(start..bytes.len().min(start + len)))
            }
            Content::File(file) => {
                let read = tokio::task::spawn_blocking(move || read_exact(&file, offset, len));
                read.await.map_err(|_| BlobError::Gone)?
            }
        }
    }
}

/// Reads bytes that are known to be in the file.
fn read_exact(file: &File, offset: u64, len: usize) -> Result<Bytes, BlobError> {
    let mut buffer = vec![0; len];
    let read = super::reader::read_full(file, offset, &mut buffer);
    match read.map_err(BlobError::io("read", "staged bytes".as_ref()))? {
        read if read == len => Ok(buffer.into()),
        _ => Err(BlobError::Gone),
    }
}

fn lock(content: &Mutex<Content>) -> MutexGuard<'_, Content> {
    content.lock().unwrap_or_else(PoisonError::into_inner)
}
