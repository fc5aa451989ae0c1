//! Handing leadership over: before a stop, when the disk hangs, and when an operator asks for it.

use std::time::{Duration, Instant};

use metadata::ids::NodeId;
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;

use crate::error::MembershipError;
use crate::membership::lag;
use crate::node::RaftNode;
use crate::types::Metrics;

/// Between two looks at who leads.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

impl RaftNode {
    /// Who leads, as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.cluster.leader().map(|leader| leader.node)
    }

    /// Gives leadership, if this node has it, to the voter that lacks the least among those that answer. Returns when
    /// somebody else leads or at `deadline`; at once when there is nobody to take it.
    pub(crate) async fn hand_over(&self, deadline: Instant) {
        match self.transfer_leadership(None, deadline).await {
            Ok(leader) => tracing::info!(%leader, "handed leadership over"),
            Err(MembershipError::NotLeader { .. }) => {}
            Err(error) => tracing::info!(%error, "leadership was not handed over"),
        }
    }

    /// Gives leadership to `to`, or to the voter that lacks the least among those that answer. Returns who leads then,
    /// which is another one when an election came between. Only on the leader; at once when `to` is this node.
    ///
    /// # Errors
    /// This node does not lead, `to` has no vote or does not answer, nobody else with a vote answers, or nobody took
    /// leadership over before `deadline`.
    pub async fn transfer_leadership(
        &self,
        to: Option<NodeId>,
        deadline: Instant,
    ) -> Result<NodeId, MembershipError> {
        let me = self.options.node;
        let mut metrics = self.cluster.raft.metrics();
        let chosen = self.choose(&metrics.borrow_and_update(), to)?;
        if chosen == me {
            return Ok(me);
        }
        // It may be refused (a follower whose log is not flushed yet): it is asked for again meanwhile.
        let mut asked: Option<Instant> = None;
        while Instant::now() < deadline {
            let now = metrics.borrow_and_update().current_leader;
            if let Some(leader) = now.map(NodeId).filter(|leader| *leader != me) {
                return Ok(leader);
            }
            let is_time = asked.is_none_or(|at| at.elapsed() > self.options.election_timeout_min);
            if self.cluster.is_leader() {
                self.choose(&metrics.borrow_and_update(), to)?;
                if is_time {
                    asked = Some(Instant::now());
                    let raft = self.cluster.raft.trigger();
                    let fatal = |error: openraft::errors::Fatal<_>| {
                        MembershipError::Fatal(error.to_string())
                    };
                    raft.transfer_leader(chosen.0).await.map_err(fatal)?;
                }
            }
            let until = deadline.min(Instant::now() + LOOK_INTERVAL);
            if let Ok(Err(_)) = tokio::time::timeout_at(until.into(), metrics.changed()).await {
                return Err(MembershipError::Fatal("raft stopped".into()));
            }
        }
        Err(MembershipError::NotTakenOver { node: chosen })
    }

    /// Who shall lead, seen from the leader.
    fn choose(&self, metrics: &Metrics, to: Option<NodeId>) -> Result<NodeId, MembershipError> {
        if !metrics.state.is_leader() {
            let leader = self.leader();
            return Err(MembershipError::NotLeader { leader });
        }
        let mut voters = metrics.membership_config.voter_ids();
        if let Some(node) = to.filter(|node| !voters.any(|voter| voter == node.0)) {
            return Err(MembershipError::Invalid(format!("node {node} has no vote")));
        }
        // Who has been silent for so long cannot take over in time, either.
        let silence = self.options.election_timeout_max * 2;
        match to {
            Some(node) if node == self.options.node || answers(metrics, node.0, silence) => {
                Ok(node)
            }
            Some(node) => Err(MembershipError::Silent { node }),
            None => successor(metrics, silence).ok_or(MembershipError::NoSuccessor),
        }
    }
}

pub(crate) fn answers(metrics: &Metrics, node: u64, silence: Duration) -> bool {
    let heard = metrics.heartbeat.as_ref();
    let answered = heard.and_then(|all| all.get(&node).copied().flatten());
    answered.is_some_and(|answered| answered.elapsed() < silence)
}

fn successor(metrics: &Metrics, silence: Duration) -> Option<NodeId> {
    let voters = metrics.membership_config.voter_ids();
    let others = voters.filter(|voter| *voter != metrics.id && answers(metrics, *voter, silence));
    others.min_by_key(|voter| lag(metrics, *voter)).map(NodeId)
}
