//! Requests for upload sessions that live on another node, and those that other nodes send here.

use std::sync::Arc;

use futures::StreamExt as _;
use metadata::ids::{LogIndex, NodeId};
use oci::{Digest, RepositoryName, UploadId};
use replication::error::PeerError;
use replication::peers::{UploadAction, UploadAnswer, UploadChunk, UploadRequest};

use crate::failpoints::hit;
use crate::uploads::Chunk;
use crate::{BlobInfo, Caller, Registry, RegistryError, Result, Seen, SeenState};

impl Registry {
    /// For the gRPC front: the same operations on sessions this node owns, asked for by another node.
    pub async fn serve_upload(self: &Arc<Self>, request: UploadRequest) -> UploadAnswer {
        let UploadRequest {
            upload,
            repository,
            subject,
            deadline,
            action,
        } = request;
        let caller = Caller {
            subject,
            min_revision: None,
            deadline,
            seen: SeenState::default(),
        };
        if !self.owns(&repository, &upload) {
            // Passing it on again could go in circles.
            return UploadAnswer::Unknown;
        }
        let answer = match action {
            UploadAction::Append(chunk) => self
                .append_upload(&caller, &repository, &upload, arrived(chunk))
                .await
                .map(|state| UploadAnswer::Open {
                    offset_bytes: state.offset_bytes,
                }),
            UploadAction::Status => {
                self.upload_status(&caller, &repository, &upload)
                    .await
                    .map(|state| UploadAnswer::Open {
                        offset_bytes: state.offset_bytes,
                    })
            }
            UploadAction::Cancel => self
                .cancel_upload(&caller, &repository, &upload)
                .await
                .map(|()| UploadAnswer::Cancelled),
            UploadAction::Finish(digest, chunk) => self
                .finish_upload(&caller, &repository, &upload, &digest, arrived(chunk))
                .await
                .map(|seen| UploadAnswer::Finished {
                    size_bytes: seen.value.size_bytes,
                    revision: seen.revision.0,
                }),
        };
        answer.unwrap_or_else(refusal)
    }

    /// Whether the id is one of this node's.
    fn owns(&self, repository: &RepositoryName, id: &str) -> bool {
        let upload = self
            .upload_key()
            .ok()
            .and_then(|key| UploadId::decode(id, &key, repository).ok());
        upload.is_some_and(|upload| NodeId(upload.owner) == self.log.node_id())
    }

    pub(crate) async fn append_at(
        &self,
        owner: NodeId,
        caller: &Caller,
        repository: &RepositoryName,
        id: &str,
        chunk: Chunk,
    ) -> Result<u64> {
        let request = request(
            caller,
            repository,
            id,
            UploadAction::Append(passed_on(chunk)),
        );
        match self.ask(owner, request).await? {
            UploadAnswer::Open { offset_bytes } => Ok(offset_bytes),
            other => Err(understood(owner, other)),
        }
    }

