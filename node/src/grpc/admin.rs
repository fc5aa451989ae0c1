//! Administration: status, checking the state, forming the cluster, adding and removing members, giving and taking votes, moving the
//! leader.

use std::time::{Duration, Instant};

use consensus::{GivenUp, Member, MembershipError, RaftNode, RemoveOptions, Role};
use metadata::ids::{LogIndex, NodeId};
use metadata::log::{self, MetadataLog as _};
use metadata::query;
use proto::admin as wire;
use proto::admin::admin_client::AdminClient;
use proto::admin::admin_server::{Admin, AdminServer};
use storage::blob::BlobStore as _;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::heal::state_name;
use super::{AdminParts, check, status};

/// How long adding a member may take; it may have to copy the whole state.
const ADD_TIME: Duration = Duration::from_secs(600);
/// Longer nobody waits for another leader.
const LONGEST_TRANSFER: Duration = Duration::from_secs(60);
/// How long a removal may take; a copy whose node does not drop it takes an entry.
const REMOVE_TIME: Duration = Duration::from_secs(600);
/// How long one entry may take.
const DECISION_TIME: Duration = Duration::from_secs(10);
/// Blobs named in one answer, which has to fit into a message; the log of the leader names all.
const LISTED_MAX: usize = 20_000;
/// What an answer of the leader takes besides.
const PASSING_TIME: Duration = Duration::from_secs(2);
/// Marks a request that another node passed on to the leader, so that it is not passed on again.
pub(super) const PASSED_ON: &str = "argosy-passed-on";

/// The admin service of this node.
pub struct AdminFront {
    parts: AdminParts,
}

impl AdminFront {
    /// A service over the parts of this node.
    pub fn new(parts: AdminParts) -> AdminFront {
        AdminFront { parts }
    }

    /// To be mounted on the gRPC front.
    pub fn into_service(self) -> AdminServer<AdminFront> {
        AdminServer::new(self)
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Learner => "learner",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
        Role::Stopped => "stopped",
    }
}

fn index(index: Option<LogIndex>) -> u64 {
    index.map_or(0, |index| index.0)
}

