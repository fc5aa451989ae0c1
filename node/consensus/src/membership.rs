//! Who belongs to the cluster and who votes: forming it, adding members, giving and taking votes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::future::join_all;
use metadata::ids::NodeId;
use metadata::log::MetadataLog as _;
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, InitializeError, RaftError};
use tonic::Code;

use crate::error::{MembershipError, log_error, log_hit};
use crate::facts;
use crate::leadership::answers;
use crate::node::RaftNode;
use crate::options::Member;
use crate::types::{Metrics, NodeAddress, TypeConfig};

/// A learner may vote once it lacks fewer entries than this (protocols.md section 9).
const PROMOTION_LAG_ENTRIES: u64 = 100;
/// Fewer voters do not survive the loss of one.
const FEWEST_VOTERS: usize = 3;
/// How long a majority may take to say who leads.
const CONFIRM_TIME: Duration = Duration::from_secs(10);
/// Between two questions whether a new member is there.
const PROBE_PAUSE: Duration = Duration::from_millis(500);

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

    /// Adds a node that receives the log and has no vote. Adding a member does nothing. Only on the leader.
    ///
    /// # Errors
    /// Not the leader, another change under way, the number is spent, or nobody with it answers at the address before
    /// `deadline`. The call may be repeated.
    pub async fn add_learner(
        &self,
        member: &Member,
        deadline: Instant,
    ) -> Result<(), MembershipError> {
        let _turn = self.begin_change(deadline).await?;
        self.join_as_learner(member, deadline).await
    }

    /// Adds a voter: first as a learner, then, once it has all but a few entries, with a vote. Adding a voter
    /// that is one already does nothing but finish a change that was left halfway. Only on the leader.
    ///
    /// # Errors
    /// As for [`RaftNode::add_learner`], or not caught up at `deadline`; the node then stays a learner.
    pub async fn add_voter(
        &self,
        member: &Member,
        deadline: Instant,
    ) -> Result<(), MembershipError> {
        let _turn = self.begin_change(deadline).await?;
        self.join_as_learner(member, deadline).await?;
        self.give_vote(member.node, deadline).await
    }

    /// Gives a learner a vote once it has all but a few entries. Only on the leader.
    ///
    /// # Errors
    /// Not the leader, another change under way, no member, or not caught up at `deadline`.
    pub async fn promote(&self, node: NodeId, deadline: Instant) -> Result<(), MembershipError> {
        let _turn = self.begin_change(deadline).await?;
        if !self.is_member(node) {
            return Err(MembershipError::Unknown { node });
        }
        self.give_vote(node, deadline).await
    }

    /// Makes a voter a learner: it keeps its copies and goes on serving. Only on the leader.
    ///
    /// # Errors
    /// Not the leader, another change under way, no member, the node leads, or the voters that would be left are too
    /// few, or too few of them answer.
    pub async fn demote(
        &self,
        node: NodeId,
        allow_few: bool,
        deadline: Instant,
    ) -> Result<(), MembershipError> {
        let _turn = self.begin_change(deadline).await?;
        if !self.is_member(node) {
            return Err(MembershipError::Unknown { node });
        }
        if !self.is_voter(node) {
            return Ok(());
        }
        self.check_voters_without(node, allow_few)?;
        let change = ChangeMembers::RemoveVoters(BTreeSet::from([node.0]));
        self.finish(self.cluster.raft.change_membership(change, true), deadline)
            .await
    }

    /// One change at a time, by a leader that leads, after what was left halfway.
    pub(crate) async fn begin_change(
        &self,
        deadline: Instant,
    ) -> Result<tokio::sync::MutexGuard<'_, ()>, MembershipError> {
        let turn = self.take_turn()?;
        self.confirm_leads(deadline).await?;
        if self.is_change_unfinished() {
            self.finish_change(deadline).await?;
        }
        Ok(turn)
    }

    pub(crate) fn take_turn(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, MembershipError> {
        self.changing_membership
            .try_lock()
            .map_err(|_| MembershipError::Busy)
    }

    async fn join_as_learner(
        &self,
        member: &Member,
        deadline: Instant,
    ) -> Result<(), MembershipError> {
        let node = member.node;
        if facts::is_removed(&*self.state, node)? {
            return Err(MembershipError::Removed { node });
        }
        if self.is_member(node) {
            return Ok(());
        }
        let address = NodeAddress {
            grpc_address: member.grpc_address.clone(),
        };
        self.wait_until_it_answers(member, deadline).await?;
        log_hit("member_before_learner")?;
        let added = self.cluster.raft.add_learner(node.0, address, false);
        self.finish(added, deadline).await
    }

    async fn give_vote(&self, node: NodeId, deadline: Instant) -> Result<(), MembershipError> {
        if self.is_voter(node) {
            return Ok(());
        }
        self.wait_until_caught_up(node, deadline).await?;
        log_hit("member_before_vote")?;
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([node.0]));
        self.finish(self.cluster.raft.change_membership(change, true), deadline)
            .await
    }

    /// What is left without the vote of `node` must survive a loss, and be able to decide now.
    pub(crate) fn check_voters_without(
        &self,
        node: NodeId,
        allow_few: bool,
    ) -> Result<(), MembershipError> {
        let voters: Vec<u64> = self.cluster.raft.voter_ids().collect();
        let left = voters.iter().filter(|voter| **voter != node.0).count();
        if left < FEWEST_VOTERS && !allow_few && left < voters.len() {
            return Err(MembershipError::TooFewVoters { left });
        }
        self.check_majority_without(node)?;
        // Last: whoever hears this moves the leader, and should not do so for nothing.
        match node == self.options.node {
            true => Err(MembershipError::Leads { node }),
            false => Ok(()),
        }
    }

    /// A change of voters cannot be taken back once it is in the log: those that are left must answer now.
    pub(crate) fn check_majority_without(&self, node: NodeId) -> Result<(), MembershipError> {
        // Cloned: another borrow while this one lasts could wait for a writer that waits for this one.
        let metrics = self.cluster.raft.metrics().borrow_watched().clone();
        let silence = self.options.election_timeout_max * 2;
        let left: Vec<u64> = metrics
            .membership_config
            .voter_ids()
            .filter(|voter| *voter != node.0)
            .collect();
        let is_heard =
            |voter: &&u64| **voter == self.options.node.0 || answers(&metrics, **voter, silence);
        let (answering, needed) = (left.iter().filter(is_heard).count(), left.len() / 2 + 1);
        match answering < needed {
            true => Err(MembershipError::NoMajority { answering, needed }),
            false => Ok(()),
        }
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
        // Not longer: whoever asked may have left, and what he asked for should not happen much later.
        let soon = Instant::now() + CONFIRM_TIME;
        self.barrier(deadline.min(soon)).await?;
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

    /// Whether `node` belongs to the cluster, with or without a vote.
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        let metrics = self.cluster.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.get_node(&node.0).is_some()
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

    /// A learner that is not there, or is another node, would stay among the members until somebody removes it.
    async fn wait_until_it_answers(
        &self,
        member: &Member,
        deadline: Instant,
    ) -> Result<(), MembershipError> {
        loop {
            match self.try_probe(member).await {
                Ok(_) => return Ok(()),
                Err(refused) if refused.code() == Code::FailedPrecondition => {
                    let (node, address) = (member.node, &member.grpc_address);
                    let reason = format!("node {node} is not at {address}: {}", refused.message());
                    return Err(MembershipError::Invalid(reason));
                }
                Err(_) if Instant::now() + PROBE_PAUSE >= deadline => {
                    return Err(MembershipError::Silent { node: member.node });
                }
                Err(_) => tokio::time::sleep(PROBE_PAUSE).await,
            }
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
