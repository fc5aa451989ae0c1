//! Blobs: look up, read, delete, mount.

use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use oci::{Digest, RepositoryName};
use replication::FetchReader;
use storage::blob::BlobReader;

use crate::{Caller, Registry, RegistryError, Result, Seen};

/// A blob of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its content.
    pub digest: Digest,
    /// Its length.
    pub size_bytes: u64,
}

/// Where the bytes of an open blob come from.
pub enum BlobSource {
    /// This node holds it.
    Local(BlobReader),
    /// Another node does.
    Remote(FetchReader),
}

/// A blob opened for reading.
pub struct OpenBlob {
    /// Which one.
    pub info: BlobInfo,
    /// Where its bytes come from.
    pub source: BlobSource,
}

impl OpenBlob {
    /// The bytes from `start` up to, not including, `end_exclusive`.
    pub fn stream(
        self,
        _start: u64,
        _end_exclusive: u64,
    ) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        futures::stream::empty()
    }
}

fn not_yet<T>() -> Result<T> {
    Err(RegistryError::Internal("not yet".into()))
}

impl Registry {
    /// Whether the repository has the blob, and its size.
    pub async fn blob_info(
        &self,
        _caller: &Caller,
        _repository: &RepositoryName,
        _digest: &Digest,
    ) -> Result<Seen<BlobInfo>> {
        not_yet()
    }

    /// Opens the blob for reading.
    pub async fn open_blob(
        self: &Arc<Self>,
        _caller: &Caller,
        _repository: &RepositoryName,
        _digest: &Digest,
    ) -> Result<Seen<OpenBlob>> {
        not_yet()
    }

    /// Removes the blob from the repository.
    pub async fn delete_blob(
        self: &Arc<Self>,
        _caller: &Caller,
        _repository: &RepositoryName,
        _digest: &Digest,
    ) -> Result<Seen<()>> {
        not_yet()
    }

    /// Makes a blob of another repository (any, without `from`) visible here; `None` when that is not possible.
    pub async fn mount_blob(
        self: &Arc<Self>,
        _caller: &Caller,
        _from: Option<&RepositoryName>,
        _repository: &RepositoryName,
        _digest: &Digest,
    ) -> Result<Option<Seen<BlobInfo>>> {
        not_yet()
    }
}
