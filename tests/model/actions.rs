//! What may happen next: clients, the leader, nodes and disks, each whenever it likes. There is no time: leases
//! expire and collection runs at any moment, so nothing here depends on clocks.

use crate::commands::Command;
use crate::mutants::Mutant;
use crate::properties;
use crate::sets::Set;
use crate::state::{
    Blob, DIGESTS, Decision, MANIFESTS, Manifest, NODES, Purpose, REPOSITORIES, Standing, State,
    TICKETS, WINDOW, WRITE_COPIES, Wish, Witness, Wrong,
};

/// What a manifest needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Named {
    pub(crate) repository: usize,
    pub(crate) digests: Set,
}

/// How much of the world takes part. Everything that is not bounded here may happen again and again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scenario {
    pub(crate) digests: usize,
    pub(crate) repositories: usize,
    pub(crate) manifests: [Named; MANIFESTS],
    /// Uploads, and repairs, that somebody still knows of at one time.
    pub(crate) uploads: usize,
    pub(crate) repairs: usize,
    /// Log entries by which a node may be behind.
    pub(crate) lag: usize,
    pub(crate) drops: bool,
    pub(crate) downs: bool,
    pub(crate) removals: usize,
    pub(crate) losses: usize,
    /// Clients remove blobs from repositories.
    pub(crate) unlinks: bool,
    pub(crate) touches: bool,
    pub(crate) finds_witnesses: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) scenario: Scenario,
    pub(crate) mutant: Option<Mutant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Open {
        purpose: Purpose,
        node: usize,
    },
    Close {
        ticket: usize,
    },
    Forget {
        ticket: usize,
    },
    Store {
        ticket: usize,
        node: usize,
    },
    Decide(Wish),
    DecideDrop {
        digest: usize,
        node: usize,
    },
    Propose(Command),
    /// A node applies the next entry.
    ApplyNext {
        node: usize,
    },
    /// A node takes over the state as of a later index without the entries between.
    InstallState {
        node: usize,
        index: usize,
    },
    Unlink {
        digest: usize,
        node: usize,
    },
    LoseFiles {
        node: usize,
    },
}

impl Model {
    pub(crate) fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// The unlink rule (protocols.md section 6.2).
    pub(crate) fn may_unlink(&self, state: &State, node: usize, digest: usize) -> bool {
        let node = &state.nodes[node];
        let index = state.window[node.applied];
        let is_closed = |ticket: usize| {
            if ticket < index.known_tickets {
                !index.open.has(ticket)
            } else {
                self.has(Mutant::NewTicketsAreClosed)
            }
        };
        node.is_member()
            && node.files.has(digest)
            && !node.unswept.has(digest)
            && !self.has(Mutant::UnlinkOnDelete)
            && !node.history[node.applied].has(digest)
            && node.pins[digest].iter().all(is_closed)
    }

