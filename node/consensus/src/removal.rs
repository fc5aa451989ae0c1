//! Taking a node out of the cluster (protocols.md section 9): its copies go first, then its number, then its vote.
//!
//! ```text
//! drain    the node gets no new copies; the others make theirs, and it drops its own
//! release  the leader drops what is still counted there and that others have enough of
//! remove   one entry: nothing is counted on the node any more, and its number is spent
//! vote     Raft goes on without it, in two steps
//! ```
//!
//! The entry is the record of what is under way: a leader that finds a removed node among the members takes its vote,
//! whoever began that and died. Every step may be repeated.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use metadata::command::{Command, DropPlacement, NodeState, RemoveNode, ReportLost, SetNodeState};
use metadata::ids::{LogIndex, NodeId};
use metadata::log::{self, MetadataLog as _};
use metadata::query;
use metadata::record::{HolderSetRecord, NodeRecord};
use metadata::response::{Rejection, Response};
use metadata::view::{MetadataView, ViewError};
use oci::Digest;
use openraft::ChangeMembers;

use crate::error::{MembershipError, log_hit};
use crate::facts;
use crate::node::RaftNode;

/// Copies looked at between two looks at the clock.
const PAGE_BLOBS: usize = 1_024;
/// Copies released at the same time, so that their entries share a sync of the log.
const AT_ONCE: usize = 64;
/// Between two attempts to remove a node on which a push counted a copy meanwhile.
const PAUSE: Duration = Duration::from_millis(200);

/// How far a node is from leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainStatus {
    /// The state of the node.
    pub state: NodeState,
    /// What is counted on it.
    pub held: HolderSetRecord,
    /// Of that, what must be made elsewhere before the node can go.
    pub needed: HolderSetRecord,
}

/// What an operator allows when a node is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Copies that are the last, or of which too few are elsewhere, are given up.
    pub force: bool,
    /// Fewer than three voters may be left.
    pub allow_few: bool,
}

/// A blob that a removal left with fewer copies than it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// Which blob.
    pub digest: Digest,
    /// Copies that are left on nodes that are up; without any, the blob is lost.
    pub copies: u32,
}

/// What to do with one copy on a node that leaves.
struct Copy {
    digest: Digest,
    /// Copies on nodes that stay.
    lasting: u32,
    /// The others have enough copies, or nobody needs any.
    is_enough: bool,
}

impl RaftNode {
    /// Lets a node drain (`Some(true)`), takes that back (`Some(false)`), or only looks (`None`). One that is down stays
    /// down. Only on the leader.
    ///
    /// # Errors
    /// Not the leader, the node is unknown, or pushes would find too few nodes without it.
    pub async fn drain(
        &self,
        node: NodeId,
        draining: Option<bool>,
        deadline: Instant,
    ) -> Result<DrainStatus, MembershipError> {
        self.check_leads()?;
        let state = self.registered(node)?.state;
        let wanted = match (draining, state) {
            (Some(true), NodeState::Up) => NodeState::Draining,
            (Some(false), NodeState::Draining) => NodeState::Up,
            // What is on a node that is down counts for nothing. It may be removed as it is.
            (_, state) => state,
        };
        if wanted != state {
            // Two at once would each find room without the other.
            let _turn = self.take_turn()?;
            if wanted == NodeState::Draining {
                self.check_room_without(node)?;
            }
            let state = wanted;
            let change = Command::SetNodeState(SetNodeState { node, state });
            self.decided(change, deadline).await?;
        }
        let look = |view: &dyn MetadataView| {
            let held = query::copies_on(view, node)?;
            Ok((held, query::needed_copies_on(view, node)?))
        };
        let (held, needed) = log::read(self, look)?;
        let state = self.registered(node)?.state;
        Ok(DrainStatus {
            state,
            held,
            needed,
        })
    }

