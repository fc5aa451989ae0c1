//! Who belongs to the cluster: forming it, adding a voter.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures::future::join_all;
use metadata::ids::NodeId;
use metadata::log::MetadataLog as _;
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, InitializeError, RaftError};

use crate::error::{MembershipError, log_error, log_hit};
use crate::facts;
use crate::node::RaftNode;
use crate::options::Member;
use crate::types::{Metrics, NodeAddress, TypeConfig};

/// A learner may vote once it lacks fewer entries than this (protocols.md section 9).
const PROMOTION_LAG_ENTRIES: u64 = 100;

impl RaftNode {
    /// Forms a cluster of `members`, this node among them. All other members must be empty; a majority of them
    /// all must be reachable before anything can be written.
    ///
    /// # Errors
    /// [`MembershipError::AlreadyInitialized`] when this node, or another one that answers, has a log already.
    pub async fn initialize(&self, members: &[Member]) -> Result<(), MembershipError> {
        if !members
            .iter()
            .any(|member| member.node == self.options.node)
        {
            return Err(MembershipError::Invalid(
                "this node is not among them".into(),
            ));
        }
        let nodes: BTreeMap<u64, NodeAddress> = members
            .iter()
            .map(|member| {
                (
                    member.node.0,
                    NodeAddress {
                        grpc_address: member.grpc_address.clone(),
                    },
                )
            })
            .collect();
        if nodes.len() != members.len() {
            return Err(MembershipError::Invalid("a node is named twice".into()));
        }
        let others = members
            .iter()
            .filter(|member| member.node != self.options.node);
        let answers = join_all(others.map(|member| self.probe(member))).await;
        if answers
            .into_iter()
            .flatten()
            .any(|answer| answer.initialized)
        {
            return Err(MembershipError::AlreadyInitialized);
        }
        self.set_joined();
        match self.cluster.raft.initialize(nodes).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                Err(MembershipError::AlreadyInitialized)
            }
            Err(RaftError::APIError(InitializeError::NotInMembers(error))) => {
                Err(MembershipError::Invalid(error.to_string()))
            }
            Err(RaftError::Fatal(fatal)) => {
                Err(MembershipError::Fatal(log_error(fatal).to_string()))
            }
        }
    }

    /// Adds a voter: first as a learner, then, once it has all but a few entries, with a vote. Adding a voter
    /// that is one already does nothing but finish a change that was left halfway. Only on the leader.
    ///
    /// # Errors
    /// Not the leader, another change under way, or not caught up at `deadline`; the node then stays a
    /// learner and the call may be repeated.
    pub async fn add_voter(
        &self,
        member: &Member,
        deadline: Instant,
    ) -> Result<(), MembershipError> {
        let _turn = self
            .changing_membership
            .try_lock()
            .map_err(|_| MembershipError::Busy)?;
        let node = member.node;
        self.confirm_leads(deadline).await?;
        if facts::is_removed(&*self.state, node)? {
            return Err(MembershipError::Removed { node });
        }
        if self.is_change_unfinished() {
            self.finish_change(deadline).await?;
        }
        if self.is_voter(node) {
            return Ok(());
        }
        let address = NodeAddress {
            grpc_address: member.grpc_address.clone(),
        };
        log_hit("member_before_learner")?;
        let added = self.cluster.raft.add_learner(node.0, address, false);
        self.finish(added, deadline).await?;
        self.wait_until_caught_up(node, deadline).await?;
        log_hit("member_before_vote")?;
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([node.0]));
        self.finish(self.cluster.raft.change_membership(change, true), deadline)
            .await
    }

    /// Finishes a change that somebody began and did not live, or wait, to see finished; unless one is under way here.
    pub(crate) async fn resume_change(&self, deadline: Instant) -> Result<(), MembershipError> {
        match self.changing_membership.try_lock() {
            Ok(_turn) if self.is_change_unfinished() => {
                self.confirm_leads(deadline).await?;
                tracing::info!("finishing a membership change that was left halfway");
                self.finish_change(deadline).await
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// A node that led before it was restarted takes itself for the leader until it hears of another one: a majority says.
    pub(crate) async fn confirm_leads(&self, deadline: Instant) -> Result<(), MembershipError> {
        self.check_leads()?;
        self.barrier(deadline).await?;
        self.check_leads()
    }

    pub(crate) fn check_leads(&self) -> Result<(), MembershipError> {
        match self.cluster.is_leader() {
            true => Ok(()),
            false => Err(MembershipError::NotLeader {
                leader: self.leader(),
            }),
        }
    }

    /// Whether the members are in between: every decision needs a majority of the old and one of the new voters.
    pub(crate) fn is_change_unfinished(&self) -> bool {
        let metrics = self.cluster.raft.metrics();
        metrics
            .borrow_watched()
            .membership_config
            .membership()
            .get_joint_config()
            .len()
            > 1
    }

    pub(crate) async fn finish_change(&self, deadline: Instant) -> Result<(), MembershipError> {
        // Nothing is added: Raft goes on to the voters that the change was meant to end with.
        let change = ChangeMembers::AddVoterIds(BTreeSet::new());
        self.finish(self.cluster.raft.change_membership(change, true), deadline)
            .await
    }

    /// Whether `node` has a vote, as this node knows. While a change is unfinished, a vote among the old or the new voters.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.cluster.raft.voter_ids().any(|voter| voter == node.0)
    }

    pub(crate) async fn finish<T>(
        &self,
        change: impl Future<Output = Result<T, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>>,
        deadline: Instant,
    ) -> Result<(), MembershipError> {
        match tokio::time::timeout_at(deadline.into(), change).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(membership_error(error)),
            Err(_) => Err(MembershipError::OutcomeUnknown),
        }
    }

    async fn wait_until_caught_up(
        &self,
        node: NodeId,
        deadline: Instant,
    ) -> Result<(), MembershipError> {
        let mut metrics = self.cluster.raft.metrics();
        loop {
            let (lag_entries, has_answered) = {
                let metrics = metrics.borrow_and_update();
                let replication = metrics.replication.as_ref();
                let matched = replication.and_then(|all| all.get(&node.0).copied().flatten());
                (lag(&metrics, node.0), matched.is_some())
            };
            let Some(lag_entries) = lag_entries else {
                return Err(MembershipError::NotLeader {
                    leader: self.leader(),
                });
            };
            // A young log has few entries to lack: a vote for a node that never answered could cost the quorum.
            if has_answered && lag_entries < PROMOTION_LAG_ENTRIES {
                return Ok(());
            }
            match tokio::time::timeout_at(deadline.into(), metrics.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(MembershipError::Fatal("raft stopped".into())),
                Err(_) => return Err(MembershipError::TooFarBehind { node, lag_entries }),
            }
        }
    }
}

/// Entries that `node` lacks, seen from the leader; `None` when this node does not lead.
pub(crate) fn lag(metrics: &Metrics, node: u64) -> Option<u64> {
    let replication = metrics.replication.as_ref()?;
    let next = |index: Option<u64>| index.map_or(0, |index| index + 1);
    let matched = replication.get(&node).copied().flatten().map(|id| id.index);
    Some(next(metrics.last_log_index).saturating_sub(next(matched)))
}

fn membership_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> MembershipError {
    match error {
        RaftError::Fatal(fatal) => MembershipError::Fatal(log_error(fatal).to_string()),
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            MembershipError::NotLeader {
                leader: forward.leader_id.map(NodeId),
            }
        }
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
            MembershipError::OutcomeUnknown
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_),
        )) => MembershipError::Busy,
        RaftError::APIError(
            error @ (ClientWriteError::ChangeMembershipError(_)
            | ClientWriteError::PreconditionFailed(_)),
        ) => MembershipError::Invalid(error.to_string()),
    }
}
