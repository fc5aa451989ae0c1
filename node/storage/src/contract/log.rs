//! What every [`LogStore`] keeps.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;

use crate::error::StorageError;
use crate::log::{LogEnds, LogStore, Synced, VOTE};

/// Runs every case on a fresh log from `make`. Panics where the contract is broken.
pub fn suite(make: impl Fn() -> Arc<dyn LogStore>) {
    let cases: [fn(Arc<dyn LogStore>); 13] = [
        an_empty_log,
        appended_entries_are_readable_at_once_and_then_durable,
        an_empty_append_is_answered,
        callbacks_come_in_order,
        a_log_may_start_anywhere,
        only_the_next_entry_is_accepted,
        reading_stops_at_the_limit_but_not_before_the_first,
        truncating,
        purging,
        purging_beyond_the_end,
        large_entries,
        hard_state,
        readers_see_no_hole_while_the_log_changes,
    ];
    for case in cases {
        case(make());
    }
}

/// Distinct per index and generation, and of different lengths.
pub(crate) fn entry(index: u64, generation: u64) -> Bytes {
    let length = usize::try_from(index % 7).expect("below 7");
    Bytes::from(format!("{generation}/{index}").repeat(length + 1))
}

pub(crate) fn entries(range: Range<u64>, generation: u64) -> Vec<(u64, Bytes)> {
    range
        .map(|index| (index, entry(index, generation)))
        .collect()
}

/// A callback and where its outcome arrives.
pub(crate) fn expect_sync() -> (Synced, Receiver<Result<(), StorageError>>) {
    let (sender, receiver) = channel();
    let synced = Box::new(move |outcome| {
        sender
            .send(outcome)
            .expect("somebody waits for the outcome")
    });
    (synced, receiver)
}

/// Appends and waits until it is durable.
pub(crate) fn append(log: &dyn LogStore, entries: Vec<(u64, Bytes)>) {
    let (synced, outcome) = expect_sync();
    log.append(entries, synced)
        .expect("the entries continue the log");
    outcome
        .recv_timeout(Duration::from_secs(60))
        .expect("called back")
        .expect("durable");
}

pub(crate) fn all(log: &dyn LogStore) -> Vec<(u64, Bytes)> {
    log.read(0..u64::MAX, usize::MAX).expect("readable")
}

fn ends(log: &dyn LogStore) -> LogEnds {
    log.ends().expect("readable")
}

fn an_empty_log(log: Arc<dyn LogStore>) {
    assert_eq!(ends(&*log), LogEnds::default());
    assert_eq!(all(&*log), []);
    log.truncate_from(0).expect("nothing to do");
    log.truncate_from(5).expect("nothing to do");
    assert_eq!(ends(&*log), LogEnds::default());
    assert_eq!(log.hard_state(VOTE).expect("readable"), None);
}

fn appended_entries_are_readable_at_once_and_then_durable(log: Arc<dyn LogStore>) {
    let (synced, outcome) = expect_sync();
    log.append(entries(0..10, 1), synced)
        .expect("the first entries");
    assert_eq!(all(&*log), entries(0..10, 1));
    assert_eq!(
        ends(&*log),
        LogEnds {
            purged: None,
            last: Some((9, entry(9, 1)))
        }
    );
    outcome
        .recv_timeout(Duration::from_secs(60))
        .expect("called back")
        .expect("durable");
    assert!(outcome.recv().is_err(), "a callback is called once");

    assert_eq!(
        log.read(3..6, usize::MAX).expect("readable"),
        entries(3..6, 1)
    );
    assert_eq!(
        log.read(8..20, usize::MAX).expect("readable"),
        entries(8..10, 1)
    );
    assert_eq!(log.read(10..20, usize::MAX).expect("readable"), []);
    assert_eq!(log.read(5..5, usize::MAX).expect("readable"), []);
    #[allow(clippy::reversed_empty_ranges)]
    let backwards = 6..3;
    assert_eq!(log.read(backwards, usize::MAX).expect("readable"), []);
}

fn an_empty_append_is_answered(log: Arc<dyn LogStore>) {
    append(&*log, Vec::new());
    assert_eq!(ends(&*log), LogEnds::default());
}