    /// Removes a node that drains or is down. Returns what it left with too few copies, which is nothing unless forced.
    /// Only on the leader. When the node was removed before, it finishes that.
    ///
    /// # Errors
    /// Not the leader, another change under way, the node leads, is up, or holds copies that nobody else has enough of;
    /// or too few voters would be left, or too few of them answer. Nothing was changed then, but what was counted on the
    /// node and is safe elsewhere may be counted there no more.
    pub async fn remove(
        &self,
        node: NodeId,
        options: RemoveOptions,
        deadline: Instant,
    ) -> Result<Vec<GivenUp>, MembershipError> {
        let _turn = self.begin_change(deadline).await?;
        let mut given_up = Vec::new();
        if !facts::is_removed(&*self.state, node)? {
            self.check_removable(node, options)?;
            given_up = self.forget(node, options, deadline).await?;
        }
        self.take_vote(node, deadline).await?;
        Ok(given_up)
    }

    /// Takes the votes of members whose removal somebody began and did not live to finish.
    pub(crate) async fn resume_removals(&self, deadline: Instant) -> Result<(), MembershipError> {
        for member in self.status().members {
            if !facts::is_removed(&*self.state, member.node)? {
                continue;
            }
            let Ok(_turn) = self.changing_membership.try_lock() else {
                return Ok(());
            };
            self.confirm_leads(deadline).await?;
            tracing::info!(node = %member.node, "finishing the removal of a node");
            self.take_vote(member.node, deadline).await?;
        }
        Ok(())
    }

    fn registered(&self, node: NodeId) -> Result<NodeRecord, MembershipError> {
        match facts::registered(&*self.state, node)? {
            Some(known) => Ok(known),
            None if facts::is_removed(&*self.state, node)? => {
                Err(MembershipError::Removed { node })
            }
            None => Err(MembershipError::Unknown { node }),
        }
    }

    /// Pushes must find W nodes without it.
    fn check_room_without(&self, node: NodeId) -> Result<(), MembershipError> {
        let needed = facts::cluster(&*self.state)?.map_or(1, |cluster| cluster.write_copies);
        let nodes = facts::nodes(&*self.state)?;
        let others = nodes
            .iter()
            .filter(|known| known.node != node && known.state == NodeState::Up);
        let up = others.count();
        match up < needed as usize {
            true => Err(MembershipError::TooFewNodes { up, needed }),
            false => Ok(()),
        }
    }

    pub(crate) fn check_removable(
        &self,
        node: NodeId,
        options: RemoveOptions,
    ) -> Result<(), MembershipError> {
        self.check_not_up(node)?;
        self.check_voters_without(node, options.allow_few)
    }

    fn check_not_up(&self, node: NodeId) -> Result<(), MembershipError> {
        match facts::registered(&*self.state, node)?.map(|known| known.state) {
            Some(NodeState::Up) => Err(MembershipError::NotDraining { node }),
            Some(NodeState::Down | NodeState::Draining) => Ok(()),
            // It was added and died before it introduced itself.
            None if self.is_member(node) => Ok(()),
            None => Err(MembershipError::Unknown { node }),
        }
    }

