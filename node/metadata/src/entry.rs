//! What one Raft log entry holds.

use crate::command::Command;
use crate::ids::{RequestId, Timestamp};

/// A command with the circumstances of its proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Wall clock of the proposer; written to the tag history, never decided upon.
    pub proposed_at: Timestamp,
    /// Who asked, as the access layer named them; empty for anonymous and for the cluster itself.
    pub subject: String,
    /// Makes a repeated proposal apply once. `None` where repeating is harmless.
    pub request: Option<RequestId>,
    /// The change.
    pub command: Command,
}
