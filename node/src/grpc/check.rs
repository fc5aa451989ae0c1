//! Checking the state of this node: its fingerprint and every law. It reads the whole state.

use std::sync::Arc;

use consensus::RaftNode;
use metadata::fingerprint::fingerprint;
use metadata::invariants;
use metadata::log::{self, MetadataLog as _};
use metadata::view::{MetadataView as _, Stoppable};
use proto::admin as wire;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::status;

/// Checks until `stop`, or until this future is dropped because the client left: a read of a large state takes minutes
/// and keeps an old version of it on the disk meanwhile.
pub(super) async fn run(
    raft: Arc<RaftNode>,
    stop: CancellationToken,
) -> Result<wire::CheckReply, Status> {
    let stop = stop.child_token();
    let _client_is_here = stop.clone().drop_guard();
    let read = tokio::task::spawn_blocking(move || {
        log::read(raft.as_ref(), |view| {
            let view = &Stoppable {
                view,
                is_stopped: &|| stop.is_cancelled(),
            };
            let violations = invariants::check(view)?;
            Ok(wire::CheckReply {
                node_id: raft.node_id().0,
                applied_index: view.applied().0,
                fingerprint: fingerprint(view)?.to_string(),
                violations: violations.iter().map(ToString::to_string).collect(),
            })
        })
    });
    let checked = read
        .await
        .map_err(|error| Status::internal(error.to_string()))?;
    checked.map_err(|error| status::of_view(&error))
}
