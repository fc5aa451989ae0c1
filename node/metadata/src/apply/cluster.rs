//! What is true for the whole cluster.

use super::node::{self, Nodes};
use super::{Refusal, Scope};
use crate::command::{InitializeCluster, NodeState, RecoverCluster, SetNodeState, SetReplication};
use crate::key::{self, Table};
use crate::record::ClusterRecord;
use crate::response::{Rejection, Response};

pub(super) fn initialize(
    scope: &mut Scope<'_, '_>,
    command: &InitializeCluster,
) -> Result<Response, Refusal> {
    if scope.exists(&key::single(Table::Cluster))? {
        return Err(Rejection::AlreadyInitialized.into());
    }
    check_copies(command.copies, command.write_copies)?;
    let record = ClusterRecord {
        cluster_id: command.cluster_id.clone(),
        upload_key: command.upload_key.clone(),
        copies: command.copies,
        write_copies: command.write_copies,
    };
    scope.save(key::single(Table::Cluster), &record);
    Ok(Response::Done)
}

pub(super) fn set_replication(
    scope: &mut Scope<'_, '_>,
    command: &SetReplication,
) -> Result<Response, Refusal> {
    let cluster = scope.cluster()?;
    check_copies(command.copies, command.write_copies)?;
    let record = ClusterRecord {
        copies: command.copies,
        write_copies: command.write_copies,
        ..cluster
    };
    scope.save(key::single(Table::Cluster), &record);
    Ok(Response::Done)
}

/// What was counted on the others stays on record: it says what may be lost, and is given up node by node.
pub(super) fn recover(
    scope: &mut Scope<'_, '_>,
    command: &RecoverCluster,
) -> Result<Response, Refusal> {
    let cluster = scope.cluster()?;
    let survivor = command.survivor;
    node::check_registered(scope, survivor)?;
    for node in Nodes::load(scope)?.all() {
        let state = match node == survivor {
            true => NodeState::Up,
            false => NodeState::Down,
        };
        node::set_state(scope, &SetNodeState { node, state })?;
    }
    let record = ClusterRecord {
        cluster_id: command.cluster_id.clone(),
        ..cluster
    };
    scope.save(key::single(Table::Cluster), &record);
    Ok(Response::Done)
}

/// 1 <= W <= R. How they relate to the number of voters is the proposer's affair: membership is not state.
fn check_copies(copies: u32, write_copies: u32) -> Result<(), Refusal> {
    if write_copies == 0 || write_copies > copies {
        Err(Rejection::OutOfBounds.into())
    } else {
        Ok(())
    }
}
