use super::*;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tempfile::TempDir;

use crate::contract::log::{all, append, entries, entry, expect_sync};
use crate::memory::MemoryLogStore;
use crate::rocks::tests::{copy_dir, largest_wal};

fn temp() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn open(dir: &TempDir) -> RocksLog {
    try_open(dir).expect("the log opens")
}

fn try_open(dir: &TempDir) -> Result<RocksLog, StorageError> {
    RocksLog::open(dir.path(), &StorageOptions::default())
}

fn refusal(dir: &TempDir) -> String {
    match try_open(dir) {
        Err(StorageError::Refused { why, .. }) => why,
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(_) => panic!("it opened"),
    }
}

fn vote(log: &RocksLog, term: u64) {
    log.set_hard_state(VOTE, Bytes::from(format!("term {term}")), true)
        .expect("durable");
}

/// The data directory as a killed process leaves it.
fn killed(dir: &TempDir) -> TempDir {
    let copy = temp();
    copy_dir(dir.path(), copy.path());
    copy
}

#[test]
fn keeps_the_contract() {
    let dirs = std::cell::RefCell::new(Vec::new());
    crate::contract::log::suite(|| {
        let dir = temp();
        let log = open(&dir);
        dirs.borrow_mut().push(dir);
        Arc::new(log)
    });
}

#[test]
fn reopening_keeps_everything_acknowledged() {
    let dir = temp();
    let log = open(&dir);
    append(&log, entries(0..100, 1));
    vote(&log, 7);
    log.truncate_from(90).expect("truncated");
    append(&log, entries(90..95, 2));
    log.purge_through(40, Bytes::from_static(b"forty"))
        .expect("purged");
    let expected = [entries(41..90, 1), entries(90..95, 2)].concat();
    let crashed = killed(&dir);
    drop(log);
    for dir in [dir, crashed] {
        let log = open(&dir);
        assert_eq!(all(&log), expected);
        assert_eq!(
            log.hard_state(VOTE).expect("readable"),
            Some(Bytes::from_static(b"term 7"))
        );
        let ends = log.ends().expect("readable");
        assert_eq!(ends.purged, Some((40, Bytes::from_static(b"forty"))));
        assert_eq!(ends.last, Some((94, entry(94, 2))));
        append(&log, entries(95..96, 3));
    }
}

#[test]
fn a_log_purged_to_its_end_reopens() {
    let dir = temp();
    let log = open(&dir);
    append(&log, entries(0..10, 1));
    log.purge_through(500, Bytes::from_static(b"installed"))
        .expect("purged");
    drop(log);
    let log = open(&dir);
    assert_eq!(
        log.ends().expect("readable").purged,
        Some((500, Bytes::from_static(b"installed")))
    );
    append(&log, entries(501..502, 1));
    drop(log);
    assert_eq!(all(&open(&dir)), entries(501..502, 1));
}

#[test]
fn a_flipped_bit_in_the_middle_is_refused() {
    let dir = temp();
    let log = open(&dir);
    for index in 0..1000 {
        append(&log, vec![(index, Bytes::from(vec![3; 300]))]);
    }
    drop(log);
    let wal = largest_wal(&dir.path().join(DATABASE));
    let mut bytes = std::fs::read(&wal).expect("readable");
    let middle = bytes.len() / 2;
    assert!(middle > 100_000, "the entries are in the write-ahead log");
    bytes[middle] ^= 0x40;
    std::fs::write(&wal, bytes).expect("written");
    assert!(matches!(
        try_open(&dir),
        Err(StorageError::Unopenable { .. })
    ));
}

#[test]
fn a_log_cut_in_half_is_refused() {
    let dir = temp();
    let log = open(&dir);
    for index in 0..500 {
        append(&log, vec![(index, Bytes::from(vec![3; 300]))]);
    }
    drop(log);
    let wal = largest_wal(&dir.path().join(DATABASE));
    let bytes = std::fs::read(&wal).expect("readable");
    std::fs::write(&wal, &bytes[..bytes.len() / 2]).expect("written");
    assert!(refusal(&dir).contains("rolled back"));
    assert!(
        refusal(&dir).contains("replace this node"),
        "and again: opening did not forget"
    );
}

