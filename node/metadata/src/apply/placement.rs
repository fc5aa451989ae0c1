//! Counted copies: which nodes hold a blob.
//!
//! A copy is counted only under a ticket that its node pinned before it acknowledged the bytes; that is what
//! makes the unlink rule safe (protocols.md section 6.3).

use oci::Digest;

use super::node::{self, Nodes};
use super::{Refusal, Scope, index, ticket};
use crate::command::{AddPlacement, DropPlacement, NodeState, ReportLost, TicketKind};
use crate::ids::NodeId;
use crate::key;
use crate::record::{BlobRecord, TicketRecord};
use crate::response::{Rejection, Response};

/// New copies are for nodes that are up, decided in the order of the log (protocols.md section 3.2). A node that drains
/// would otherwise be given what it is about to drop, and a drain would never end while pushes and repairs go on; a copy
/// on a node that is down would count towards nothing.
///
/// Refusing is always safe: the copy was counted nowhere, so nothing relied on it, and its bytes are protected by the
/// ticket until that closes and go by the unlink rule then. Whoever made it learns of the refusal and makes another
/// elsewhere. Accepting would be safe, too (the claim of section 6.3 asks for the ticket, not for the state), so a change
/// of state that a proposer does not know of yet can do no harm in either order.
pub(super) fn add(scope: &mut Scope<'_, '_>, command: &AddPlacement) -> Result<Response, Refusal> {
    let open = ticket::check_open(scope, command.ticket, TicketKind::Repair)?;
    let node = node::registered(scope, command.node)?;
    let before = known_blob(scope, &command.digest)?;
    if before.holders.contains(&command.node) {
        // Counted already. The use stays for another straggler; the deadline closes what nobody uses.
        return Ok(Response::Done);
    }
    if node.state != NodeState::Up {
        return Err(Rejection::NodeNotUp(command.node).into());
    }
    let mut after = before.clone();
    after.holders.push(command.node);
    after.holders.sort();
    index::put_blob(scope, &command.digest, Some(&before), &after)?;
    let uses = open.uses.saturating_sub(1);
    let left = (uses > 0).then_some(TicketRecord { uses, ..open });
    index::put_ticket(scope, command.ticket, Some(&open), left.as_ref());
    Ok(Response::Done)
}

pub(super) fn drop_surplus(
    scope: &mut Scope<'_, '_>,
    command: &DropPlacement,
) -> Result<Response, Refusal> {
    let cluster = scope.cluster()?;
    let (before, after) = without_holder(scope, &command.digest, command.node)?;
    let nodes = Nodes::load(scope)?;
    // Nobody relies on what is condemned: a push that brings it back counts the copies that are left then.
    // A node that leaves is there for safety only, one that is down not even for that, and where they leave from there
    // may be no room for R.
    let (reached, wanted) = if before.condemned_since.is_some() {
        (0, 0)
    } else if nodes.is_up(command.node) {
        (nodes.lasting_copies(&after.holders), cluster.copies)
    } else {
        (nodes.live_copies(&after.holders), cluster.write_copies)
    };
    if reached < wanted {
        return Err(Rejection::TooFewCopies { reached, wanted }.into());
    }
    index::put_blob(scope, &command.digest, Some(&before), &after)?;
    Ok(Response::Done)
}

/// What is gone is not counted, or its loss would be hidden. A damaged copy has a floor, decided in the order of the
/// log: of two nodes that find the last two copies damaged at the same moment, one keeps its own, counted.
pub(super) fn report_lost(
    scope: &mut Scope<'_, '_>,
    command: &ReportLost,
) -> Result<Response, Refusal> {
    let (before, after) = without_holder(scope, &command.digest, command.node)?;
    let reached = Nodes::load(scope)?.live_copies(&after.holders);
    if reached == 0 && !command.is_gone {
        return Err(Rejection::TooFewCopies { reached, wanted: 1 }.into());
    }
    index::put_blob(scope, &command.digest, Some(&before), &after)?;
    Ok(Response::Done)
}

fn known_blob(scope: &Scope<'_, '_>, digest: &Digest) -> Result<BlobRecord, Refusal> {
    Ok(scope
        .load(&key::blob(digest))?
        .ok_or(Rejection::BlobUnknown)?)
}

fn without_holder(
    scope: &Scope<'_, '_>,
    digest: &Digest,
    node: NodeId,
) -> Result<(BlobRecord, BlobRecord), Refusal> {
    let before = known_blob(scope, digest)?;
    let mut after = before.clone();
    after.holders.retain(|holder| *holder != node);
    if after.holders.len() == before.holders.len() {
        return Err(Rejection::NotAHolder(node).into());
    }
    Ok((before, after))
}
