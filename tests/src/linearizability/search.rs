//! Wing and Gong's search for an order, with Lowe's memo of what was tried.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

use super::{Action, Operation, Outcome};

/// Why a history was not accepted. Numbers are positions in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// No order explains the history.
    NotLinearizable {
        /// The longest order found that explains a part of it.
        placed: Vec<usize>,
        /// The operations of which none can come next.
        stuck: Vec<usize>,
    },
    /// The search took more steps than allowed: nothing is known.
    OutOfSteps,
}

impl Violation {
    /// The end of the order that was found, and what cannot follow it, one operation per line.
    pub fn describe<D: Debug>(&self, history: &[Operation<D>]) -> String {
        const LAST_PLACED: usize = 5;
        let Violation::NotLinearizable { placed, stuck } = self else {
            return "not decided: too many concurrent operations".to_owned();
        };
        let shown = placed.len().saturating_sub(LAST_PLACED);
        let lines = |numbers: &[usize]| -> String {
            numbers
                .iter()
                .map(|number| format!("\n  #{number} {:?}", history[*number]))
                .collect()
        };
        format!(
            "not linearizable\n{} operations in order, the last of them:{}\nnone of these can be next:{}",
            placed.len(),
            lines(&placed[shown..]),
            lines(stuck)
        )
    }
}

/// Looks for an order that explains the history of one tag, which is absent at first.
///
/// # Errors
/// [`Violation::NotLinearizable`] when there is none; [`Violation::OutOfSteps`] when `max_steps` (tens of millions
/// are seconds) were not enough to tell.
pub fn search<D: Clone + Eq + Hash>(
    history: &[Operation<D>],
    max_steps: u64,
) -> Result<(), Violation> {
    Search::new(history).run(max_steps)
}

/// The call or the return of an operation.
#[derive(Clone, Copy)]
struct Event {
    operation: usize,
    is_call: bool,
    /// The operation need not be placed at all. Its return comes after all others.
    is_optional: bool,
}

/// An operation given its place, and the tag before it.
struct Placed<D> {
    operation: usize,
    before: Option<D>,
}

struct Search<'a, D> {
    history: &'a [Operation<D>],
    /// By time. A doubly linked list runs through them (`next`, `previous`): node 0 is the head, node k + 1 is event
    /// k, the last node is the tail. Placed operations are taken out of the list.
    events: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// The nodes of the call and the return of each operation.
    nodes: Vec<(usize, usize)>,
    tag: Option<D>,
    placed: Vec<Placed<D>>,
    /// The placed operations as bits.
    mask: Vec<u64>,
    /// Every set of placed operations that was reached, with the tag after it.
    tried: HashSet<(Vec<u64>, Option<D>)>,
    /// The most placed so far, and what could not follow.
    best: Option<(Vec<usize>, Vec<usize>)>,
}

