//! Histories made by hand, and made-up ones that are good until they are corrupted.

use super::*;

const STEPS: u64 = 5_000_000;

/// Times are in any unit here. Writes get their call as revision unless a test says otherwise.
fn operation(
    action: Action<u32>,
    outcome: Outcome<u32>,
    called_at_ns: u64,
    returned_at_ns: u64,
) -> Operation<u32> {
    Operation {
        action,
        outcome,
        called_at_ns,
        returned_at_ns,
        revision: None,
    }
}

fn put(new: u32, called: u64, returned: u64) -> Operation<u32> {
    operation(Action::Put(new), Outcome::Done, called, returned)
}

fn get(seen: Option<u32>, called: u64, returned: u64) -> Operation<u32> {
    operation(Action::Get, Outcome::Seen(seen), called, returned)
}

fn delete(outcome: Outcome<u32>, called: u64, returned: u64) -> Operation<u32> {
    operation(Action::Delete, outcome, called, returned)
}

fn swap(
    expected: Option<u32>,
    new: u32,
    outcome: Outcome<u32>,
    called: u64,
    returned: u64,
) -> Operation<u32> {
    operation(
        Action::CompareAndSwap { expected, new },
        outcome,
        called,
        returned,
    )
}

fn unknown_put(new: u32, called: u64) -> Operation<u32> {
    operation(Action::Put(new), Outcome::Unknown, called, 0)
}

fn at(revision: u64, operation: Operation<u32>) -> Operation<u32> {
    Operation {
        revision: Some(revision),
        ..operation
    }
}

#[test]
fn good_histories_are_accepted() {
    use Outcome::{Done, Refused, Unknown};
    let histories = [
        vec![],
        vec![get(None, 0, 1), put(1, 2, 3), get(Some(1), 4, 5)],
        // Concurrent with the write, a read may see either; two reads in a row see it come.
        vec![put(1, 0, 10), get(None, 1, 2), get(Some(1), 3, 4)],
        // Concurrent writes in either order.
        vec![put(1, 0, 10), put(2, 0, 10), get(Some(1), 11, 12)],
        vec![put(1, 0, 10), put(2, 0, 10), get(Some(2), 11, 12)],
        vec![put(1, 0, 1), delete(Done, 2, 3), get(None, 4, 5)],
        vec![delete(Refused, 0, 1), put(1, 2, 3)],
        vec![
            swap(None, 1, Done, 0, 1),
            swap(None, 2, Refused, 2, 3),
            swap(Some(1), 2, Done, 4, 5),
            get(Some(2), 6, 7),
        ],
        // An unknown write may have happened at any time after its call, or never.
        vec![unknown_put(1, 0), get(None, 1, 2)],
        vec![unknown_put(1, 0), get(None, 1, 2), get(Some(1), 3, 4)],
        vec![
            put(1, 0, 1),
            delete(Unknown, 2, 0),
            get(None, 3, 4),
            put(2, 5, 6),
        ],
        vec![
            unknown_put(1, 0),
            swap(Some(1), 2, Unknown, 1, 0),
            get(Some(2), 2, 3),
        ],
        vec![unknown_put(1, 0), delete(Done, 1, 2)],
        vec![operation(Action::Get, Unknown, 0, 0), put(1, 1, 2)],
    ];
    for history in histories {
        assert_eq!(search(&history, STEPS), Ok(()), "{history:?}");
    }
}

#[test]
fn bad_histories_are_refused() {
    use Outcome::{Done, Refused, Unknown};
    let histories = [
        // A stale read.
        vec![put(1, 0, 1), put(2, 2, 3), get(Some(1), 4, 5)],
        // A lost write.
        vec![put(1, 0, 1), get(None, 2, 3)],
        // A content nobody wrote.
        vec![put(1, 0, 1), get(Some(7), 2, 3)],
        // Two reads that see two concurrent writes in different orders.
        vec![
            put(1, 0, 10),
            put(2, 0, 10),
            get(Some(1), 11, 12),
            get(Some(2), 13, 14),
        ],
        // A new value, then the old one again, while the write is still running.
        vec![put(1, 0, 20), get(Some(1), 1, 2), get(None, 3, 4)],
        // One PUT applied twice, around another.
        vec![
            put(1, 0, 100),
            get(Some(1), 5, 8),
            put(2, 10, 20),
            get(Some(2), 30, 35),
            get(Some(1), 40, 45),
        ],
        // A deleted tag comes back.
        vec![put(1, 0, 1), delete(Done, 2, 3), get(Some(1), 4, 5)],
        vec![delete(Done, 0, 1)],
        vec![put(1, 0, 1), delete(Refused, 2, 3)],
        // Both swaps cannot win.
        vec![swap(None, 1, Done, 0, 10), swap(None, 2, Done, 0, 10)],
        vec![put(1, 0, 1), swap(Some(1), 2, Refused, 2, 3)],
        // An unknown write takes effect once, and not before its call.
        vec![
            unknown_put(1, 0),
            get(Some(1), 1, 2),
            put(2, 3, 4),
            get(Some(2), 5, 6),
            get(Some(1), 7, 8),
        ],
        vec![get(Some(1), 0, 1), unknown_put(1, 2)],
        vec![swap(Some(1), 2, Unknown, 0, 0), get(Some(2), 1, 2)],
    ];
    for history in histories {
        let found = search(&history, STEPS);
        assert!(
            matches!(found, Err(Violation::NotLinearizable { .. })),
            "{history:?}"
        );
    }
}

