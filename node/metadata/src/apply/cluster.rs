//! What is true for the whole cluster.

use super::{Refusal, Scope};
use crate::command::{InitializeCluster, SetReplication};
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

/// 1 <= W <= R. How they relate to the number of voters is the proposer's affair: membership is not state.
fn check_copies(copies: u32, write_copies: u32) -> Result<(), Refusal> {
    if write_copies == 0 || write_copies > copies {
        Err(Rejection::OutOfBounds.into())
    } else {
        Ok(())
    }
}
