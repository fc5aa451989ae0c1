//! Nodes.

use std::collections::BTreeSet;

use super::{ApplyError, Refusal, Scope};
use crate::command::{NodeState, RegisterNode};
use crate::ids::NodeId;
use crate::key::{self, Table};
use crate::record::NodeRecord;
use crate::response::{Rejection, Response};
use crate::scan;
use crate::view::ViewError;

pub(super) fn register(
    scope: &mut Scope<'_, '_>,
    command: &RegisterNode,
) -> Result<Response, Refusal> {
    scope.cluster()?;
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

pub(super) fn check_registered(scope: &Scope<'_, '_>, node: NodeId) -> Result<(), Refusal> {
    if scope.exists(&key::node(node))? {
        Ok(())
    } else {
        Err(Rejection::NodeUnknown(node).into())
    }
}

/// All registered nodes: a handful, so one scan serves a manifest with thousands of layers.
pub(super) fn registered(scope: &Scope<'_, '_>) -> Result<BTreeSet<NodeId>, ApplyError> {
    let mut nodes = BTreeSet::new();
    scan::visit(
        scope.state,
        &key::table(Table::Node),
        None,
        &mut |key, _| {
            let mut parts = key::Reader::new(Table::Node, key)?;
            nodes.insert(NodeId(parts.number()?));
            Ok::<_, ViewError>(std::ops::ControlFlow::Continue(()))
        },
    )?;
    Ok(nodes)
}
