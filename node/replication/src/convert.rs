//! Wire messages to and from domain types.

use std::time::{Duration, Instant};

use metadata::ids::{NodeId, TicketId};
use oci::{ContentRange, Digest, RepositoryName};
use proto::blob as wire;
use tonic::{Code, Status};

use crate::error::PeerError;
use crate::peers::{ByteStream, PushEnd, UploadAction, UploadAnswer, UploadChunk, UploadRequest};

/// A message that another version or a broken peer sent.
pub(crate) fn malformed(what: &'static str) -> Status {
    Status::invalid_argument(what)
}

pub(crate) fn digest(key: &[u8]) -> Result<Digest, Status> {
    Digest::from_key(key).ok_or_else(|| malformed("digest"))
}

pub(crate) fn digest_to_wire(digest: &Digest) -> bytes::Bytes {
    digest.to_key().into()
}

pub(crate) fn push_end(end: &wire::PushEnd) -> Result<PushEnd, Status> {
    Ok(PushEnd {
        digest: digest(&end.digest)?,
        size_bytes: end.size_bytes,
        ticket: TicketId::from_u64(end.ticket),
    })
}

pub(crate) fn push_end_to_wire(end: &PushEnd) -> wire::PushEnd {
    wire::PushEnd {
        digest: digest_to_wire(&end.digest),
        size_bytes: end.size_bytes,
        ticket: end.ticket.as_u64(),
    }
}

/// What a failed call says about the peer. Statuses that [`crate::server`] never makes come from the transport.
pub(crate) fn peer_error(node: NodeId, status: &Status) -> PeerError {
    let reason = || format!("{}: {}", status.code(), status.message());
    match status.code() {
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::ResourceExhausted
        | Code::DataLoss
        | Code::Aborted
        | Code::Unimplemented
        | Code::PermissionDenied
        | Code::Unauthenticated => PeerError::Refused {
            node,
            reason: reason(),
        },
        _ => PeerError::Unreachable {
            node,
            reason: reason(),
        },
    }
}

/// The header of an upload request; its body, if it has one, is sent after it.
pub(crate) fn upload_to_wire(request: UploadRequest) -> (wire::UploadHeader, Option<ByteStream>) {
    use wire::upload_header::Action;
    let (action, body) = match request.action {
        UploadAction::Append(chunk) => {
            let (chunk, bytes) = chunk_to_wire(chunk);
            (Action::Append(chunk), Some(bytes))
        }
        UploadAction::Status => (Action::Status(wire::UploadStatus {}), None),
        UploadAction::Cancel => (Action::Cancel(wire::UploadCancel {}), None),
        UploadAction::Finish(digest, chunk) => {
            let (chunk, bytes) = chunk_to_wire(chunk);
            let finish = wire::UploadFinish {
                digest: digest_to_wire(&digest),
                chunk: Some(chunk),
            };
            (Action::Finish(finish), Some(bytes))
        }
    };
    let patience = request.deadline.saturating_duration_since(Instant::now());
    let header = wire::UploadHeader {
        upload: request.upload,
        repository: request.repository.as_str().to_owned(),
        subject: request.subject,
        deadline_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
        action: Some(action),
    };
    (header, body)
}

fn chunk_to_wire(chunk: UploadChunk) -> (wire::UploadChunk, ByteStream) {
    let range = chunk.range.map(|range| wire::ContentRange {
        start: range.start,
        end_inclusive: range.end_inclusive,
    });
    (
        wire::UploadChunk {
            range,
            length_bytes: chunk.length_bytes,
        },
        chunk.bytes,
    )
}

/// Longer deadlines count as this one: what is added to a clock must not overflow it.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// The inverse of [`upload_to_wire`].
pub(crate) fn upload(
    header: wire::UploadHeader,
    body: ByteStream,
) -> Result<UploadRequest, Status> {
    use wire::upload_header::Action;
    let action = match header.action.ok_or_else(|| malformed("action"))? {
        Action::Append(chunk_header) => UploadAction::Append(chunk(&chunk_header, body)),
        Action::Status(_) => UploadAction::Status,
        Action::Cancel(_) => UploadAction::Cancel,
        Action::Finish(finish) => {
            let chunk_header = finish.chunk.unwrap_or_default();
            UploadAction::Finish(digest(&finish.digest)?, chunk(&chunk_header, body))
        }
    };
    let patience = Duration::from_millis(header.deadline_ms).min(DEADLINE_MAX);
    Ok(UploadRequest {
        upload: header.upload,
        repository: RepositoryName::parse(&header.repository)
            .map_err(|_| malformed("repository"))?,
        subject: header.subject,
        deadline: Instant::now() + patience,
        action,
    })
}

