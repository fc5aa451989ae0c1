//! Movement of blobs between nodes.

pub mod error;
pub mod peers;
