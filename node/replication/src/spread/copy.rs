//! One copy of one blob to one node.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use metadata::ids::NodeId;
use oci::Algorithm;
use storage::blob::{CHUNK_BYTES, ReadMark, StagedReader};
use storage::error::BlobError;
use tokio::sync::watch;

use crate::error::PeerError;
use crate::peers::{BlobPeers, PushEnd};

/// Where the bytes of a copy come from.
#[derive(Clone)]
pub(super) enum Source {
    /// A blob that may still be arriving.
    Staged {
        reader: StagedReader,
        algorithm: Algorithm,
    },
    /// A small blob in memory.
    Body(Bytes),
}

/// What a streamed copy holds in buffers, about.
const STREAM_BYTES: u32 = 1 << 20;

impl Source {
    /// The same bytes for one copy, and how far that one gets.
    pub(super) fn marked(&self) -> (Source, ReadMark) {
        match self {
            Source::Staged { reader, algorithm } => {
                let (reader, mark) = reader.marked();
                let algorithm = *algorithm;
                (Source::Staged { reader, algorithm }, mark)
            }
            Source::Body(body) => (Source::Body(body.clone()), ReadMark::default()),
        }
    }

    /// Memory that copies from it hold while they run.
    pub(super) fn memory_bytes(&self) -> u32 {
        match self {
            Source::Staged { .. } => STREAM_BYTES,
            Source::Body(body) => u32::try_from(body.len()).unwrap_or(u32::MAX),
        }
    }
}

/// One copy to one node.
pub(super) struct Copy {
    pub(super) peers: Arc<dyn BlobPeers>,
    pub(super) node: NodeId,
    pub(super) source: Source,
    pub(super) end: watch::Receiver<Option<PushEnd>>,
    pub(super) small_max_bytes: u64,
    /// An earlier try failed, perhaps only after the node had stored the blob.
    pub(super) again: bool,
}

impl Copy {
    /// Returns once the copy is durable and pinned.
    pub(super) async fn run(mut self) -> Result<(), PeerError> {
        let end = *self.end.borrow();
        if let (true, Some(end)) = (self.again, end)
            && self.peers.pin(self.node, &end.digest, end.ticket).await?
        {
            return Ok(());
        }
        match self.source.clone() {
            Source::Body(body) => {
                let end = self.wait_for_end().await?;
                self.peers.push_small(self.node, end, body).await
            }
            Source::Staged {
                mut reader,
                algorithm,
            } => match self.small(&mut reader).await? {
                Some(end) => {
                    let body = read_whole(&reader, end.size_bytes).await?;
                    self.peers.push_small(self.node, end, body).await
                }
                None => {
                    self.peers
                        .push(self.node, reader, algorithm, self.end)
                        .await
                }
            },
        }
    }

    /// Waits until it is known whether the blob is small; its end when it is.
    async fn small(&mut self, reader: &mut StagedReader) -> Result<Option<PushEnd>, PeerError> {
        if let Some(end) = *self.end.borrow() {
            return Ok(Some(end).filter(|end| end.size_bytes <= self.small_max_bytes));
        }
        tokio::select! {
            readable = reader.wait_beyond(self.small_max_bytes) => {
                if readable.is_some() {
                    return Ok(None);
                }
            }
            end = self.end.wait_for(Option::is_some) => {
                let end = end.map_err(|_| PeerError::Abandoned)?;
                return Ok(end.filter(|end| end.size_bytes <= self.small_max_bytes));
            }
        }
        // It is complete and small, and will end.
        self.wait_for_end().await.map(Some)
    }

    async fn wait_for_end(&mut self) -> Result<PushEnd, PeerError> {
        let end = self
            .end
            .wait_for(Option::is_some)
            .await
            .map_err(|_| PeerError::Abandoned)?;
        (*end).ok_or(PeerError::Abandoned)
    }
}

async fn read_whole(reader: &StagedReader, size_bytes: u64) -> Result<Bytes, PeerError> {
    let first = reader.read_at(0, CHUNK_BYTES).await?;
    if first.len() as u64 == size_bytes {
        return Ok(first);
    }
    let mut body = BytesMut::from(first);
    while (body.len() as u64) < size_bytes {
        let more = reader.read_at(body.len() as u64, CHUNK_BYTES).await?;
        if more.is_empty() {
            return Err(BlobError::Gone.into());
        }
        body.extend_from_slice(&more);
    }
    Ok(body.freeze())
}
