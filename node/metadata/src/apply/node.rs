//! Nodes.

use std::collections::BTreeMap;

use super::{ApplyError, Refusal, Scope};
use crate::codec::Record;
use crate::command::{NodeState, RegisterNode, RemoveNode, SetNodeState};
use crate::ids::NodeId;
use crate::key::{self, Table};
use crate::record::{NodeRecord, RevisionRecord};
use crate::response::{Rejection, Response};
use crate::scan;
use crate::view::ViewError;

pub(super) fn register(
    scope: &mut Scope<'_, '_>,
    command: &RegisterNode,
) -> Result<Response, Refusal> {
    scope.cluster()?;
    // A number that came back with another disk, or an old one, would be taken for the node that was there before.
    if scope.exists(&key::removed_node(command.node))? {
        return Err(Rejection::NodeRemoved(command.node).into());
    }
    let known: Option<NodeRecord> = scope.load(&key::node(command.node))?;
    if known
        .as_ref()
        .is_some_and(|known| known.disk_id != command.disk_id)
    {
        return Err(Rejection::DiskMismatch(command.node).into());
    }
    let record = NodeRecord {
        node: command.node,
        http_address: command.http_address.clone(),
        grpc_address: command.grpc_address.clone(),
        disk_id: command.disk_id.clone(),
        registered_at: known.as_ref().map_or(scope.at, |known| known.registered_at),
        // Registering says where a node is, not that its copies are to be trusted again: the leader decides that.
        state: known.as_ref().map_or(NodeState::Up, |known| known.state),
        state_since: known.map_or(scope.now, |known| known.state_since),
    };
    scope.save(key::node(command.node), &record);
    Ok(Response::Done)
}

pub(super) fn set_state(
    scope: &mut Scope<'_, '_>,
    command: &SetNodeState,
) -> Result<Response, Refusal> {
    let before = registered(scope, command.node)?;
    if before.state != command.state {
        let after = NodeRecord {
            state: command.state,
            state_since: scope.now,
            ..before
        };
        scope.save(key::node(command.node), &after);
    }
    Ok(Response::Done)
}

pub(super) fn remove(scope: &mut Scope<'_, '_>, command: &RemoveNode) -> Result<Response, Refusal> {
    let node = command.node;
    if scope.exists(&key::removed_node(node))? {
        return Ok(Response::Done);
    }
    // Registered or not: one that never introduced itself may be a member all the same. Copies of condemned blobs count
    // here, because a push would bring one back with all of them. From here on nothing counts a copy on this node, for
    // that takes a registered one.
    if scan::first_key(scope.state, &key::placements_of(node))?.is_some() {
        return Err(Rejection::NodeHoldsCopies(node).into());
    }
    scope.delete(key::node(node));
    let changed_at = scope.at;
    scope.save(key::removed_node(node), &RevisionRecord { changed_at });
    Ok(Response::Done)
}

pub(super) fn registered(scope: &Scope<'_, '_>, node: NodeId) -> Result<NodeRecord, Refusal> {
    Ok(scope
        .load(&key::node(node))?
        .ok_or(Rejection::NodeUnknown(node))?)
}

pub(super) fn check_registered(scope: &Scope<'_, '_>, node: NodeId) -> Result<(), Refusal> {
    if scope.exists(&key::node(node))? {
        Ok(())
    } else {
        Err(Rejection::NodeUnknown(node).into())
    }
}

/// All registered nodes and what their copies are worth: a handful, so one scan serves a manifest with thousands of
/// layers.
pub(super) struct Nodes(BTreeMap<NodeId, NodeState>);

impl Nodes {
    pub(super) fn load(scope: &Scope<'_, '_>) -> Result<Nodes, ApplyError> {
        let mut nodes = BTreeMap::new();
        let table = key::table(Table::Node);
        scan::visit(scope.state, &table, None, &mut |key, value| {
            let node = <NodeRecord as Record>::decode(key, value)?;
            nodes.insert(node.node, node.state);
            Ok::<_, ViewError>(std::ops::ControlFlow::Continue(()))
        })?;
        Ok(Nodes(nodes))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = NodeId> {
        self.0.keys().copied()
    }

    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.0.get(&node) == Some(&NodeState::Up)
    }

    /// Copies on nodes that are up or draining: those that W asks for.
    pub(super) fn live_copies<'h>(&self, holders: impl IntoIterator<Item = &'h NodeId>) -> u32 {
        self.count(holders, |state| state != NodeState::Down)
    }

    /// Copies on nodes that are up and stay: those that R asks for.
    pub(super) fn lasting_copies<'h>(&self, holders: impl IntoIterator<Item = &'h NodeId>) -> u32 {
        self.count(holders, |state| state == NodeState::Up)
    }

    fn count<'h>(
        &self,
        holders: impl IntoIterator<Item = &'h NodeId>,
        counts: impl Fn(NodeState) -> bool,
    ) -> u32 {
        let counted = holders
            .into_iter()
            .filter(|node| self.0.get(node).is_some_and(|state| counts(*state)));
        u32::try_from(counted.count()).unwrap_or(u32::MAX)
    }
}
