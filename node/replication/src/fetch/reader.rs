//! What a client of a fetched blob reads from.

use std::sync::Arc;

use bytes::Bytes;
use oci::Digest;
use storage::blob::StagedReader;
use storage::error::BlobError;
use tokio::sync::watch;

use super::direct::{Direct, Wanted};
use super::{Failure, State};
use crate::error::ReplicationError;

/// A blob that arrives from another node while it is read. Cheap to clone.
#[derive(Clone)]
pub struct FetchReader {
    digest: Digest,
    size_bytes: u64,
    state: watch::Receiver<State>,
    /// For a node whose disk is full.
    direct: Direct,
}

impl FetchReader {
    pub(super) fn new(wanted: Wanted, state: watch::Receiver<State>) -> FetchReader {
        let (digest, size_bytes) = (wanted.digest, wanted.size_bytes);
        FetchReader {
            digest,
            size_bytes,
            state,
            direct: Direct::new(Arc::new(wanted)),
        }
    }

    /// Length of the blob.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// At most `limit_bytes` from `offset`, waiting until there are some; empty at the end of the blob. Cancel safe.
    ///
    /// # Errors
    /// As [`crate::Replication::open_remote`]; also when all sources fail in mid-blob, or the whole turns out to have
    /// another digest.
    pub async fn read_at(
        &self,
        offset: u64,
        limit_bytes: usize,
    ) -> Result<Bytes, ReplicationError> {
        if offset >= self.size_bytes || limit_bytes == 0 {
            return Ok(Bytes::new());
        }
        match self.read_staged(offset, limit_bytes).await {
            Err(ReplicationError::Local(BlobError::NoSpace)) => {
                self.direct.read_at(offset, limit_bytes).await
            }
            read => read,
        }
    }

    async fn read_staged(
        &self,
        offset: u64,
        limit_bytes: usize,
    ) -> Result<Bytes, ReplicationError> {
        loop {
            let (mut staged, released_bytes) = self.wait_beyond(offset).await?;
            let released = usize::try_from(released_bytes - offset).unwrap_or(usize::MAX);
            let bytes = staged.read_at(offset, released.min(limit_bytes)).await;
            match bytes {
                Ok(bytes) if !bytes.is_empty() => return Ok(bytes),
                // Received, but not written yet.
                Ok(_) if staged.wait_beyond(offset).await.is_some() => {}
                // The transfer failed and dropped its bytes, in this order.
                Ok(_) => return Err(self.failure()),
                Err(BlobError::Gone) => return Err(self.failure()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Why bytes that were there are gone.
    fn failure(&self) -> ReplicationError {
        let failure = self.state.borrow().failure;
        failure.unwrap_or(Failure::Local).into_error(self.digest)
    }

    /// Waits until a holder has answered.
    pub(super) async fn connected(&self) -> Result<(), ReplicationError> {
        match self.wait_for(|state| state.connected.then_some(())).await {
            Err(ReplicationError::Local(BlobError::NoSpace)) => self.direct.connect().await,
            connected => connected,
        }
    }

    /// Waits until the transfer has become a counted copy of this node. Counts as one reader all the time, by which
    /// the transfer knows that nobody else waits.
    pub(super) async fn kept(mut self) -> Result<(), ReplicationError> {
        let over = self
            .state
            .wait_for(|now| now.is_kept.is_some() || now.failure.is_some());
        let (is_kept, failure) = match over.await {
            Ok(now) => (now.is_kept, now.failure),
            Err(_) => (None, Some(Failure::ShuttingDown)),
        };
        match (is_kept, failure) {
            (Some(true), _) => Ok(()),
            (_, Some(failure)) => Err(failure.into_error(self.digest)),
            (_, None) => Err(ReplicationError::Interrupted(self.digest)),
        }
    }

    async fn wait_beyond(&self, offset: u64) -> Result<(StagedReader, u64), ReplicationError> {
        self.wait_for(|state| {
            let staged = state
                .staged
                .clone()
                .filter(|_| state.released_bytes > offset)?;
            Some((staged, state.released_bytes))
        })
        .await
    }

    /// Bytes that were released stay readable when the rest fails: what is wanted is looked for first.
    async fn wait_for<T>(
        &self,
        mut wanted: impl FnMut(&State) -> Option<T>,
    ) -> Result<T, ReplicationError> {
        let mut state = self.state.clone();
        let mut found = None;
        let waited = state.wait_for(|now| {
            found = wanted(now);
            found.is_some() || now.failure.is_some()
        });
        let failure = match waited.await {
            Ok(now) => now.failure,
            // The transfer ended by panic or was cut off with its runtime.
            Err(_) => Some(Failure::ShuttingDown),
        };
        match (found, failure) {
            (Some(found), _) => Ok(found),
            (None, failure) => Err(failure.unwrap_or(Failure::Local).into_error(self.digest)),
        }
    }
}
