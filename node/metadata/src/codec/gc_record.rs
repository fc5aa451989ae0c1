//! Records of garbage collection.

use prost::Message as _;
use proto::record as pb;

use super::{
    CodecError, Record, optional_digest, optional_digest_bytes, repository, tags, tags_text,
};
use crate::ids::{LogIndex, LogTime};
use crate::record::{
    Collected, DeleteReason, DeletedBlobRecord, GcRecord, HolderSetRecord, PurgedManifestRecord,
    ReferrerReviewRecord, RepositoryStateRecord,
};

impl Record for GcRecord {
    fn encode(&self) -> Vec<u8> {
        let collected = &self.collected;
        let message = pb::Gc {
            epoch: self.epoch,
            paused: self.paused.clone(),
            links: collected.links,
            blobs: collected.blobs,
            blob_bytes: collected.blob_bytes,
            copy_bytes: collected.copy_bytes,
            manifests: collected.manifests,
            repositories: collected.repositories,
        };
        message.encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let m = pb::Gc::decode(value)?;
        Ok(GcRecord {
            epoch: m.epoch,
            paused: m.paused,
            collected: Collected {
                links: m.links,
                blobs: m.blobs,
                blob_bytes: m.blob_bytes,
                copy_bytes: m.copy_bytes,
                manifests: m.manifests,
                repositories: m.repositories,
            },
        })
    }
}

impl Record for RepositoryStateRecord {
    fn encode(&self) -> Vec<u8> {
        pb::RepositoryState {
            name: self.name.as_str().to_owned(),
            empty_since_ms: self.empty_since.map(|since| since.0),
        }
        .encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let m = pb::RepositoryState::decode(value)?;
        Ok(RepositoryStateRecord {
            name: repository(&m.name)?,
            empty_since: m.empty_since_ms.map(LogTime),
        })
    }
}

impl Record for ReferrerReviewRecord {
    fn encode(&self) -> Vec<u8> {
        pb::ReferrerReview {
            after: optional_digest_bytes(self.after.as_ref()),
        }
        .encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let m = pb::ReferrerReview::decode(value)?;
        Ok(ReferrerReviewRecord {
            after: optional_digest("referrer review", &m.after)?,
        })
    }
}

impl Record for HolderSetRecord {
    fn encode(&self) -> Vec<u8> {
        pb::HolderSet {
            blobs: self.blobs,
            bytes: self.bytes,
        }
        .encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let m = pb::HolderSet::decode(value)?;
        Ok(HolderSetRecord {
            blobs: m.blobs,
            bytes: m.bytes,
        })
    }
}

impl Record for DeletedBlobRecord {
    fn encode(&self) -> Vec<u8> {
        pb::DeletedBlob {
            size_bytes: self.size_bytes,
            deleted_at_ms: self.deleted_at.0,
            deleted_index: self.deleted_index.0,
        }
        .encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let m = pb::DeletedBlob::decode(value)?;
        Ok(DeletedBlobRecord {
            size_bytes: m.size_bytes,
            deleted_at: LogTime(m.deleted_at_ms),
            deleted_index: LogIndex(m.deleted_index),
        })
    }
}

impl Record for PurgedManifestRecord {
    fn encode(&self) -> Vec<u8> {
        let (deleted_by, unneeded_since_ms) = encode_reason(&self.reason);
        pb::PurgedManifest {
            repository: self.repository.as_str().to_owned(),
            size_bytes: self.size_bytes,
            subject: optional_digest_bytes(self.subject.as_ref()),
            tags: tags_text(&self.tags),
            more_tags: self.more_tags,
            deleted_at_ms: self.deleted_at.0,
            deleted_index: self.deleted_index.0,
            deleted_by,
            unneeded_since_ms,
            purged_at_ms: self.purged_at.0,
            purged_index: self.purged_index.0,
        }
        .encode_to_vec()
    }

    fn decode(_key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let m = pb::PurgedManifest::decode(value)?;
        Ok(PurgedManifestRecord {
            repository: repository(&m.repository)?,
            size_bytes: m.size_bytes,
            subject: optional_digest("subject", &m.subject)?,
            tags: tags(&m.tags)?,
            more_tags: m.more_tags,
            deleted_at: LogTime(m.deleted_at_ms),
            deleted_index: LogIndex(m.deleted_index),
            reason: decode_reason(m.deleted_by, m.unneeded_since_ms),
            purged_at: LogTime(m.purged_at_ms),
            purged_index: LogIndex(m.purged_index),
        })
    }
}

pub(super) fn encode_reason(reason: &DeleteReason) -> (String, Option<u64>) {
    match reason {
        DeleteReason::Asked { by } => (by.clone(), None),
        DeleteReason::Unneeded { since } => (String::new(), Some(since.0)),
    }
}

pub(super) fn decode_reason(by: String, unneeded_since_ms: Option<u64>) -> DeleteReason {
    match unneeded_since_ms {
        Some(since_ms) => DeleteReason::Unneeded {
            since: LogTime(since_ms),
        },
        None => DeleteReason::Asked { by },
    }
}