#[test]
fn a_violation_is_described() {
    let history = [put(1, 0, 1), put(2, 2, 3), get(Some(1), 4, 5)];
    let violation = search(&history, STEPS).unwrap_err();
    assert_eq!(
        violation,
        Violation::NotLinearizable {
            placed: vec![0, 1],
            stuck: vec![2]
        }
    );
    let text = violation.describe(&history);
    assert!(text.contains("\n  #1 Operation"), "{text}");
    assert_eq!(search(&history, 2), Err(Violation::OutOfSteps));
}

#[test]
fn good_orders_by_revision_are_accepted() {
    use Outcome::{Done, Refused, Unknown};
    let histories = [
        vec![],
        // In a history the order of lines means nothing.
        vec![
            at(9, get(Some(2), 4, 5)),
            at(8, put(2, 0, 3)),
            at(7, put(1, 0, 3)),
            at(7, get(Some(1), 1, 2)),
        ],
        // Reads of one state need no order among themselves.
        vec![
            at(3, put(1, 0, 1)),
            at(5, get(Some(1), 8, 9)),
            at(5, get(Some(1), 2, 3)),
        ],
        vec![
            at(1, swap(None, 1, Done, 0, 1)),
            at(2, swap(None, 2, Refused, 2, 3)),
            at(3, delete(Done, 4, 5)),
            delete(Refused, 6, 7),
            get(None, 8, 9),
        ],
        // An unknown write explains an answer, also one without a revision, also through a second one.
        vec![
            at(1, put(1, 0, 1)),
            unknown_put(2, 0),
            at(2, get(Some(2), 2, 3)),
        ],
        vec![at(1, put(1, 0, 1)), delete(Unknown, 2, 0), get(None, 3, 4)],
        vec![
            unknown_put(1, 0),
            swap(Some(1), 2, Unknown, 1, 0),
            at(4, get(Some(2), 2, 3)),
        ],
    ];
    for history in histories {
        assert_eq!(check_revisions(&history), Ok(()), "{history:?}");
        assert_eq!(search(&history, STEPS), Ok(()), "{history:?}");
    }
}

#[test]
fn bad_orders_by_revision_are_refused() {
    use RevisionViolation::{Answer, NoRevision, RealTime, SharedEntry};
    let histories = [
        (
            vec![at(2, put(1, 0, 1)), at(1, put(2, 2, 3))],
            RealTime { early: 0, late: 1 },
        ),
        // A stale read that says so.
        (
            vec![at(5, put(1, 0, 1)), at(4, get(None, 2, 3))],
            RealTime { early: 0, late: 1 },
        ),
        // A read cannot know a write that was not even called.
        (
            vec![at(5, put(1, 2, 3)), at(5, get(Some(1), 0, 1))],
            RealTime { early: 1, late: 0 },
        ),
        // A stale read that hides it.
        (
            vec![
                at(5, put(1, 0, 1)),
                at(6, put(2, 2, 3)),
                at(6, get(Some(1), 4, 5)),
            ],
            Answer {
                operation: 2,
                last_write: Some(1),
            },
        ),
        (
            vec![at(5, put(1, 0, 9)), at(5, put(2, 0, 9))],
            SharedEntry {
                first: 0,
                second: 1,
            },
        ),
        (vec![put(1, 0, 1)], NoRevision { operation: 0 }),
        // An unknown write is used once, and not before its call.
        (
            vec![
                unknown_put(1, 0),
                at(1, get(Some(1), 1, 2)),
                at(2, put(2, 3, 4)),
                at(3, get(Some(1), 5, 6)),
            ],
            Answer {
                operation: 3,
                last_write: Some(2),
            },
        ),
        (
            vec![at(1, get(Some(1), 0, 1)), unknown_put(1, 2)],
            Answer {
                operation: 0,
                last_write: None,
            },
        ),
        // Nowhere between its call and its return was the tag absent.
        (
            vec![at(1, put(1, 0, 1)), get(None, 2, 3), at(2, put(2, 4, 5))],
            Answer {
                operation: 1,
                last_write: Some(0),
            },
        ),
    ];
    for (history, violation) in histories {
        assert_eq!(
            check_revisions(&history),
            Err(violation.clone()),
            "{history:?}"
        );
        assert!(!violation.to_string().is_empty());
    }
}

