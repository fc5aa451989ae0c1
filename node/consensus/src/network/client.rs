//! openraft's network over tonic.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use metadata::ids::NodeId;
use openraft::alias::SnapshotOf;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{EntryPayload, OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use proto::raft as wire;
use storage::error::StorageError;
use tokio::sync::mpsc;
use tonic::{Response, Status};

use crate::log_store::blocking;
use crate::network::convert::{self, Malformed};
use crate::network::peers::{Lane, Peers};
use crate::snapshot::{self, SnapshotData};
use crate::types::{LogEntry, NodeAddress, TypeConfig, Vote};

/// Entries in one message at most, unless a single one is larger.
const APPEND_BYTES: usize = 8 << 20;
/// A follower writes and syncs up to 8 MiB before it answers. Heartbeats have their own lane, so a slow disk
/// costs no election.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);

type Rpc<T> = Result<T, RPCError<TypeConfig>>;

/// Makes connections for openraft.
pub(crate) struct Network {
    pub(crate) peers: Arc<Peers>,
}

/// One lane to one node.
pub(crate) struct Connection {
    peers: Arc<Peers>,
    target: NodeId,
    address: String,
    lane: Lane,
}

impl Network {
    fn connection(&self, target: u64, node: &NodeAddress, lane: Lane) -> Connection {
        let address = self
            .peers
            .address(target, Some(&node.grpc_address))
            .unwrap_or_default();
        Connection {
            peers: self.peers.clone(),
            target: NodeId(target),
            address,
            lane,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &NodeAddress) -> Connection {
        self.connection(target, node, Lane::Entries)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &NodeAddress) -> Connection {
        self.connection(target, node, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &NodeAddress) -> Connection {
        self.connection(target, node, Lane::Snapshots)
    }
}

/// Makes one call on `$lane` of `$connection` and gives up after `$timeout`.
macro_rules! call {
    ($connection:ident, $lane:expr, $method:ident, $message:expr, $timeout:expr) => {{
        let request = $connection.peers.request($connection.target, $message);
        let client = $connection
            .peers
            .client($lane, &$connection.address)
            .map_err(failed);
        match client {
            Ok(mut client) => {
                answered(tokio::time::timeout($timeout, client.$method(request)).await)
            }
            Err(error) => Err(error),
        }
    }};
}

fn answered<T>(answer: Result<Result<Response<T>, Status>, tokio::time::error::Elapsed>) -> Rpc<T> {
    match answer {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(failed(status)),
        Err(elapsed) => Err(RPCError::Network(NetworkError::new(&elapsed))),
    }
}

/// `Unreachable` makes openraft back off; other failures are tried again at once.
fn failed(status: Status) -> RPCError<TypeConfig> {
    match status.code() {
        tonic::Code::Unavailable
        | tonic::Code::FailedPrecondition
        | tonic::Code::InvalidArgument => RPCError::Unreachable(Unreachable::new(&status)),
        _ => RPCError::Network(NetworkError::new(&status)),
    }
}

fn malformed(error: Malformed) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(&error))
}

/// Shortens `entries` to what one message may hold. Returns whether something was left out.
fn shorten(entries: &mut Vec<LogEntry>) -> bool {
    let mut total_bytes = 0;
    let fitting = entries.iter().take_while(|entry| {
        total_bytes += match &entry.payload {
            EntryPayload::Normal(command) => command.0.len(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        };
        total_bytes <= APPEND_BYTES
    });
    let fitting = fitting.count().max(1);
    let shortened = fitting < entries.len();
    entries.truncate(fitting);
    shortened
}

impl RaftNetworkV2<TypeConfig> for Connection {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        mut request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        let timeout = if self.lane == Lane::Control {
            option.soft_ttl()
        } else {
            APPEND_TIMEOUT
        };
        let shortened = shorten(&mut request.entries);
        let last = request.entries.last().map(|entry| entry.log_id);
        let response = call!(
            self,
            self.lane,
            append,
            convert::append_to_wire(request),
            timeout
        )?;
        let response = convert::append_response_from_wire(response).map_err(malformed)?;
        Ok(match response {
            AppendEntriesResponse::Success if shortened => {
                AppendEntriesResponse::PartialSuccess(last)
            }
            response => response,
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let message = convert::vote_request_to_wire(&request);
        let response = call!(self, Lane::Control, vote, message, option.soft_ttl())?;
        convert::vote_response_from_wire(response).map_err(malformed)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let message = convert::vote_request_to_wire(&request);
        let response = call!(self, Lane::Control, pre_vote, message, option.soft_ttl())?;
        convert::vote_response_from_wire(response).map_err(malformed)
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let message = convert::transfer_to_wire(&request);
        let response = call!(
            self,
            Lane::Control,
            transfer_leader,
            message,
            option.soft_ttl()
        )?;
        convert::transfer_response_from_wire(response).map_err(malformed)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            sent = self.send_snapshot(vote, snapshot.snapshot) => Ok(sent?),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }
}

impl Connection {
    /// No time limit on the whole: the state may be large. The keep-alive of the lane notices a dead peer.
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: SnapshotData,
    ) -> Rpc<SnapshotResponse<TypeConfig>> {
        let unreadable = |error: std::io::Error| RPCError::Network(NetworkError::new(&error));
        let SnapshotData::Live(state) = snapshot else {
            return Err(unreadable(std::io::Error::other(
                "a received snapshot is not sent on",
            )));
        };
        let checkpoint = blocking(move || state.checkpoint())
            .await
            .map_err(unreadable)?;
        // The copy may be newer than what openraft asked for; the header says what it is.
        let meta = snapshot::meta_of(checkpoint.applied()).map_err(unreadable)?;
        if meta
            .last_log_id
            .is_some_and(|last| last.leader_id > vote.leader_id)
        {
            // Deposed meanwhile: a state of the next term cannot travel under the vote of this one.
            return Err(unreadable(std::io::Error::other("no longer the leader")));
        }
        let header = wire::SnapshotHeader {
            vote: Some(convert::vote_to_wire(&vote)),
            last: meta.last_log_id.as_ref().map(convert::log_id_to_wire),
            membership: Some(convert::stored_membership_to_wire(&meta.last_membership)),
        };
        let header = wire::SnapshotChunk {
            part: Some(wire::snapshot_chunk::Part::Header(header)),
        };
        let parts = stream::iter([header]).chain(chunks(snapshot::export(checkpoint)));
        let request = self.peers.request(self.target, parts);
        let mut client = self
            .peers
            .client(self.lane, &self.address)
            .map_err(failed)?;
        let response = client
            .install_snapshot(request)
            .await
            .map_err(failed)?
            .into_inner();
        let vote = convert::vote_from_wire(response.vote).map_err(malformed)?;
        Ok(SnapshotResponse::new(vote))
    }
}

/// The chunks of an export and its end. A failed export has no end, so the receiver refuses what came.
fn chunks(
    exported: mpsc::Receiver<Result<Bytes, StorageError>>,
) -> impl Stream<Item = wire::SnapshotChunk> + Send + 'static {
    use wire::snapshot_chunk::Part;
    stream::unfold(Some((exported, 0)), |state| async move {
        let (mut exported, size_bytes) = state?;
        let (part, state) = match exported.recv().await {
            Some(Ok(data)) => {
                let size_bytes = size_bytes + data.len() as u64;
                (Part::Data(data), Some((exported, size_bytes)))
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "could not export the state for a peer");
                return None;
            }
            None => (Part::End(wire::SnapshotEnd { size_bytes }), None),
        };
        Some((wire::SnapshotChunk { part: Some(part) }, state))
    })
}

#[cfg(test)]
mod tests {
    use openraft::entry::RaftEntry;

    use super::*;
    use crate::types::{EntryBytes, LogId};

    fn entries(sizes: &[usize]) -> Vec<LogEntry> {
        let entry = |(index, size): (usize, &usize)| {
            let id = convert::log_id_from_wire(wire::LogId {
                term: 1,
                node: 1,
                index: index as u64,
            });
            let id: LogId = id;
            LogEntry::new_normal(id, EntryBytes(vec![0; *size].into()))
        };
        sizes.iter().enumerate().map(entry).collect()
    }

    #[test]
    fn a_message_holds_what_fits_and_never_nothing() {
        for (sizes, kept, is_shortened) in [
            (&[][..], 0, false),
            (&[1, 2, 3], 3, false),
            (&[4 << 20, 4 << 20], 2, false),
            (&[4 << 20, 4 << 20, 1], 2, true),
            (&[9 << 20], 1, false),
            (&[9 << 20, 1], 1, true),
        ] {
            let mut entries = entries(sizes);
            assert_eq!(shorten(&mut entries), is_shortened, "{sizes:?}");
            assert_eq!(entries.len(), kept, "{sizes:?}");
        }
    }
}
