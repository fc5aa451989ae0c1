mod replay;

use super::*;
use std::cell::RefCell;

use proptest::prelude::*;
use tempfile::TempDir;

use crate::contract::state::{all, applied, changes, commit, export};
use crate::memory::MemoryStateStore;
use crate::rocks::tests::{copy_dir, largest_wal};

fn temp() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn open(dir: &TempDir) -> RocksState {
    try_open(dir).expect("the state opens")
}

fn try_open(dir: &TempDir) -> Result<RocksState, StorageError> {
    RocksState::open(dir.path(), &StorageOptions::default())
}

/// The data directory as a killed process leaves it.
fn killed(dir: &TempDir) -> TempDir {
    let copy = temp();
    copy_dir(dir.path(), copy.path());
    copy
}

fn names(dir: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(dir.path()).expect("listed");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("listed")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    names.sort();
    names
}

/// A stream of some megabytes, and what it holds.
fn large_stream() -> (Vec<u8>, MemoryStateStore) {
    let state = MemoryStateStore::new();
    for index in 1..=200_u64 {
        let value = vec![u8::try_from(index).expect("small"); 50_000];
        let set = [(format!("new {index:03}").into_bytes(), Some(value))];
        state.commit(set.into(), applied(index)).expect("committed");
    }
    (export(&state), state)
}

/// Runs `hook` with the number of bytes read so far before each read.
struct HookedReader<'a> {
    rest: &'a [u8],
    read_bytes: usize,
    hook: &'a mut dyn FnMut(usize),
}

impl Read for HookedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        (self.hook)(self.read_bytes);
        let length = self.rest.read(buffer)?;
        self.read_bytes += length;
        Ok(length)
    }
}

#[test]
fn keeps_the_contract() {
    let dirs = RefCell::new(Vec::new());
    crate::contract::state::suite(|| {
        let dir = temp();
        let state = open(&dir);
        dirs.borrow_mut().push(dir);
        Arc::new(state)
    });
    for dir in dirs.borrow().iter() {
        let names = names(dir);
        assert_eq!(names.len(), 2, "the pointer and one generation: {names:?}");
    }
}

#[test]
fn reopening_keeps_everything() {
    let dir = temp();
    let state = open(&dir);
    commit(&state, &["a=1", "b=1"], 1);
    commit(&state, &["b", "c=2"], 2);
    let crashed = killed(&dir);
    drop(state);
    for dir in [dir, crashed] {
        let state = open(&dir);
        assert_eq!(state.applied().expect("readable"), applied(2));
        assert_eq!(
            all(&state),
            [
                (b"a".to_vec(), b"1".to_vec()),
                (b"c".to_vec(), b"2".to_vec())
            ]
        );
    }
}

/// A power cut may take the end of what was not flushed, but never a part of a batch.
#[test]
fn a_cut_write_ahead_log_leaves_whole_batches() {
    let dir = temp();
    let state = open(&dir);
    for index in 1..100 {
        commit(
            &state,
            &[&format!("x={index}"), &format!("y={index}")],
            index,
        );
    }
    drop(state);
    let wal = largest_wal(&dir.path().join("generation-1"));
    let bytes = std::fs::read(&wal).expect("readable");
    let mut seen = std::collections::BTreeSet::new();
    for kept in [
        0,
        bytes.len() / 3,
        bytes.len() / 2,
        bytes.len() - 60,
        bytes.len() - 1,
        bytes.len(),
    ] {
        std::fs::write(&wal, &bytes[..kept]).expect("written");
        let crashed = killed(&dir);
        let state = open(&crashed);
        let index = state.applied().expect("readable").index.0;
        let expected = |key: &str| (key.as_bytes().to_vec(), index.to_string().into_bytes());
        let expected = if index == 0 {
            Vec::new()
        } else {
            vec![expected("x"), expected("y")]
        };
        assert_eq!(all(&state), expected, "{kept} of {} bytes", bytes.len());
        seen.insert(index);
    }
    assert_eq!(seen.last(), Some(&99));
    assert!(seen.len() >= 4, "the cuts made a difference: {seen:?}");
}

#[test]
fn an_install_survives_reopening() {
    let dir = temp();
    let state = open(&dir);
    commit(&state, &["old=1"], 3);
    let (stream, memory) = large_stream();
    state.install(&mut stream.as_slice()).expect("installed");
    let crashed = killed(&dir);
    commit(&state, &["later=1"], 201);
    drop(state);
    let state = open(&crashed);
    assert_eq!(state.applied().expect("readable"), applied(200));
    assert_eq!(export(&state), stream);
    assert_eq!(all(&state), all(&memory));
    let state = open(&dir);
    assert_eq!(state.applied().expect("readable"), applied(201));
    assert_eq!(names(&dir), ["current", "generation-2"]);
}

/// The process is killed again and again while a snapshot is being installed: the old state is there, whole.
#[test]
fn a_crash_during_an_install_leaves_the_old_state() {
    let dir = temp();
    let state = open(&dir);
    commit(&state, &["old=1"], 3);
    let expected = all(&state);
    let (stream, _) = large_stream();
    let mut crashed = Vec::new();
    let mut next_crash = 0;
    let mut hook = |read_bytes: usize| {
        // Also right before the last bytes, with everything but the swap done.
        if read_bytes >= next_crash || read_bytes + 32 >= stream.len() {
            next_crash = read_bytes + stream.len() / 5;
            crashed.push(killed(&dir));
        }
    };
    let mut source = HookedReader {
        rest: &stream,
        read_bytes: 0,
        hook: &mut hook,
    };
    state.install(&mut source).expect("installed");
    assert!(crashed.len() >= 5);
    for (number, dir) in crashed.iter().enumerate() {
        assert!(
            names(dir).contains(&"generation-2".to_owned()),
            "the new one was begun"
        );
        let state = open(dir);
        assert_eq!(
            state.applied().expect("readable"),
            applied(3),
            "crash {number}"
        );
        assert_eq!(all(&state), expected);
        assert_eq!(
            names(dir),
            ["current", "generation-1"],
            "what was begun is gone"
        );
        state
            .install(&mut stream.as_slice())
            .expect("the next attempt succeeds");
    }
}

