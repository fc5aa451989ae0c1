//! What an operator and a load balancer want to know.

use std::time::Duration;

use metadata::ids::{LogIndex, NodeId};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant, ServerState};

use crate::membership::lag;
use crate::node::RaftNode;
use crate::types::Metrics;

/// Raft role of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Receives the log, has no vote.
    Learner,
    /// Follows a leader or waits for one.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Stopped.
    Stopped,
}

/// The cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub node: NodeId,
    /// Who leads.
    pub leader: Option<NodeId>,
    /// This node's role.
    pub role: Role,
    /// Raft term.
    pub term: u64,
    /// Last entry in this node's log.
    pub last_log_index: Option<LogIndex>,
    /// Last entry known to be committed.
    pub committed: Option<LogIndex>,
    /// Last entry applied here.
    pub applied: LogIndex,
    /// The members.
    pub members: Vec<MemberStatus>,
}

/// One member as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Which node.
    pub node: NodeId,
    /// Its gRPC address.
    pub grpc_address: String,
    /// Whether it has a vote.
    pub is_voter: bool,
    /// Last entry it has for certain; only the leader knows, and of itself everybody.
    pub matched: Option<LogIndex>,
    /// Entries it lacks; known where `matched` is.
    pub lag_entries: Option<u64>,
    /// Milliseconds since it answered the leader; only the leader knows.
    pub last_contact_ms: Option<u64>,
}

impl RaftNode {
    /// The cluster as this node sees it.
    pub fn status(&self) -> Status {
        let metrics = self.metrics();
        Status {
            node: self.options.node,
            leader: metrics.current_leader.map(NodeId),
            role: role(metrics.state),
            term: metrics.current_term,
            last_log_index: metrics.last_log_index.map(LogIndex),
            committed: metrics.cluster_committed.map(|id| LogIndex(id.index)),
            applied: self.applied(),
            members: self.members(&metrics),
        }
    }

    /// Whether this node can serve: it knows a leader, heard from it (or, leading, from a quorum) within two
    /// election timeouts, has applied nearly everything that is committed, and its disk answers.
    pub fn is_ready(&self) -> bool {
        let metrics = self.metrics();
        if metrics.current_leader.is_none()
            || metrics.running_state.is_err()
            || self.is_claimed_elsewhere()
            || self.disk_hangs()
        {
            return false;
        }
        let heard = self.silence(&metrics);
        let is_in_touch = heard.is_some_and(|heard| heard < self.options.election_timeout_max * 2);
        let committed = metrics.cluster_committed.map_or(0, |id| id.index);
        let lag_entries = committed.saturating_sub(self.applied().0);
        is_in_touch
            && lag_entries <= self.options.ready_lag_entries
            && metrics.cluster_committed.is_some()
    }

    /// How long ago a leader (or, on the leader, a quorum) was heard.
    fn silence(&self, metrics: &Metrics) -> Option<Duration> {
        match metrics.state {
            // A single voter is its own quorum and has nobody to hear from.
            ServerState::Leader if self.cluster.raft.voter_ids().count() == 1 => {
                Some(Duration::ZERO)
            }
            ServerState::Leader => metrics.last_quorum_acked.map(|acked| acked.elapsed()),
            _ => self.last_heard(),
        }
    }

    /// On the leader: how long ago a member answered it, as of its last answer.
    pub(crate) fn silence_of(&self, node: NodeId) -> Option<Duration> {
        let metrics = self.cluster.raft.metrics();
        let answered = metrics
            .borrow_watched()
            .heartbeat
            .as_ref()?
            .get(&node.0)
            .copied()?;
        answered.map(|answered| answered.elapsed())
    }

    fn metrics(&self) -> Metrics {
        // Cloned at once: holding the borrow would block Raft.
        self.cluster.raft.metrics().borrow_watched().clone()
    }

    fn members(&self, metrics: &Metrics) -> Vec<MemberStatus> {
        let membership = &metrics.membership_config;
        let voters: Vec<u64> = membership.voter_ids().collect();
        let member = |(node, address): (&u64, &crate::types::NodeAddress)| {
            let is_here = *node == metrics.id;
            let matched = match is_here {
                true => metrics.last_log_index,
                false => {
                    let replication = metrics.replication.as_ref();
                    replication
                        .and_then(|all| all.get(node).copied().flatten())
                        .map(|id| id.index)
                }
            };
            let answered = metrics
                .heartbeat
                .as_ref()
                .and_then(|all| all.get(node).copied().flatten());
            MemberStatus {
                node: NodeId(*node),
                grpc_address: self
                    .cluster
                    .peers
                    .address(*node, Some(&address.grpc_address))
                    .unwrap_or_default(),
                is_voter: voters.contains(node),
                matched: matched.map(LogIndex),
                lag_entries: if is_here {
                    Some(0)
                } else {
                    lag(metrics, *node)
                },
                last_contact_ms: answered.filter(|_| !is_here).map(|answered| {
                    u64::try_from(answered.elapsed().as_millis()).unwrap_or(u64::MAX)
                }),
            }
        };
        membership.nodes().map(member).collect()
    }
}

fn role(state: ServerState) -> Role {
    match state {
        ServerState::Learner => Role::Learner,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Leader => Role::Leader,
        ServerState::Shutdown => Role::Stopped,
    }
}
