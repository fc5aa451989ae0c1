//! Records of the key space.

use oci::Digest;
use prost::Message as _;
use proto::record as pb;

use super::command::{
    decode_annotations, decode_ticket_kind, encode_annotations, encode_ticket_kind,
};
use super::{
    CodecError, digest, digest_bytes, digests, gc, gc_record, media_type, optional_digest,
    optional_digest_bytes, optional_media_type, optional_text, response, tags, tags_text,
};
use crate::command::NodeState;
use crate::ids::{LogIndex, LogTime, NodeId, RepositoryId, Timestamp};
use crate::key::{Reader, Table};
use crate::record::{
    AnswerRecord, BlobRecord, ClusterRecord, DeletedManifestRecord, LinkRecord, ManifestRecord,
    NodeRecord, ReferencesRecord, Referrer, RepositoryRecord, RevisionRecord, SessionRecord,
    TagChange, TagRecord, TicketRecord, TimeRecord, TotalsRecord,
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
            deleted_manifests: self.deleted_manifests,
            deleted_manifest_bytes: self.deleted_manifest_bytes,
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
            deleted_manifests: m.deleted_manifests,
            deleted_manifest_bytes: m.deleted_manifest_bytes,
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
            state: gc::encode_node_state(self.state).into(),
            state_since_ms: self.state_since.0,
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
            // Records of before there were states have none.
            state: match m.state {
                0 => NodeState::Up,
                state => gc::decode_node_state(state)?,
            },
            state_since: LogTime(m.state_since_ms),
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
        encode_manifest(self).encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        decode_manifest(&pb::Manifest::decode(value)?)
    }
}

fn encode_manifest(record: &ManifestRecord) -> pb::Manifest {
    pb::Manifest {
        media_type: record.media_type.as_str().to_owned(),
        size_bytes: record.size_bytes,
        subject: optional_digest_bytes(record.subject.as_ref()),
        is_index: record.is_index,
        pushed_at: record.pushed_at.0,
        unneeded_since_ms: record.unneeded_since.map(|since| since.0),
        allows_missing_manifests: record.allows_missing_manifests,
    }
}

fn decode_manifest(m: &pb::Manifest) -> Result<ManifestRecord, CodecError> {
    Ok(ManifestRecord {
        media_type: media_type(&m.media_type)?,
        size_bytes: m.size_bytes,
        subject: optional_digest("subject", &m.subject)?,
        is_index: m.is_index,
        pushed_at: LogIndex(m.pushed_at),
        unneeded_since: m.unneeded_since_ms.map(LogTime),
        allows_missing_manifests: m.allows_missing_manifests,
    })
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
            number: self.number,
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
            number: m.number,
        })
    }
}

impl Record for Referrer {
    fn encode(&self) -> Vec<u8> {
        encode_referrer(self).encode_to_vec()
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let mut parts = Reader::new(Table::Referrer, key)?;
        let (_repository, _subject, digest) = (parts.number()?, parts.digest()?, parts.digest()?);
        decode_referrer(digest, pb::Referrer::decode(value)?)
    }
}

fn encode_referrer(referrer: &Referrer) -> pb::Referrer {
    pb::Referrer {
        media_type: referrer.media_type.as_str().to_owned(),
        size_bytes: referrer.size_bytes,
        artifact_type: optional_text(referrer.artifact_type.as_ref()),
        annotations: encode_annotations(&referrer.annotations),
    }
}

fn decode_referrer(digest: Digest, m: pb::Referrer) -> Result<Referrer, CodecError> {
    Ok(Referrer {
        digest,
        media_type: media_type(&m.media_type)?,
        size_bytes: m.size_bytes,
        artifact_type: optional_media_type(&m.artifact_type)?,
        annotations: decode_annotations(m.annotations),
    })
}

impl Record for DeletedManifestRecord {
    fn encode(&self) -> Vec<u8> {
        let (deleted_by, unneeded_since_ms) = gc_record::encode_reason(&self.reason);
        let message = pb::DeletedManifest {
            manifest: Some(encode_manifest(&self.manifest)),
            referrer: self.referrer.as_ref().map(encode_referrer),
            tags: tags_text(&self.tags),
            deleted_at_ms: self.deleted_at.0,
            deleted_index: self.deleted_index.0,
            deleted_by,
            unneeded_since_ms,
        };
        message.encode_to_vec()
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let mut parts = Reader::new(Table::DeletedManifest, key)?;
        let (_repository, digest) = (parts.number()?, parts.digest()?);
        let m = pb::DeletedManifest::decode(value)?;
        let manifest = m
            .manifest
            .ok_or(CodecError::Missing { field: "manifest" })?;
        Ok(DeletedManifestRecord {
            manifest: decode_manifest(&manifest)?,
            referrer: m
                .referrer
                .map(|referrer| decode_referrer(digest, referrer))
                .transpose()?,
            tags: tags(&m.tags)?,
            deleted_at: LogTime(m.deleted_at_ms),
            deleted_index: LogIndex(m.deleted_index),
            reason: gc_record::decode_reason(m.deleted_by, m.unneeded_since_ms),
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
            touched_at_ms: self.touched_at.0,
        }
        .encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let m = pb::Link::decode(value)?;
        Ok(LinkRecord {
            unreferenced_since: m.unreferenced_since_ms.map(LogTime),
            touched_at: LogTime(m.touched_at_ms),
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
