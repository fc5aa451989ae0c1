//! Taking part: an empty disk asks first, then somebody forms the cluster or this node waits to be contacted.
//!
//! A node whose disk was wiped must not vote: what it acknowledged before is gone, and its vote could elect a
//! leader that lacks acknowledged entries (invariant I8). It cannot know by itself that it was wiped, so it
//! asks the other members for the disk they have registered under its id. To join it needs a majority, one of them
//! with a log. To form a cluster it needs all of them, without a log: those who are silent could be the ones that have
//! what the others forgot or never had. Later too, every call of a peer says which disk it means. A node that is configured without other members listens for such a
//! call before it forms a cluster of its own, and acknowledges nothing more when one comes later.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use metadata::ids::NodeId;
use metadata::view::ViewError;
use proto::raft as wire;
use runtime::Backoff;
use storage::failpoints::storage_hit;
use tonic::{Response, Status};

use crate::error::{MembershipError, StartError};
use crate::facts;
use crate::network::peers::Lane;
use crate::node::RaftNode;
use crate::options::{Formation, Member};

/// Rounds of questions before the log says who does not answer, about three seconds.
const FIRST_WARNING: u32 = 5;
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// What an empty node does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Form the cluster.
    Form,
    /// Take part when contacted.
    Wait,
    /// Too few members answered: ask again.
    AskAgain,
}

impl RaftNode {
    /// Takes part in the cluster: lets Raft answer, forms a new cluster where that is this node's turn, and
    /// starts this node's duties. [`crate::service`] must be mounted before, because members that start
    /// together ask each other. With an empty disk it waits for a majority of the members where there is a cluster,
    /// and for all of them where there is none yet.
    ///
    /// # Errors
    /// [`StartError::DiskReplaced`]: the disk of this node is not the one the cluster knows.
    /// [`StartError::MembersDiffer`]: the disk is empty, and another member is configured with other members.
    pub async fn join(self: &Arc<Self>) -> Result<(), StartError> {
        let registered = facts::registered(&*self.state, self.options.node)?;
        if registered.is_some_and(|record| record.disk_id != self.options.disk_id) {
            return Err(self.disk_replaced());
        }
        if let Some(cluster) = facts::cluster(&*self.state)? {
            self.cluster.peers.set_cluster(&cluster.cluster_id);
        }
        if self.is_empty()? {
            let step = tokio::select! {
                step = self.agree_with_members() => step?,
                () = self.disk_was_refused() => return Err(self.disk_replaced()),
            };
            if step == Step::Form {
                self.form().await?;
            }
        }
        self.set_joined();
        self.start_duties();
        Ok(())
    }

    /// Whether this disk has never taken part: no log, no vote, no state.
    fn is_empty(&self) -> Result<bool, StartError> {
        Ok(self.log.is_empty()? && self.state.applied()?.log_id.is_empty())
    }

