//! Following a blob that is still arriving: what a push sends next.

use bytes::Bytes;
use storage::blob::{CHUNK_BYTES, StagedReader};
use storage::error::BlobError;
use tokio::sync::watch;

use crate::error::PeerError;
use crate::peers::PushEnd;

/// What a push sends next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Bytes at an offset, at most [`CHUNK_BYTES`] of them.
    Data { offset_bytes: u64, bytes: Bytes },
    /// Everything was sent, and this is how it ends.
    End(PushEnd),
}

/// Reads a growing blob piece by piece. Holds no bytes itself: what a slow peer has not taken stays in the staged
/// file, so a push costs the memory of one piece however far it falls behind.
pub(crate) struct Follower {
    source: StagedReader,
    /// No more bytes will come.
    complete: bool,
    end: watch::Receiver<Option<PushEnd>>,
    offset_bytes: u64,
}

impl Follower {
    pub(crate) fn new(source: StagedReader, end: watch::Receiver<Option<PushEnd>>) -> Follower {
        Follower {
            source,
            complete: false,
            end,
            offset_bytes: 0,
        }
    }

    /// Goes on from where a peer stands.
    pub(crate) fn seek(&mut self, offset_bytes: u64) {
        self.offset_bytes = offset_bytes;
    }

    /// How the push ends, when that is known.
    pub(crate) fn end(&self) -> Option<PushEnd> {
        *self.end.borrow()
    }

    /// Completes when the push is abandoned: its end will never be known.
    pub(crate) async fn abandoned(&self) {
        let mut end = self.end.clone();
        if end.wait_for(Option::is_some).await.is_ok() {
            std::future::pending().await
        }
    }

    /// Waits for the next piece. Cancel safe: the offset moves only when a piece is returned.
    pub(crate) async fn next(&mut self) -> Result<Step, PeerError> {
        loop {
            let end = self.end();
            match end {
                Some(end) if self.offset_bytes >= end.size_bytes => return Ok(Step::End(end)),
                None if self.end.has_changed().is_err() => return Err(PeerError::Abandoned),
                _ => {}
            }
            let bytes = self.source.read_at(self.offset_bytes, CHUNK_BYTES).await?;
            if !bytes.is_empty() {
                let offset_bytes = self.offset_bytes;
                self.offset_bytes += bytes.len() as u64;
                return Ok(Step::Data {
                    offset_bytes,
                    bytes,
                });
            }
            if self.complete && end.is_some() {
                return Err(BlobError::Gone.into());
            }
            self.wait(end.is_some()).await?;
        }
    }

    async fn wait(&mut self, end_known: bool) -> Result<(), PeerError> {
        tokio::select! {
            readable = self.source.wait_beyond(self.offset_bytes), if !self.complete => {
                self.complete = readable.is_none();
            }
            changed = self.end.changed(), if !end_known => {
                changed.map_err(|_| PeerError::Abandoned)?;
            }
        }
        Ok(())
    }
}
