//! Disk: the Raft log, the replicated state and the blobs of one node.

pub mod blob;
pub mod durable;
pub mod error;
pub mod log;
pub mod rocks;
pub mod state;

mod snapshot_stream;
