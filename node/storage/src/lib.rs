//! Disk: the Raft log, the replicated state and the blobs of one node.
//!
//! What it promises: what it reports as durable survives a power cut at any instant, what it hands out is what was
//! stored, and what is replaced is replaced whole. A directory that lost something it had acknowledged, or that
//! belongs to somebody else, is refused with the reason and what to do.
//!
//! What it must not know: Raft (entries, votes, log ids and memberships are opaque bytes), the network, and what the
//! keys of the state mean. RocksDB appears in no public signature.
//!
//! Everything here blocks on the disk, except the async methods of [`blob::BlobStore`]: call it from threads that may.

pub mod blob;
pub mod contract;
pub mod durable;
pub mod error;
pub mod failpoints;
pub mod layout;
pub mod log;
pub mod memory;
pub mod offline;
pub mod reserve;
pub mod rocks;
pub mod state;

mod alarm;
mod identity;
mod place;
mod snapshot_stream;