fn callbacks_come_in_order(log: Arc<dyn LogStore>) {
    let (sender, receiver) = channel();
    for index in 0..200 {
        let sender = sender.clone();
        let synced: Synced = Box::new(move |outcome| {
            outcome.expect("durable");
            sender.send(index).expect("somebody waits");
        });
        log.append(entries(index..index + 1, 1), synced)
            .expect("the next entry");
    }
    drop(sender);
    assert_eq!(
        receiver.iter().collect::<Vec<u64>>(),
        (0..200).collect::<Vec<u64>>()
    );
}

fn a_log_may_start_anywhere(log: Arc<dyn LogStore>) {
    append(&*log, entries(7..9, 1));
    assert_eq!(all(&*log), entries(7..9, 1));
    log.truncate_from(0).expect("truncated");
    assert_eq!(ends(&*log), LogEnds::default());
    append(&*log, entries(3..5, 2));
    assert_eq!(all(&*log), entries(3..5, 2));
}

fn only_the_next_entry_is_accepted(log: Arc<dyn LogStore>) {
    append(&*log, entries(0..5, 1));
    let refused = |entries: Vec<(u64, Bytes)>| {
        let (synced, outcome) = expect_sync();
        let error = log
            .append(entries, synced)
            .expect_err("the entries do not continue the log");
        assert!(
            outcome.recv().is_err(),
            "what is refused is not answered a second time"
        );
        error
    };
    let error = refused(entries(6..7, 1));
    assert!(
        matches!(
            error,
            StorageError::NotNext {
                expected: 5,
                found: 6
            }
        ),
        "{error}"
    );
    let error = refused(entries(4..6, 1));
    assert!(
        matches!(
            error,
            StorageError::NotNext {
                expected: 5,
                found: 4
            }
        ),
        "{error}"
    );
    let error = refused([entries(5..6, 1), entries(7..8, 1)].concat());
    assert!(
        matches!(
            error,
            StorageError::NotNext {
                expected: 6,
                found: 7
            }
        ),
        "{error}"
    );
    assert_eq!(all(&*log), entries(0..5, 1));
    append(&*log, entries(5..6, 1));
    assert_eq!(all(&*log), entries(0..6, 1));
}

fn reading_stops_at_the_limit_but_not_before_the_first(log: Arc<dyn LogStore>) {
    let ten = |index| (index, Bytes::from(vec![1; 10]));
    append(&*log, (0..10).map(ten).collect());
    let count = |range, max_bytes| log.read(range, max_bytes).expect("readable").len();
    assert_eq!(count(0..10, 0), 1);
    assert_eq!(count(0..10, 9), 1);
    assert_eq!(count(0..10, 19), 1);
    assert_eq!(count(0..10, 20), 2);
    assert_eq!(count(4..10, 45), 4);
    assert_eq!(count(4..10, 1000), 6);
}

fn truncating(log: Arc<dyn LogStore>) {
    append(&*log, entries(0..10, 1));
    log.truncate_from(10).expect("nothing to do");
    assert_eq!(all(&*log), entries(0..10, 1));
    log.truncate_from(6).expect("truncated");
    assert_eq!(ends(&*log).last, Some((5, entry(5, 1))));
    append(&*log, entries(6..8, 2));
    assert_eq!(all(&*log), [entries(0..6, 1), entries(6..8, 2)].concat());
    log.truncate_from(0).expect("truncated");
    assert_eq!(ends(&*log), LogEnds::default());
    append(&*log, entries(0..3, 3));
    assert_eq!(all(&*log), entries(0..3, 3));
}

fn purging(log: Arc<dyn LogStore>) {
    append(&*log, entries(0..10, 1));
    log.purge_through(3, Bytes::from_static(b"three"))
        .expect("purged");
    let purged = Some((3, Bytes::from_static(b"three")));
    assert_eq!(
        ends(&*log),
        LogEnds {
            purged: purged.clone(),
            last: Some((9, entry(9, 1)))
        }
    );
    assert_eq!(all(&*log), entries(4..10, 1));
    assert_eq!(
        log.read(2..6, usize::MAX).expect("readable"),
        entries(4..6, 1)
    );

    log.purge_through(2, Bytes::from_static(b"earlier"))
        .expect("nothing to do");
    log.purge_through(3, Bytes::from_static(b"again"))
        .expect("nothing to do");
    assert_eq!(ends(&*log).purged, purged);

    log.truncate_from(0).expect("what is purged stays purged");
    assert_eq!(
        ends(&*log),
        LogEnds {
            purged: purged.clone(),
            last: None
        }
    );
    let (synced, _) = expect_sync();
    let error = log
        .append(entries(0..1, 2), synced)
        .expect_err("entry 0 is purged");
    assert!(
        matches!(
            error,
            StorageError::NotNext {
                expected: 4,
                found: 0
            }
        ),
        "{error}"
    );
    append(&*log, entries(4..6, 2));
    assert_eq!(all(&*log), entries(4..6, 2));
}

