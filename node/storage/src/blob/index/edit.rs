//! What changes together.

use bytes::Bytes;
use metadata::ids::TicketId;
use oci::Digest;

use super::database::Family;
use super::record::Record;

/// Changes that become durable together or not at all.
#[derive(Debug, Default)]
pub(in crate::blob) struct Edit {
    changes: Vec<Change>,
    removed_bytes: u64,
}

/// A key gets a value, or is removed.
#[derive(Debug)]
pub(super) struct Change {
    pub family: Family,
    pub key: Vec<u8>,
    pub value: Option<Bytes>,
}

impl Edit {
    pub(in crate::blob) fn put_record(self, digest: &Digest, record: &Record) -> Self {
        self.with(Family::Blobs, digest.to_key(), Some(record.encode().into()))
    }

    pub(in crate::blob) fn remove_record(self, digest: &Digest) -> Self {
        self.with(Family::Blobs, digest.to_key(), None)
    }

    pub(in crate::blob) fn put_body(self, digest: &Digest, body: Bytes) -> Self {
        self.with(Family::Bodies, digest.to_key(), Some(body))
    }

    /// `size_bytes`: what its removal leaves behind until the space is reclaimed.
    pub(in crate::blob) fn remove_body(mut self, digest: &Digest, size_bytes: u64) -> Self {
        self.removed_bytes += size_bytes;
        self.with(Family::Bodies, digest.to_key(), None)
    }

    pub(in crate::blob) fn pin(self, digest: &Digest, ticket: TicketId) -> Self {
        self.with(Family::Pins, pin_key(digest, ticket), Some(Bytes::new()))
    }

    pub(in crate::blob) fn unpin(self, digest: &Digest, tickets: &[TicketId]) -> Self {
        tickets.iter().fold(self, |edit, ticket| {
            edit.with(Family::Pins, pin_key(digest, *ticket), None)
        })
    }

    /// A file may soon lie under the digest, or lie there still, without a record.
    pub(in crate::blob) fn put_stray(self, digest: &Digest) -> Self {
        self.with(Family::Strays, digest.to_key(), Some(Bytes::new()))
    }

    pub(in crate::blob) fn remove_stray(self, digest: &Digest) -> Self {
        self.with(Family::Strays, digest.to_key(), None)
    }

    /// Something small to remember under a name.
    pub(in crate::blob) fn put_note(self, name: &str, note: Vec<u8>) -> Self {
        self.with(Family::Notes, name.into(), Some(note.into()))
    }

    pub(in crate::blob) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Length of the bodies it removes.
    pub(super) fn removed_bytes(&self) -> u64 {
        self.removed_bytes
    }

    pub(super) fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    fn with(mut self, family: Family, key: Vec<u8>, value: Option<Bytes>) -> Self {
        self.changes.push(Change { family, key, value });
        self
    }
}

fn pin_key(digest: &Digest, ticket: TicketId) -> Vec<u8> {
    let mut key = digest.to_key();
    key.extend_from_slice(&ticket.as_u64().to_be_bytes());
    key
}
