//! What can go wrong on disk.

use metadata::view::ViewError;
use oci::Digest;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What an operator does about a directory that lost something it had acknowledged.
pub(crate) const REPLACE: &str = "replace this node (deploy/README.md, Damaged files)";

/// An error of the log store, the state store or the layout of the data directory.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A file operation failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// RocksDB refused.
    #[error("{action}: {source}")]
    Database {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A database does not open: a file of it is damaged or missing, or another process has it.
    #[error(
        "the database {} cannot be opened: {source}; if a file of it is damaged, {}", path.display(), REPLACE
    )]
    Unopenable {
        /// Its directory. The source names the file.
        path: PathBuf,
        /// What RocksDB says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Stored bytes are not what was written.
    #[error("{} is damaged: {what}", path.display())]
    Corrupt {
        /// Which file or directory.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The data directory belongs to another process, node or cluster, or was rolled back.
    #[error("{} cannot be used: {why}", path.display())]
    Refused {
        /// Which directory.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// Appended entries do not continue the log.
    #[error("entry {found} does not follow the log, entry {expected} does")]
    NotNext {
        /// The index that would continue the log.
        expected: u64,
        /// The index that was given.
        found: u64,
    },
    /// Reading or writing a snapshot stream failed.
    #[error("{action}: {source}")]
    Stream {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A snapshot stream is not what an export wrote.
    #[error("the snapshot stream is damaged: {what}")]
    DamagedStream {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl StorageError {
    /// For `map_err` on file operations: names the action and the path.
    pub(crate) fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> StorageError {
        move |source| StorageError::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    /// For `map_err` on database operations: names the action.
    pub(crate) fn database<E>(action: &'static str) -> impl FnOnce(E) -> StorageError
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| StorageError::Database {
            action,
            source: source.into(),
        }
    }
}

/// An error of the blob store.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// A file operation failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// No space or no inodes are left.
    #[error("no space left for blobs")]
    NoSpace,
    /// The bytes have another digest.
    #[error("the bytes have digest {actual}, not {expected}")]
    DigestMismatch {
        /// What was asked for.
        expected: Digest,
        /// What the bytes are. Boxed so that results stay small.
        actual: Box<Digest>,
    },
    /// A stored chunk does not match its checksum.
    #[error("chunk {chunk} of {digest} is damaged")]
    Corrupt {
        /// Which blob.
        digest: Digest,
        /// Which 256 KiB chunk, from 0.
        chunk: u64,
    },
    /// The staged blob was discarded, or a failed sync lost its bytes.
    #[error("the staged bytes are gone")]
    Gone,
    /// Somebody else stages under this name now.
    #[error("{name} is being staged already")]
    InUse {
        /// Which name.
        name: String,
    },
    /// Reading the applied state failed.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The blob directory failed an fsync and takes no more writes.
    #[error("the blob directory failed earlier and takes no writes")]
    Failed,
    /// The local index failed.
    #[error(transparent)]
    Index(#[from] StorageError),
}

impl BlobError {
    /// Whether the disk of this node does not take what it should, so that another node may do better.
    pub fn is_failing_disk(&self) -> bool {
        match self {
            BlobError::Failed => true,
            BlobError::Io { action, source, .. } => {
                source.kind() == ErrorKind::ReadOnlyFilesystem
                    || matches!(*action, "create" | "write" | "sync" | "rename")
            }
            BlobError::Index(StorageError::Io { source, .. }) => {
                source.kind() == ErrorKind::ReadOnlyFilesystem
            }
            BlobError::NoSpace
            | BlobError::DigestMismatch { .. }
            | BlobError::Corrupt { .. }
            | BlobError::Gone
            | BlobError::InUse { .. }
            | BlobError::View(_)
            | BlobError::Index(_) => false,
        }
    }

    /// For `map_err` on file operations: names the action and the path. A full disk, an exhausted quota and
    /// exhausted inodes are all [`BlobError::NoSpace`].
    pub(crate) fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> BlobError {
        move |source| {
            if is_no_space(&source) {
                return BlobError::NoSpace;
            }
            BlobError::Io {
                action,
                path: path.to_path_buf(),
                source,
            }
        }
    }
}

fn is_no_space(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}
