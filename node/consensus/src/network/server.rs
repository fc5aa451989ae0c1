//! The gRPC service of a node: what its peers may ask.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metadata::codec;
use metadata::ids::NodeId;
use openraft::alias::SnapshotOf;
use openraft::raft::AppendEntriesResponse;
use proto::raft as wire;
use proto::raft::raft_server::{Raft, RaftServer};
use storage::failpoints::hit;
use tokio::io::AsyncWriteExt;
use tonic::{Request, Response, Status, Streaming};

use crate::error::Obstacle;
use crate::forward::Attempt;
use crate::network::convert::{self, Malformed};
use crate::network::peers::{CLUSTER_HEADER, DISK_HEADER, TARGET_HEADER};
use crate::node::RaftNode;
use crate::options::{MAX_ENTRY_BYTES, MAX_MESSAGE_BYTES};
use crate::snapshot::{ReceivedFile, SnapshotData};
use crate::types::{SnapshotMeta, TypeConfig};

/// The service that peers of `node` call; to be mounted on its gRPC front.
pub fn service(node: Arc<RaftNode>) -> RaftServer<Service> {
    RaftServer::new(Service { node })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// Answers the peers of one node.
pub struct Service {
    node: Arc<RaftNode>,
}

type Answer<T> = Result<Response<T>, Status>;

fn malformed(error: Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("raft: {error}"))
}

impl Service {
    /// A call must mean this node and come from its cluster: addresses get mixed up, and two clusters
    /// restored from one backup must never merge.
    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let headers = request.metadata();
        let meant = headers
            .get(TARGET_HEADER)
            .and_then(|value| value.to_str().ok());
        if meant != Some(self.node.options.node.to_string().as_str()) {
            return Err(Status::failed_precondition("another node is meant"));
        }
        let theirs = headers
            .get(CLUSTER_HEADER)
            .and_then(|value| value.to_str().ok());
        let disk = headers
            .get(DISK_HEADER)
            .and_then(|value| value.to_str().ok());
        let other_disk = disk.filter(|disk| *disk != self.node.options.disk_id);
        match (theirs, self.node.cluster.peers.cluster()) {
            (Some(theirs), Some(ours)) if theirs != ours => {
                if let Some(disk) = other_disk {
                    self.node.refuse_cluster(theirs, disk);
                }
                return Err(Status::failed_precondition(
                    "the caller belongs to another cluster",
                ));
            }
            _ => {}
        }
        if other_disk.is_some() {
            self.node.refuse_disk();
            return Err(Status::failed_precondition("this node has another disk"));
        }
        Ok(())
    }

    /// Raft itself answers only after [`RaftNode::join`] found that this disk may take part.
    fn check_joined<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.check(request)?;
        match self.node.has_joined() {
            true => Ok(()),
            false => Err(Status::failed_precondition("this node has not joined yet")),
        }
    }

    fn not_leader(&self) -> wire::NotLeader {
        wire::NotLeader {
            leader: self.node.cluster.leader().map_or(0, |leader| leader.node.0),
        }
    }
}

