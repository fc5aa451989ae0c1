//! The order that the cluster itself claims, verified.

use std::fmt;

use super::{Action, Operation};

/// What is wrong with the order by revision. Numbers are positions in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevisionViolation {
    /// `late` was called after `early` had returned, and yet comes before it.
    RealTime {
        /// Returned first.
        early: usize,
        /// Called after that, at a revision that puts it before.
        late: usize,
    },
    /// What came before does not explain this answer.
    Answer {
        /// The operation that cannot stand here.
        operation: usize,
        /// The last write before it whose effect is known.
        last_write: Option<usize>,
    },
    /// Two writes claim the same log entry.
    SharedEntry {
        /// One.
        first: usize,
        /// The other.
        second: usize,
    },
    /// A write was acknowledged without a revision.
    NoRevision {
        /// Which.
        operation: usize,
    },
}

impl fmt::Display for RevisionViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RevisionViolation::RealTime { early, late } => {
                write!(
                    f,
                    "#{late} was called after #{early} had returned, but its revision is older"
                )
            }
            RevisionViolation::Answer {
                operation,
                last_write: Some(last_write),
            } => write!(
                f,
                "the answer of #{operation} does not follow from #{last_write}, the write before it"
            ),
            RevisionViolation::Answer {
                operation,
                last_write: None,
            } => write!(
                f,
                "the answer of #{operation} does not follow from a tag never written"
            ),
            RevisionViolation::SharedEntry { first, second } => {
                write!(f, "#{first} and #{second} claim the same log entry")
            }
            RevisionViolation::NoRevision { operation } => {
                write!(f, "#{operation} was acknowledged without a revision")
            }
        }
    }
}

/// Verifies that the order by revision explains the history of one tag, which is absent at first.
///
/// A write of unknown outcome is placed where the first answer demands it, once. A read or a refused write without
/// a revision (a 404 carries only an upper bound: the index is taken after the answer was decided) may stand
/// anywhere between what returned before its call and what was called after its return.
///
/// # Errors
/// The first [`RevisionViolation`] in that order.
pub fn check_revisions<D: Clone + PartialEq>(
    history: &[Operation<D>],
) -> Result<(), RevisionViolation> {
    let order = order(history)?;
    check_real_time(history, &order)?;
    let tags = replay(history, &order)?;
    check_floating(history, &order, &tags)
}

/// The operations with a revision, in the order they claim; a write comes before the reads of its own entry.
fn order<D: Clone + PartialEq>(history: &[Operation<D>]) -> Result<Vec<usize>, RevisionViolation> {
    let mut keyed = Vec::new();
    for (number, operation) in history.iter().enumerate() {
        match operation.revision {
            _ if operation.is_unknown() => {}
            Some(revision) => keyed.push((revision, !operation.has_written(), number)),
            None if operation.has_written() => {
                return Err(RevisionViolation::NoRevision { operation: number });
            }
            None => {}
        }
    }
    keyed.sort_unstable();
    let shared = keyed
        .windows(2)
        .find(|pair| pair[0].0 == pair[1].0 && !pair[1].1);
    if let Some(&[(_, _, first), (_, _, second)]) = shared {
        return Err(RevisionViolation::SharedEntry { first, second });
    }
    Ok(keyed.into_iter().map(|(_, _, number)| number).collect())
}

/// Reads of one revision may stand in any order among themselves; all else keeps its place.
fn check_real_time<D: Clone + PartialEq>(
    history: &[Operation<D>],
    order: &[usize],
) -> Result<(), RevisionViolation> {
    // The operation called last among those that come strictly before.
    let mut last_called: Option<usize> = None;
    let later = |one: Option<usize>, other: usize| match one {
        Some(one) if history[one].called_at_ns >= history[other].called_at_ns => Some(one),
        _ => Some(other),
    };
    let mut rest = order;
    while let Some(&first) = rest.first() {
        let same = |number: &&usize| history[**number].revision == history[first].revision;
        let group = if history[first].has_written() {
            1
        } else {
            rest.iter().take_while(same).count()
        };
        for &number in &rest[..group] {
            if let Some(before) = last_called
                && history[number].returned_at_ns < history[before].called_at_ns
            {
                return Err(RevisionViolation::RealTime {
                    early: number,
                    late: before,
                });
            }
        }
        last_called = rest[..group].iter().copied().fold(last_called, later);
        rest = &rest[group..];
    }
    Ok(())
}