impl<'a, D: Clone + Eq + Hash> Search<'a, D> {
    fn new(history: &'a [Operation<D>]) -> Search<'a, D> {
        let mut timed = Vec::new();
        for (operation, returns_at) in needed(history) {
            let event = |is_call| Event {
                operation,
                is_call,
                is_optional: returns_at == u64::MAX,
            };
            timed.push((history[operation].called_at_ns, event(true)));
            timed.push((returns_at, event(false)));
        }
        // At one instant calls come first: such operations count as concurrent.
        timed.sort_by_key(|(at, event)| (*at, !event.is_call));
        let events: Vec<Event> = timed.into_iter().map(|(_, event)| event).collect();
        let mut nodes = vec![(0, 0); history.len()];
        for (number, event) in events.iter().enumerate() {
            let node = &mut nodes[event.operation];
            *(if event.is_call {
                &mut node.0
            } else {
                &mut node.1
            }) = number + 1;
        }
        let tail = events.len() + 1;
        Search {
            history,
            next: (1..=tail + 1).collect(),
            previous: (0..=tail)
                .map(|node: usize| node.saturating_sub(1))
                .collect(),
            events,
            nodes,
            tag: None,
            placed: Vec::new(),
            mask: vec![0; history.len().div_ceil(64)],
            tried: HashSet::new(),
            best: None,
        }
    }

    fn run(mut self, max_steps: u64) -> Result<(), Violation> {
        let tail = self.events.len() + 1;
        let mut at = self.next[0];
        for _ in 0..max_steps {
            if at == tail {
                return Ok(());
            }
            let event = self.events[at - 1];
            if event.is_call {
                at = if self.place(event.operation) {
                    self.next[0]
                } else {
                    self.next[at]
                };
            } else if event.is_optional {
                return Ok(());
            } else {
                self.note_stuck(at);
                let Some(last) = self.placed.pop() else {
                    let (placed, stuck) = self.best.unwrap_or_default();
                    return Err(Violation::NotLinearizable { placed, stuck });
                };
                at = self.take_back(last);
            }
        }
        Err(Violation::OutOfSteps)
    }

    /// Gives the operation the next place, unless the tag forbids it or this was tried before.
    fn place(&mut self, operation: usize) -> bool {
        let Some(after) = self.history[operation].follow(&self.tag) else {
            return false;
        };
        self.mask[operation / 64] ^= 1 << (operation % 64);
        if !self.tried.insert((self.mask.clone(), after.clone())) {
            self.mask[operation / 64] ^= 1 << (operation % 64);
            return false;
        }
        let before = std::mem::replace(&mut self.tag, after);
        self.placed.push(Placed { operation, before });
        let (call, returned) = self.nodes[operation];
        for node in [call, returned] {
            let (previous, next) = (self.previous[node], self.next[node]);
            self.next[previous] = next;
            self.previous[next] = previous;
        }
        true
    }

    /// Undoes the last [`Search::place`]; the search goes on behind that call.
    fn take_back(&mut self, last: Placed<D>) -> usize {
        self.tag = last.before;
        self.mask[last.operation / 64] ^= 1 << (last.operation % 64);
        let (call, returned) = self.nodes[last.operation];
        for node in [returned, call] {
            let (previous, next) = (self.previous[node], self.next[node]);
            self.next[previous] = node;
            self.previous[next] = node;
        }
        self.next[call]
    }

    /// Remembers the longest order: its end is where a reader starts to look.
    fn note_stuck(&mut self, at: usize) {
        let longest = self.best.as_ref().map(|(placed, _)| placed.len());
        if longest.is_some_and(|longest| longest >= self.placed.len()) {
            return;
        }
        let mut stuck = Vec::new();
        let mut node = self.next[0];
        while node != at {
            stuck.push(self.events[node - 1].operation);
            node = self.next[node];
        }
        let placed = self.placed.iter().map(|placed| placed.operation).collect();
        self.best = Some((placed, stuck));
    }
}

/// The operations that matter, each with the instant before which it must have its place.
///
/// Unknown writes are what makes the search explode. Where a content was written once only, an unknown PUT of it
/// came before the first read that saw it returned; and when nobody saw it, it might as well never have happened,
/// provided that no other answer depends on it.
fn needed<D: Clone + Eq + Hash>(history: &[Operation<D>]) -> Vec<(usize, u64)> {
    // Only reads and deletes that may have failed: no answer but a read's depends on what the tag was.
    let is_plain = history.iter().all(|operation| match operation.action {
        Action::Get | Action::Put(_) => true,
        Action::Delete => operation.is_unknown(),
        Action::CompareAndSwap { .. } => false,
    });
    let written = |digest: &D| {
        let writes = history.iter().filter(|operation| {
            matches!(&operation.action,
                Action::Put(new) | Action::CompareAndSwap { new, .. } if new == digest)
        });
        writes.count()
    };
    let first_seen = |digest: &D| {
        let reads = history.iter().filter(
            |operation| matches!(&operation.outcome, Outcome::Seen(Some(seen)) if seen == digest),
        );
        reads.map(|read| read.returned_at_ns).min()
    };
    let mut needed = Vec::new();
    for (number, operation) in history.iter().enumerate() {
        match (&operation.action, &operation.outcome) {
            (Action::Get, Outcome::Unknown) => {}
            (Action::Put(new) | Action::CompareAndSwap { new, .. }, Outcome::Unknown)
                if written(new) == 1 =>
            {
                match first_seen(new) {
                    Some(returns_at) => needed.push((number, returns_at)),
                    None if is_plain => {}
                    None => needed.push((number, u64::MAX)),
                }
            }
            (_, Outcome::Unknown) => needed.push((number, u64::MAX)),
            _ => needed.push((number, operation.returned_at_ns)),
        }
    }
    needed
}
