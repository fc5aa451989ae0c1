//! The unlink rule of protocols.md section 6.2, as a pure decision.
//!
//! It depends on state, never on events: a node may run it at any lag. What it has not seen yet cannot matter,
//! because whatever will count this copy must use a ticket that was pinned here first, and such a ticket is
//! either still open or newer than what this node has applied.

use metadata::ids::{NodeId, TicketId};
use metadata::query::{self, TicketState};
use metadata::view::{MetadataView, ViewError};
use oci::Digest;

/// What one view says about this node's copy of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The state counts the copy: (a) of the rule.
    pub is_counted: bool,
    /// Pins whose tickets are closed: they protect nothing any more.
    pub closed: Vec<TicketId>,
    /// Whether a pin still protects the copy: (b) of the rule.
    pub is_protected: bool,
}

impl Verdict {
    /// Whether the copy may go.
    pub(super) fn is_unneeded(&self) -> bool {
        !self.is_counted && !self.is_protected
    }
}

/// Judges the copy of `node`. The caller holds the lock of the digest since before it read `pins`.
pub(super) fn judge(
    view: &dyn MetadataView,
    node: NodeId,
    digest: &Digest,
    pins: &[TicketId],
) -> Result<Verdict, ViewError> {
    let is_counted = query::blob(view, digest)?.is_some_and(|blob| blob.holders.contains(&node));
    let mut closed = Vec::new();
    for ticket in pins {
        match query::ticket(view, *ticket)? {
            TicketState::Closed => closed.push(*ticket),
            // A ticket newer than the view counts as open: whatever it protects is not in this view yet.
            TicketState::Open | TicketState::Unknown => {}
        }
    }
    let is_protected = closed.len() < pins.len();
    Ok(Verdict {
        is_counted,
        closed,
        is_protected,
    })
}

#[cfg(test)]
mod tests;