#[test]
fn a_torn_tail_that_was_never_acknowledged_is_dropped() {
    let dir = temp();
    let log = open(&dir);
    append(&log, entries(0..10, 1));
    vote(&log, 1);
    let mark = std::fs::read(dir.path().join(HIGH_WATER)).expect("readable");
    append(&log, vec![(10, Bytes::from(vec![9; 200]))]);
    drop(log);
    // The crash came before the last entry was synced: part of it is missing, and no mark covers it.
    std::fs::write(dir.path().join(HIGH_WATER), mark).expect("written");
    let wal = largest_wal(&dir.path().join(DATABASE));
    let bytes = std::fs::read(&wal).expect("readable");
    std::fs::write(&wal, &bytes[..bytes.len() - 50]).expect("written");
    let log = open(&dir);
    assert_eq!(all(&log), entries(0..10, 1));
    append(&log, entries(10..12, 2));
}

#[test]
fn an_older_copy_of_the_log_is_refused() {
    let dir = temp();
    let log = open(&dir);
    append(&log, entries(0..5, 1));
    vote(&log, 1);
    let old = killed(&dir);
    vote(&log, 2);
    drop(log);
    std::fs::copy(dir.path().join(HIGH_WATER), old.path().join(HIGH_WATER)).expect("copied");
    assert!(refusal(&old).contains("5 with 1 votes, and had reached entry 5 with 2 votes"));
}

#[test]
fn a_lost_log_or_a_lost_mark_is_refused() {
    let dir = temp();
    let log = open(&dir);
    append(&log, entries(0..5, 1));
    drop(log);
    let copy = killed(&dir);
    std::fs::remove_dir_all(dir.path().join(DATABASE)).expect("removed");
    assert!(refusal(&dir).contains("rolled back"));
    std::fs::remove_file(copy.path().join(HIGH_WATER)).expect("removed");
    assert!(refusal(&copy).contains("it is missing"));
    std::fs::write(copy.path().join(HIGH_WATER), b"garbage").expect("written");
    assert!(matches!(try_open(&copy), Err(StorageError::Corrupt { .. })));
}

#[test]
fn an_empty_log_reopens() {
    let dir = temp();
    drop(open(&dir));
    drop(open(&dir));
    // The first start was interrupted before the mark was written.
    std::fs::remove_file(dir.path().join(HIGH_WATER)).expect("removed");
    drop(open(&dir));
}

