//! Records of the key space.

use prost::Message as _;
use proto::record as pb;

use super::command::{
    decode_annotations, decode_ticket_kind, encode_annotations, encode_ticket_kind,
};
use super::{
    CodecError, digest, digest_bytes, digests, media_type, optional_digest, optional_digest_bytes,
    optional_media_type, optional_text, response,
};
use crate::ids::{LogIndex, LogTime, NodeId, RepositoryId, Timestamp};
use crate::key::{Reader, Table};
use crate::record::{
    AnswerRecord, BlobRecord, ClusterRecord, LinkRecord, ManifestRecord, NodeRecord,
    ReferencesRecord, Referrer, RepositoryRecord, RevisionRecord, SessionRecord, TagChange,
    TagRecord, TicketRecord, TimeRecord, TotalsRecord,
};

/// A value of the key space. The key is at hand when decoding, for the parts that only it tells.
pub(crate) trait Record: Sized {
    /// The stored bytes.
    fn encode(&self) -> Vec<u8>;
    /// The inverse.
    fn decode(key: &[u8], value: &[u8]) -> Result<Self, CodecError>;
}

impl Record for ClusterRecord {
    fn encode(&self) -> Vec<u8> {
        let message = pb::Cluster {
            cluster_id: self.cluster_id.clone(),
            upload_key: self.upload_key.clone(),
            copies: self.copies,
            write_copies: self.write_copies,
        };
        message.encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let m = pb::Cluster::decode(value)?;
        Ok(ClusterRecord {
            cluster_id: m.cluster_id,
            upload_key: m.upload_key,
            copies: m.copies,
            write_copies: m.write_copies,
        })
    }
}

impl Record for TimeRecord {
    fn encode(&self) -> Vec<u8> {
        pb::Time {
            now_ms: self.now.0,
            sequence: self.sequence,
        }
        .encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let m = pb::Time::decode(value)?;
        Ok(TimeRecord {
            now: LogTime(m.now_ms),
            sequence: m.sequence,
        })
    }
}

impl Record for TotalsRecord {
    fn encode(&self) -> Vec<u8> {
        let message = pb::Totals {
            repositories: self.repositories,
            tags: self.tags,
            manifests: self.manifests,
            manifest_bytes: self.manifest_bytes,
            blobs: self.blobs,
            blob_bytes: self.blob_bytes,
            blobs_by_copies: self.blobs_by_copies.clone(),
        };
        message.encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let m = pb::Totals::decode(value)?;
        Ok(TotalsRecord {
            repositories: m.repositories,
            tags: m.tags,
            manifests: m.manifests,
            manifest_bytes: m.manifest_bytes,
            blobs: m.blobs,
            blob_bytes: m.blob_bytes,
            blobs_by_copies: m.blobs_by_copies,
        })
    }
}

impl Record for RevisionRecord {
    fn encode(&self) -> Vec<u8> {
        pb::Revision {
            changed_at: self.changed_at.0,
        }
        .encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        Ok(RevisionRecord {
            changed_at: LogIndex(pb::Revision::decode(value)?.changed_at),
        })
    }
}

impl Record for NodeRecord {
    fn encode(&self) -> Vec<u8> {
        let message = pb::Node {
            http_address: self.http_address.clone(),
            grpc_address: self.grpc_address.clone(),
            disk_id: self.disk_id.clone(),
            registered_at: self.registered_at.0,
        };
        message.encode_to_vec()
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let m = pb::Node::decode(value)?;
        Ok(NodeRecord {
            node: NodeId(Reader::new(Table::Node, key)?.number()?),
            http_address: m.http_address,
            grpc_address: m.grpc_address,
            disk_id: m.disk_id,
            registered_at: LogIndex(m.registered_at),
        })
    }
}

impl Record for RepositoryRecord {
    fn encode(&self) -> Vec<u8> {
        pb::Repository { id: self.id.0 }.encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        Ok(RepositoryRecord {
            id: RepositoryId(pb::Repository::decode(value)?.id),
        })
    }
}

impl Record for ManifestRecord {
    fn encode(&self) -> Vec<u8> {
        let message = pb::Manifest {
            media_type: self.media_type.as_str().to_owned(),
            size_bytes: self.size_bytes,
            subject: optional_digest_bytes(self.subject.as_ref()),
            is_index: self.is_index,
            pushed_at: self.pushed_at.0,
        };
        message.encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let m = pb::Manifest::decode(value)?;
        Ok(ManifestRecord {
            media_type: media_type(&m.media_type)?,
            size_bytes: m.size_bytes,
            subject: optional_digest("subject", &m.subject)?,
            is_index: m.is_index,
            pushed_at: LogIndex(m.pushed_at),
        })
    }
}

