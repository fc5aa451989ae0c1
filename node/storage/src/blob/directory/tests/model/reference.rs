//! What the store should hold.

use std::collections::{BTreeMap, BTreeSet};

use metadata::ids::TicketId;

/// A number of the pool of bodies.
pub(super) type Body = usize;

/// What was done to a file behind the back of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rot {
    None,
    Flipped,
    Missing,
}

/// A blob with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) is_file: bool,
    pub(super) rot: Rot,
}

impl Copy {
    pub(super) fn is_whole(self) -> bool {
        self.rot == Rot::None
    }
}

/// Bytes staged under a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Staged {
    pub(super) body: Body,
    /// Appended.
    pub(super) len: usize,
    /// A restart must not lose these.
    pub(super) durable: usize,
}

#[derive(Default)]
pub(super) struct Reference {
    pub(super) copies: BTreeMap<Body, Copy>,
    pub(super) pins: BTreeMap<Body, BTreeSet<TicketId>>,
    pub(super) staged: BTreeMap<String, Staged>,
    /// Whether the bytes in the trash are right.
    pub(super) trash: BTreeMap<Body, bool>,
    /// Files in the place of a blob that have no record, and right bytes.
    pub(super) orphans: BTreeSet<Body>,
    pub(super) quarantined: u64,
}

impl Reference {
    pub(super) fn pin(&mut self, body: Body, ticket: TicketId) {
        self.pins.entry(body).or_default().insert(ticket);
    }

    /// A commit of bytes that are right, `in_memory` or from a file.
    pub(super) fn commit(&mut self, body: Body, ticket: TicketId, in_memory: bool) {
        self.pin(body, ticket);
        let before = self.copies.get(&body).copied();
        if before.is_some_and(Copy::is_whole) {
            return;
        }
        if in_memory && before.is_some() {
            // What lies in its place goes to the trash.
            self.unlink_file(body);
        }
        if !in_memory {
            self.orphans.remove(&body);
        }
        let rot = Rot::None;
        let is_file = !in_memory;
        self.copies.insert(body, Copy { is_file, rot });
    }

    /// The file of a recorded blob, or an orphan in its place, goes to the trash.
    pub(super) fn unlink_file(&mut self, body: Body) {
        let is_right = match self.copies.get(&body) {
            Some(copy) if copy.is_file && copy.rot != Rot::Missing => Some(copy.is_whole()),
            _ => self.orphans.remove(&body).then_some(true),
        };
        if let Some(is_right) = is_right {
            self.trash.insert(body, is_right);
        }
    }

    /// Makes a blob of an orphan or of what is in the trash. Says whether it could.
    pub(super) fn adopt(&mut self, body: Body, ticket: TicketId) -> bool {
        match self.copies.get(&body).copied() {
            Some(copy) if !copy.is_whole() => return false,
            Some(_) => {}
            None if self.orphans.remove(&body) => self.insert_file(body),
            None if self.trash.get(&body) == Some(&true) => {
                self.trash.remove(&body);
                self.insert_file(body);
            }
            None => return false,
        }
        self.pin(body, ticket);
        true
    }

    fn insert_file(&mut self, body: Body) {
        let (is_file, rot) = (true, Rot::None);
        self.copies.insert(body, Copy { is_file, rot });
    }
}
