//! What every [`StateStore`] keeps.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use metadata::changes::Changes;
use metadata::ids::LogIndex;
use metadata::view::MetadataView;

use super::log::SetOnDrop;
use crate::error::StorageError;
use crate::state::{Applied, StateStore};

/// Runs every case on a fresh state from `make`. Panics where the contract is broken.
pub fn suite(make: impl Fn() -> Arc<dyn StateStore>) {
    let cases: [fn(Arc<dyn StateStore>); 6] = [
        an_empty_state,
        committed_changes_are_read,
        scanning,
        a_reader_sees_one_state,
        commits_are_atomic_under_concurrency,
        a_checkpoint_does_not_change,
    ];
    for case in cases {
        case(make());
    }
    let cases_of_two: [CaseOfTwo; 4] = [
        an_exported_state_is_installed,
        an_empty_state_is_installed,
        a_damaged_stream_changes_nothing,
        a_reader_in_flight_keeps_the_old_state,
    ];
    for case in cases_of_two {
        case(make(), make());
    }
}

type CaseOfTwo = fn(Arc<dyn StateStore>, Arc<dyn StateStore>);

pub(crate) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

pub(crate) fn applied(index: u64) -> Applied {
    Applied {
        index: LogIndex(index),
        log_id: Bytes::from(format!("1-{index}")),
        membership: Bytes::from(format!("members at {index}")),
    }
}

/// `key=value` sets a key, `key` removes it.
pub(crate) fn changes(words: &[&str]) -> Changes {
    let change = |word: &&str| match word.split_once('=') {
        Some((key, value)) => (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec())),
        None => (word.as_bytes().to_vec(), None),
    };
    words.iter().map(change).collect()
}

pub(crate) fn commit(state: &dyn StateStore, words: &[&str], index: u64) {
    state
        .commit(changes(words), applied(index))
        .expect("committed");
}

/// Everything in the state.
pub(crate) fn all(state: &dyn StateStore) -> Pairs {
    let mut found = Vec::new();
    state
        .read(&mut |view| {
            found = scan(view, b"", None);
            Ok(())
        })
        .expect("readable");
    found
}

pub(crate) fn export(state: &dyn StateStore) -> Vec<u8> {
    let mut stream = Vec::new();
    state
        .checkpoint()
        .expect("copied")
        .export(&mut stream)
        .expect("exported");
    stream
}

fn scan(view: &dyn MetadataView, prefix: &[u8], after: Option<&[u8]>) -> Pairs {
    let mut found = Vec::new();
    view.scan(prefix, after, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })
    .expect("readable");
    found
}

fn pairs(words: &[&str]) -> Pairs {
    let set = changes(words).into_iter();
    set.map(|(key, value)| (key, value.expect("only set keys are expected")))
        .collect()
}

fn an_empty_state(state: Arc<dyn StateStore>) {
    assert_eq!(state.applied().expect("readable"), Applied::default());
    assert_eq!(all(&*state), []);
    state.flush().expect("nothing to do");
    state
        .read(&mut |view| {
            assert_eq!(view.applied(), LogIndex(0));
            assert_eq!(view.get(b"a")?, None);
            Ok(())
        })
        .expect("readable");
}

fn committed_changes_are_read(state: Arc<dyn StateStore>) {
    commit(&*state, &["a=1", "b=2", "c=3"], 5);
    commit(&*state, &["b=two", "c", "never there"], 6);
    assert_eq!(state.applied().expect("readable"), applied(6));
    assert_eq!(all(&*state), pairs(&["a=1", "b=two"]));
    commit(&*state, &[], 7);
    state
        .read(&mut |view| {
            assert_eq!(view.applied(), LogIndex(7));
            assert_eq!(view.get(b"b")?.as_deref(), Some(b"two".as_slice()));
            assert_eq!(view.get(b"c")?, None);
            Ok(())
        })
        .expect("readable");
    let large: Changes = [
        (b"large".to_vec(), Some(vec![7; 4 << 20])),
        (b"none".to_vec(), Some(Vec::new())),
    ]
    .into();
    state.commit(large, applied(8)).expect("committed");
    state.flush().expect("durable");
    let found = all(&*state);
    assert_eq!(found[2], (b"large".to_vec(), vec![7; 4 << 20]));
    assert_eq!(found[3], (b"none".to_vec(), Vec::new()));
}

