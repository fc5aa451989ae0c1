//! What there is: the replicated state at the head of the log, what the nodes still have to apply, and their disks.
//!
//! The log is kept only as far as a node has not applied it, and only as what the unlink rule reads in it: which
//! copies count and which tickets are open. Tickets are numbered by age, which is all that anyone compares.

use crate::sets::Set;

pub(crate) const NODES: usize = 3;
pub(crate) const DIGESTS: usize = 2;
pub(crate) const REPOSITORIES: usize = 2;
pub(crate) const MANIFESTS: usize = 2;
/// Tickets that anyone still knows of.
pub(crate) const TICKETS: usize = 4;
/// Log indexes between the slowest node and the head, both included.
pub(crate) const WINDOW: usize = 5;

/// Copies that must be durable before a push is acknowledged (W). R is the same, so a third copy is surplus.
pub(crate) const WRITE_COPIES: usize = 2;

/// Stages of a blob record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Blob {
    #[default]
    Unknown,
    Live,
    Condemned,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Manifest {
    #[default]
    Unknown,
    Present,
    /// It can be restored.
    Deleted,
}

/// What a ticket protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Purpose {
    Upload {
        repository: usize,
        digest: usize,
    },
    /// Of one more copy; [`Node::repairs`] says whose.
    Repair {
        digest: usize,
    },
}

impl Purpose {
    pub(crate) fn digest(self) -> usize {
        match self {
            Purpose::Upload { digest, .. } | Purpose::Repair { digest } => digest,
        }
    }
}

/// What the leader of that time saw and wants to be done. It may reach the log much later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Decision {
    pub(crate) wish: Wish,
    /// The time it names is still the one in the record.
    pub(crate) is_current: bool,
    /// Nobody was told since then that what it is about will stay. Known to the checker only.
    pub(crate) is_fair: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Wish {
    ExpireLink { repository: usize, digest: usize },
    DeleteBlob { digest: usize },
}

/// What a log index looks like to the unlink rule, but for the copies: see [`Node::history`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Index {
    /// Tickets below are older than this index.
    pub(crate) known_tickets: usize,
    pub(crate) open: Set,
    /// Digests whose record this entry removed. Kept for [`crate::mutants::Mutant::UnlinkOnDelete`] only.
    pub(crate) deleted: Set,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Standing {
    #[default]
    Up,
    Down,
    Removed,
}

/// A node: what the replicated state says of it, and what is on its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Node {
    pub(crate) standing: Standing,
    /// Digests of which the head of the log counts its copy.
    pub(crate) counted: Set,
    /// The same as of each index of the window.
    pub(crate) history: [Set; WINDOW],
    /// Its place in the window.
    pub(crate) applied: usize,
    /// Digests of which it has the file.
    pub(crate) files: Set,
    /// Tickets under which it stored each digest, without those it knows to be closed.
    pub(crate) pins: [Set; DIGESTS],
    /// Tickets under which it acknowledged to have stored.
    pub(crate) stored: Set,
    /// Repair tickets for copies on it.
    pub(crate) repairs: Set,
    /// Digests whose copy a fault destroyed.
    pub(crate) lost: Set,
    /// A leader wanted to drop its surplus copy of these.
    pub(crate) dropping: Set,
    /// Digests it will not look at: [`crate::mutants::Mutant::InstallWithoutSweep`] only.
    pub(crate) unswept: Set,
    /// It jumped to a later state since it last unlinked; kept while witnesses are looked for.
    pub(crate) has_jumped: bool,
}

/// What went wrong in the step before, where the state alone does not show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Wrong {
    #[default]
    Nothing,
    AcknowledgedBelowW,
    PromiseBroken,
    DeletedUnverified,
    Revived,
    WentBack,
}

/// That something happened which the protocol is for; kept while witnesses are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Witness {
    Reclaimed,
    RescuedByCommit,
    RescuedByTouch,
    RescuedByMount,
    UploadedAgain,
    Restored,
    UnlinkedAfterJump,
    Removed,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct State {
    /// In no order: nodes are alike, see [`State::normalize`].
    pub(crate) nodes: [Node; NODES],
    pub(crate) blobs: [Blob; DIGESTS],
    /// Digests that each repository links.
    pub(crate) links: [Set; REPOSITORIES],
    pub(crate) manifests: [Manifest; MANIFESTS],
    /// By age.
    pub(crate) tickets: [Option<Purpose>; TICKETS],
    pub(crate) open: Set,
    pub(crate) decision: Option<Decision>,
    /// From the slowest node to the head.
    pub(crate) window: [Index; WINDOW],
    pub(crate) head: usize,
    pub(crate) losses: usize,
    pub(crate) wrong: Wrong,
    pub(crate) witnessed: Set,
    /// Digests deleted before; kept while witnesses are looked for.
    pub(crate) deleted_before: Set,
}

