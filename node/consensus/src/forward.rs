//! Who leads, how to reach it, and one attempt to propose: here, or by one call to the leader.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use metadata::codec;
use metadata::ids::NodeId;
use metadata::log::LogError;
use metadata::response::Outcome;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardReason, RaftError};
use proto::raft as wire;
use tonic::Status;

use crate::error::{Obstacle, log_error};
use crate::network::peers::{Lane, Peers, was_not_sent};
use crate::types::{EntryBytes, Raft};

/// How one attempt to propose ended.
pub(crate) enum Attempt {
    /// Applied by the leader.
    Done(Outcome),
    /// Certainly not proposed.
    NotProposed(Obstacle),
    /// Perhaps proposed. Only the same request id may be sent again.
    Unknown,
    /// There is no point in trying again.
    Stopped(LogError),
}

/// The node that leads, as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) node: NodeId,
    pub(crate) address: String,
}

/// This node's seat in the cluster: Raft, and the way to the others.
pub(crate) struct Cluster {
    pub(crate) node: NodeId,
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
}

impl Cluster {
    pub(crate) fn is_leader(&self) -> bool {
        self.raft.is_leader()
    }

    pub(crate) fn leader(&self) -> Option<Leader> {
        let receiver = self.raft.server_metrics();
        let metrics = receiver.borrow_watched();
        let node = metrics.current_leader?;
        let in_membership = metrics
            .membership_config
            .get_node(&node)
            .map(|node| node.grpc_address.as_str());
        let address = self.peers.address(node, in_membership)?;
        Some(Leader {
            node: NodeId(node),
            address,
        })
    }

    /// Waits until something changed in who leads, at most `longest`. A new leader also refuses writes until
    /// its first quorum has answered, which is not seen here: hence callers keep `longest` short.
    pub(crate) async fn leader_may_have_changed(&self, longest: Duration) {
        let mut metrics = self.raft.server_metrics();
        // The current value counts as seen; an error means that Raft stopped, which the next attempt finds.
        metrics.borrow_and_update();
        let _ = tokio::time::timeout(longest, metrics.changed()).await;
    }

    /// Completes when this node knows another leader than `node`.
    pub(crate) async fn no_longer_leads(&self, node: NodeId) {
        let mut metrics = self.raft.server_metrics();
        loop {
            let leader = metrics.borrow_and_update().current_leader;
            if leader.is_some_and(|leader| leader != node.0) || metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Proposes on this node, if it leads.
    pub(crate) async fn propose_here(&self, entry: Bytes, deadline: Instant) -> Attempt {
        if let Some(error) = self.raft_stopped() {
            return Attempt::Stopped(error);
        }
        let write = self.raft.client_write(EntryBytes(entry));
        match tokio::time::timeout_at(deadline.into(), write).await {
            Err(_) => Attempt::Unknown,
            Ok(Ok(written)) => match written.data.0 {
                Some(outcome) => Attempt::Done(outcome),
                None => Attempt::Stopped(LogError::Fatal(
                    "a command was applied without an outcome".into(),
                )),
            },
            // Raft stopped with the entry perhaps in its log and in those of others, who may still commit it.
            Ok(Err(RaftError::Fatal(fatal))) => {
                tracing::debug!(error = %log_error(fatal), "raft stopped during a proposal");
                Attempt::Unknown
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Attempt::NotProposed(match forward.reason {
                    ForwardReason::LeaseExpired => Obstacle::NoQuorum,
                    ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
                        Obstacle::NoLeader
                    }
                })
            }
            // The leader was deposed with the entry in its log: the next leader may or may not have it.
            Ok(Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)))) => {
                Attempt::Unknown
            }
            Ok(Err(RaftError::APIError(
                error @ (ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_)),
            ))) => Attempt::Stopped(LogError::Fatal(error.to_string())),
        }
    }

    /// Proposes on the leader, by one call.
    pub(crate) async fn propose_at(
        &self,
        leader: &Leader,
        entry: Bytes,
        deadline: Instant,
    ) -> Attempt {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let timeout_ms = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
        let mut client = match self.peers.client(Lane::Proposals, &leader.address) {
            Ok(client) => client,
            Err(_) => return Attempt::NotProposed(Obstacle::NoLeader),
        };
        let request = self
            .peers
            .request(leader.node, wire::ForwardRequest { entry, timeout_ms });
        tokio::select! {
            answer = client.forward(request) => match answer {
                Ok(response) => forwarded(response.into_inner()),
                Err(status) => refused(&status),
            },
            // A stopped leader answers nothing. The next one may be asked, because the request id stays.
            () = self.no_longer_leads(leader.node) => Attempt::Unknown,
            () = tokio::time::sleep_until(deadline.into()) => Attempt::Unknown,
        }
    }

    /// Proposes wherever the leader is.
    pub(crate) async fn propose(&self, entry: Bytes, deadline: Instant) -> Attempt {
        match self.leader() {
            None => match self.raft_stopped() {
                Some(error) => Attempt::Stopped(error),
                None => Attempt::NotProposed(Obstacle::NoLeader),
            },
            Some(leader) if leader.node == self.node => self.propose_here(entry, deadline).await,
            Some(leader) => self.propose_at(&leader, entry, deadline).await,
        }
    }

    /// Why Raft no longer runs on this node, if so.
    pub(crate) fn raft_stopped(&self) -> Option<LogError> {
        let receiver = self.raft.metrics();
        let metrics = receiver.borrow_watched();
        metrics.running_state.clone().err().map(log_error)
    }
}

fn forwarded(response: wire::ForwardResponse) -> Attempt {
    use wire::forward_response::Result as Wire;
    match response.result {
        Some(Wire::Outcome(outcome)) => match codec::decode_outcome(outcome) {
            Ok(outcome) => Attempt::Done(outcome),
            Err(error) => {
                tracing::error!(%error, "the leader's answer cannot be decoded");
                Attempt::Unknown
            }
        },
        Some(Wire::NotLeader(_)) => Attempt::NotProposed(Obstacle::NoLeader),
        Some(Wire::NoQuorum(_)) => Attempt::NotProposed(Obstacle::NoQuorum),
        Some(Wire::Unknown(_)) | None => Attempt::Unknown,
    }
}

fn refused(status: &Status) -> Attempt {
    match status.code() {
        _ if was_not_sent(status) => Attempt::NotProposed(Obstacle::NoLeader),
        // Answered by the checks of the service, before the proposal.
        tonic::Code::FailedPrecondition => Attempt::NotProposed(Obstacle::NoLeader),
        tonic::Code::InvalidArgument => {
            Attempt::Stopped(LogError::Fatal(status.message().to_owned()))
        }
        _ => Attempt::Unknown,
    }
}
