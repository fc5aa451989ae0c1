//! The replicated log of commands: openraft lives here and nowhere else.
//!
//! **Promises**, in Raft's words: a command is answered once it is committed by a quorum and applied on the
//! node that was asked; it is applied at most once, however often it had to be sent; a barrier passes only
//! after a quorum confirmed the leader in its office; a disk that was wiped or replaced does not vote; the log
//! is purged only behind a durable state; every wait ends at its deadline.
//!
//! **Must not know** RocksDB, blobs, HTTP or configuration files. openraft's types stay inside: services see
//! [`metadata::log::MetadataLog`], the operator's front sees [`Status`] and [`MembershipError`].
//!
//! The life of a node is [`RaftNode::open`], mounting [`service`] on the gRPC front, [`RaftNode::join`], and
//! [`RaftNode::shutdown`].

mod barrier;
mod bootstrap;
mod duties;
mod error;
mod facts;
mod forward;
mod leadership;
mod log_store;
mod membership;
mod network;
mod node;
mod options;
mod recovery;
mod removal;
mod snapshot;
mod state_machine;
mod status;
mod types;

#[cfg(test)]
mod tests;

pub use error::{MembershipError, StartError};
pub use network::server::{Service, service};
pub use node::RaftNode;
pub use options::{Formation, MAX_ENTRY_BYTES, MAX_MESSAGE_BYTES, Member, RaftOptions};
pub use recovery::take_over;
pub use removal::{DrainStatus, GivenUp, RemoveOptions};
pub use status::{MemberStatus, Role, Status};
