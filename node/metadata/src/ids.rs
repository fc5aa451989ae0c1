//! The numbers that name things in the replicated state.

use std::fmt;

/// A node of the cluster. Never reused (protocols.md section 9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Position of an entry in the Raft log. Clients see it as the revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogIndex(pub u64);

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A repository in keys: the log index of the entry that created it. Names never appear in other keys, so one
/// name being a prefix of another disturbs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryId(pub u64);

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Log time in milliseconds: the sum of the `Tick`s applied so far.
///
/// It never runs faster than real time and stands still without a quorum. Only liveness may
/// depend on it, never safety (protocols.md section 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogTime(pub u64);

impl LogTime {
    /// This much later; the end of time when that overflows.
    pub fn plus_ms(self, ms: u64) -> LogTime {
        LogTime(self.0.saturating_add(ms))
    }
}

/// Wall-clock time of the proposer, milliseconds since the Unix epoch. For people to read only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

/// How many tickets one log entry can open.
pub const TICKETS_PER_ENTRY: u64 = 64;

/// A ticket protects bytes in flight (protocols.md section 3.1).
///
/// It is the log index of the entry that opened it and a number within that entry, so it is unique,
/// ordered, and "is it newer than what this node has applied?" can be answered locally.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(u64);

impl TicketId {
    /// The `number`th ticket (below [`TICKETS_PER_ENTRY`]) opened by the entry at `index`.
    pub fn new(index: LogIndex, number: u64) -> TicketId {
        debug_assert!(number < TICKETS_PER_ENTRY);
        TicketId(index.0 * TICKETS_PER_ENTRY + number)
    }

    /// The entry that opened this ticket.
    pub fn index(self) -> LogIndex {
        LogIndex(self.0 / TICKETS_PER_ENTRY)
    }

    /// Its number within that entry.
    pub fn number(self) -> u64 {
        self.0 % TICKETS_PER_ENTRY
    }

    /// One number for storage and the wire.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// The inverse of [`TicketId::as_u64`].
    pub fn from_u64(value: u64) -> TicketId {
        TicketId(value)
    }
}

impl fmt::Display for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index(), self.number())
    }
}

/// Names one request so that it is applied at most once, however often it is sent
/// (protocols.md section 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The node that took the request from its client.
    pub node: NodeId,
    /// Random number drawn when that node's process started.
    pub boot: u64,
    /// Counts up within one boot, from 1.
    pub sequence: u64,
}
