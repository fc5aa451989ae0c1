//! Every shared tag is linearizable.

use std::collections::BTreeMap;

use ::tests::linearizability::{self, check_revisions, search};

use crate::history::{Action, Operation, Outcome};
use crate::report::{Check, Report};

/// Larger histories are checked by revision only.
const SEARCHED: usize = 110;
/// Some seconds of search.
const STEPS: u64 = 20_000_000;

/// Judges the history of each tag by revision, and that of each short one by looking for an order as well.
pub(crate) fn check(operations: &[Operation], report: &Report) {
    report.made(Check::Tags);
    let mut registers: BTreeMap<&str, Vec<linearizability::Operation<String>>> = BTreeMap::new();
    for operation in operations {
        if let Some((register, operation)) = translate(operation) {
            registers.entry(register).or_default().push(operation);
        }
    }
    let mut undecided = 0;
    for (register, history) in &registers {
        if let Err(violation) = check_revisions(history) {
            let text = format!("{register}: {violation}{}", around(history, &violation));
            report.found(Check::Tags, text);
        }
        if history.len() <= SEARCHED {
            match search(history, STEPS) {
                Ok(()) => {}
                Err(linearizability::Violation::OutOfSteps) => undecided += 1,
                Err(violation) => {
                    let text = format!("{register}: {}", violation.describe(history));
                    report.found(Check::Tags, text);
                }
            }
        }
    }
    println!(
        "{} tags, {} operations on them; {undecided} by revision only for want of steps",
        registers.len(),
        registers.values().map(Vec::len).sum::<usize>()
    );
}

/// The operations that a violation names.
fn around(
    history: &[linearizability::Operation<String>],
    violation: &linearizability::RevisionViolation,
) -> String {
    use linearizability::RevisionViolation as V;
    let numbers = match violation {
        V::RealTime { early, late } => vec![*early, *late],
        V::Answer {
            operation,
            last_write,
        } => last_write.iter().copied().chain([*operation]).collect(),
        V::SharedEntry { first, second } => vec![*first, *second],
        V::NoRevision { operation } => vec![*operation],
    };
    numbers
        .into_iter()
        .map(|number| format!("\n  #{number} {:?}", history[number]))
        .collect()
}

fn translate(operation: &Operation) -> Option<(&str, linearizability::Operation<String>)> {
    let (register, action) = match &operation.action {
        Action::GetTag { register } => (register, linearizability::Action::Get),
        Action::PutTag { register, digest } => {
            (register, linearizability::Action::Put(digest.clone()))
        }
        Action::SwapTag {
            register,
            expected,
            digest,
        } => {
            let (expected, new) = (expected.clone(), digest.clone());
            (
                register,
                linearizability::Action::CompareAndSwap { expected, new },
            )
        }
        Action::DeleteTag { register } => (register, linearizability::Action::Delete),
        Action::Put(_) | Action::Pull(_) | Action::Delete(_) => return None,
    };
    let is_read = action == linearizability::Action::Get;
    let outcome = match operation.outcome() {
        Outcome::NotDone => return None,
        // A read that told nothing tells nothing.
        Outcome::Unknown if is_read => return None,
        Outcome::Unknown => linearizability::Outcome::Unknown,
        Outcome::Done => linearizability::Outcome::Done,
        Outcome::Refused => linearizability::Outcome::Refused,
        Outcome::Seen(seen) => linearizability::Outcome::Seen(seen.clone()),
    };
    let operation = linearizability::Operation {
        action,
        outcome,
        called_at_ns: operation.called_at_ns,
        returned_at_ns: operation.returned_at_ns,
        revision: operation.revision,
    };
    Some((register, operation))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(action: Action, outcome: Outcome, times: (u64, u64), revision: u64) -> Operation {
        Operation {
            id: 0,
            client: 0,
            node: 1,
            action,
            called_at_ns: times.0,
            returned_at_ns: times.1,
            outcome: Some(outcome),
            revision: Some(revision),
            answer: String::new(),
        }
    }

    fn put(digest: &str, times: (u64, u64), revision: u64) -> Operation {
        let (register, digest) = ("t".to_owned(), digest.to_owned());
        operation(
            Action::PutTag { register, digest },
            Outcome::Done,
            times,
            revision,
        )
    }

    fn get(seen: &str, times: (u64, u64), revision: u64) -> Operation {
        let register = "t".to_owned();
        let seen = Outcome::Seen(Some(seen.to_owned()));
        operation(Action::GetTag { register }, seen, times, revision)
    }

    fn has_failed(operations: &[Operation]) -> bool {
        let report = Report::default();
        check(operations, &report);
        report.has_failed()
    }

    #[test]
    fn a_stale_read_is_found() {
        let writes = [put("a", (0, 10), 5), put("b", (11, 20), 6)];
        let with = |read: Operation| [writes.as_slice(), &[read]].concat();
        assert!(!has_failed(&with(get("b", (21, 30), 6))));
        assert!(!has_failed(&with(get("a", (15, 30), 5))));
        assert!(has_failed(&with(get("a", (21, 30), 5))));
        // Also when the revision lies.
        assert!(has_failed(&with(get("a", (21, 30), 7))));
    }

    #[test]
    fn a_lost_update_is_found() {
        let register = "t".to_owned();
        let swap = |digest: &str, times, revision| {
            let action = Action::SwapTag {
                register: register.clone(),
                expected: Some("a".into()),
                digest: digest.into(),
            };
            operation(action, Outcome::Done, times, revision)
        };
        let both = [
            put("a", (0, 10), 5),
            swap("b", (11, 20), 6),
            swap("c", (12, 21), 7),
        ];
        assert!(has_failed(&both));
        assert!(!has_failed(&both[..2]));
    }
}