fn scanning(state: Arc<dyn StateStore>) {
    let keys: [&[u8]; 9] = [
        b"a",
        b"b",
        b"b\0",
        b"b/1",
        b"b/2",
        b"b\xff",
        b"b\xff\xff",
        b"c",
        b"\xff\xff",
    ];
    let set = keys
        .iter()
        .map(|key| (key.to_vec(), Some(b"v".to_vec())))
        .collect();
    state.commit(set, applied(1)).expect("committed");
    let check = |prefix: &[u8], after: Option<&[u8]>, expected: &[&[u8]]| {
        let mut found = Vec::new();
        let read = state.read(&mut |view| {
            found = scan(view, prefix, after);
            Ok(())
        });
        read.expect("readable");
        let found: Vec<&[u8]> = found.iter().map(|(key, _)| key.as_slice()).collect();
        assert_eq!(found, expected, "prefix {prefix:?} after {after:?}");
    };
    check(b"", None, &keys);
    check(b"b", None, &keys[1..7]);
    check(b"b/", None, &keys[3..5]);
    check(b"\xff", None, &keys[8..]);
    check(b"\xff\xff", None, &keys[8..]);
    check(b"d", None, &[]);
    check(b"b", Some(b"b"), &keys[2..7]);
    check(b"b", Some(b"b/1"), &keys[4..7]);
    check(b"b", Some(b"b/15"), &keys[4..7]);
    check(b"b", Some(b"a"), &keys[1..7]);
    check(b"b", Some(b"c"), &[]);
    check(b"b", Some(b"\xff\xff"), &[]);
    check(b"", Some(b"b\xff\xff"), &keys[7..]);

    let mut visited = 0;
    let read = state.read(&mut |view| {
        view.scan(b"b", None, &mut |_, _| {
            visited += 1;
            if visited == 3 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    });
    read.expect("readable");
    assert_eq!(visited, 3);
}

fn a_reader_sees_one_state(state: Arc<dyn StateStore>) {
    commit(&*state, &["a=1", "b=1"], 1);
    let read = state.read(&mut |view| {
        commit(&*state, &["a=2", "b", "c=2"], 2);
        assert_eq!(view.applied(), LogIndex(1));
        assert_eq!(scan(view, b"", None), pairs(&["a=1", "b=1"]));
        Ok(())
    });
    read.expect("readable");
    assert_eq!(all(&*state), pairs(&["a=2", "c=2"]));
}

fn commits_are_atomic_under_concurrency(state: Arc<dyn StateStore>) {
    let is_done = AtomicBool::new(false);
    commit(&*state, &["x=0", "y=0"], 0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_done.load(Ordering::Acquire) {
                    let read = state.read(&mut |view| {
                        let expected = Some(view.applied().to_string().into_bytes());
                        assert_eq!(view.get(b"x")?, expected);
                        assert_eq!(view.get(b"y")?, expected);
                        Ok(())
                    });
                    read.expect("readable");
                }
            });
        }
        scope.spawn(|| {
            let _done = SetOnDrop(&is_done);
            for index in 1..500 {
                commit(
                    &*state,
                    &[&format!("x={index}"), &format!("y={index}")],
                    index,
                );
            }
        });
    });
}

