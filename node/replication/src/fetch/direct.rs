//! Reading from another node without a disk in between: for a node whose disk is full.
//!
//! Every reader has a stream of its own then. A reader that began at the start still has the digest of the whole
//! verified before it gets the last bytes; one that began elsewhere relies on the checks its source makes chunk by
//! chunk.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use metadata::ids::NodeId;
use oci::{Digest, Hasher};
use tokio::time::timeout;

use crate::Replication;
use crate::error::{PeerError, ReplicationError};
use crate::peers::ByteStream;

/// What is read, and from whom it can be had.
pub(super) struct Wanted {
    pub(super) replication: Arc<Replication>,
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
    pub(super) holders: Vec<NodeId>,
}

/// Reads without staging. A clone has a stream of its own.
pub(super) struct Direct {
    wanted: Arc<Wanted>,
    position: Mutex<Option<Position>>,
}

/// How far one reader has come.
struct Position {
    offset: u64,
    /// Over everything before `offset`, when it was all read here.
    hasher: Option<Hasher>,
    source: Option<(NodeId, ByteStream)>,
    /// Received and not yet returned.
    rest: Bytes,
}

impl Clone for Direct {
    fn clone(&self) -> Self {
        Direct::new(self.wanted.clone())
    }
}

impl Direct {
    pub(super) fn new(wanted: Arc<Wanted>) -> Direct {
        Direct {
            wanted,
            position: Mutex::default(),
        }
    }

    /// Finds out whether any holder answers.
    pub(super) async fn connect(&self) -> Result<(), ReplicationError> {
        let mut position = Position::at(0, &self.wanted.digest);
        position.receive(&self.wanted).await?;
        self.put(position);
        Ok(())
    }

    /// At least one and at most `limit_bytes` from `offset`, which lies before the end.
    pub(super) async fn read_at(
        &self,
        offset: u64,
        limit_bytes: usize,
    ) -> Result<Bytes, ReplicationError> {
        let known = self.take().filter(|position| position.offset == offset);
        let mut position = known.unwrap_or_else(|| Position::at(offset, &self.wanted.digest));
        if position.rest.is_empty() {
            position.receive(&self.wanted).await?;
        }
        let bytes = position.rest.split_to(position.rest.len().min(limit_bytes));
        position.offset += bytes.len() as u64;
        self.put(position);
        Ok(bytes)
    }

    /// Taken out for as long as a read takes. Two reads of one reader at once open two streams, and one is dropped.
    fn take(&self) -> Option<Position> {
        self.position
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn put(&self, position: Position) {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner) = Some(position);
    }
}

impl Position {
    fn at(offset: u64, digest: &Digest) -> Position {
        let hasher = (offset == 0).then(|| Hasher::new(digest.algorithm()));
        Position {
            offset,
            hasher,
            source: None,
            rest: Bytes::new(),
        }
    }

    /// Receives the next piece, from the next holder when one fails.
    async fn receive(&mut self, wanted: &Wanted) -> Result<(), ReplicationError> {
        let mut nodes = wanted
            .replication
            .nearest_first(&wanted.digest, &wanted.holders);
        if let Some((node, bytes)) = self.source.take() {
            match self.receive_from(node, bytes, wanted).await {
                Ok(()) => return self.verify(node, wanted),
                Err(error) => note(node, wanted, &error),
            }
            // The others first; the sort is stable.
            nodes.sort_by_key(|&other| other == node);
        }
        for node in nodes {
            match self.begin(node, wanted).await {
                Ok(()) => return self.verify(node, wanted),
                Err(error) => note(node, wanted, &error),
            }
        }
        Err(ReplicationError::NoSource(wanted.digest))
    }

    async fn begin(&mut self, node: NodeId, wanted: &Wanted) -> Result<(), PeerError> {
        let Wanted {
            digest, size_bytes, ..
        } = wanted;
        let bytes = wanted
            .replication
            .fetch_from(node, digest, *size_bytes, self.offset)
            .await?;
        self.receive_from(node, bytes, wanted).await
    }

    async fn receive_from(
        &mut self,
        node: NodeId,
        mut bytes: ByteStream,
        wanted: &Wanted,
    ) -> Result<(), PeerError> {
        let left = wanted.size_bytes - self.offset;
        if left == 0 {
            return Ok(());
        }
        let patience = wanted.replication.options.fetch_stall_timeout;
        let piece = timeout(patience, bytes.next())
            .await
            .map_err(|_| PeerError::Timeout(node))?;
        let piece = piece.transpose()?.unwrap_or_default();
        if piece.is_empty() || piece.len() as u64 > left {
            return Err(PeerError::Refused {
                node,
                reason: "it sent too few or too many bytes".into(),
            });
        }
        self.rest = piece;
        self.source = Some((node, bytes));
        Ok(())
    }

    /// Counts the piece into the digest; the last one is let through only when the whole is right.
    fn verify(&mut self, node: NodeId, wanted: &Wanted) -> Result<(), ReplicationError> {
        let Some(hasher) = &mut self.hasher else {
            return Ok(());
        };
        hasher.update(&self.rest);
        if self.offset + (self.rest.len() as u64) < wanted.size_bytes {
            return Ok(());
        }
        let actual = hasher.clone().finish();
        if actual == wanted.digest {
            return Ok(());
        }
        wanted.replication.fetches.suspects.add(node, wanted.digest);
        tracing::error!(digest = %wanted.digest, %actual, peer = %node, "fetched bytes are damaged");
        Err(ReplicationError::NoSource(wanted.digest))
    }
}

fn note(node: NodeId, wanted: &Wanted, error: &PeerError) {
    tracing::warn!(peer = %node, digest = %wanted.digest, %error, "a source failed");
}
