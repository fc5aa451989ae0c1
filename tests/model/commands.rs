//! The replicated state machine: commands, and what makes each of them acceptable (protocols.md section 3.2).

use crate::actions::Model;
use crate::mutants::Mutant;
use crate::sets::Set;
use crate::state::{
    Blob, Manifest, Purpose, REPOSITORIES, Standing, State, WRITE_COPIES, Wish, Witness, Wrong,
};

/// An entry of the log, but for opening and closing tickets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    CommitBlob {
        ticket: usize,
    },
    AddPlacement {
        ticket: usize,
        node: usize,
    },
    DropPlacement {
        digest: usize,
        node: usize,
    },
    ReportLost {
        digest: usize,
        node: usize,
    },
    MountBlob {
        from: usize,
        digest: usize,
    },
    TouchBlob {
        repository: usize,
        digest: usize,
    },
    UnlinkBlob {
        repository: usize,
        digest: usize,
    },
    PutManifest {
        manifest: usize,
    },
    DeleteManifest {
        manifest: usize,
    },
    RestoreManifest {
        manifest: usize,
    },
    /// The time to restore it is over.
    ForgetManifest {
        manifest: usize,
    },
    CondemnBlob {
        digest: usize,
    },
    /// The one that the leader has in mind: expiry of a link, or delete of a blob.
    CarryOut,
    SetStanding {
        node: usize,
        standing: Standing,
    },
}

impl Model {
    /// Applies a command at the head of the log. False when it is refused.
    pub(crate) fn apply(&self, state: &mut State, command: Command) -> bool {
        match command {
            Command::CommitBlob { ticket } => self.commit(state, ticket),
            Command::AddPlacement { ticket, node } => self.add(state, ticket, node),
            Command::DropPlacement { digest, node } => {
                state.nodes[node].dropping.remove(digest);
                let is_surplus = state.live_copies(digest) > WRITE_COPIES
                    || state.nodes[node].standing != Standing::Up
                        && state.live_copies(digest) >= WRITE_COPIES;
                let is_counted = state.nodes[node].counted.has(digest);
                let may_drop = is_counted && (is_surplus || self.has(Mutant::DropUnchecked));
                if may_drop {
                    state.nodes[node].counted.remove(digest);
                }
                true
            }
            Command::ReportLost { digest, node } => {
                state.nodes[node].counted.remove(digest);
                true
            }
            Command::MountBlob { from, digest } => self.mount(state, from, digest),
            Command::TouchBlob { repository, digest } => {
                let is_linked = state.links[repository].has(digest);
                if is_linked {
                    let moves = !self.has(Mutant::TouchWithoutRescue);
                    overtake_expiry(state, repository, digest, moves);
                    if state.decision.is_some_and(|decision| !decision.is_current) {
                        self.witness(state, Witness::RescuedByTouch);
                    }
                }
                is_linked
            }
            Command::UnlinkBlob { repository, digest } => {
                let may_unlink = state.links[repository].has(digest)
                    && !self.is_named(state, repository, digest, false);
                if may_unlink {
                    state.links[repository].remove(digest);
                }
                may_unlink
            }
            Command::PutManifest { manifest } => self.put(state, manifest, true),
            Command::RestoreManifest { manifest } => {
                let is_accepted = self.put(state, manifest, false);
                if is_accepted {
                    self.witness(state, Witness::Restored);
                }
                is_accepted
            }
            Command::DeleteManifest { manifest } => {
                state.manifests[manifest] = Manifest::Deleted;
                self.edges_changed(state, manifest);
                true
            }
            Command::ForgetManifest { manifest } => {
                state.manifests[manifest] = Manifest::Unknown;
                self.edges_changed(state, manifest);
                true
            }
            Command::CondemnBlob { digest } => {
                let is_due = state.blobs[digest] == Blob::Live && !state.is_linked(digest);
                if is_due {
                    state.blobs[digest] = Blob::Condemned;
                }
                is_due
            }
            Command::CarryOut => self.carry_out(state),
            Command::SetStanding { node, standing } => self.set_standing(state, node, standing),
        }
    }

    fn commit(&self, state: &mut State, ticket: usize) -> bool {
        let Some(Purpose::Upload { repository, digest }) = state.tickets[ticket] else {
            return false;
        };
        if !state.open.has(ticket) && !self.has(Mutant::CommitAfterClose) {
            return false;
        }
        let may_hold = |standing| {
            standing == Standing::Up
                || standing == Standing::Removed && self.has(Mutant::CommitCountsRemoved)
        };
        let mut holders = state.nodes.iter().filter(|node| node.stored.has(ticket));
        if !holders.all(|node| may_hold(node.standing)) {
            return false;
        }
        let is_holder =
            |node: &&crate::state::Node| node.stored.has(ticket) || node.counted.has(digest);
        if state.nodes.iter().filter(is_holder).count() < WRITE_COPIES {
            return false;
        }
        for node in state
            .nodes
            .iter_mut()
            .filter(|node| node.stored.has(ticket))
        {
            node.counted.insert(digest);
        }
        state.open.remove(ticket);
        if state.blobs[digest] == Blob::Condemned {
            self.witness(state, Witness::RescuedByCommit);
        }
        if state.blobs[digest] == Blob::Unknown && state.deleted_before.has(digest) {
            self.witness(state, Witness::UploadedAgain);
        }
        if state.blobs[digest] == Blob::Unknown || !self.has(Mutant::CommitWithoutRescue) {
            state.blobs[digest] = Blob::Live;
        }
        link(state, repository, digest);
        true
    }