#[tonic::async_trait]
impl Admin for AdminFront {
    async fn status(
        &self,
        _request: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusReply>, Status> {
        let parts = &self.parts;
        let raft = parts.raft.status();
        let (cluster, stats, local_blobs) = log::read(parts.raft.as_ref(), |view| {
            let local = query::copies_on(view, raft.node)?.blobs;
            Ok((query::cluster(view)?, query::stats(view)?, local))
        })
        .map_err(|error| status::of_view(&error))?;
        // A disk that does not even tell its size is named by the reason.
        let disk = parts.blobs.usage().await.unwrap_or_default();
        let not_ready = crate::readiness::reason(&parts.raft, &parts.blobs);
        let cluster = cluster.as_ref();
        Ok(Response::new(wire::StatusReply {
            node_id: raft.node.0,
            cluster_id: cluster
                .map(|cluster| cluster.cluster_id.clone())
                .unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            role: role_name(raft.role).to_owned(),
            leader_id: raft.leader.map(|leader| leader.0),
            term: raft.term,
            last_log_index: index(raft.last_log_index),
            committed_index: index(raft.committed),
            applied_index: raft.applied.0,
            members: raft
                .members
                .iter()
                .map(|member| wire::Member {
                    id: member.node.0,
                    grpc_address: member.grpc_address.clone(),
                    voter: member.is_voter,
                    matched_index: member.matched.map(|matched| matched.0),
                    round_trip_us: None,
                })
                .collect(),
            ready: not_ready.is_none(),
            reason: not_ready.unwrap_or_default(),
            http_address: parts.http_address.clone(),
            grpc_address: parts.grpc_address.clone(),
            copies: cluster.map_or(0, |cluster| cluster.copies),
            write_copies: cluster.map_or(0, |cluster| cluster.write_copies),
            totals: Some(wire::Totals {
                repositories: stats.repositories,
                tags: stats.tags,
                manifests: stats.manifests,
                blobs: stats.blobs,
                blob_bytes: stats.blob_bytes,
                missing_copies: stats.missing_copies,
            }),
            disk: Some(wire::Disk {
                total_bytes: disk.total_bytes,
                free_bytes: disk.free_bytes,
            }),
            local_blobs,
        }))
    }

    async fn check(
        &self,
        _request: Request<wire::CheckRequest>,
    ) -> Result<Response<wire::CheckReply>, Status> {
        let (raft, stop) = (self.parts.raft.clone(), self.parts.stop.clone());
        Ok(Response::new(check::run(raft, stop).await?))
    }

    async fn init(
        &self,
        request: Request<wire::InitRequest>,
    ) -> Result<Response<wire::InitReply>, Status> {
        let members: Vec<Member> = request
            .into_inner()
            .members
            .into_iter()
            .map(member)
            .collect();
        let formed = self.parts.raft.initialize(&members).await;
        formed.map_err(|error| status::of_membership(&error))?;
        Ok(Response::new(wire::InitReply {}))
    }

    async fn add_member(
        &self,
        request: Request<wire::AddMemberRequest>,
    ) -> Result<Response<wire::AddMemberReply>, Status> {
        let passed_on = request.metadata().contains_key(PASSED_ON);
        let wanted = request.into_inner();
        let new = Member {
            node: NodeId(wanted.id),
            grpc_address: wanted.grpc_address.clone(),
        };
        let deadline = Instant::now() + ADD_TIME;
        let raft = &self.parts.raft;
        let added = match wanted.learner {
            true => raft.add_learner(&new, deadline).await,
            false => raft.add_voter(&new, deadline).await,
        };
        match added {
            Ok(()) => {
                // Of the leader, not of this node: what the new member must have before it may serve.
                let committed = raft.barrier(deadline).await;
                let log_index = committed
                    .map_err(|error| Status::unavailable(error.to_string()))?
                    .0;
                Ok(Response::new(wire::AddMemberReply { log_index }))
            }
            Err(error) => {
                let asked = (wanted, passed_on, ADD_TIME);
                let (mut client, request) = self.to_leader(error, asked).await?;
                client.add_member(request).await
            }
        }
    }

    async fn change_vote(
        &self,
        request: Request<wire::ChangeVoteRequest>,
    ) -> Result<Response<wire::ChangeVoteReply>, Status> {
        let passed_on = request.metadata().contains_key(PASSED_ON);
        let wanted = request.into_inner();
        let node = NodeId(wanted.node_id);
        let raft = &self.parts.raft;
        let deadline = Instant::now() + ADD_TIME;
        let changed = match wanted.vote {
            true => raft.promote(node, deadline).await,
            false => raft.demote(node, wanted.allow_few, deadline).await,
        };
        match changed {
            Ok(()) => Ok(Response::new(wire::ChangeVoteReply {})),
            Err(error) => {
                let asked = (wanted, passed_on, ADD_TIME);
                let (mut client, request) = self.to_leader(error, asked).await?;
                client.change_vote(request).await
            }
        }
    }

    async fn drain(
        &self,
        request: Request<wire::DrainRequest>,
    ) -> Result<Response<wire::DrainReply>, Status> {
        let passed_on = request.metadata().contains_key(PASSED_ON);
        let wanted = request.into_inner();
        let node = NodeId(wanted.node_id);
        let drained = self
            .parts
            .raft
            .drain(node, wanted.draining, Instant::now() + DECISION_TIME);
        match drained.await {
            Ok(status) => Ok(Response::new(wire::DrainReply {
                state: state_name(status.state).to_owned(),
                blobs: status.held.blobs,
                bytes: status.held.bytes,
                needed_blobs: status.needed.blobs,
                needed_bytes: status.needed.bytes,
            })),
            Err(error) => {
                let asked = (wanted, passed_on, DECISION_TIME + PASSING_TIME);
                let (mut client, request) = self.to_leader(error, asked).await?;
                client.drain(request).await
            }
        }
    }

    async fn remove_member(
        &self,
        request: Request<wire::RemoveMemberRequest>,
    ) -> Result<Response<wire::RemoveMemberReply>, Status> {
        let passed_on = request.metadata().contains_key(PASSED_ON);
        let wanted = request.into_inner();
        match self.remove(&wanted).await {
            Ok(given_up) => Ok(Response::new(removed(&given_up))),
            Err(error) => {
                let asked = (wanted, passed_on, REMOVE_TIME);
                let (mut client, request) = self.to_leader(error, asked).await?;
                client.remove_member(request).await
            }
        }
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderReply>, Status> {
        let passed_on = request.metadata().contains_key(PASSED_ON);
        let wanted = request.into_inner();
        let time = Duration::from_millis(wanted.timeout_ms).min(LONGEST_TRANSFER);
        let raft = &self.parts.raft;
        let to = wanted.to.map(NodeId);
        match raft.transfer_leadership(to, Instant::now() + time).await {
            Ok(leader) => Ok(Response::new(wire::TransferLeaderReply {
                leader_id: leader.0,
            })),
            Err(error) => {
                let asked = (wanted, passed_on, time + PASSING_TIME);
                let (mut client, request) = self.to_leader(error, asked).await?;
                client.transfer_leader(request).await
            }
        }
    }
}

impl AdminFront {
    /// What it takes to ask the leader, so that an operator may ask any node; or the error, when no other node could do
    /// better, or one has been asked already.
    async fn to_leader<T>(
        &self,
        error: MembershipError,
        (wanted, passed_on, time): (T, bool, Duration),
    ) -> Result<(AdminClient<Channel>, Request<T>), Status> {
        let raft = &self.parts.raft;
        let leader = match error {
            MembershipError::NotLeader {
                leader: Some(leader),
            } if !passed_on => leader,
            // Nothing else is in the way of losing its own vote: this node gives leadership away.
            MembershipError::Leads { .. } => raft
                .transfer_leadership(None, Instant::now() + DECISION_TIME)
                .await
                .map_err(|error| status::of_membership(&error))?,
            error => return Err(status::of_membership(&error)),
        };
        let client = AdminClient::new(leader_channel_to(raft, leader).await?);
        let mut request = Request::new(wanted);
        mark_passed_on(&mut request, time);
        Ok((client, request))
    }

    /// In a task of its own: an operator who leaves does not stop it between two steps.
    async fn remove(
        &self,
        wanted: &wire::RemoveMemberRequest,
    ) -> Result<Vec<GivenUp>, MembershipError> {
        let raft = self.parts.raft.clone();
        let node = NodeId(wanted.node_id);
        let options = RemoveOptions {
            force: wanted.force,
            allow_few: wanted.allow_few,
        };
        let removing = tokio::spawn(async move {
            let deadline = Instant::now() + REMOVE_TIME;
            raft.remove(node, options, deadline).await
        });
        let failed = |error: tokio::task::JoinError| MembershipError::Fatal(error.to_string());
        removing.await.map_err(failed)?
    }
}

fn removed(given_up: &[GivenUp]) -> wire::RemoveMemberReply {
    let listed = given_up.iter().take(LISTED_MAX);
    wire::RemoveMemberReply {
        given_up_blobs: given_up.len() as u64,
        given_up: listed
            .map(|blob| wire::GivenUpBlob {
                digest: blob.digest.to_string(),
                copies: blob.copies,
            })
            .collect(),
    }
}

/// A connection to the node that leads, as far as this one knows.
pub(super) async fn leader_channel(raft: &RaftNode) -> Result<Channel, Status> {
    let leader = raft.status().leader;
    let leader = leader.ok_or_else(|| Status::unavailable("no leader is known"))?;
    leader_channel_to(raft, leader).await
}

async fn leader_channel_to(raft: &RaftNode, leader: NodeId) -> Result<Channel, Status> {
    let members = raft.status().members;
    let address = members.into_iter().find(|member| member.node == leader);
    let address = address.ok_or_else(|| Status::unavailable("the leader is not known"))?;
    let unreachable = |error: tonic::transport::Error| Status::unavailable(error.to_string());
    Endpoint::from_shared(format!("http://{}", address.grpc_address))
        .map_err(unreachable)?
        .connect()
        .await
        .map_err(unreachable)
}

/// The leader shall not pass it on again, and has this long.
pub(super) fn mark_passed_on<T>(request: &mut Request<T>, time: Duration) {
    let mark = MetadataValue::from_static("1");
    request.metadata_mut().insert(PASSED_ON, mark);
    request.set_timeout(time);
}

fn member(wire: wire::InitMember) -> Member {
    Member {
        node: NodeId(wire.id),
        grpc_address: wire.grpc_address,
    }
}