    fn ticket_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let tickets = || state.tickets.iter().flatten();
        let uploads = tickets()
            .filter(|is| matches!(is, Purpose::Upload { .. }))
            .count();
        let repairs = tickets().count() - uploads;
        for digest in 0..self.scenario.digests {
            if uploads < self.scenario.uploads {
                for repository in 0..self.scenario.repositories {
                    let purpose = Purpose::Upload { repository, digest };
                    actions.push(Action::Open { purpose, node: 0 });
                }
            }
            if repairs < self.scenario.repairs && state.blobs[digest] != Blob::Unknown {
                let purpose = Purpose::Repair { digest };
                let wants = state
                    .members()
                    .filter(|(_, node)| !node.counted.has(digest));
                actions.extend(wants.map(|(node, _)| Action::Open { purpose, node }));
            }
        }
        for (ticket, purpose) in state.tickets.iter().enumerate() {
            let Some(purpose) = purpose else { break };
            if state.open.has(ticket) {
                actions.push(Action::Close { ticket });
            } else if state.is_forgettable(ticket) {
                actions.push(Action::Forget { ticket });
            }
            self.store_actions(state, ticket, *purpose, actions);
        }
    }

    fn store_actions(
        &self,
        state: &State,
        ticket: usize,
        purpose: Purpose,
        actions: &mut Vec<Action>,
    ) {
        let is_upload = matches!(purpose, Purpose::Upload { .. });
        let digest = purpose.digest();
        let has_source = is_upload || state.nodes.iter().any(|node| node.files.has(digest));
        let mut acknowledged = 0;
        for (number, node) in state.nodes.iter().enumerate() {
            let is_wanted = is_upload || node.repairs.has(ticket);
            if node.stored.has(ticket) {
                acknowledged += 1;
                if !is_upload {
                    actions.push(Action::Propose(Command::AddPlacement {
                        ticket,
                        node: number,
                    }));
                }
            } else if is_wanted && has_source && node.is_member() {
                actions.push(Action::Store {
                    ticket,
                    node: number,
                });
            }
        }
        if is_upload && acknowledged >= WRITE_COPIES {
            actions.push(Action::Propose(Command::CommitBlob { ticket }));
        }
    }

    fn client_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let mut propose = |command| actions.push(Action::Propose(command));
        for (manifest, named) in self.scenario.manifests.iter().enumerate() {
            if named.digests.is_empty() {
                continue;
            }
            match state.manifests[manifest] {
                Manifest::Present => propose(Command::DeleteManifest { manifest }),
                Manifest::Unknown => propose(Command::PutManifest { manifest }),
                Manifest::Deleted => {
                    propose(Command::PutManifest { manifest });
                    propose(Command::RestoreManifest { manifest });
                    propose(Command::ForgetManifest { manifest });
                }
            }
        }
        for repository in 0..self.scenario.repositories {
            for digest in state.links[repository].iter() {
                if self.scenario.repositories == REPOSITORIES {
                    propose(Command::MountBlob {
                        from: repository,
                        digest,
                    });
                }
                if self.scenario.touches {
                    propose(Command::TouchBlob { repository, digest });
                }
                if self.scenario.unlinks {
                    propose(Command::UnlinkBlob { repository, digest });
                }
            }
        }
    }

    fn leader_actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.decision.is_some() {
            actions.push(Action::Propose(Command::CarryOut));
        }
        for digest in 0..self.scenario.digests {
            if state.blobs[digest] == Blob::Live && !state.is_linked(digest) {
                actions.push(Action::Propose(Command::CondemnBlob { digest }));
            }
            if state.decision.is_none() {
                if state.blobs[digest] == Blob::Condemned {
                    actions.push(Action::Decide(Wish::DeleteBlob { digest }));
                }
                let honours = !self.has(Mutant::ExpiryIgnoresDeleted);
                for repository in 0..self.scenario.repositories {
                    if state.links[repository].has(digest)
                        && !self.is_named(state, repository, digest, honours)
                    {
                        actions.push(Action::Decide(Wish::ExpireLink { repository, digest }));
                    }
                }
            }
            for (node, is) in state.nodes.iter().enumerate() {
                if is.dropping.has(digest) {
                    actions.push(Action::Propose(Command::DropPlacement { digest, node }));
                } else if self.scenario.drops
                    && is.counted.has(digest)
                    && state.copies(digest) > WRITE_COPIES
                {
                    actions.push(Action::DecideDrop { digest, node });
                }
                if is.lost.has(digest) && is.counted.has(digest) {
                    actions.push(Action::Propose(Command::ReportLost { digest, node }));
                }
            }
        }
    }

    fn node_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let removed = NODES - state.members().count();
        let down = state
            .nodes
            .iter()
            .filter(|node| node.standing == Standing::Down)
            .count();
        for (node, is) in state.members() {
            let mut stand = |standing| {
                actions.push(Action::Propose(Command::SetStanding { node, standing }));
            };
            match is.standing {
                Standing::Down => stand(Standing::Up),
                Standing::Up if self.scenario.downs && down == 0 => stand(Standing::Down),
                Standing::Up | Standing::Removed => {}
            }
            if removed < self.scenario.removals {
                stand(Standing::Removed);
            }
            if is.applied < state.head {
                actions.push(Action::ApplyNext { node });
            }
            for index in 0..=state.head {
                let is_offered = index > is.applied + 1
                    || index < is.applied && self.has(Mutant::InstallOlderState);
                if is_offered {
                    actions.push(Action::InstallState { node, index });
                }
            }
            for digest in 0..self.scenario.digests {
                if self.may_unlink(state, node, digest) {
                    actions.push(Action::Unlink { digest, node });
                }
            }
            if state.losses < self.scenario.losses && !is.files.is_empty() {
                actions.push(Action::LoseFiles { node });
            }
        }
    }

    fn open(&self, state: &mut State, purpose: Purpose, node: usize) -> bool {
        let ticket = state.known_tickets();
        if ticket == TICKETS {
            return false;
        }
        state.tickets[ticket] = Some(purpose);
        state.open.insert(ticket);
        if matches!(purpose, Purpose::Repair { .. }) {
            state.nodes[node].repairs.insert(ticket);
        }
        self.append(state, Set::default())
    }

    /// StoreBlob (protocols.md section 6.1), atomic under the lock of the digest.
    fn store(&self, state: &mut State, ticket: usize, node: usize) {
        let Some(purpose) = state.tickets[ticket] else {
            return;
        };
        let digest = purpose.digest();
        let node = &mut state.nodes[node];
        let is_there = node.files.has(digest);
        if !(is_there && self.has(Mutant::StoreWithoutPin)) {
            node.pins[digest].insert(ticket);
        }
        if self.has(Mutant::NewestPinOnly) {
            node.pins[digest] = node.pins[digest].greatest();
        }
        node.files.insert(digest);
        node.lost.remove(digest);
        node.unswept.remove(digest);
        node.stored.insert(ticket);
    }

    fn apply_next(&self, state: &mut State, node: usize) {
        let node = &mut state.nodes[node];
        node.applied += 1;
        if self.has(Mutant::UnlinkOnDelete) {
            node.files = node.files.minus(state.window[node.applied].deleted);
        }
    }

    fn install(&self, state: &mut State, node: usize, index: usize) {
        let had: Vec<bool> = (0..DIGESTS)
            .map(|digest| self.may_unlink(state, node, digest))
            .collect();
        if index < state.nodes[node].applied {
            state.wrong = Wrong::WentBack;
        }
        state.nodes[node].applied = index;
        state.nodes[node].has_jumped = self.scenario.finds_witnesses;
        if self.has(Mutant::InstallForgetsPins) {
            state.nodes[node].pins = Default::default();
        }
        if self.has(Mutant::InstallWithoutSweep) {
            for (digest, had) in had.iter().enumerate() {
                if !had && self.may_unlink(state, node, digest) {
                    state.nodes[node].unswept.insert(digest);
                }
            }
        }
    }

    /// The files alone: a disk whose pins are gone as well is not let back in under its old name.
    fn lose_files(state: &mut State, node: usize) {
        state.losses += 1;
        let node = &mut state.nodes[node];
        node.files = Set::default();
        node.unswept = Set::default();
        node.lost = (0..DIGESTS).fold(Set::default(), Set::with);
    }

    fn append(&self, state: &mut State, deleted: Set) -> bool {
        debug_assert!(self.scenario.lag < WINDOW, "the window is too small");
        state.append(deleted)
    }

    /// What went wrong, told from what the command did: nothing here asks which shortcut was taken.
    fn judge(&self, before: &[Blob; DIGESTS], state: &mut State, command: Command) {
        if let Command::PutManifest { manifest } = command {
            let mut named = self.scenario.manifests[manifest].digests.iter();
            if named.any(|digest| state.live_copies(digest) < WRITE_COPIES) {
                state.wrong = Wrong::AcknowledgedBelowW;
            }
        }
        let is_commit = matches!(command, Command::CommitBlob { .. });
        let is_new =
            |digest| before[digest] == Blob::Unknown && state.blobs[digest] != Blob::Unknown;
        if !is_commit && (0..DIGESTS).any(is_new) {
            state.wrong = Wrong::Revived;
        }
    }

    fn propose(&self, state: &mut State, command: Command) -> bool {
        let before = state.blobs;
        if !self.apply(state, command) {
            return false;
        }
        self.judge(&before, state, command);
        let is_gone = |digest: &usize| {
            before[*digest] != state.blobs[*digest] && state.blobs[*digest] == Blob::Unknown
        };
        let deleted: Vec<usize> = (0..DIGESTS)
            .filter(|_| self.has(Mutant::UnlinkOnDelete))
            .filter(is_gone)
            .collect();
        self.append(state, Set::of(&deleted))
    }

    fn take(&self, state: &mut State, action: Action) -> bool {
        match action {
            Action::Open { purpose, node } => return self.open(state, purpose, node),
            Action::Close { ticket } => {
                state.open.remove(ticket);
                return self.append(state, Set::default());
            }
            Action::Forget { ticket } => state.forget(ticket),
            Action::Store { ticket, node } => self.store(state, ticket, node),
            Action::Decide(wish) => {
                state.decision = Some(Decision {
                    wish,
                    is_current: true,
                    is_fair: true,
                });
            }
            Action::DecideDrop { digest, node } => state.nodes[node].dropping.insert(digest),
            Action::Propose(command) => return self.propose(state, command),
            Action::ApplyNext { node } => self.apply_next(state, node),
            Action::InstallState { node, index } => self.install(state, node, index),
            Action::Unlink { digest, node } => {
                state.nodes[node].files.remove(digest);
                state.nodes[node].pins[digest] = Set::default();
                if state.nodes[node].has_jumped {
                    self.witness(state, Witness::UnlinkedAfterJump);
                }
            }
            Action::LoseFiles { node } => Model::lose_files(state, node),
        }
        true
    }
}

impl stateright::Model for Model {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.ticket_actions(state, actions);
        self.client_actions(state, actions);
        self.leader_actions(state, actions);
        self.node_actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let goes = self.take(&mut state, action);
        state.normalize();
        if state.head > self.scenario.lag {
            return None;
        }
        if properties::is_reclaimed(&state) {
            self.witness(&mut state, Witness::Reclaimed);
        }
        (goes && state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<stateright::Property<Model>> {
        properties::all(self.scenario.finds_witnesses)
    }
}
