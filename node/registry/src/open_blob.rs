//! Reading a blob, from wherever good bytes can be had.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use metadata::ids::NodeId;
use replication::FetchReader;
use storage::blob::{BlobReader, CHUNK_BYTES};
use storage::error::BlobError;

use crate::blobs::BlobInfo;
use crate::error::{RegistryError, not_copied};
use crate::{Registry, Result};

/// Most bytes read at once: what one verified read of the local store returns at most.
const READ_BYTES: usize = 4 * CHUNK_BYTES;

/// How long a reader of a damaged blob waits until the damage is recorded. A copy that is fetched before that
/// would not replace the damaged one.
const REPORT_WAIT: Duration = Duration::from_secs(1);

/// Where the bytes of an open blob come from.
#[allow(clippy::large_enum_variant, reason = "one per request, moved once")]
pub enum BlobSource {
    /// This node holds it.
    Local(BlobReader),
    /// Another node does.
    Remote(FetchReader),
}

/// The next bytes of a blob, verified.
pub enum Piece {
    /// Read.
    Bytes(Bytes),
    /// To be sent from a file.
    File {
        /// Stays readable when the blob is unlinked meanwhile.
        file: Arc<File>,
        /// Where the piece starts.
        offset: u64,
        /// Its length, at most 1 MiB.
        length_bytes: usize,
    },
}

impl Piece {
    /// Its length.
    pub fn len_bytes(&self) -> usize {
        match self {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::File { length_bytes, .. } => *length_bytes,
        }
    }
}

/// A blob opened for reading.
pub struct OpenBlob {
    /// Which one.
    pub info: BlobInfo,
    /// Where its bytes come from.
    pub source: BlobSource,
    registry: Arc<Registry>,
    holders: Vec<NodeId>,
}

impl OpenBlob {
    pub(crate) async fn open(
        registry: &Arc<Registry>,
        info: BlobInfo,
        holders: Vec<NodeId>,
    ) -> Result<OpenBlob> {
        let source = match registry.blobs.open(&info.digest).await {
            Ok(Some(reader)) if reader.size_bytes() == info.size_bytes => BlobSource::Local(reader),
            Ok(Some(reader)) => {
                tracing::warn!(digest = %info.digest, bytes = reader.size_bytes(), "a local blob has a wrong size");
                drop(registry.suspect_copy(info.digest));
                registry.remote(&info, &holders).await?
            }
            Ok(None) => {
                if holders.contains(&registry.log.node_id()) {
                    drop(registry.suspect_copy(info.digest));
                }
                registry.remote(&info, &holders).await?
            }
            Err(error) => {
                registry.damaged(&info, &error).await;
                registry.remote(&info, &holders).await?
            }
        };
        Ok(OpenBlob {
            info,
            source,
            registry: registry.clone(),
            holders,
        })
    }

    /// The bytes from `start` up to, not including, `end_exclusive` (cut to the blob). Every byte was verified before
    /// it is handed out; a damaged local copy is reported, and the stream goes on from another holder (invariant I6).
    ///
    /// # Errors
    /// `ContentUnavailable` when nobody has the next bytes; nothing wrong was handed out before.
    pub fn stream(
        self,
        start: u64,
        end_exclusive: u64,
    ) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        let end = end_exclusive.min(self.info.size_bytes);
        futures::stream::try_unfold((self, start), move |(mut blob, offset)| async move {
            if offset >= end {
                return Ok(None);
            }
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let bytes = blob.read_at(offset, left.min(READ_BYTES)).await?;
            let next = offset + bytes.len() as u64;
            Ok(Some((bytes, (blob, next))))
        })
    }

    /// [`OpenBlob::stream`] for a front that can send parts of a file by itself: what is in a local file is verified
    /// and named instead of read.
    ///
    /// # Errors
    /// As [`OpenBlob::stream`].
    pub fn pieces(
        self,
        start: u64,
        end_exclusive: u64,
    ) -> impl Stream<Item = Result<Piece>> + Send + 'static {
        let end = end_exclusive.min(self.info.size_bytes);
        futures::stream::try_unfold((self, start), move |(mut blob, offset)| async move {
            if offset >= end {
                return Ok(None);
            }
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let piece = blob.piece_at(offset, left.min(READ_BYTES)).await?;
            let next = offset + piece.len_bytes() as u64;
            Ok(Some((piece, (blob, next))))
        })
    }

    async fn piece_at(&mut self, offset: u64, limit_bytes: usize) -> Result<Piece> {
        if let BlobSource::Local(reader) = &self.source
            && let Some(file) = reader.file()
            && reader
                .verify(offset..offset + limit_bytes as u64)
                .await
                .is_ok()
        {
            return Ok(Piece::File {
                file,
                offset,
                length_bytes: limit_bytes,
            });
        }
        // Not in a file, or damaged: the ordinary way reports the damage and finds another holder.
        self.read_at(offset, limit_bytes).await.map(Piece::Bytes)
    }

    /// At least one byte, or an error: a source that ends early must not become a loop.
    async fn read_at(&mut self, offset: u64, limit_bytes: usize) -> Result<Bytes> {
        let bytes = self.read_some(offset, limit_bytes).await?;
        if bytes.is_empty() {
            let text = format!("{} ends at {offset}", self.info.digest);
            return Err(RegistryError::Internal(text));
        }
        Ok(bytes)
    }

    async fn read_some(&mut self, offset: u64, limit_bytes: usize) -> Result<Bytes> {
        if let BlobSource::Local(reader) = &self.source {
            match reader.read_at(offset, limit_bytes).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => {
                    self.registry.damaged(&self.info, &error).await;
                    self.source = self.registry.remote(&self.info, &self.holders).await?;
                }
            }
        }
        match &self.source {
            BlobSource::Remote(reader) => reader
                .read_at(offset, limit_bytes)
                .await
                .map_err(not_copied),
            BlobSource::Local(_) => Err(RegistryError::ContentUnavailable(self.info.digest)),
        }
    }
}

impl Registry {
    async fn remote(&self, info: &BlobInfo, holders: &[NodeId]) -> Result<BlobSource> {
        let me = self.log.node_id();
        let others = holders.iter().copied().filter(|node| *node != me).collect();
        let reader = self
            .replication
            .open_remote(&info.digest, info.size_bytes, others)
            .await;
        reader.map(BlobSource::Remote).map_err(not_copied)
    }

    /// Has a copy of this node that could not be read looked at, and waits a moment for it: a copy that is fetched
    /// before the damage is recorded would not replace it.
    async fn damaged(self: &Arc<Self>, info: &BlobInfo, error: &BlobError) {
        tracing::warn!(digest = %info.digest, error = %error, "a local blob cannot be read");
        if let Some(inspection) = self.suspect_copy(info.digest) {
            // The inspection goes on by itself when this takes longer.
            drop(tokio::time::timeout(REPORT_WAIT, inspection).await);
        }
    }

    /// Removes a blob of this node that nothing needs any more.
    pub(crate) async fn unlink(&self, digest: &oci::Digest) {
        if let Err(error) = self.unlink_if_unneeded(digest).await {
            tracing::warn!(%digest, %error, "a blob was not removed");
        }
    }
}
