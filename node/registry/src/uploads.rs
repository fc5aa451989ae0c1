//! Upload sessions.

use std::sync::Arc;

use oci::{ContentRange, Digest, RepositoryName};
use replication::peers::{UploadAnswer, UploadRequest};

use crate::{BlobInfo, BodyStream, Caller, Registry, RegistryError, Result, Seen};

/// Where an upload session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadState {
    /// The opaque id for its URL.
    pub id: String,
    /// Bytes that have arrived.
    pub offset_bytes: u64,
}

/// A chunk of an upload, as the client sent it.
pub struct Chunk {
    /// `Content-Range`: where the client says it belongs.
    pub range: Option<ContentRange>,
    /// `Content-Length`: how long the client says it is.
    pub length_bytes: Option<u64>,
    /// Its bytes.
    pub body: BodyStream,
}

fn not_yet<T>() -> Result<T> {
    Err(RegistryError::Internal("not yet".into()))
}

impl Registry {
    /// Opens an upload session on this node.
    pub async fn start_upload(
        self: &Arc<Self>,
        _caller: &Caller,
        _repository: &RepositoryName,
    ) -> Result<Seen<UploadState>> {
        not_yet()
    }

    /// Appends a chunk.
    pub async fn append_upload(
        self: &Arc<Self>,
        _caller: &Caller,
        _repository: &RepositoryName,
        _id: &str,
        _chunk: Chunk,
    ) -> Result<UploadState> {
        not_yet()
    }

    /// Tells where a session stands.
    pub async fn upload_status(
        &self,
        _caller: &Caller,
        _repository: &RepositoryName,
        _id: &str,
    ) -> Result<UploadState> {
        not_yet()
    }

    /// Throws a session and its bytes away.
    pub async fn cancel_upload(
        self: &Arc<Self>,
        _caller: &Caller,
        _repository: &RepositoryName,
        _id: &str,
    ) -> Result<()> {
        not_yet()
    }

    /// Appends the last chunk, which may be empty, and makes the blob visible.
    pub async fn finish_upload(
        self: &Arc<Self>,
        _caller: &Caller,
        _repository: &RepositoryName,
        _id: &str,
        _digest: &Digest,
        _chunk: Chunk,
    ) -> Result<Seen<BlobInfo>> {
        not_yet()
    }

    /// Start and finish in one request.
    pub async fn push_blob(
        self: &Arc<Self>,
        _caller: &Caller,
        _repository: &RepositoryName,
        _digest: &Digest,
        _chunk: Chunk,
    ) -> Result<Seen<BlobInfo>> {
        not_yet()
    }

    /// For the gRPC front: the same operations on sessions this node owns, asked for by another node.
    pub async fn serve_upload(self: &Arc<Self>, _request: UploadRequest) -> UploadAnswer {
        UploadAnswer::Unavailable {
            reason: "not yet".into(),
        }
    }
}
