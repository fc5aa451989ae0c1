//! Bytes on their way in: appended, hashed and checksummed as they come, and readable while they come.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use oci::{Algorithm, Digest};
use tokio::task::JoinHandle;

pub use super::follow::{ReadMark, StagedReader};

use super::budget::{Budget, Share};
use super::follow::Feed;
use super::spool::{Spool, SpoolTarget};
use crate::error::BlobError;

/// Pieces shorter than this are copied together: a client that sends one byte at a time must not make us keep
/// a network buffer for each.
const SMALL_PIECE_BYTES: usize = 4096;

/// A batch that finds no memory is written once it has this many bytes: many slow uploads must not hold a full
/// batch each.
const SMALL_BATCH_BYTES: usize = 64 * 1024;

/// Bytes on their way in, and the running hash over them.
///
/// One owner appends; any number of [`StagedReader`]s follow. Appending is pipelined: while one batch is
/// hashed and written on a blocking thread, the caller reads the next from its socket. Holds at most two
/// batches in memory. Dropping it leaves its file, so that it can be staged again under its name.
pub struct StagedBlob {
    feed: Arc<Feed>,
    /// Where the bytes go when they outgrow memory; `None` when they never do.
    target: Option<Arc<SpoolTarget>>,
    /// What it has of the memory for all staged blobs.
    memory: Share,
    /// What its batches have of the memory for those of all staged blobs.
    batch: Share,
    algorithm: Algorithm,
    len_bytes: u64,
    pending: Pending,
    /// At most one of these is there, and none while the bytes are in memory.
    spool: Option<Box<Spool>>,
    in_flight: Option<InFlight>,
    /// The digest of bytes in memory, once computed.
    known: Option<Digest>,
}

type InFlight = JoinHandle<(Box<Spool>, Result<(), BlobError>)>;

impl StagedBlob {
    /// A staged blob that stays in memory whatever its length.
    pub(super) fn in_memory_only() -> Self {
        StagedBlob {
            feed: Arc::new(Feed::new()),
            target: None,
            memory: Budget::new(u64::MAX).share(u64::MAX),
            batch: Budget::new(0).share(0),
            algorithm: Algorithm::Sha256,
            len_bytes: 0,
            pending: Pending::default(),
            spool: None,
            in_flight: None,
            known: None,
        }
    }

    /// A staged blob that becomes a file when `memory` grants no more, or one that is a file already. Its batches
    /// are as large as `batch` grants.
    pub(super) fn spilling(
        target: Arc<SpoolTarget>,
        feed: Arc<Feed>,
        memory: Share,
        batch: Share,
        resumed: Option<Spool>,
    ) -> Self {
        StagedBlob {
            target: Some(target),
            memory,
            batch,
            len_bytes: feed.readable_bytes(),
            feed,
            spool: resumed.map(Box::new),
            ..StagedBlob::in_memory_only()
        }
    }

    /// Bytes appended. Followers can read all but the last batch of them, and those after
    /// [`StagedBlob::settle`] or [`StagedBlob::digest`]. After an error of any call this is what really
    /// arrived: an upload can go on from there.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Chooses the algorithm that is computed while bytes arrive (by default sha256). Returns whether it could:
    /// only before the first byte.
    pub fn set_algorithm(&mut self, algorithm: Algorithm) -> bool {
        if self.len_bytes == 0 && self.spool.is_none() && self.in_flight.is_none() {
            self.algorithm = algorithm;
        }
        self.algorithm == algorithm
    }

    /// Appends. Returns when at most one batch is still in flight; its error surfaces on the next call.
    ///
    /// # Errors
    /// After any error [`StagedBlob::len_bytes`] has gone back to what was written, and unless the error is
    /// `BlobError::Gone` or `BlobError::Failed` the caller may go on from there.
    pub async fn append(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        if bytes.is_empty() {
            return Ok(());
        }
        if let Some(so_far) = self.in_memory() {
            self.known = None;
            if self.memory.grow(bytes.len() as u64) {
                drop(so_far);
                self.feed.append(&bytes);
                self.len_bytes += bytes.len() as u64;
                return Ok(());
            }
            let target = self.target.clone().ok_or(BlobError::Gone)?;
            self.spool = Some(Box::new(Spool::new(
                target,
                Arc::clone(&self.feed),
                self.algorithm,
            )));
            self.pending.push(so_far);
        }
        let is_granted = self.batch.grow(bytes.len() as u64);
        self.len_bytes += bytes.len() as u64;
        self.pending.push(bytes);
        if self.is_batch_full(is_granted) {
            self.idle().await?;
            self.dispatch()?;
        }
        Ok(())
    }

    fn is_batch_full(&self, is_granted: bool) -> bool {
        let most_bytes = usize::try_from(self.batch.most_bytes()).unwrap_or(usize::MAX);
        let full_bytes = if is_granted {
            most_bytes
        } else {
            most_bytes.min(SMALL_BATCH_BYTES)
        };
        self.pending.len_bytes >= full_bytes
    }

