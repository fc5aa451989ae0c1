//! Are the operations on one tag linearizable (invariant I4)?
//!
//! A history is what clients saw of one register: what they asked, when, and what came back. It is linearizable
//! when every operation can be given one instant between its call and its return so that a plain register, asked
//! in that order, gives the same answers. Tags are checked one by one: a history over several registers is
//! linearizable exactly when the history of each is.
//!
//! Two checkers:
//! - [`search`]: Wing and Gong's search with Lowe's memo. Needs nothing but the history; exponential in the number
//!   of concurrent operations, so for small histories of at most eight clients.
//! - [`check_revisions`]: orders by `Argosy-Revision` and verifies that this order explains every answer and keeps
//!   real time. Linear but for one sort, so for long histories of busy tags. It trusts revisions no more than
//!   answers: a wrong one is a violation too.

mod revisions;
mod search;
#[cfg(test)]
mod tests;

pub use revisions::{RevisionViolation, check_revisions};
pub use search::{Violation, search};

/// What a client asked of a tag. `D` names contents: a digest, or anything that stands for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<D> {
    /// GET or HEAD of the manifest by tag.
    Get,
    /// PUT of a manifest under the tag, without a precondition.
    Put(D),
    /// DELETE of the tag.
    Delete,
    /// PUT under `If-Match` (`expected` is a digest) or `If-None-Match: *` (`expected` is `None`).
    CompareAndSwap {
        /// What the tag has to point to.
        expected: Option<D>,
        /// What it shall point to.
        new: D,
    },
}

/// What came back. An operation that surely was not carried out (connection refused, 4xx other than those below)
/// does not belong into a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<D> {
    /// Of a [`Action::Get`]: the content, or `None` for 404.
    Seen(Option<D>),
    /// 2xx of a write.
    Done,
    /// The state of the tag forbade it: 412 of a compare-and-swap, 404 of a delete.
    Refused,
    /// A timeout, a broken connection, a 5xx: it may take effect at any time after its call, or never.
    Unknown,
}

/// One operation on one tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<D> {
    /// What was asked.
    pub action: Action<D>,
    /// What came back.
    pub outcome: Outcome<D>,
    /// When the client sent it, in nanoseconds of one monotonic clock for all clients.
    pub called_at_ns: u64,
    /// When the client had the answer; ignored while the outcome is unknown.
    pub returned_at_ns: u64,
    /// `Argosy-Revision` of the answer: the index of the entry that carried out a write, or of the state that a
    /// read or a refused write saw. `None` when there was none, or when it is only a bound (see
    /// [`check_revisions`]).
    pub revision: Option<u64>,
}

impl<D: Clone + PartialEq> Operation<D> {
    /// The tag after this operation, when it may follow on `tag` with this outcome.
    ///
    /// An unknown write is asked only where it would change something: without an effect it might as well never
    /// have happened.
    fn follow(&self, tag: &Option<D>) -> Option<Option<D>> {
        let is_unknown = self.outcome == Outcome::Unknown;
        let is_refused = self.outcome == Outcome::Refused;
        match &self.action {
            Action::Get => match &self.outcome {
                Outcome::Seen(seen) => (seen == tag).then(|| tag.clone()),
                Outcome::Done | Outcome::Refused | Outcome::Unknown => Some(tag.clone()),
            },
            Action::Put(new) => (!is_refused).then(|| Some(new.clone())),
            Action::Delete if is_refused => tag.is_none().then(|| tag.clone()),
            Action::Delete => (is_unknown || tag.is_some()).then_some(None),
            Action::CompareAndSwap { expected, .. } if is_refused => {
                (expected != tag).then(|| tag.clone())
            }
            Action::CompareAndSwap { expected, new } => {
                (expected == tag).then(|| Some(new.clone()))
            }
        }
    }

    fn is_unknown(&self) -> bool {
        self.outcome == Outcome::Unknown
    }

    /// Whether it is a write that took effect.
    fn has_written(&self) -> bool {
        self.outcome == Outcome::Done && self.action != Action::Get
    }
}