fn purging_beyond_the_end(log: Arc<dyn LogStore>) {
    append(&*log, entries(0..10, 1));
    log.purge_through(99, Bytes::from_static(b"installed"))
        .expect("purged");
    let purged = Some((99, Bytes::from_static(b"installed")));
    assert_eq!(ends(&*log), LogEnds { purged, last: None });
    assert_eq!(all(&*log), []);
    append(&*log, entries(100..103, 1));
    assert_eq!(all(&*log), entries(100..103, 1));

    log.purge_through(102, Bytes::new())
        .expect("purged to the last entry");
    assert_eq!(
        ends(&*log),
        LogEnds {
            purged: Some((102, Bytes::new())),
            last: None
        }
    );
}

fn large_entries(log: Arc<dyn LogStore>) {
    let large = |n: u8| Bytes::from(vec![n; 5 << 20]);
    append(&*log, vec![(0, Bytes::new()), (1, large(1)), (2, large(2))]);
    append(&*log, vec![(3, large(3))]);
    assert_eq!(
        all(&*log),
        vec![
            (0, Bytes::new()),
            (1, large(1)),
            (2, large(2)),
            (3, large(3))
        ]
    );
    assert_eq!(log.read(0..4, 6 << 20).expect("readable").len(), 2);
}

fn hard_state(log: Arc<dyn LogStore>) {
    let set = |name, value: &'static str, sync| {
        log.set_hard_state(name, Bytes::from_static(value.as_bytes()), sync)
            .expect("written");
    };
    let get = |name| log.hard_state(name).expect("readable");
    set(VOTE, "term 1", true);
    set("committed", "5", false);
    set("other", "x", true);
    assert_eq!(get(VOTE), Some(Bytes::from_static(b"term 1")));
    assert_eq!(get("committed"), Some(Bytes::from_static(b"5")));
    set(VOTE, "term 2", true);
    set("committed", "6", false);
    append(&*log, entries(0..3, 1));
    log.purge_through(1, Bytes::from_static(b"one"))
        .expect("purged");
    assert_eq!(get(VOTE), Some(Bytes::from_static(b"term 2")));
    assert_eq!(get("committed"), Some(Bytes::from_static(b"6")));
    assert_eq!(
        get("purged"),
        None,
        "names do not collide with the store's own"
    );
}

/// A writer appends, truncates and purges while readers read: a read is a part of one state of the log.
fn readers_see_no_hole_while_the_log_changes(log: Arc<dyn LogStore>) {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_done.load(Ordering::Acquire) {
                    let found = all(&*log);
                    assert!(
                        found.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0),
                        "a hole"
                    );
                    let generations: Vec<&[u8]> =
                        found.iter().map(|(_, entry)| &entry[..1]).collect();
                    assert!(
                        generations.is_sorted(),
                        "entries of a truncated tail behind newer ones"
                    );
                    log.ends().expect("the ends are always readable");
                }
            });
        }
        scope.spawn(|| {
            let _done = SetOnDrop(&is_done);
            let mut end = 0;
            for round in 0..30 {
                // One digit, so that the first byte of an entry orders generations.
                let generation = round / 4;
                append(&*log, entries(end..end + 20, generation));
                end += 20;
                if round % 4 == 3 {
                    log.truncate_from(end - 7).expect("truncated");
                    end -= 7;
                }
                if round % 10 == 9 {
                    log.purge_through(end - 30, Bytes::new()).expect("purged");
                }
            }
        });
    });
}

/// Lets the readers end also when the writer panics.
pub(super) struct SetOnDrop<'a>(pub(super) &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