#[tonic::async_trait]
impl Raft for Service {
    async fn append(&self, request: Request<wire::AppendRequest>) -> Answer<wire::AppendResponse> {
        self.check_joined(&request)?;
        let request = convert::append_from_wire(request.into_inner()).map_err(malformed)?;
        let response = self
            .node
            .cluster
            .raft
            .append_entries(request)
            .await
            .map_err(stopped)?;
        if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
            self.node.heard_from_leader();
        }
        Ok(Response::new(convert::append_response_to_wire(response)))
    }

    async fn vote(&self, request: Request<wire::VoteRequest>) -> Answer<wire::VoteResponse> {
        self.check_joined(&request)?;
        let request = convert::vote_request_from_wire(request.into_inner()).map_err(malformed)?;
        let response = self
            .node
            .cluster
            .raft
            .vote(request)
            .await
            .map_err(stopped)?;
        Ok(Response::new(convert::vote_response_to_wire(&response)))
    }

    async fn pre_vote(&self, request: Request<wire::VoteRequest>) -> Answer<wire::VoteResponse> {
        self.check_joined(&request)?;
        let request = convert::vote_request_from_wire(request.into_inner()).map_err(malformed)?;
        let response = self
            .node
            .cluster
            .raft
            .pre_vote(request)
            .await
            .map_err(stopped)?;
        Ok(Response::new(convert::vote_response_to_wire(&response)))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Answer<wire::TransferLeaderResponse> {
        self.check_joined(&request)?;
        let request = convert::transfer_from_wire(request.into_inner()).map_err(malformed)?;
        let response = self
            .node
            .cluster
            .raft
            .handle_transfer_leader(request)
            .await
            .map_err(stopped)?;
        Ok(Response::new(convert::transfer_response_to_wire(response)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotChunk>>,
    ) -> Answer<wire::SnapshotResponse> {
        self.check_joined(&request)?;
        // One at a time: two would fill the disk with copies of the same state.
        let _turn = self
            .node
            .receiving
            .try_acquire()
            .map_err(|_| Status::resource_exhausted("another snapshot is being received"))?;
        self.node
            .receive_snapshot(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn forward(
        &self,
        request: Request<wire::ForwardRequest>,
    ) -> Answer<wire::ForwardResponse> {
        use wire::forward_response::Result as Wire;
        self.check_joined(&request)?;
        let request = request.into_inner();
        // An entry that cannot be decoded would stop every node when it is applied: it must not enter the log.
        if request.entry.len() > MAX_ENTRY_BYTES
            || codec::decode_entry(request.entry.clone()).is_err()
        {
            return Err(Status::invalid_argument("not an entry"));
        }
        let failed = |error: std::io::Error| Status::internal(error.to_string());
        hit("forward_before_propose").map_err(failed)?;
        let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
        let result = match self
            .node
            .cluster
            .propose_here(request.entry, deadline)
            .await
        {
            Attempt::Done(outcome) => Wire::Outcome(codec::encode_outcome(&outcome)),
            Attempt::NotProposed(Obstacle::NoQuorum) => Wire::NoQuorum(wire::Empty {}),
            Attempt::NotProposed(_) => Wire::NotLeader(self.not_leader()),
            Attempt::Unknown => Wire::Unknown(wire::Empty {}),
            Attempt::Stopped(error) => return Err(stopped(error)),
        };
        hit("forward_before_answer").map_err(failed)?;
        Ok(Response::new(wire::ForwardResponse {
            result: Some(result),
        }))
    }

    async fn read_index(
        &self,
        request: Request<wire::ReadIndexRequest>,
    ) -> Answer<wire::ReadIndexResponse> {
        use wire::read_index_response::Result as Wire;
        self.check_joined(&request)?;
        // A follower that believes this node leads must not be sent on: it would wait for two hops.
        if !self.node.cluster.is_leader() {
            let result = Wire::NotLeader(self.not_leader());
            return Ok(Response::new(wire::ReadIndexResponse {
                result: Some(result),
            }));
        }
        let result = match self.node.reads.read_index().await {
            Ok(index) => Wire::Index(index.0),
            Err(Obstacle::NoQuorum) => Wire::NoQuorum(wire::Empty {}),
            Err(_) => Wire::NotLeader(self.not_leader()),
        };
        Ok(Response::new(wire::ReadIndexResponse {
            result: Some(result),
        }))
    }

    async fn probe(&self, request: Request<wire::ProbeRequest>) -> Answer<wire::ProbeResponse> {
        self.check(&request)?;
        let asking = NodeId(request.into_inner().node);
        self.node
            .answer_probe(asking)
            .map(Response::new)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl RaftNode {
    async fn receive_snapshot(
        &self,
        mut parts: Streaming<wire::SnapshotChunk>,
    ) -> Result<wire::SnapshotResponse, Status> {
        use wire::snapshot_chunk::Part;
        let Some(Part::Header(header)) = parts.message().await?.and_then(|chunk| chunk.part) else {
            return Err(Status::invalid_argument(
                "a snapshot begins with its header",
            ));
        };
        let vote = convert::vote_from_wire(header.vote).map_err(malformed)?;
        let meta = SnapshotMeta {
            last_log_id: header.last.map(convert::log_id_from_wire),
            last_membership: convert::stored_membership_from_wire(header.membership)
                .map_err(malformed)?,
        };
        if meta
            .last_log_id
            .is_some_and(|last| last.leader_id > vote.leader_id)
        {
            return Err(Status::invalid_argument(
                "the snapshot is newer than its leader",
            ));
        }
        let failed = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
        let (received, file) = ReceivedFile::create(&self.options.snapshot_directory)
            .map_err(|error| failed(&error))?;
        let mut file = tokio::fs::File::from_std(file);
        let mut size_bytes = 0;
        loop {
            self.heard_from_leader();
            match parts.message().await?.and_then(|chunk| chunk.part) {
                Some(Part::Data(data)) => {
                    size_bytes += data.len() as u64;
                    hit("snapshot_receive_chunk").map_err(|error| failed(&error))?;
                    file.write_all(&data)
                        .await
                        .map_err(|error| failed(&error))?;
                }
                Some(Part::End(end)) if end.size_bytes == size_bytes => break,
                _ => return Err(Status::data_loss("the snapshot is not whole")),
            }
        }
        file.flush().await.map_err(|error| failed(&error))?;
        hit("snapshot_received").map_err(|error| failed(&error))?;
        let snapshot = SnapshotOf::<TypeConfig, SnapshotData> {
            meta,
            snapshot: SnapshotData::Received(received),
        };
        let response = self
            .cluster
            .raft
            .install_full_snapshot(vote, snapshot)
            .await
            .map_err(stopped)?;
        self.heard_from_leader();
        Ok(wire::SnapshotResponse {
            vote: Some(convert::vote_to_wire(&response.vote)),
        })
    }
}