fn a_checkpoint_does_not_change(state: Arc<dyn StateStore>) {
    commit(&*state, &["a=1", "b=1"], 1);
    let checkpoint = state.checkpoint().expect("copied");
    commit(&*state, &["a=2", "c=2"], 2);
    let second = state.checkpoint().expect("copied beside the first");
    assert_eq!(checkpoint.applied(), &applied(1));
    let mut streams = [Vec::new(), Vec::new()];
    for stream in &mut streams {
        checkpoint.export(stream).expect("exported");
    }
    assert_eq!(streams[0], streams[1], "an export can be repeated");
    drop(checkpoint);
    assert_eq!(second.applied(), &applied(2));
    state
        .install(&mut streams[0].as_slice())
        .expect("installed");
    assert_eq!(all(&*state), pairs(&["a=1", "b=1"]));
    let mut stream = Vec::new();
    second
        .export(&mut stream)
        .expect("the checkpoint outlives the state it was taken of");
    state.install(&mut stream.as_slice()).expect("installed");
    assert_eq!(all(&*state), pairs(&["a=2", "b=1", "c=2"]));
}

fn an_exported_state_is_installed(from: Arc<dyn StateStore>, to: Arc<dyn StateStore>) {
    // Several frames and batches, and values on both sides of what counts as large.
    for index in 1..60_u64 {
        let length = usize::try_from(index * 5000).expect("small");
        let set = [
            (
                format!("key {index:03}").into_bytes(),
                Some(vec![1; length]),
            ),
            (b"last".to_vec(), None),
        ];
        from.commit(set.into(), applied(index)).expect("committed");
    }
    commit(&*to, &["gone=1", "key 001=old"], 900);
    let installed = to
        .install(&mut export(&*from).as_slice())
        .expect("installed");
    assert_eq!(installed, applied(59));
    assert_eq!(to.applied().expect("readable"), applied(59));
    assert_eq!(all(&*to), all(&*from));
    assert_eq!(export(&*to), export(&*from));

    commit(&*to, &["later=1"], 60);
    assert_eq!(to.applied().expect("readable"), applied(60));
    assert_eq!(all(&*to).len(), 60);
}

fn an_empty_state_is_installed(from: Arc<dyn StateStore>, to: Arc<dyn StateStore>) {
    commit(&*to, &["gone=1"], 3);
    to.install(&mut export(&*from).as_slice())
        .expect("installed");
    assert_eq!(to.applied().expect("readable"), Applied::default());
    assert_eq!(all(&*to), []);
}

fn a_damaged_stream_changes_nothing(from: Arc<dyn StateStore>, to: Arc<dyn StateStore>) {
    commit(&*from, &["a=new", "b=new"], 9);
    commit(&*to, &["a=old"], 2);
    let stream = export(&*from);
    let mut damaged = stream.clone();
    let end = damaged.len() - 1;
    damaged[end] ^= 1;
    for bad in [
        &damaged[..],
        &stream[..end],
        &stream[..20],
        b"",
        b"something else entirely",
    ] {
        let error = to
            .install(&mut &bad[..])
            .expect_err("the stream is damaged");
        assert!(
            matches!(error, StorageError::DamagedStream { .. }),
            "{error}"
        );
        assert_eq!(to.applied().expect("readable"), applied(2));
        assert_eq!(all(&*to), pairs(&["a=old"]));
    }
    commit(&*to, &["a=still works"], 3);
    to.install(&mut stream.as_slice())
        .expect("the next attempt is a new one");
    assert_eq!(all(&*to), pairs(&["a=new", "b=new"]));
}

fn a_reader_in_flight_keeps_the_old_state(from: Arc<dyn StateStore>, to: Arc<dyn StateStore>) {
    commit(&*from, &["a=new"], 9);
    commit(&*to, &["a=old", "b=old"], 2);
    let stream = export(&*from);
    let read = to.read(&mut |view| {
        to.install(&mut stream.as_slice())
            .expect("installed under the reader");
        assert_eq!(view.applied(), LogIndex(2));
        assert_eq!(scan(view, b"", None), pairs(&["a=old", "b=old"]));
        Ok(())
    });
    read.expect("readable");
    assert_eq!(all(&*to), pairs(&["a=new"]));
}
