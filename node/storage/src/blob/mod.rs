//! Blobs of this node.
//!
//! A blob is first staged (bytes arrive, digest unknown), then committed under its digest and a ticket.
//! Committed means: pinned, durable (file and directory synced, or inline in the local index), with a table
//! of CRC-32C checksums, one per 256 KiB, that is checked before a byte is handed out (invariant I6).

mod budget;
mod checksum;
mod directory;
mod files;
mod follow;
mod index;
mod locks;
mod memory;
mod names;
mod options;
pub mod reader;
mod shelf;
mod space;
mod spool;
pub mod staged;
mod unlink;

use async_trait::async_trait;
use metadata::ids::TicketId;
use metadata::log::MetadataLog;
use oci::Digest;

use crate::error::BlobError;
pub use directory::DirectoryBlobs;
pub use memory::MemoryBlobs;
pub use options::BlobOptions;
pub use reader::BlobReader;
pub use staged::{StagedBlob, StagedReader};

/// Unit of checksums and of reading, in bytes.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// A committed blob of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobStat {
    /// Its content.
    pub digest: Digest,
    /// Its length.
    pub size_bytes: u64,
}

/// Space of the file system that holds the blobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Size of the file system.
    pub total_bytes: u64,
    /// What an unprivileged process may still write.
    pub free_bytes: u64,
}

/// What became of a file that may no longer be needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlink {
    /// It is gone.
    Removed,
    /// The state counts this copy, or a ticket still protects it.
    Needed,
    /// There was none.
    Absent,
}

/// The blobs of one node. Two implementations: a directory and memory; both pass `contract::blob`.
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// Starts staging, or resumes what was staged under `name` before a restart (its durable bytes are
    /// hashed again). Names are `[a-z0-9-]{1,80}`. Small blobs stay in memory until they outgrow the
    /// inline limit, or until all of them together outgrow theirs; a resumed one of those starts at 0. A name is staged once at a time
    /// (`BlobError::InUse`).
    async fn stage(&self, name: &str) -> Result<StagedBlob, BlobError>;

    /// Makes a staged blob durable under its digest and pins it with `ticket`. Refuses a digest that the
    /// bytes do not have (`BlobError::DigestMismatch`, and the staged blob is given back). A blob that is
    /// already here is only pinned, if every chunk of it is good; a damaged one is replaced. Pins come first,
    /// under the digest's lock (protocols.md 6.1).
    async fn commit(
        &self,
        staged: StagedBlob,
        digest: &Digest,
        ticket: TicketId,
    ) -> Result<BlobStat, (BlobError, Option<StagedBlob>)>;

    /// Pins a blob that is here already; `None` when it is not.
    async fn pin(&self, digest: &Digest, ticket: TicketId) -> Result<Option<BlobStat>, BlobError>;

    /// Removes what was staged.
    async fn discard(&self, staged: StagedBlob) -> Result<(), BlobError>;

    /// Removes what was staged under `name` before a restart, if anything.
    async fn discard_name(&self, name: &str) -> Result<(), BlobError>;

    /// Names of what is staged on disk.
    async fn staged_names(&self) -> Result<Vec<String>, BlobError>;

    /// Whether the blob is here.
    async fn stat(&self, digest: &Digest) -> Result<Option<BlobStat>, BlobError>;

    /// Opens the blob for reading. A blob that should be here but cannot be found is `BlobError::Corrupt`.
    async fn open(&self, digest: &Digest) -> Result<Option<BlobReader>, BlobError>;

    /// The unlink rule of protocols.md 6.2, under the digest's lock, over what `log` has applied on this node.
    async fn unlink_if_unneeded(
        &self,
        digest: &Digest,
        log: &dyn MetadataLog,
    ) -> Result<Unlink, BlobError>;

    /// Committed blobs after `after`, ordered, at most `limit`.
    async fn list(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<BlobStat>, BlobError>;

    /// Space left.
    async fn usage(&self) -> Result<DiskUsage, BlobError>;
}