    /// Hands what is pending to the file, and waits: nothing is left in memory then, unless all of it is.
    pub async fn flush(&mut self) -> Result<(), BlobError> {
        self.idle().await?;
        self.dispatch()?;
        self.idle().await
    }

    /// Waits for what is in flight and, for a file, makes the bytes durable (for a resumable session). Returns
    /// how many there are. Bytes in memory are not made durable: a restart forgets them.
    pub async fn settle(&mut self) -> Result<u64, BlobError> {
        if self.in_memory().is_none() {
            self.flush().await?;
            self.run(Spool::sync).await?;
        }
        Ok(self.len_bytes)
    }

    /// The digest of everything appended. The default algorithm comes from the running hash; the other is
    /// computed by reading back.
    pub async fn digest(&mut self, algorithm: Algorithm) -> Result<Digest, BlobError> {
        if let Some(memory) = self.in_memory() {
            let known = self.known.filter(|digest| digest.algorithm() == algorithm);
            return Ok(*self
                .known
                .insert(known.unwrap_or_else(|| Digest::of(algorithm, &memory))));
        }
        self.flush().await?;
        let spool = self.spool.as_ref().ok_or(BlobError::Gone)?;
        if spool.digest(algorithm).is_none() {
            self.run(move |spool| spool.compute(algorithm)).await?;
        }
        self.spool
            .as_ref()
            .and_then(|spool| spool.digest(algorithm))
            .ok_or(BlobError::Gone)
    }

    /// The bytes, while they are in memory (small).
    pub fn in_memory(&self) -> Option<Bytes> {
        if self.spool.is_some() || self.in_flight.is_some() {
            None
        } else {
            self.feed.memory()
        }
    }

    /// A follower.
    pub fn reader(&self) -> StagedReader {
        self.feed.reader()
    }

    /// Whether the bytes can still become a blob.
    pub(super) fn is_usable(&self) -> bool {
        self.spool.as_ref().is_some_and(|spool| !spool.is_lost()) || self.in_memory().is_some()
    }

    /// Runs one job on the file, after those before it. It runs to its end even if the caller stops waiting.
    pub(super) async fn run(
        &mut self,
        job: impl FnOnce(&mut Spool) -> Result<(), BlobError> + Send + 'static,
    ) -> Result<(), BlobError> {
        self.idle().await?;
        self.start(job)?;
        self.idle().await
    }

    /// Ends it: followers find nothing any more. Returns what names the file to remove, and keeps
    /// its name taken.
    pub(super) async fn dismantle(mut self) -> Option<Arc<SpoolTarget>> {
        // A failure does not matter any more.
        let _ = self.idle().await;
        self.feed.discard();
        let owns_file = self.spool.as_ref().is_some_and(|spool| !spool.is_lost());
        self.target.take().filter(|_| owns_file)
    }

    /// Starts writing what is pending.
    fn dispatch(&mut self) -> Result<(), BlobError> {
        let pieces = self.pending.take();
        if pieces.is_empty() {
            return Ok(());
        }
        let memory = self.batch.hand_over();
        self.start(move |spool| {
            let written = spool.write(&pieces);
            drop((pieces, memory));
            written
        })
    }

    fn start(
        &mut self,
        job: impl FnOnce(&mut Spool) -> Result<(), BlobError> + Send + 'static,
    ) -> Result<(), BlobError> {
        let mut spool = self.spool.take().ok_or(BlobError::Gone)?;
        self.in_flight = Some(tokio::task::spawn_blocking(move || {
            let done = job(&mut spool);
            (spool, done)
        }));
        Ok(())
    }

    /// Waits for what is in flight. Cancellation-safe: the job stays where it is until its outcome is taken.
    async fn idle(&mut self) -> Result<(), BlobError> {
        let Some(in_flight) = &mut self.in_flight else {
            return Ok(());
        };
        let outcome = in_flight.await;
        self.in_flight = None;
        let done = match outcome {
            Ok((spool, done)) => {
                // A file that could not even be created leaves the bytes in memory, where they were.
                self.spool = (spool.has_file() || spool.is_lost()).then_some(spool);
                if self.spool.is_some() {
                    self.memory.give_back();
                }
                done
            }
            // The job panicked, or the runtime is going down.
            Err(_) => Err(BlobError::Gone),
        };
        if done.is_err() {
            self.pending.take();
            self.batch.give_back();
            self.len_bytes = self.feed.readable_bytes();
        }
        done
    }
}

/// What waits for the next batch.
#[derive(Default)]
struct Pending {
    pieces: Vec<Bytes>,
    /// Small pieces, copied together; they come after `pieces`.
    tail: BytesMut,
    len_bytes: usize,
}

impl Pending {
    fn push(&mut self, bytes: Bytes) {
        self.len_bytes += bytes.len();
        if bytes.len() < SMALL_PIECE_BYTES {
            self.tail.extend_from_slice(&bytes);
        } else {
            self.close_tail();
            self.pieces.push(bytes);
        }
    }

    fn take(&mut self) -> Vec<Bytes> {
        self.close_tail();
        self.len_bytes = 0;
        std::mem::take(&mut self.pieces)
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(std::mem::take(&mut self.tail).freeze());
        }
    }
}
