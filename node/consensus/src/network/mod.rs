//! Raft between nodes over gRPC.

pub(crate) mod client;
pub(crate) mod convert;
pub(crate) mod peers;
pub(crate) mod server;