#[test]
fn a_crash_after_the_swap_leaves_the_new_state() {
    let dir = temp();
    let state = open(&dir);
    commit(&state, &["old=1"], 3);
    let (stream, memory) = large_stream();
    let mut crashed = None;
    let read = state.read(&mut |_| {
        // The reader holds the old generation: the swap is done, its removal is not.
        state.install(&mut stream.as_slice()).expect("installed");
        crashed = Some(killed(&dir));
        Ok(())
    });
    read.expect("readable");
    let crashed = crashed.expect("the reader ran");
    assert_eq!(names(&crashed), ["current", "generation-1", "generation-2"]);
    let reopened = open(&crashed);
    assert_eq!(all(&reopened), all(&memory));
    assert_eq!(names(&crashed), ["current", "generation-2"]);
    assert_eq!(
        names(&dir),
        ["current", "generation-2"],
        "the old one went with its last reader"
    );
}

#[test]
fn leftovers_are_removed_at_the_start() {
    let dir = temp();
    let state = open(&dir);
    commit(&state, &["a=1"], 1);
    let checkpoint = state.checkpoint().expect("copied");
    let crashed = killed(&dir);
    assert_eq!(names(&dir), ["checkpoint-0", "current", "generation-1"]);
    drop(checkpoint);
    assert_eq!(names(&dir), ["current", "generation-1"]);

    std::fs::create_dir(crashed.path().join("generation-2")).expect("created");
    std::fs::write(crashed.path().join("generation-2/half"), b"half").expect("written");
    std::fs::write(crashed.path().join("current.partial"), b"ha").expect("written");
    std::fs::create_dir(crashed.path().join("lost+found")).expect("created");
    assert_eq!(all(&open(&crashed)), all(&state));
    assert_eq!(
        names(&crashed),
        ["current", "generation-1", "lost+found"],
        "and nothing else"
    );
}

#[test]
fn an_interrupted_first_start_is_repeated() {
    let dir = temp();
    Pointer {
        number: 1,
        creating: true,
    }
    .save(dir.path())
    .expect("written");
    let half = dir.path().join("generation-1");
    drop(open(&dir));

    let dir_with_half = temp();
    Pointer {
        number: 1,
        creating: true,
    }
    .save(dir_with_half.path())
    .expect("written");
    std::fs::create_dir(dir_with_half.path().join("generation-1")).expect("created");
    commit(&open(&dir_with_half), &["a=1"], 1);
    assert_eq!(
        open(&dir_with_half).applied().expect("readable"),
        applied(1)
    );

    std::fs::remove_dir_all(half).expect("removed");
    assert!(
        matches!(try_open(&dir), Err(StorageError::Refused { .. })),
        "a whole state cannot just be missing"
    );
}

#[test]
fn a_lost_pointer_is_refused() {
    let dir = temp();
    commit(&open(&dir), &["a=1"], 1);
    let pointer = dir.path().join("current");
    let bytes = std::fs::read(&pointer).expect("readable");
    std::fs::write(&pointer, b"7 whole 00000000\n").expect("written");
    assert!(matches!(try_open(&dir), Err(StorageError::Corrupt { .. })));
    std::fs::remove_file(&pointer).expect("removed");
    assert!(matches!(try_open(&dir), Err(StorageError::Refused { .. })));
    std::fs::write(&pointer, bytes).expect("written");
    assert_eq!(open(&dir).applied().expect("readable"), applied(1));
}

#[test]
fn two_stores_cannot_share_a_directory() {
    let dir = temp();
    let _state = open(&dir);
    assert!(matches!(
        try_open(&dir),
        Err(StorageError::Unopenable { .. })
    ));
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Flush,
    Reopen,
    Kill,
    Reinstall,
}

fn step() -> impl Strategy<Value = Step> {
    let key = prop::collection::vec(
        prop_oneof![Just(0_u8), Just(1), Just(0xfe), Just(0xff)],
        0..4,
    );
    let value = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..20),
        1 => (60_000_usize..140_000).prop_map(|length| vec![5; length]),
    ];
    let change = (key, prop::option::weighted(0.7, value));
    prop_oneof![
        6 => prop::collection::vec(change, 0..8).prop_map(Step::Commit),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
        1 => Just(Step::Reinstall),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Disk and memory export the same bytes after any steps, restarts, kills and installs included.
    #[test]
    fn disk_equals_memory(steps in prop::collection::vec(step(), 1..25)) {
        let memory = MemoryStateStore::new();
        let mut dir = temp();
        let mut disk = open(&dir);
        for (index, step) in (1..).zip(steps) {
            match step {
                Step::Commit(set) => {
                    let set: Changes = set.into_iter().collect();
                    memory.commit(set.clone(), applied(index)).expect("committed");
                    disk.commit(set, applied(index)).expect("committed");
                }
                Step::Flush => disk.flush().expect("durable"),
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
                Step::Reinstall => {
                    let stream = export(&memory);
                    disk.commit(changes(&["not in the snapshot=1"]), applied(9999)).expect("committed");
                    disk.install(&mut stream.as_slice()).expect("installed");
                }
            }
            prop_assert_eq!(disk.applied().expect("readable"), memory.applied().expect("readable"));
            prop_assert_eq!(export(&disk), export(&memory));
            prop_assert_eq!(all(&disk), all(&memory));
        }
    }
}
