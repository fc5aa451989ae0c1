//! Outcomes: what a command was answered.

use proto::log as pb;
use proto::log::outcome::Response as Message;
use proto::log::rejection::{Digests, Nothing, Reason, SizeMismatch, TooFewCopies};

use super::{
    CodecError, digest, digest_bytes, digests, optional_digest, optional_digest_bytes, tags,
    tags_text,
};
use crate::ids::{LogIndex, NodeId, RepositoryId, TicketId};
use crate::response::{BlobsDeleted, CollectedManifest, GcStepped, Outcome, Rejection, Response};

pub(super) fn encode(outcome: &Outcome) -> pb::Outcome {
    let response = match &outcome.response {
        Response::Done => Message::Done(pb::Done {}),
        Response::TicketsOpened { first, count } => Message::TicketsOpened(pb::TicketsOpened {
            first: first.as_u64(),
            count: *count,
        }),
        Response::BlobCommitted { repair_ticket } => Message::BlobCommitted(pb::BlobCommitted {
            repair_ticket: repair_ticket.map(TicketId::as_u64),
        }),
        Response::BlobMounted { size_bytes } => Message::BlobMounted(pb::BlobMounted {
            size_bytes: *size_bytes,
        }),
        Response::ManifestPut => Message::ManifestPut(pb::ManifestPut {}),
        Response::GcStepped(done) => Message::GcStepped(encode_stepped(done)),
        Response::BlobsDeleted(deleted) => Message::BlobsDeleted(pb::BlobsDeleted {
            digests: deleted.digests.iter().map(digest_bytes).collect(),
            blob_bytes: deleted.blob_bytes,
            copy_bytes: deleted.copy_bytes,
        }),
        Response::ManifestsCollected(manifests) => {
            Message::ManifestsCollected(encode_collected(manifests))
        }
        Response::ManifestRestored { tags } => Message::ManifestRestored(pb::ManifestRestored {
            tags: tags_text(tags),
        }),
        Response::TagRestored {
            digest,
            is_manifest_restored,
        } => Message::TagRestored(pb::TagRestored {
            digest: digest_bytes(digest),
            is_manifest_restored: *is_manifest_restored,
        }),
        Response::Rejected(rejection) => Message::Rejected(pb::Rejection {
            reason: Some(encode_rejection(rejection)),
        }),
    };
    pb::Outcome {
        index: outcome.index.0,
        response: Some(response),
    }
}

pub(super) fn decode(message: pb::Outcome) -> Result<Outcome, CodecError> {
    let response = match message
        .response
        .ok_or(CodecError::Missing { field: "response" })?
    {
        Message::Done(_) => Response::Done,
        Message::TicketsOpened(m) => Response::TicketsOpened {
            first: TicketId::from_u64(m.first),
            count: m.count,
        },
        Message::BlobCommitted(m) => Response::BlobCommitted {
            repair_ticket: m.repair_ticket.map(TicketId::from_u64),
        },
        Message::BlobMounted(m) => Response::BlobMounted {
            size_bytes: m.size_bytes,
        },
        Message::ManifestPut(_) => Response::ManifestPut,
        Message::GcStepped(m) => Response::GcStepped(decode_stepped(m)),
        Message::BlobsDeleted(m) => Response::BlobsDeleted(BlobsDeleted {
            digests: digests("response", &m.digests)?,
            blob_bytes: m.blob_bytes,
            copy_bytes: m.copy_bytes,
        }),
        Message::ManifestsCollected(m) => Response::ManifestsCollected(decode_collected(&m)?),
        Message::ManifestRestored(m) => Response::ManifestRestored {
            tags: tags(&m.tags)?,
        },
        Message::TagRestored(m) => Response::TagRestored {
            digest: digest("response", &m.digest)?,
            is_manifest_restored: m.is_manifest_restored,
        },
        Message::Rejected(m) => Response::Rejected(decode_rejection(
            m.reason.ok_or(CodecError::Missing { field: "rejection" })?,
        )?),
    };
    Ok(Outcome {
        index: LogIndex(message.index),
        response,
    })
}

fn encode_stepped(done: &GcStepped) -> pb::GcStepped {
    pb::GcStepped {
        purged_manifests: done.purged_manifests,
        reviewed_referrers: done.reviewed_referrers,
        removed_links: done.removed_links,
        condemned_blobs: done.condemned_blobs,
        removed_repositories: done.removed_repositories,
        is_more_due: done.is_more_due,
    }
}

fn decode_stepped(message: pb::GcStepped) -> GcStepped {
    GcStepped {
        purged_manifests: message.purged_manifests,
        reviewed_referrers: message.reviewed_referrers,
        removed_links: message.removed_links,
        condemned_blobs: message.condemned_blobs,
        removed_repositories: message.removed_repositories,
        is_more_due: message.is_more_due,
    }
}

fn encode_collected(manifests: &[CollectedManifest]) -> pb::ManifestsCollected {
    let encode = |manifest: &CollectedManifest| pb::CollectedManifest {
        repository: manifest.repository.0,
        digest: digest_bytes(&manifest.digest),
    };
    pb::ManifestsCollected {
        manifests: manifests.iter().map(encode).collect(),
    }
}