/// Small, seeded and good enough to make up histories.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What eight clients see of a real register: each operation takes effect at some instant between its call and
/// its return, and gets the number of that instant as its revision.
fn observe(seed: u64, length: usize) -> Vec<Operation<u32>> {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut free_at = [0; 8];
    let mut instants = Vec::new();
    for number in 0..length {
        let client = &mut free_at[number % 8];
        let called = *client + random.below(20);
        let length = 10 + random.below(100);
        *client = called + length;
        instants.push((called + 1 + random.below(length - 1), called, *client));
    }
    instants.sort_unstable();
    let (mut tag, mut history) = (None, Vec::new());
    for (number, (_, called, returned)) in instants.into_iter().enumerate() {
        let new = u32::try_from(number).unwrap() + 1;
        let action = match random.below(10) {
            0..4 => Action::Put(new),
            4 => Action::Delete,
            5 => Action::CompareAndSwap { expected: tag, new },
            6 => Action::CompareAndSwap {
                expected: Some(new / 2),
                new,
            },
            _ => Action::Get,
        };
        let mut done = operation(action, Outcome::Done, called, returned);
        if done.action == Action::Get {
            done.outcome = Outcome::Seen(tag);
        } else if done.follow(&tag).is_none() {
            done.outcome = Outcome::Refused;
        }
        let is_lost = random.below(40) == 0;
        if !(is_lost && random.below(2) == 0) {
            tag = done.follow(&tag).unwrap();
        }
        if is_lost {
            done.outcome = Outcome::Unknown;
        } else if done.outcome != Outcome::Seen(None) {
            done.revision = Some(number as u64 + 1);
        }
        history.push(done);
    }
    history
}

#[test]
fn what_a_register_shows_is_accepted() {
    for seed in 1..40 {
        let history = observe(seed, 80);
        assert_eq!(check_revisions(&history), Ok(()), "seed {seed}");
        let found = search(&history, STEPS);
        if let Err(violation) = found {
            panic!("seed {seed}: {}", violation.describe(&history));
        }
    }
}

/// Reads that see a content long overwritten, contents nobody wrote, and swaps that claim to have won.
#[test]
fn a_corrupted_history_is_caught() {
    for seed in 1..40 {
        let good = observe(seed, 60);
        let reads: Vec<usize> = (0..good.len())
            .filter(|number| matches!(good[*number].outcome, Outcome::Seen(Some(_))))
            .collect();
        let last = *reads.last().unwrap();
        let first = *reads.first().unwrap();
        let refused = good
            .iter()
            .position(|operation| operation.outcome == Outcome::Refused);
        let mut stale = good.clone();
        stale[last].outcome = good[first].outcome.clone();
        let mut phantom = good.clone();
        phantom[last].outcome = Outcome::Seen(Some(1_000_000));
        let mut corrupted = vec![phantom];
        if good[first].returned_at_ns + 1000 < good[last].called_at_ns
            && good[first].outcome != good[last].outcome
        {
            corrupted.push(stale);
        }
        if let Some(refused) = refused
            && matches!(good[refused].action, Action::CompareAndSwap { expected: Some(expected), .. }
                if !writes(&good, expected))
        {
            let mut won = good.clone();
            won[refused].outcome = Outcome::Done;
            corrupted.push(won);
        }
        for history in corrupted {
            assert!(check_revisions(&history).is_err(), "seed {seed}");
            assert!(
                matches!(
                    search(&history, STEPS),
                    Err(Violation::NotLinearizable { .. })
                ),
                "seed {seed}"
            );
        }
    }
}

fn writes(history: &[Operation<u32>], digest: u32) -> bool {
    history.iter().any(|operation| {
        matches!(operation.action, Action::Put(new) | Action::CompareAndSwap { new, .. } if new == digest)
    })
}

/// The two checkers see different things, but a wrong revision is wrong for both when answers follow from it.
#[test]
fn a_long_history_is_checked_by_revision() {
    let mut history = observe(77, 20_000);
    assert_eq!(check_revisions(&history), Ok(()));
    let read = history
        .iter()
        .rposition(|operation| matches!(operation.outcome, Outcome::Seen(Some(_))))
        .unwrap();
    history[read].outcome = Outcome::Seen(Some(1));
    assert!(check_revisions(&history).is_err());
}
