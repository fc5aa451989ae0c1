use crate::apply::{ANSWERS_PER_SESSION, SESSION_TTL_MS};
use crate::command::{Command, DeleteBlobs, DeleteTag, Precondition, UnlinkBlob};
use crate::entry::Entry;
use crate::ids::{NodeId, RequestId, Timestamp};
use crate::query;
use crate::response::{Outcome, Rejection, Response};
use crate::testing::{World, digest, manifest, register, repository, tag};

fn entry(boot: u64, sequence: u64, command: Command) -> Entry {
    Entry {
        proposed_at: Timestamp(1),
        subject: String::new(),
        request: Some(RequestId {
            node: NodeId(1),
            boot,
            sequence,
        }),
        command,
    }
}

fn put(body: &str) -> Command {
    Command::PutManifest(manifest("a", body, &[], &["v1"]))
}

fn is_too_old(outcome: &Outcome) -> bool {
    outcome.response == Response::Rejected(Rejection::RequestTooOld)
}

/// The history that breaks linearizability without request ids (protocols.md, I4).
#[test]
fn a_late_duplicate_does_not_move_the_tag_back() {
    let mut world = World::new();
    let first = world.enter(&entry(1, 1, put("m1")));
    world.enter(&entry(1, 2, put("m2")));
    assert_eq!(world.enter(&entry(1, 1, put("m1"))), first);
    assert_eq!(world.tag_of("a", "v1"), Some(digest("m2")));
}

#[test]
fn a_rejection_is_remembered_too() {
    let mut world = World::new();
    world.push(manifest("a", "m", &[], &[]));
    let delete = Command::DeleteTag(DeleteTag {
        repository: repository("a"),
        tag: tag("v1"),
        precondition: Precondition::None,
    });
    let first = world.enter(&entry(1, 1, delete.clone()));
    assert_eq!(first.response, Response::Rejected(Rejection::TagUnknown));
    world.enter(&entry(1, 2, put("m")));
    assert_eq!(
        world.enter(&entry(1, 1, delete)),
        first,
        "its client was told so"
    );
    assert_eq!(world.tag_of("a", "v1"), Some(digest("m")));
}

#[test]
fn requests_may_arrive_out_of_order_and_boots_are_apart() {
    let mut world = World::new();
    for (boot, sequence) in [(1, 2), (1, 1), (2, 1), (2, 2)] {
        let outcome = world.enter(&entry(boot, sequence, register(4, "disk-4")));
        assert_eq!(outcome.response, Response::Done);
        assert_eq!(
            outcome.index,
            crate::view::MetadataView::applied(&world.view)
        );
    }
}

#[test]
fn only_so_many_answers_are_remembered() {
    let mut world = World::new();
    assert_eq!(ANSWERS_PER_SESSION, 1024, "the slot is part of stored keys");
    let last = ANSWERS_PER_SESSION + 1;
    let first = world.enter(&entry(1, 2, put("m1")));
    world.enter(&entry(1, 1, put("m2")));
    world.enter(&entry(1, last, put("m3")));
    assert!(
        is_too_old(&world.enter(&entry(1, 1, put("m2")))),
        "its slot was taken"
    );
    assert_eq!(
        world.enter(&entry(1, 2, put("m1"))),
        first,
        "its slot was not"
    );
    assert_eq!(world.tag_of("a", "v1"), Some(digest("m3")));
}

#[test]
fn answers_are_forgotten_after_ten_minutes_but_never_applied_again() {
    let mut world = World::new();
    let first = world.enter(&entry(1, 1, put("m1")));
    world.enter(&entry(1, 5, put("m2")));
    world.pass_ms(SESSION_TTL_MS - 1);
    assert_eq!(world.enter(&entry(1, 1, put("m1"))), first);
    world.pass_ms(1);
    assert!(is_too_old(&world.enter(&entry(1, 1, put("m1")))));
    assert!(
        is_too_old(&world.enter(&entry(1, 4, put("m1")))),
        "below the floor"
    );
    assert_eq!(world.tag_of("a", "v1"), Some(digest("m2")));
    let next = world.enter(&entry(1, 6, put("m3")));
    assert_eq!(next.response, Response::ManifestPut, "the session goes on");
    assert!(is_too_old(&world.enter(&entry(1, 5, put("m2")))));
}

#[test]
fn a_session_in_use_keeps_its_answers() {
    let mut world = World::new();
    let first = world.enter(&entry(1, 1, put("m1")));
    for sequence in 2..6 {
        world.pass_ms(SESSION_TTL_MS / 2);
        world.enter(&entry(1, sequence, register(4, "disk-4")));
    }
    assert_eq!(world.enter(&entry(1, 1, put("m1"))), first);
}

/// Bounded (I13): restarts leave nothing behind for ever.
#[test]
fn a_dead_boot_leaves_nothing_after_a_day() {
    let mut world = World::new();
    world.pass_ms(1);
    let size = |world: &World| {
        let mut keys = 0;
        crate::view::MetadataView::scan(&world.view, &[], None, &mut |_, _| {
            keys += 1;
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        keys
    };
    let before = size(&world);
    for boot in 0..10 {
        world.enter(&entry(boot, 1, register(1, "disk-1")));
    }
    assert_eq!(size(&world), before + 30);
    world.pass_ms(SESSION_TTL_MS + 60_000);
    assert_eq!(
        size(&world),
        before + 20,
        "answers are gone, floors are left"
    );
    world.pass_ms(24 * 60 * 60 * 1000);
    assert_eq!(size(&world), before);
}

#[test]
fn a_long_list_of_unknown_digests_is_remembered_in_part() {
    let mut world = World::new();
    let mut command = manifest("a", "m", &[], &[]);
    command.facts.blobs = (0..500)
        .map(|n| crate::testing::reference(&n.to_string()))
        .collect();
    let entry = entry(1, 1, Command::PutManifest(command));
    let unknown = |outcome: Outcome| match outcome.response {
        Response::Rejected(Rejection::ReferencesUnknown(digests)) => digests.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(unknown(world.enter(&entry)), 500);
    assert_eq!(unknown(world.enter(&entry)), 100);
    assert!(!query::repository_exists(&world.view, &repository("a")).unwrap());
}

#[test]
fn long_lists_are_remembered_in_part() {
    let mut world = World::new();
    for number in 0..150 {
        let content = format!("blob {number}");
        world.push_blob("a", &content);
        world.done(Command::UnlinkBlob(UnlinkBlob {
            repository: repository("a"),
            digest: digest(&content),
        }));
    }
    world.step(0, 1000);
    let delete = Command::DeleteBlobs(DeleteBlobs {
        epoch: 0,
        quarantine_ms: 0,
        blobs: query::condemned_blobs(&world.view, 0, None, 1000).unwrap(),
    });
    let Outcome { index, response } = world.enter(&entry(1, 1, delete.clone()));
    let Response::BlobsDeleted(first) = response else {
        panic!("{response:?}")
    };
    assert_eq!(first.digests.len(), 150);
    let mut remembered = first.clone();
    remembered.digests.truncate(100);
    let again = world.enter(&entry(1, 1, delete));
    let response = Response::BlobsDeleted(remembered);
    assert_eq!(again, Outcome { index, response });
}
