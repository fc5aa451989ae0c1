//! Snapshots of the state: what they are, and how they travel.
//!
//! The state store is durable, so it is its own latest snapshot. "Building" one only reads what it has
//! applied; the copy is made (a RocksDB checkpoint) when it is sent, and then streamed in bounded memory.
//! The log may be purged up to a snapshot because [`crate::log_store`] flushes the state first.

use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use openraft::RaftSnapshotBuilder;
use openraft::alias::SnapshotOf;
use storage::error::StorageError;
use storage::failpoints::storage_hit;
use storage::state::{Applied, StateCheckpoint, StateStore};
use tokio::sync::mpsc;

use crate::network::convert;
use crate::types::{SnapshotMeta, TypeConfig};

/// Bytes of one chunk on the wire.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// Chunks between the thread that reads the checkpoint and the network.
const CHUNKS_AHEAD: usize = 4;

/// What openraft passes around as a snapshot. Never the bytes.
pub(crate) enum SnapshotData {
    /// The state of this node as it is when it is sent: at least as new as its metadata.
    Live(Arc<dyn StateStore>),
    /// A state received from the leader.
    Received(ReceivedFile),
}

impl SnapshotData {
    /// Replaces `state`. Blocking.
    pub(crate) fn install(
        self,
        state: &dyn StateStore,
        directory: &Path,
    ) -> Result<Applied, StorageError> {
        let file = match self {
            SnapshotData::Received(file) => file,
            SnapshotData::Live(live) => ReceivedFile::exported(&*live.checkpoint()?, directory)?,
        };
        let mut source = BufReader::with_capacity(CHUNK_BYTES, file.open()?);
        state.install(&mut source as &mut dyn Read)
    }
}

/// What a state with `applied` is a snapshot of.
pub(crate) fn meta_of(applied: &Applied) -> io::Result<SnapshotMeta> {
    Ok(SnapshotMeta {
        last_log_id: convert::decode_log_id(&applied.log_id)?,
        last_membership: convert::decode_membership(applied.membership.clone())?,
    })
}

/// The state as a snapshot; `None` before anything was applied.
pub(crate) fn current(
    state: &Arc<dyn StateStore>,
) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotData>>> {
    let meta = meta_of(&state.applied().map_err(io::Error::other)?)?;
    Ok(meta
        .last_log_id
        .is_some()
        .then(|| SnapshotOf::<TypeConfig, SnapshotData> {
            meta,
            snapshot: SnapshotData::Live(state.clone()),
        }))
}

/// See the module: building is reading what was applied.
pub(crate) struct SnapshotBuilder {
    state: Arc<dyn StateStore>,
}

impl SnapshotBuilder {
    pub(crate) fn new(state: Arc<dyn StateStore>) -> SnapshotBuilder {
        SnapshotBuilder { state }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, SnapshotData>> {
        let meta = meta_of(&self.state.applied().map_err(io::Error::other)?)?;
        Ok(SnapshotOf::<TypeConfig, SnapshotData> {
            meta,
            snapshot: SnapshotData::Live(self.state.clone()),
        })
    }
}

/// Streams a checkpoint in chunks of [`CHUNK_BYTES`]. At most [`CHUNKS_AHEAD`] of them are in memory; when
/// the receiver is dropped, the export ends.
pub(crate) fn export(
    checkpoint: Box<dyn StateCheckpoint>,
) -> mpsc::Receiver<Result<Bytes, StorageError>> {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut sink = ChunkSink {
            sender,
            buffer: BytesMut::with_capacity(CHUNK_BYTES),
        };
        let result =
            storage_hit("snapshot_before_send").and_then(|()| checkpoint.export(&mut sink));
        if let Err(error) = result {
            let _ = sink.sender.blocking_send(Err(error));
        } else {
            // A failed flush means that the receiver is gone: nobody is left to tell.
            let _ = sink.flush();
        }
    });
    receiver
}

struct ChunkSink {
    sender: mpsc::Sender<Result<Bytes, StorageError>>,
    buffer: BytesMut,
}

impl Write for ChunkSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(CHUNK_BYTES));
        self.sender
            .blocking_send(Ok(full.freeze()))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// A received state on disk, removed when dropped.
pub(crate) struct ReceivedFile(PathBuf);

impl ReceivedFile {
    /// An empty file with a new name.
    pub(crate) fn create(directory: &Path) -> Result<(ReceivedFile, std::fs::File), StorageError> {
        let file = ReceivedFile(directory.join(format!("{:016x}.received", rand::random::<u64>())));
        let opened = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&file.0);
        match opened {
            Ok(opened) => Ok((file, opened)),
            Err(source) => Err(file.failed("create", source)),
        }
    }

    fn exported(
        checkpoint: &dyn StateCheckpoint,
        directory: &Path,
    ) -> Result<ReceivedFile, StorageError> {
        let (file, opened) = ReceivedFile::create(directory)?;
        let mut sink = io::BufWriter::with_capacity(CHUNK_BYTES, opened);
        checkpoint.export(&mut sink)?;
        sink.flush()
            .map_err(|source| file.failed("write", source))?;
        Ok(file)
    }

    fn open(&self) -> Result<std::fs::File, StorageError> {
        std::fs::File::open(&self.0).map_err(|source| self.failed("open", source))
    }

    fn failed(&self, action: &'static str, source: io::Error) -> StorageError {
        StorageError::Io {
            action,
            path: self.0.clone(),
            source,
        }
    }
}

impl Drop for ReceivedFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "could not remove a received snapshot");
        }
    }
}

/// Makes the directory for received snapshots and removes what a crash left in it.
pub(crate) fn prepare_directory(directory: &Path) -> Result<(), StorageError> {
    let failed = |source| StorageError::Io {
        action: "prepare",
        path: directory.to_owned(),
        source,
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "received")
        {
            std::fs::remove_file(&path).map_err(failed)?;
        }
    }
    Ok(())
}