    /// Sees to it that nothing is counted on the node, and forgets it.
    async fn forget(
        &self,
        node: NodeId,
        options: RemoveOptions,
        deadline: Instant,
    ) -> Result<Vec<GivenUp>, MembershipError> {
        let mut given_up = Vec::new();
        loop {
            // One that was down may come back in the middle of this.
            self.check_not_up(node)?;
            let kept = self.release(node, false, deadline).await?;
            if !kept.is_empty() && !options.force {
                let last = kept.iter().filter(|kept| kept.copies == 0).count();
                let copies = kept.len();
                return Err(MembershipError::CopiesLeft { node, copies, last });
            }
            if !kept.is_empty() {
                let lost = self.release(node, true, deadline).await?;
                for GivenUp { digest, copies } in &lost {
                    tracing::warn!(%digest, copies, "the copy of a blob was given up with its node");
                }
                given_up.extend(lost);
            }
            log_hit("member_before_remove")?;
            let forget = Command::RemoveNode(RemoveNode { node });
            match self.decided(forget, deadline).await {
                // A push that came through the node meanwhile.
                Err(MembershipError::Refused(Rejection::NodeHoldsCopies(_)))
                    if Instant::now() + PAUSE < deadline => {}
                other => return other.map(|_| given_up),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Drops what is counted on a node and that others have enough of, or, when `all`, everything. Returns what is left,
    /// or was given up.
    async fn release(
        &self,
        node: NodeId,
        all: bool,
        deadline: Instant,
    ) -> Result<Vec<GivenUp>, MembershipError> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = log::read(self, |view| copies_of(view, node, after.as_ref()))?;
            after = page.last().map(|copy| copy.digest);
            let is_last = page.len() < PAGE_BLOBS;
            let released = futures::stream::iter(page)
                .map(|copy| self.release_one(node, copy, all, deadline))
                .buffer_unordered(AT_ONCE);
            let released: Vec<_> = released.collect().await;
            for one in released {
                found.extend(one?);
            }
            if is_last {
                found.sort_by_key(|one| one.digest);
                return Ok(found);
            }
        }
    }

    async fn release_one(
        &self,
        node: NodeId,
        copy: Copy,
        all: bool,
        deadline: Instant,
    ) -> Result<Option<GivenUp>, MembershipError> {
        let (digest, copies) = (copy.digest, copy.lasting);
        let kept = Some(GivenUp { digest, copies });
        let command = match (copy.is_enough, all) {
            (true, false) => Command::DropPlacement(DropPlacement { node, digest }),
            (false, false) => return Ok(kept),
            (_, true) => Command::ReportLost(ReportLost {
                node,
                digest,
                is_gone: true,
            }),
        };
        match self.decided(command, deadline).await {
            Ok(_) => Ok(kept.filter(|_| all)),
            // Others dropped theirs meanwhile.
            Err(MembershipError::Refused(Rejection::TooFewCopies { .. })) => Ok(kept),
            // It is gone, by collection or because the node dropped it itself.
            Err(MembershipError::Refused(Rejection::NotAHolder(_) | Rejection::BlobUnknown)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Raft goes on without it. Nothing when it is no member any more.
    async fn take_vote(&self, node: NodeId, deadline: Instant) -> Result<(), MembershipError> {
        if self.is_change_unfinished() {
            self.finish_change(deadline).await?;
        }
        if !self.is_member(node) {
            return Ok(());
        }
        log_hit("member_before_vote_taken")?;
        let raft = &self.cluster.raft;
        let nodes = std::collections::BTreeSet::from([node.0]);
        let change = match self.is_voter(node) {
            true => {
                self.check_majority_without(node)?;
                ChangeMembers::RemoveVoters(nodes)
            }
            // A change that was left halfway ended with it as a learner.
            false => ChangeMembers::RemoveNodes(nodes),
        };
        self.finish(raft.change_membership(change, false), deadline)
            .await
    }

    /// What was decided, and where in the log.
    pub(crate) async fn decided(
        &self,
        command: Command,
        deadline: Instant,
    ) -> Result<LogIndex, MembershipError> {
        let outcome = self.propose(command, "", deadline).await?;
        match outcome.response {
            Response::Rejected(rejection) => Err(MembershipError::Refused(rejection)),
            _ => Ok(outcome.index),
        }
    }
}

/// A page of what is counted on a node.
fn copies_of(
    view: &dyn MetadataView,
    node: NodeId,
    after: Option<&Digest>,
) -> Result<Vec<Copy>, ViewError> {
    let write_copies = query::cluster(view)?.map_or(1, |cluster| cluster.write_copies);
    let mut copies = Vec::new();
    for digest in query::blobs_of_node(view, node, after, PAGE_BLOBS)? {
        let Some(blob) = query::blob(view, &digest)? else {
            continue;
        };
        let (lasting, wanted) = query::lasting_copies(view, &blob)?;
        copies.push(Copy {
            digest,
            lasting,
            is_enough: lasting >= wanted.max(write_copies) || blob.condemned_since.is_some(),
        });
    }
    Ok(copies)
}
