//! Blobs of this node.
//!
//! A blob is first staged (bytes arrive, digest unknown), then committed under its digest and a ticket.
//! Committed means: pinned, durable (file and directory synced, or inline in the local index), with a table
//! of CRC-32C checksums, one per 256 KiB, that is checked before a byte is handed out (invariant I6).

mod budget;
mod care;
mod checksum;
mod directory;
mod files;
mod follow;
mod index;
mod locks;
mod memory;
mod names;
pub mod offline;
mod options;
mod quarantine;
pub mod reader;
mod shelf;
mod space;
mod spool;
pub mod staged;
mod tending;
mod trash;
mod unlink;
mod verify;
mod walk;

use std::time::SystemTime;

use async_trait::async_trait;
use metadata::ids::TicketId;
use metadata::log::MetadataLog;
use oci::Digest;

use crate::error::BlobError;
pub use care::{
    BlobHealth, Comparison, Damage, Pace, QuarantineUsage, Quarantined, ScrubProgress, TrashUsage,
    Verified, Walk, WalkCursor,
};
pub use directory::DirectoryBlobs;
pub use memory::MemoryBlobs;
pub use options::BlobOptions;
pub use reader::BlobReader;
pub use staged::{ReadMark, StagedBlob, StagedReader};

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

    /// Pins a blob that is here already; `None` when it is not, or not every chunk of it is good.
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

    /// Tickets the copy was pinned with. Closed ones are forgotten some time after they closed.
    async fn pins(&self, digest: &Digest) -> Result<Vec<TicketId>, BlobError>;

    /// Space left.
    async fn usage(&self) -> Result<DiskUsage, BlobError>;

    /// How well the directory is. Not `is_writable` takes this node out of placement.
    async fn health(&self) -> Result<BlobHealth, BlobError>;

    /// One step of a walk over the directories: looks at no more than `limit` files after `after`. Finds files
    /// that no record knows, and removes leftovers that are older than this process and cannot be of use.
    async fn walk(&self, after: Option<&WalkCursor>, limit: usize) -> Result<Walk, BlobError>;

    /// Makes a blob of a file that is here already, an orphan or one from the trash, instead of a copy from
    /// another node: reads all of it, pins it with `ticket` and records it, under the digest's lock. A blob that
    /// is here and good is only pinned. `None` when there is no file with exactly these bytes.
    async fn adopt(&self, digest: &Digest, ticket: TicketId)
    -> Result<Option<BlobStat>, BlobError>;

    /// Moves an orphan to the trash. False when there is none (any more): a record knows the file by now.
    async fn discard_orphan(&self, digest: &Digest) -> Result<bool, BlobError>;

    /// Removes from the trash what is too old at `now`, and the oldest files while there is too much or the disk
    /// has too little room; at most `limit` files. Returns what went. The trash is emptied in passing when a new
    /// upload finds too little room.
    async fn empty_trash(&self, now: SystemTime, limit: usize) -> Result<TrashUsage, BlobError>;

    /// What is in the trash.
    async fn trash_usage(&self) -> Result<TrashUsage, BlobError>;

    /// Reads all of a blob again, from the disk, and compares it with its digest and its checksums. `pace` waits
    /// after every few megabytes. May be dropped at any time; holds no lock: a verdict other than
    /// `Verified::Sound` is to be confirmed by [`BlobStore::quarantine`].
    async fn verify(&self, digest: &Digest, pace: Pace<'_>) -> Result<Verified, BlobError>;

    /// Verifies again, under the digest's lock, and moves a damaged copy to quarantine, durably; nothing in this
    /// program deletes it there. The pins stay.
    async fn quarantine(&self, digest: &Digest) -> Result<Quarantined, BlobError>;

    /// What is in quarantine.
    async fn quarantine_usage(&self) -> Result<QuarantineUsage, BlobError>;

    /// How far the scrub of this node got; `None` before the first.
    async fn scrub_progress(&self) -> Result<Option<ScrubProgress>, BlobError>;

    /// Remembers it, durably.
    async fn save_scrub_progress(&self, progress: &ScrubProgress) -> Result<(), BlobError>;

    /// Compares the blobs that should be here, ordered by digest, with those that are, in the range after
    /// `after` through `through` (`None`: from the start, to the end). Looks at records and lengths of files, not
    /// at bytes. At most `limit` extras are listed.
    async fn compare(
        &self,
        after: Option<&Digest>,
        through: Option<&Digest>,
        expected: &[BlobStat],
        limit: usize,
    ) -> Result<Comparison, BlobError>;
}