    pub(crate) async fn status_at(
        &self,
        owner: NodeId,
        caller: &Caller,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<u64> {
        match self
            .ask(owner, request(caller, repository, id, UploadAction::Status))
            .await?
        {
            UploadAnswer::Open { offset_bytes } => Ok(offset_bytes),
            other => Err(understood(owner, other)),
        }
    }

    pub(crate) async fn cancel_at(
        &self,
        owner: NodeId,
        caller: &Caller,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<()> {
        match self
            .ask(owner, request(caller, repository, id, UploadAction::Cancel))
            .await?
        {
            UploadAnswer::Cancelled => Ok(()),
            other => Err(understood(owner, other)),
        }
    }

    pub(crate) async fn finish_at(
        &self,
        owner: NodeId,
        caller: &Caller,
        repository: &RepositoryName,
        id: &str,
        digest: &Digest,
        chunk: Chunk,
    ) -> Result<Seen<BlobInfo>> {
        let action = UploadAction::Finish(*digest, passed_on(chunk));
        match self
            .ask(owner, request(caller, repository, id, action))
            .await?
        {
            UploadAnswer::Finished {
                size_bytes,
                revision,
            } => Ok(Seen {
                revision: LogIndex(revision),
                value: BlobInfo {
                    digest: *digest,
                    size_bytes,
                },
            }),
            other => Err(understood(owner, other)),
        }
    }

    async fn ask(&self, owner: NodeId, request: UploadRequest) -> Result<UploadAnswer> {
        hit("proxy_before_send")?;
        self.peers.upload(owner, request).await.map_err(|error| match error {
            PeerError::BodyInterrupted => RegistryError::BodyInterrupted,
            error @ (PeerError::Unreachable { .. }
            | PeerError::UnknownNode(_)
            | PeerError::Absent { .. }
            | PeerError::Refused { .. }
            | PeerError::Source(_)
            | PeerError::Timeout(_)
            | PeerError::Abandoned) => {
                tracing::debug!(peer = %owner, error = %error, "the owner of an upload did not answer");
                RegistryError::OwnerUnreachable
            }
        })
    }
}

fn request(
    caller: &Caller,
    repository: &RepositoryName,
    id: &str,
    action: UploadAction,
) -> UploadRequest {
    UploadRequest {
        upload: id.to_owned(),
        repository: repository.clone(),
        subject: caller.subject.clone(),
        deadline: caller.deadline,
        action,
    }
}

/// The client's body, for the owner.
fn passed_on(chunk: Chunk) -> UploadChunk {
    let bytes = chunk.body.map(|frame| {
        frame.map_err(|error| {
            tracing::debug!(error = %error, "an upload broke off");
            PeerError::BodyInterrupted
        })
    });
    UploadChunk {
        range: chunk.range,
        length_bytes: chunk.length_bytes,
        bytes: Box::pin(bytes),
    }
}

/// A body that another node passed on.
fn arrived(chunk: UploadChunk) -> Chunk {
    let body = chunk.bytes.map(|frame| frame.map_err(Into::into));
    Chunk {
        range: chunk.range,
        length_bytes: chunk.length_bytes,
        body: Box::pin(body),
    }
}

/// What the owner's answer means when it is not the one hoped for.
fn understood(owner: NodeId, answer: UploadAnswer) -> RegistryError {
    match answer {
        UploadAnswer::Unknown => RegistryError::UploadUnknown,
        UploadAnswer::OutOfOrder { offset_bytes } | UploadAnswer::Busy { offset_bytes } => {
            RegistryError::RangeInvalid { offset_bytes }
        }
        UploadAnswer::SizeMismatch { offset_bytes } => RegistryError::SizeInvalid { offset_bytes },
        UploadAnswer::DigestMismatch => RegistryError::DigestInvalid,
        UploadAnswer::BodyInterrupted => RegistryError::BodyInterrupted,
        UploadAnswer::NoSpace => RegistryError::NoSpace,
        UploadAnswer::Overloaded => RegistryError::Overloaded,
        UploadAnswer::ReadOnly => RegistryError::ReadOnly,
        UploadAnswer::TooLarge { limit_bytes } => RegistryError::BlobTooLarge { limit_bytes },
        UploadAnswer::Unavailable { reason } => {
            tracing::warn!(peer = %owner, %reason, "the owner of an upload cannot go on");
            RegistryError::OwnerUnreachable
        }
        answer @ (UploadAnswer::Open { .. }
        | UploadAnswer::Finished { .. }
        | UploadAnswer::Cancelled) => RegistryError::Internal(format!(
            "node {owner} answered something else than was asked: {answer:?}"
        )),
    }
}

/// How an error travels to the node that asked.
fn refusal(error: RegistryError) -> UploadAnswer {
    match error {
        RegistryError::UploadUnknown => UploadAnswer::Unknown,
        RegistryError::RangeInvalid { offset_bytes } => UploadAnswer::OutOfOrder { offset_bytes },
        RegistryError::SizeInvalid { offset_bytes } => UploadAnswer::SizeMismatch { offset_bytes },
        RegistryError::DigestInvalid => UploadAnswer::DigestMismatch,
        RegistryError::BodyInterrupted => UploadAnswer::BodyInterrupted,
        RegistryError::NoSpace => UploadAnswer::NoSpace,
        RegistryError::Overloaded => UploadAnswer::Overloaded,
        RegistryError::ReadOnly => UploadAnswer::ReadOnly,
        RegistryError::BlobTooLarge { limit_bytes } => UploadAnswer::TooLarge { limit_bytes },
        error @ (RegistryError::RepositoryUnknown
        | RegistryError::BlobUnknown(_)
        | RegistryError::ManifestUnknown { .. }
        | RegistryError::ManifestInvalid(_)
        | RegistryError::ManifestTooLarge { .. }
        | RegistryError::ReferencesUnknown(_)
        | RegistryError::ReferenceSizeInvalid { .. }
        | RegistryError::BlobReferenced { .. }
        | RegistryError::PreconditionFailed { .. }
        | RegistryError::DeletesDisabled
        | RegistryError::Unwritable
        | RegistryError::TooFewCopies { .. }
        | RegistryError::OwnerUnreachable
        | RegistryError::Unavailable(_)
        | RegistryError::ContentUnavailable(_)
        | RegistryError::Internal(_)) => UploadAnswer::Unavailable {
            reason: error.to_string(),
        },
    }
}
