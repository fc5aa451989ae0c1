//! Disk: the Raft log, the replicated state and the blobs of one node.

pub mod blob;
pub mod contract;
pub mod durable;
pub mod error;
pub mod layout;
pub mod log;
pub mod memory;
pub mod rocks;
pub mod state;

mod identity;
mod snapshot_stream;