#[test]
fn the_mark_follows_appends_without_being_asked() {
    let dir = temp();
    let log = open(&dir);
    append(&log, entries(0..5, 1));
    let patience = Instant::now() + Duration::from_secs(60);
    let mark = || {
        HighWater::load(&dir.path().join(HIGH_WATER))
            .expect("intact")
            .expect("there")
            .mark()
    };
    while mark().end != 5 {
        assert!(Instant::now() < patience, "the mark stays at {:?}", mark());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn truncating_lowers_the_mark_first() {
    let dir = temp();
    let log = open(&dir);
    append(&log, entries(0..10, 1));
    vote(&log, 1);
    log.truncate_from(5).expect("truncated");
    let crashed = killed(&dir);
    let log = open(&crashed);
    assert_eq!(all(&log), entries(0..5, 1));
    append(&log, entries(5..7, 2));
}

#[test]
fn a_hole_is_an_error() {
    let dir = temp();
    let log = open(&dir);
    append(&log, entries(0..10, 1));
    log.database
        .delete_cf(&family(&log.database, ENTRIES), 4_u64.to_be_bytes())
        .expect("deleted");
    assert_eq!(
        log.read(0..4, usize::MAX).expect("readable"),
        entries(0..4, 1)
    );
    for range in [0..10, 4..5, 4..10] {
        assert!(matches!(
            log.read(range, usize::MAX),
            Err(StorageError::Corrupt { .. })
        ));
    }
    drop(log);
    assert!(matches!(
        try_open(&dir),
        Err(StorageError::Corrupt {
            what: "the log has a hole",
            ..
        })
    ));
}

/// While one sync is under way, others append; all of them share the next sync.
#[test]
fn appends_share_a_sync() {
    const THREADS: u64 = 64;
    let dir = temp();
    let log = open(&dir);
    let syncs_before = log.syncs();
    let (first_is_synced, first_synced) = channel();
    let (let_go, gate) = channel::<()>();
    let synced: Synced = Box::new(move |outcome| {
        outcome.expect("durable");
        first_is_synced.send(()).expect("the test waits");
        gate.recv().expect("the test opens the gate");
    });
    log.append(entries(0..1, 1), synced).expect("appended");
    first_synced.recv().expect("synced");

    // The syncing thread is held in the first callback.
    let next = Mutex::new(1);
    let (sender, outcomes) = channel();
    std::thread::scope(|scope| {
        for _ in 1..THREADS {
            let sender = sender.clone();
            let (log, next) = (&log, &next);
            scope.spawn(move || {
                let mut next = next.lock().expect("nobody panics");
                let index = *next;
                let synced: Synced = Box::new(move |outcome| {
                    outcome.expect("durable");
                    sender.send(index).expect("the test waits");
                });
                log.append(entries(index..index + 1, 1), synced)
                    .expect("appended");
                *next += 1;
            });
        }
    });
    drop(sender);
    let_go.send(()).expect("the callback waits");
    assert_eq!(
        outcomes.iter().collect::<Vec<u64>>(),
        (1..THREADS).collect::<Vec<u64>>()
    );
    assert_eq!(
        log.syncs() - syncs_before,
        2,
        "one for the first, one for all others"
    );
}

#[test]
fn nothing_is_durable_after_a_failed_sync() {
    let dir = temp();
    let database = Arc::clone(&open(&dir).database);
    let sync = LogSync::start(database, HighWater::failing()).expect("started");
    let (synced, outcome) = expect_sync();
    sync.append(1, synced).expect("queued");
    outcome
        .recv()
        .expect("called back")
        .expect("the write-ahead log itself works");
    assert!(
        sync.hard_state(Some(1)).expect("queued")().is_err(),
        "the mark cannot be written"
    );
    assert!(
        sync.hard_state(None).expect("queued")().is_err(),
        "and is not tried again"
    );
    let (synced, outcome) = expect_sync();
    sync.append(2, synced).expect("queued");
    assert!(outcome.recv().expect("called back").is_err());
    assert!(sync.lower(0).is_err());
}

#[test]
fn a_callback_may_hold_the_last_reference() {
    let dir = temp();
    let log = Arc::new(open(&dir));
    let (sender, receiver) = channel();
    let (let_go, gate) = channel::<()>();
    let held = Arc::clone(&log);
    let synced: Synced = Box::new(move |_| {
        gate.recv().expect("the test opens the gate");
        drop(held);
        sender.send(()).expect("the test waits");
    });
    log.append(entries(0..1, 1), synced).expect("appended");
    drop(log);
    let_go.send(()).expect("the callback waits");
    receiver
        .recv_timeout(Duration::from_secs(60))
        .expect("no deadlock");
}

#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    Truncate(u64),
    Purge(u64),
    Vote,
    Reopen,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u64..20).prop_map(Step::Append),
        2 => (0_u64..30).prop_map(Step::Truncate),
        1 => (0_u64..40).prop_map(Step::Purge),
        1 => Just(Step::Vote),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Disk and memory agree after any steps, restarts and kills included.
    #[test]
    fn disk_equals_memory(steps in prop::collection::vec(step(), 1..40)) {
        let memory = MemoryLogStore::new();
        let mut dir = temp();
        let mut disk = open(&dir);
        for (generation, step) in (1..).zip(steps) {
            let end = {
                let ends = memory.ends().expect("readable");
                ends.last.or(ends.purged).map_or(0, |(index, _)| index + 1)
            };
            match step {
                Step::Append(count) => {
                    append(&memory, entries(end..end + count, generation));
                    append(&disk, entries(end..end + count, generation));
                }
                Step::Truncate(count) => {
                    memory.truncate_from(end.saturating_sub(count)).expect("truncated");
                    disk.truncate_from(end.saturating_sub(count)).expect("truncated");
                }
                Step::Purge(count) => {
                    // Sometimes beyond the end, as after the install of a snapshot.
                    let index = (end + 5).saturating_sub(count);
                    let marker = Bytes::from(format!("at {index}"));
                    memory.purge_through(index, marker.clone()).expect("purged");
                    disk.purge_through(index, marker).expect("purged");
                }
                Step::Vote => {
                    for log in [&memory as &dyn LogStore, &disk] {
                        let value = Bytes::from(format!("term {generation}"));
                        log.set_hard_state(VOTE, value, true).expect("durable");
                    }
                }
                Step::Reopen => {
                    drop(disk);
                    disk = open(&dir);
                }
                Step::Kill => {
                    let crashed = killed(&dir);
                    drop(disk);
                    dir = crashed;
                    disk = open(&dir);
                }
            }
            prop_assert_eq!(disk.ends().expect("readable"), memory.ends().expect("readable"));
            prop_assert_eq!(all(&disk), all(&memory));
            prop_assert_eq!(disk.hard_state(VOTE).expect("readable"), memory.hard_state(VOTE).expect("readable"));
        }
    }
}
