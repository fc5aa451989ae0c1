//! Between domain types and the protobuf messages of `proto/log` and `proto/record`.
//!
//! Whatever cannot be decoded is an error, never skipped: a node that does not know a command must stop, or it
//! would go on with another state than its peers.

mod command;
mod gc;
mod gc_record;
mod record;
mod response;

use bytes::Bytes;
use oci::{Digest, MediaType, RepositoryName, Tag};
use prost::Message;
use proto::log as pb;

use crate::entry::Entry;
use crate::ids::{NodeId, RequestId, Timestamp};
use crate::response::Outcome;
use crate::view::ViewError;

pub(crate) use record::Record;

/// Stored or received bytes do not make sense to this binary. Fatal for whoever applies.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not the protobuf message it should be.
    #[error("undecodable message: {0}")]
    Message(#[from] prost::DecodeError),
    /// A field that must be there is not; an unknown command or response shows as one, too.
    #[error("{field} is missing or unknown")]
    Missing {
        /// Which.
        field: &'static str,
    },
    /// A field holds what its grammar does not allow.
    #[error("{field} is invalid")]
    Invalid {
        /// Which.
        field: &'static str,
    },
    /// A key is not laid out as its table says.
    #[error("a key is not laid out as its table says")]
    Key,
}

impl From<CodecError> for ViewError {
    fn from(error: CodecError) -> ViewError {
        ViewError(Box::new(error))
    }
}

/// The bytes Raft stores for `entry`.
pub fn encode_entry(entry: &Entry) -> Bytes {
    let message = pb::Entry {
        proposed_at_unix_ms: entry.proposed_at.0,
        subject: entry.subject.clone(),
        request: entry.request.map(|request| pb::RequestId {
            node: request.node.0,
            boot: request.boot,
            sequence: request.sequence,
        }),
        command: Some(command::encode(&entry.command)),
    };
    message.encode_to_vec().into()
}

/// The inverse of [`encode_entry`]. The body of a manifest stays a slice of `bytes`.
///
/// # Errors
/// Any [`CodecError`]; an unknown command is one.
pub fn decode_entry(bytes: Bytes) -> Result<Entry, CodecError> {
    let message = pb::Entry::decode(bytes)?;
    Ok(Entry {
        proposed_at: Timestamp(message.proposed_at_unix_ms),
        subject: message.subject,
        request: message.request.map(|request| RequestId {
            node: NodeId(request.node),
            boot: request.boot,
            sequence: request.sequence,
        }),
        command: command::decode(
            message
                .command
                .ok_or(CodecError::Missing { field: "command" })?,
        )?,
    })
}

/// The bytes in which an outcome travels from the leader to the node that asked.
pub fn encode_outcome(outcome: &Outcome) -> Bytes {
    response::encode(outcome).encode_to_vec().into()
}

/// The inverse of [`encode_outcome`].
///
/// # Errors
/// Any [`CodecError`]; an unknown response or rejection is one.
pub fn decode_outcome(bytes: Bytes) -> Result<Outcome, CodecError> {
    response::decode(pb::Outcome::decode(bytes)?)
}

fn digest_bytes(digest: &Digest) -> Bytes {
    digest.to_key().into()
}

fn optional_digest_bytes(digest: Option<&Digest>) -> Bytes {
    digest.map(digest_bytes).unwrap_or_default()
}

fn digest(field: &'static str, bytes: &[u8]) -> Result<Digest, CodecError> {
    Digest::from_key(bytes).ok_or(CodecError::Invalid { field })
}

/// Empty means none.
fn optional_digest(field: &'static str, bytes: &[u8]) -> Result<Option<Digest>, CodecError> {
    if bytes.is_empty() {
        Ok(None)
    } else {
        digest(field, bytes).map(Some)
    }
}

fn digests(field: &'static str, list: &[Bytes]) -> Result<Vec<Digest>, CodecError> {
    list.iter().map(|bytes| digest(field, bytes)).collect()
}

fn repository(text: &str) -> Result<RepositoryName, CodecError> {
    RepositoryName::parse(text).map_err(|_| CodecError::Invalid {
        field: "repository",
    })
}

pub(crate) fn tag(text: &str) -> Result<Tag, CodecError> {
    Tag::parse(text).map_err(|_| CodecError::Invalid { field: "tag" })
}

fn tags(texts: &[String]) -> Result<Vec<Tag>, CodecError> {
    texts.iter().map(|text| tag(text)).collect()
}

fn tags_text(tags: &[Tag]) -> Vec<String> {
    tags.iter().map(|tag| tag.as_str().to_owned()).collect()
}

fn media_type(text: &str) -> Result<MediaType, CodecError> {
    MediaType::parse(text).map_err(|_| CodecError::Invalid {
        field: "media_type",
    })
}

/// Empty means none.
fn optional_media_type(text: &str) -> Result<Option<MediaType>, CodecError> {
    if text.is_empty() {
        Ok(None)
    } else {
        media_type(text).map(Some)
    }
}

fn optional_text(media_type: Option<&MediaType>) -> String {
    media_type
        .map(|media_type| media_type.as_str().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