fn decode_collected(
    message: &pb::ManifestsCollected,
) -> Result<Vec<CollectedManifest>, CodecError> {
    let decode = |manifest: &pb::CollectedManifest| {
        Ok(CollectedManifest {
            repository: RepositoryId(manifest.repository),
            digest: digest("response", &manifest.digest)?,
        })
    };
    message.manifests.iter().map(decode).collect()
}

fn encode_rejection(rejection: &Rejection) -> Reason {
    match rejection {
        Rejection::AlreadyInitialized => Reason::AlreadyInitialized(Nothing {}),
        Rejection::NotInitialized => Reason::NotInitialized(Nothing {}),
        Rejection::RepositoryUnknown => Reason::RepositoryUnknown(Nothing {}),
        Rejection::BlobUnknown => Reason::BlobUnknown(Nothing {}),
        Rejection::ManifestUnknown => Reason::ManifestUnknown(Nothing {}),
        Rejection::TagUnknown => Reason::TagUnknown(Nothing {}),
        Rejection::ReferencesUnknown(list) => Reason::ReferencesUnknown(Digests {
            digests: list.iter().map(digest_bytes).collect(),
        }),
        Rejection::SizeMismatch {
            digest,
            claimed_bytes,
            actual_bytes,
        } => Reason::SizeMismatch(SizeMismatch {
            digest: digest_bytes(digest),
            claimed_bytes: *claimed_bytes,
            actual_bytes: *actual_bytes,
        }),
        Rejection::BlobReferenced { manifest } => Reason::BlobReferenced(digest_bytes(manifest)),
        Rejection::PreconditionFailed { current } => {
            Reason::PreconditionFailed(optional_digest_bytes(current.as_ref()))
        }
        Rejection::TicketClosed(ticket) => Reason::TicketClosed(ticket.as_u64()),
        Rejection::TooFewCopies { reached, wanted } => Reason::TooFewCopies(TooFewCopies {
            reached: *reached,
            wanted: *wanted,
        }),
        Rejection::NodeUnknown(node) => Reason::NodeUnknown(node.0),
        Rejection::NodeNotUp(node) => Reason::NodeNotUp(node.0),
        Rejection::NodeHoldsCopies(node) => Reason::NodeHoldsCopies(node.0),
        Rejection::NodeRemoved(node) => Reason::NodeRemoved(node.0),
        Rejection::DiskMismatch(node) => Reason::DiskMismatch(node.0),
        Rejection::NotAHolder(node) => Reason::NotAHolder(node.0),
        Rejection::OutOfBounds => Reason::OutOfBounds(Nothing {}),
        Rejection::RequestTooOld => Reason::RequestTooOld(Nothing {}),
        Rejection::StaleEpoch { current } => Reason::StaleEpoch(*current),
        Rejection::GcPaused => Reason::GcPaused(Nothing {}),
        Rejection::NotDeleted => Reason::NotDeleted(Nothing {}),
    }
}

fn decode_rejection(reason: Reason) -> Result<Rejection, CodecError> {
    Ok(match reason {
        Reason::AlreadyInitialized(_) => Rejection::AlreadyInitialized,
        Reason::NotInitialized(_) => Rejection::NotInitialized,
        Reason::RepositoryUnknown(_) => Rejection::RepositoryUnknown,
        Reason::BlobUnknown(_) => Rejection::BlobUnknown,
        Reason::ManifestUnknown(_) => Rejection::ManifestUnknown,
        Reason::TagUnknown(_) => Rejection::TagUnknown,
        Reason::ReferencesUnknown(m) => {
            Rejection::ReferencesUnknown(digests("rejection", &m.digests)?)
        }
        Reason::SizeMismatch(m) => Rejection::SizeMismatch {
            digest: digest("rejection", &m.digest)?,
            claimed_bytes: m.claimed_bytes,
            actual_bytes: m.actual_bytes,
        },
        Reason::BlobReferenced(bytes) => Rejection::BlobReferenced {
            manifest: digest("rejection", &bytes)?,
        },
        Reason::PreconditionFailed(bytes) => Rejection::PreconditionFailed {
            current: optional_digest("rejection", &bytes)?,
        },
        Reason::TicketClosed(ticket) => Rejection::TicketClosed(TicketId::from_u64(ticket)),
        Reason::TooFewCopies(m) => Rejection::TooFewCopies {
            reached: m.reached,
            wanted: m.wanted,
        },
        Reason::NodeUnknown(node) => Rejection::NodeUnknown(NodeId(node)),
        Reason::NodeNotUp(node) => Rejection::NodeNotUp(NodeId(node)),
        Reason::NodeHoldsCopies(node) => Rejection::NodeHoldsCopies(NodeId(node)),
        Reason::NodeRemoved(node) => Rejection::NodeRemoved(NodeId(node)),
        Reason::DiskMismatch(node) => Rejection::DiskMismatch(NodeId(node)),
        Reason::NotAHolder(node) => Rejection::NotAHolder(NodeId(node)),
        Reason::OutOfBounds(_) => Rejection::OutOfBounds,
        Reason::RequestTooOld(_) => Rejection::RequestTooOld,
        Reason::StaleEpoch(current) => Rejection::StaleEpoch { current },
        Reason::GcPaused(_) => Rejection::GcPaused,
        Reason::NotDeleted(_) => Rejection::NotDeleted,
    })
}