/// Asks a register in the given order. The tag before the first operation and after each one.
fn replay<D: Clone + PartialEq>(
    history: &[Operation<D>],
    order: &[usize],
) -> Result<Vec<Option<D>>, RevisionViolation> {
    let mut unknown: Vec<usize> = (0..history.len())
        .filter(|number| is_unknown_write(&history[*number]))
        .collect();
    // An unknown write may stand before an operation only if it was called before that one and all later ones
    // returned.
    let mut returned = vec![u64::MAX; order.len()];
    let mut earliest = u64::MAX;
    for (place, number) in order.iter().enumerate().rev() {
        earliest = earliest.min(history[*number].returned_at_ns);
        returned[place] = earliest;
    }
    let mut tags = vec![None];
    let mut tag = None;
    let mut last_write = None;
    for (place, &number) in order.iter().enumerate() {
        let operation = &history[number];
        let eligible: Vec<usize> = unknown
            .iter()
            .copied()
            .filter(|write| history[*write].called_at_ns <= returned[place])
            .collect();
        let explained = explain(history, operation, &tag, &eligible, MAX_BRIDGE);
        let (after, used) = explained.ok_or(RevisionViolation::Answer {
            operation: number,
            last_write,
        })?;
        // Only writes that an answer needs are used up, so those left can serve a later one.
        unknown.retain(|write| !used.contains(write));
        tag = after;
        if operation.has_written() {
            last_write = Some(number);
        }
        tags.push(tag.clone());
    }
    Ok(tags)
}

fn is_unknown_write<D: Clone + PartialEq>(operation: &Operation<D>) -> bool {
    operation.is_unknown() && operation.action != Action::Get
}

/// The most unknown writes that may have happened between two known operations for one answer's sake.
const MAX_BRIDGE: usize = 3;

/// The tag after `operation`, and the writes of unknown outcome, out of `unknown`, that must have come right before.
fn explain<D: Clone + PartialEq>(
    history: &[Operation<D>],
    operation: &Operation<D>,
    tag: &Option<D>,
    unknown: &[usize],
    depth: usize,
) -> Option<(Option<D>, Vec<usize>)> {
    if let Some(after) = operation.follow(tag) {
        return Some((after, Vec::new()));
    }
    if depth == 0 {
        return None;
    }
    unknown.iter().find_map(|write| {
        let between = history[*write].follow(tag)?;
        let rest: Vec<usize> = unknown
            .iter()
            .copied()
            .filter(|other| other != write)
            .collect();
        let (after, mut used) = explain(history, operation, &between, &rest, depth - 1)?;
        used.push(*write);
        Some((after, used))
    })
}

/// Every operation without a revision finds a place that real time allows.
fn check_floating<D: Clone + PartialEq>(
    history: &[Operation<D>],
    order: &[usize],
    tags: &[Option<D>],
) -> Result<(), RevisionViolation> {
    // Both grow along the order, which keeps real time: the latest call up to a place, the earliest return from it.
    let called = order.iter().scan(0, |latest: &mut u64, number| {
        *latest = (*latest).max(history[*number].called_at_ns);
        Some(*latest)
    });
    let called: Vec<u64> = called.collect();
    let mut returned: Vec<u64> = order
        .iter()
        .rev()
        .scan(u64::MAX, |earliest, number| {
            *earliest = (*earliest).min(history[*number].returned_at_ns);
            Some(*earliest)
        })
        .collect();
    returned.reverse();
    for (number, operation) in history.iter().enumerate() {
        if operation.revision.is_some() || operation.is_unknown() {
            continue;
        }
        // After all that returned before its call, before all that was called after its return.
        let first = returned.partition_point(|earliest| *earliest < operation.called_at_ns);
        let last = called.partition_point(|latest| *latest <= operation.returned_at_ns);
        let eligible: Vec<usize> = (0..history.len())
            .filter(|write| is_unknown_write(&history[*write]))
            .filter(|write| history[*write].called_at_ns <= operation.returned_at_ns)
            .collect();
        let may_stand =
            |tag: &Option<D>| explain(history, operation, tag, &eligible, MAX_BRIDGE).is_some();
        if first > last || !tags[first..=last].iter().any(may_stand) {
            return Err(RevisionViolation::Answer {
                operation: number,
                last_write: order[..first.min(order.len())]
                    .iter()
                    .rev()
                    .copied()
                    .find(|other| history[*other].has_written()),
            });
        }
    }
    Ok(())
}