fn chunk(header: &wire::UploadChunk, bytes: ByteStream) -> UploadChunk {
    let range = header.range.map(|range| ContentRange {
        start: range.start,
        end_inclusive: range.end_inclusive,
    });
    UploadChunk {
        range,
        length_bytes: header.length_bytes,
        bytes,
    }
}

pub(crate) fn answer_to_wire(answer: UploadAnswer) -> wire::UploadReply {
    use wire::upload_reply::Answer;
    let answer = match answer {
        UploadAnswer::Open { offset_bytes } => Answer::Open(wire::UploadOpen { offset_bytes }),
        UploadAnswer::Finished {
            size_bytes,
            revision,
        } => Answer::Finished(wire::UploadFinished {
            size_bytes,
            revision,
        }),
        UploadAnswer::Cancelled => Answer::Cancelled(wire::UploadCancelled {}),
        UploadAnswer::Unknown => Answer::Unknown(wire::UploadUnknown {}),
        UploadAnswer::OutOfOrder { offset_bytes } => {
            Answer::OutOfOrder(wire::UploadOutOfOrder { offset_bytes })
        }
        UploadAnswer::SizeMismatch { offset_bytes } => {
            Answer::SizeMismatch(wire::UploadSizeMismatch { offset_bytes })
        }
        UploadAnswer::DigestMismatch => Answer::DigestMismatch(wire::UploadDigestMismatch {}),
        UploadAnswer::BodyInterrupted => Answer::BodyInterrupted(wire::UploadBodyInterrupted {}),
        UploadAnswer::Busy { offset_bytes } => Answer::Busy(wire::UploadBusy { offset_bytes }),
        UploadAnswer::NoSpace => Answer::NoSpace(wire::UploadNoSpace {}),
        UploadAnswer::Overloaded => Answer::Overloaded(wire::UploadOverloaded {}),
        UploadAnswer::ReadOnly => Answer::ReadOnly(wire::UploadReadOnly {}),
        UploadAnswer::TooLarge { limit_bytes } => {
            Answer::TooLarge(wire::UploadTooLarge { limit_bytes })
        }
        UploadAnswer::Unavailable { reason } => {
            Answer::Unavailable(wire::UploadUnavailable { reason })
        }
    };
    wire::UploadReply {
        answer: Some(answer),
    }
}

/// The inverse of [`answer_to_wire`]; nothing for an answer of a later version.
pub(crate) fn answer(reply: wire::UploadReply) -> Option<UploadAnswer> {
    use wire::upload_reply::Answer;
    Some(match reply.answer? {
        Answer::Open(wire::UploadOpen { offset_bytes }) => UploadAnswer::Open { offset_bytes },
        Answer::Finished(wire::UploadFinished {
            size_bytes,
            revision,
        }) => UploadAnswer::Finished {
            size_bytes,
            revision,
        },
        Answer::Cancelled(_) => UploadAnswer::Cancelled,
        Answer::Unknown(_) => UploadAnswer::Unknown,
        Answer::OutOfOrder(wire::UploadOutOfOrder { offset_bytes }) => {
            UploadAnswer::OutOfOrder { offset_bytes }
        }
        Answer::SizeMismatch(wire::UploadSizeMismatch { offset_bytes }) => {
            UploadAnswer::SizeMismatch { offset_bytes }
        }
        Answer::DigestMismatch(_) => UploadAnswer::DigestMismatch,
        Answer::BodyInterrupted(_) => UploadAnswer::BodyInterrupted,
        Answer::Busy(wire::UploadBusy { offset_bytes }) => UploadAnswer::Busy { offset_bytes },
        Answer::NoSpace(_) => UploadAnswer::NoSpace,
        Answer::Overloaded(_) => UploadAnswer::Overloaded,
        Answer::ReadOnly(_) => UploadAnswer::ReadOnly,
        Answer::TooLarge(wire::UploadTooLarge { limit_bytes }) => {
            UploadAnswer::TooLarge { limit_bytes }
        }
        Answer::Unavailable(wire::UploadUnavailable { reason }) => {
            UploadAnswer::Unavailable { reason }
        }
    })
}