    fn add(&self, state: &mut State, ticket: usize, node: usize) -> bool {
        let Some(purpose) = state.tickets[ticket] else {
            return false;
        };
        let digest = purpose.digest();
        let is_open = state.open.has(ticket) || self.has(Mutant::AddAfterClose);
        if !is_open || state.nodes[node].standing != Standing::Up {
            return false;
        }
        state.open.remove(ticket);
        if state.blobs[digest] == Blob::Unknown {
            if self.has(Mutant::AddRevivesDeleted) {
                state.blobs[digest] = Blob::Live;
                state.nodes[node].counted.insert(digest);
            }
            return true;
        }
        state.nodes[node].counted.insert(digest);
        true
    }

    fn mount(&self, state: &mut State, from: usize, digest: usize) -> bool {
        if !state.links[from].has(digest) {
            return false;
        }
        link(state, REPOSITORIES - 1 - from, digest);
        if state.decision.is_some_and(|decision| {
            matches!(decision.wish, Wish::ExpireLink { repository, .. } if repository == from)
        }) {
            self.witness(state, Witness::RescuedByMount);
        }
        true
    }

    fn put(&self, state: &mut State, manifest: usize, is_push: bool) -> bool {
        let named = self.scenario.manifests[manifest];
        let is_linked = |digest| state.links[named.repository].has(digest);
        let is_unchecked = !is_push && self.has(Mutant::RestoreUnchecked);
        if !is_unchecked && !named.digests.iter().all(is_linked) {
            return false;
        }
        let is_short = |digest| state.live_copies(digest) < WRITE_COPIES;
        let is_counting = is_push && !self.has(Mutant::PutWithoutCopies);
        if is_counting && named.digests.iter().any(is_short) {
            return false;
        }
        state.manifests[manifest] = Manifest::Present;
        self.edges_changed(state, manifest);
        true
    }

    /// The links that a manifest needs, or needed, wait since now or not at all.
    fn edges_changed(&self, state: &mut State, manifest: usize) {
        let named = self.scenario.manifests[manifest];
        if let Some(decision) = &mut state.decision
            && let Wish::ExpireLink { repository, digest } = decision.wish
            && repository == named.repository
            && named.digests.has(digest)
        {
            decision.is_current = false;
        }
    }

    /// Whether a manifest of the repository names the blob.
    pub(crate) fn is_named(
        &self,
        state: &State,
        repository: usize,
        digest: usize,
        with_deleted: bool,
    ) -> bool {
        self.scenario
            .manifests
            .iter()
            .zip(state.manifests)
            .any(|(named, is)| {
                let counts = is == Manifest::Present || with_deleted && is == Manifest::Deleted;
                counts && named.repository == repository && named.digests.has(digest)
            })
    }

    fn carry_out(&self, state: &mut State) -> bool {
        let Some(decision) = state.decision.take() else {
            return false;
        };
        match decision.wish {
            Wish::ExpireLink { repository, digest } => {
                let honours = !self.has(Mutant::ExpiryIgnoresDeleted);
                let is_due = decision.is_current
                    && state.links[repository].has(digest)
                    && !self.is_named(state, repository, digest, honours);
                if is_due {
                    state.links[repository].remove(digest);
                    if !decision.is_fair {
                        state.wrong = Wrong::PromiseBroken;
                    }
                }
            }
            Wish::DeleteBlob { digest } => {
                let is_condemned =
                    state.blobs[digest] == Blob::Condemned && !state.is_linked(digest);
                let is_same = decision.is_current || self.has(Mutant::DeleteCondemnedAgain);
                let is_due = is_condemned && is_same || self.has(Mutant::DeleteUnchecked);
                if is_due && state.blobs[digest] != Blob::Unknown {
                    self.delete(state, digest, decision.is_fair);
                }
            }
        }
        true
    }

    fn delete(&self, state: &mut State, digest: usize, is_fair: bool) {
        state.blobs[digest] = Blob::Unknown;
        for node in &mut state.nodes {
            node.counted.remove(digest);
            node.dropping.remove(digest);
        }
        if !is_fair && !self.has(Mutant::DeleteUnchecked) {
            state.wrong = Wrong::DeletedUnverified;
        }
        if self.scenario.finds_witnesses {
            state.deleted_before.insert(digest);
        }
    }

    fn set_standing(&self, state: &mut State, node: usize, standing: Standing) -> bool {
        if standing == Standing::Removed {
            let is_empty = state.nodes[node].counted.is_empty();
            if !is_empty && !self.has(Mutant::RemoveWithPlacements) {
                return false;
            }
            state.nodes[node].counted = Set::default();
            state.nodes[node].dropping = Set::default();
            self.witness(state, Witness::Removed);
        }
        state.nodes[node].standing = standing;
        true
    }

    pub(crate) fn witness(&self, state: &mut State, witness: Witness) {
        if self.scenario.finds_witnesses {
            state.witnessed.insert(witness as usize);
        }
    }
}

/// Somebody was told that the repository has the blob: an expiry decided before must not take it away.
fn overtake_expiry(state: &mut State, repository: usize, digest: usize, moves: bool) {
    if let Some(decision) = &mut state.decision
        && decision.wish == (Wish::ExpireLink { repository, digest })
    {
        decision.is_current &= !moves;
        decision.is_fair = false;
    }
}

/// The repository links the blob from now on, and whoever asked was told so.
fn link(state: &mut State, repository: usize, digest: usize) {
    state.links[repository].insert(digest);
    overtake_expiry(state, repository, digest, true);
    if let Some(decision) = &mut state.decision
        && decision.wish == (Wish::DeleteBlob { digest })
    {
        decision.is_current = false;
        decision.is_fair = false;
    }
}