    async fn agree_with_members(&self) -> Result<Step, StartError> {
        let others = self.options.others();
        if others.is_empty() && self.options.formation == Formation::Static {
            // A node that grew into a cluster and lost its disk knows nobody to ask, but the leader goes on calling it.
            // Its call says which disk it means, and ends this wait.
            tokio::time::sleep(self.options.election_timeout_max).await;
        }
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let mut rounds = 0_u32;
        loop {
            let probes = join_all(others.iter().map(|member| self.probe(member))).await;
            for (member, answer) in others.iter().zip(&probes) {
                self.check_members(member.node, answer.as_ref())?;
            }
            // An operator formed the cluster from here meanwhile.
            if !self.is_empty()? {
                return Ok(Step::Wait);
            }
            let silent: Vec<wire::ProbeMember> = others
                .iter()
                .zip(&probes)
                .filter(|(_, answer)| answer.is_none())
                .map(|(member, _)| on_wire(member))
                .collect();
            let answers: Vec<wire::ProbeResponse> = probes.into_iter().flatten().collect();
            match self.next_step(others.len(), &answers)? {
                Step::AskAgain => {}
                step => return Ok(step),
            }
            rounds += 1;
            if rounds == FIRST_WARNING || rounds.is_multiple_of(10) {
                warn_of_silence(&silent, answers.iter().any(|answer| answer.initialized));
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Every member must be configured with the same ones. A majority decides when the cluster starts, but two
    /// majorities of different lists need not have a node in common.
    fn check_members(
        &self,
        node: NodeId,
        answer: Option<&wire::ProbeResponse>,
    ) -> Result<(), StartError> {
        let theirs = answer
            .map(|answer| answer.members.as_slice())
            .unwrap_or_default();
        let ours = self.configured_members();
        // One address may be spelt in several ways; who answers there says who it is.
        let numbers = |member: &wire::ProbeMember| member.node;
        let are_equal = theirs.iter().map(numbers).eq(ours.iter().map(numbers));
        if theirs.is_empty() || ours.is_empty() || are_equal {
            return Ok(());
        }
        Err(StartError::MembersDiffer {
            node,
            theirs: list_of(theirs),
            ours: list_of(&ours),
        })
    }

    /// The members that are to form the cluster, by id.
    fn configured_members(&self) -> Vec<wire::ProbeMember> {
        match self.options.formation {
            Formation::Manual => Vec::new(),
            Formation::Static => {
                let members = self.options.members.iter();
                let mut members: Vec<wire::ProbeMember> = members.map(on_wire).collect();
                members.sort_by_key(|member| member.node);
                members
            }
        }
    }

    fn next_step(
        &self,
        others: usize,
        answers: &[wire::ProbeResponse],
    ) -> Result<Step, StartError> {
        let node = self.options.node;
        let is_registered = |answer: &&wire::ProbeResponse| !answer.registered_disk_id.is_empty();
        if answers
            .iter()
            .filter(is_registered)
            .any(|answer| answer.registered_disk_id != self.options.disk_id)
        {
            return Err(self.disk_replaced());
        }
        if answers.iter().any(|answer| answer.removed) {
            return Err(StartError::Removed { node });
        }
        let is_formed = answers.iter().any(|answer| answer.initialized);
        let members = others + 1;
        let majority = members / 2 + 1;
        let needed = match is_formed {
            true => majority - 1,
            // A log is on a majority, this node perhaps among them, and as many disks as it may lose may be empty by
            // now: whoever is silent could be the last one that has it.
            false => others,
        };
        if answers.len() < needed {
            return Ok(Step::AskAgain);
        }
        let is_first = self
            .options
            .members
            .iter()
            .all(|member| member.node >= node);
        Ok(match self.options.formation {
            Formation::Static if is_first && !is_formed => Step::Form,
            Formation::Static | Formation::Manual => Step::Wait,
        })
    }

    pub(crate) async fn probe(&self, member: &Member) -> Option<wire::ProbeResponse> {
        self.try_probe(member).await.ok()
    }

    /// What a member answers, or why it does not: `FailedPrecondition` when somebody else is at its address.
    pub(crate) async fn try_probe(&self, member: &Member) -> Result<wire::ProbeResponse, Status> {
        let peers = &self.cluster.peers;
        let mut client = peers
            .client(Lane::Control, &member.grpc_address)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let message = wire::ProbeRequest {
            node: self.options.node.0,
            disk_id: self.options.disk_id.clone(),
        };
        let answer = tokio::time::timeout(
            PROBE_TIMEOUT,
            client.probe(peers.request(member.node, message)),
        );
        let silent = |_| Status::deadline_exceeded("no answer");
        answer.await.map_err(silent)?.map(Response::into_inner)
    }

    async fn form(&self) -> Result<(), StartError> {
        storage_hit("form_before_initialize")?;
        let mut members = self.options.members.clone();
        if members.is_empty() {
            let grpc_address = self.options.grpc_address.clone();
            members.push(Member {
                node: self.options.node,
                grpc_address,
            });
        }
        match self.initialize(&members).await {
            Ok(()) => {
                tracing::info!(members = members.len(), "forming a new cluster");
                Ok(())
            }
            // Somebody else formed it after the last answer.
            Err(MembershipError::AlreadyInitialized) => Ok(()),
            Err(error) => Err(StartError::Options(error.to_string())),
        }
    }

    /// What this node knows of `asking`.
    pub(crate) fn answer_probe(&self, asking: NodeId) -> Result<wire::ProbeResponse, ViewError> {
        let registered = facts::registered(&*self.state, asking)?;
        let is_empty = self
            .is_empty()
            .map_err(|error| ViewError(Box::new(error)))?;
        Ok(wire::ProbeResponse {
            initialized: !is_empty,
            registered_disk_id: registered.map(|record| record.disk_id).unwrap_or_default(),
            cluster_id: facts::cluster(&*self.state)?
                .map(|cluster| cluster.cluster_id)
                .unwrap_or_default(),
            members: self.configured_members(),
            removed: facts::is_removed(&*self.state, asking)?,
        })
    }
}

fn on_wire(member: &Member) -> wire::ProbeMember {
    wire::ProbeMember {
        node: member.node.0,
        grpc_address: member.grpc_address.clone(),
    }
}

fn warn_of_silence(silent: &[wire::ProbeMember], is_formed: bool) {
    let silent = list_of(silent);
    match is_formed {
        true => tracing::warn!(
            silent,
            "an empty node waits for a majority of the members before it joins"
        ),
        false => tracing::warn!(
            silent,
            "a cluster is formed when all its members run; waiting for those that do not answer"
        ),
    }
}

/// As an operator reads it.
fn list_of(members: &[wire::ProbeMember]) -> String {
    let members: Vec<String> = members
        .iter()
        .map(|member| format!("{}={}", member.node, member.grpc_address))
        .collect();
    members.join(", ")
}
