//! Raft's types as this cluster uses them. Nothing else in the crate is generic.

use std::fmt;

use bytes::Bytes;
use metadata::response::Outcome;
use openraft::alias;

use crate::state_machine::StateMachine;

openraft::declare_raft_types!(
    /// Log entries carry opaque bytes; applying one may answer with an outcome.
    pub(crate) TypeConfig:
        D = EntryBytes,
        R = Answer,
        NodeId = u64,
        Node = NodeAddress,
        AsyncRuntime = openraft::impls::TokioRuntime,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub(crate) type LogEntry = alias::EntryOf<TypeConfig>;
pub(crate) type LogId = alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = alias::VoteOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, NodeAddress>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Metrics = openraft::RaftMetrics<TypeConfig>;

/// An encoded `metadata::entry::Entry`. Decoded where it is proposed and where it is applied, not between.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EntryBytes(pub(crate) Bytes);

impl fmt::Debug for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for EntryBytes {
    // User content stays out of the logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What applying an entry answers; `None` for Raft's own entries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer(pub(crate) Option<Outcome>);

/// Where a member is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeAddress {
    /// `host:port` of its gRPC front.
    pub(crate) grpc_address: String,
}