impl Record for ReferencesRecord {
    fn encode(&self) -> Vec<u8> {
        let message = pb::References {
            blobs: self.blobs.iter().map(digest_bytes).collect(),
            manifests: self.manifests.iter().map(digest_bytes).collect(),
        };
        message.encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let m = pb::References::decode(value)?;
        Ok(ReferencesRecord {
            blobs: digests("references", &m.blobs)?,
            manifests: digests("references", &m.manifests)?,
        })
    }
}

impl Record for TagRecord {
    fn encode(&self) -> Vec<u8> {
        pb::Tag {
            digest: digest_bytes(&self.digest),
            index: self.index.0,
        }
        .encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let m = pb::Tag::decode(value)?;
        Ok(TagRecord {
            digest: digest("tag digest", &m.digest)?,
            index: LogIndex(m.index),
        })
    }
}

impl Record for TagChange {
    fn encode(&self) -> Vec<u8> {
        let message = pb::TagChange {
            digest: optional_digest_bytes(self.digest.as_ref()),
            proposed_at_unix_ms: self.proposed_at.0,
            subject: self.subject.clone(),
        };
        message.encode_to_vec()
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let mut parts = Reader::new(Table::TagHistory, key)?;
        let (_repository, _tag, inverted) =
            (parts.number()?, parts.counted_text()?, parts.number()?);
        let m = pb::TagChange::decode(value)?;
        Ok(TagChange {
            index: LogIndex(!inverted),
            digest: optional_digest("tag change", &m.digest)?,
            proposed_at: Timestamp(m.proposed_at_unix_ms),
            subject: m.subject,
        })
    }
}

impl Record for Referrer {
    fn encode(&self) -> Vec<u8> {
        let message = pb::Referrer {
            media_type: self.media_type.as_str().to_owned(),
            size_bytes: self.size_bytes,
            artifact_type: optional_text(self.artifact_type.as_ref()),
            annotations: encode_annotations(&self.annotations),
        };
        message.encode_to_vec()
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let mut parts = Reader::new(Table::Referrer, key)?;
        let (_repository, _subject, digest) = (parts.number()?, parts.digest()?, parts.digest()?);
        let m = pb::Referrer::decode(value)?;
        Ok(Referrer {
            digest,
            media_type: media_type(&m.media_type)?,
            size_bytes: m.size_bytes,
            artifact_type: optional_media_type(&m.artifact_type)?,
            annotations: decode_annotations(m.annotations),
        })
    }
}

impl Record for BlobRecord {
    fn encode(&self) -> Vec<u8> {
        let message = pb::Blob {
            size_bytes: self.size_bytes,
            holders: self.holders.iter().map(|node| node.0).collect(),
            unlinked_since_ms: self.unlinked_since.map(|since| since.0),
            condemned_since_ms: self.condemned_since.map(|since| since.0),
        };
        message.encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let m = pb::Blob::decode(value)?;
        Ok(BlobRecord {
            size_bytes: m.size_bytes,
            holders: m.holders.into_iter().map(NodeId).collect(),
            unlinked_since: m.unlinked_since_ms.map(LogTime),
            condemned_since: m.condemned_since_ms.map(LogTime),
        })
    }
}

impl Record for LinkRecord {
    fn encode(&self) -> Vec<u8> {
        pb::Link {
            unreferenced_since_ms: self.unreferenced_since.map(|since| since.0),
        }
        .encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let m = pb::Link::decode(value)?;
        Ok(LinkRecord {
            unreferenced_since: m.unreferenced_since_ms.map(LogTime),
        })
    }
}

impl Record for TicketRecord {
    fn encode(&self) -> Vec<u8> {
        let message = pb::Ticket {
            kind: encode_ticket_kind(self.kind).into(),
            node: self.node.0,
            expires_at_ms: self.expires_at.0,
            uses: self.uses,
        };
        message.encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let m = pb::Ticket::decode(value)?;
        Ok(TicketRecord {
            kind: decode_ticket_kind(m.kind)?,
            node: NodeId(m.node),
            expires_at: LogTime(m.expires_at_ms),
            uses: m.uses,
        })
    }
}

impl Record for SessionRecord {
    fn encode(&self) -> Vec<u8> {
        pb::Session {
            due_at_ms: self.due_at.0,
            floor: self.floor,
            is_retired: self.is_retired,
        }
        .encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let m = pb::Session::decode(value)?;
        Ok(SessionRecord {
            due_at: LogTime(m.due_at_ms),
            floor: m.floor,
            is_retired: m.is_retired,
        })
    }
}

impl Record for AnswerRecord {
    fn encode(&self) -> Vec<u8> {
        pb::Answer {
            sequence: self.sequence,
            outcome: Some(response::encode(&self.outcome)),
        }
        .encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let m = pb::Answer::decode(value)?;
        let outcome = m.outcome.ok_or(CodecError::Missing { field: "outcome" })?;
        Ok(AnswerRecord {
            sequence: m.sequence,
            outcome: response::decode(outcome)?,
        })
    }
}