impl Node {
    pub(crate) fn is_member(&self) -> bool {
        self.standing != Standing::Removed
    }
}

impl State {
    pub(crate) fn known_tickets(&self) -> usize {
        self.tickets.iter().flatten().count()
    }

    /// Nodes that may hold files, with their numbers.
    pub(crate) fn members(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| node.is_member())
    }

    /// Copies that count.
    pub(crate) fn copies(&self, digest: usize) -> usize {
        let holders = self.nodes.iter().filter(|node| node.counted.has(digest));
        holders.count()
    }

    /// Copies on nodes that are up.
    pub(crate) fn live_copies(&self, digest: usize) -> usize {
        let holders = self
            .nodes
            .iter()
            .filter(|node| node.standing == Standing::Up && node.counted.has(digest));
        holders.count()
    }

    pub(crate) fn is_linked(&self, digest: usize) -> bool {
        self.links.iter().any(|links| links.has(digest))
    }

    /// Adds an index for what the head has become. False when the slowest node is too far behind for one more.
    pub(crate) fn append(&mut self, deleted: Set) -> bool {
        let index = Index {
            known_tickets: self.known_tickets(),
            open: self.open,
            deleted,
        };
        let last = self.window[self.head];
        let is_same = last.known_tickets == index.known_tickets
            && last.open == index.open
            && deleted.is_empty()
            && self
                .nodes
                .iter()
                .all(|node| node.history[self.head] == node.counted);
        if is_same {
            return true;
        }
        if self.head + 1 == WINDOW {
            return false;
        }
        self.head += 1;
        self.window[self.head] = index;
        for node in &mut self.nodes {
            node.history[self.head] = node.counted;
        }
        true
    }

    /// Makes states equal that differ in nothing that matters from now on: indexes that every node has applied, pins
    /// known to be closed, what is left on a removed node, and which node is which.
    pub(crate) fn normalize(&mut self) {
        let oldest = self.members().map(|(_, node)| node.applied).min();
        let oldest = oldest.unwrap_or(self.head);
        self.window.rotate_left(oldest);
        self.head -= oldest;
        self.window[self.head + 1..].fill(Index::default());
        self.window[0].deleted = Set::default();
        let with_losses = self.losses > 0;
        for node in &mut self.nodes {
            if !node.is_member() {
                *node = Node {
                    standing: node.standing,
                    counted: node.counted,
                    stored: node.stored,
                    lost: node.lost,
                    ..Node::default()
                };
                continue;
            }
            node.history.rotate_left(oldest);
            node.history[self.head + 1..].fill(Set::default());
            node.applied -= oldest;
            let index = self.window[node.applied];
            for pins in &mut node.pins {
                let closed = pins
                    .iter()
                    .filter(|ticket| *ticket < index.known_tickets && !index.open.has(*ticket));
                *pins = closed.fold(*pins, Set::without);
            }
            if with_losses {
                let acknowledged = node.stored.iter().filter_map(|ticket| self.tickets[ticket]);
                let owed =
                    acknowledged.fold(node.counted, |owed, purpose| owed.with(purpose.digest()));
                node.lost = node.lost.and(owed);
            }
        }
        self.nodes.sort_unstable();
    }

    /// Whether everybody knows that the ticket is closed and nothing is left of it on any disk.
    pub(crate) fn is_forgettable(&self, ticket: usize) -> bool {
        let is_closed = |index: &Index| ticket < index.known_tickets && !index.open.has(ticket);
        let is_pinned = |node: &Node| node.pins.iter().any(|pins| pins.has(ticket));
        self.window[..=self.head].iter().all(is_closed) && !self.nodes.iter().any(is_pinned)
    }

    /// The client gives up: nobody will ever name this ticket again.
    pub(crate) fn forget(&mut self, ticket: usize) {
        self.tickets[ticket..].rotate_left(1);
        self.tickets[TICKETS - 1] = None;
        self.open = self.open.closed_up(ticket);
        for index in &mut self.window[..=self.head] {
            index.known_tickets -= 1;
            index.open = index.open.closed_up(ticket);
        }
        for node in &mut self.nodes {
            node.stored = node.stored.closed_up(ticket);
            node.repairs = node.repairs.closed_up(ticket);
            for pins in &mut node.pins {
                *pins = pins.closed_up(ticket);
            }
        }
    }
}
