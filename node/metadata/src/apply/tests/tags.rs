use crate::apply::TAG_HISTORY_MAX;
use crate::command::{Command, DeleteTag, Precondition};
use crate::entry::Entry;
use crate::ids::Timestamp;
use crate::memory::MemoryView;
use crate::response::{Rejection, Response};
use crate::testing::{World, digest, manifest, repository, tag};
use crate::view::MetadataView;
use crate::{invariants, query};

fn delete(name: &str, of: &str, precondition: Precondition) -> Command {
    Command::DeleteTag(DeleteTag {
        repository: repository(name),
        tag: tag(of),
        precondition,
    })
}

#[test]
fn a_tag_moves_and_its_history_tells() {
    let mut world = World::new();
    world.push(manifest("a", "m1", &[], &["v1", "latest"]));
    let first = world.view.applied();
    world.push(manifest("a", "m2", &[], &["latest"]));
    let second = world.view.applied();
    assert_eq!(world.tag_of("a", "v1"), Some(digest("m1")));
    assert_eq!(world.tag_of("a", "latest"), Some(digest("m2")));
    world.done(delete("a", "latest", Precondition::None));
    let third = world.view.applied();
    let history =
        |limit| query::tag_history(&world.view, &repository("a"), &tag("latest"), limit).unwrap();
    let changes: Vec<_> = history(10)
        .iter()
        .map(|change| (change.index, change.digest))
        .collect();
    assert_eq!(
        changes,
        [
            (third, None),
            (second, Some(digest("m2"))),
            (first, Some(digest("m1")))
        ]
    );
    assert_eq!(history(1).len(), 1);
    assert_eq!(history(10)[1].subject, "somebody");
    assert_eq!(history(10)[1].proposed_at, Timestamp(1000 + second.0 - 1));
}

#[test]
fn the_same_push_again_is_no_change() {
    let mut world = World::new();
    world.push(manifest("a", "m1", &[], &["v1"]));
    let before = query::tag(&world.view, &repository("a"), &tag("v1")).unwrap();
    world.push(manifest("a", "m1", &[], &["v1"]));
    assert_eq!(
        query::tag(&world.view, &repository("a"), &tag("v1")).unwrap(),
        before
    );
    let history = query::tag_history(&world.view, &repository("a"), &tag("v1"), 10).unwrap();
    assert_eq!(history.len(), 1);
}

#[test]
fn deleting_a_tag_leaves_the_manifest() {
    let mut world = World::new();
    world.push(manifest("a", "m1", &[], &["v1", "v10"]));
    assert_eq!(
        world.rejected(delete("b", "v1", Precondition::None)),
        Rejection::RepositoryUnknown
    );
    assert_eq!(
        world.rejected(delete("a", "v2", Precondition::None)),
        Rejection::TagUnknown
    );
    world.done(delete("a", "v1", Precondition::None));
    assert_eq!(world.tag_of("a", "v1"), None);
    assert_eq!(world.tag_of("a", "v10"), Some(digest("m1")));
    assert!(
        query::manifest(&world.view, &repository("a"), &digest("m1"))
            .unwrap()
            .is_some()
    );
    assert_eq!(query::stats(&world.view).unwrap().tags, 1);
}

#[test]
fn a_conditional_delete_spares_a_tag_that_moved() {
    let mut world = World::new();
    world.push(manifest("a", "m2", &[], &["v1"]));
    let stale = Precondition::Matches(vec![digest("m1")]);
    let rejection = world.rejected(delete("a", "v1", stale));
    assert_eq!(
        rejection,
        Rejection::PreconditionFailed {
            current: Some(digest("m2"))
        }
    );
    let current = Precondition::Matches(vec![digest("m1"), digest("m2")]);
    world.done(delete("a", "v1", current));
}

#[test]
fn preconditions_of_a_push() {
    let mut world = World::new();
    let put = |body, precondition: &Precondition| {
        let put = manifest("a", body, &[], &["v1"]);
        Command::PutManifest(crate::command::PutManifest {
            precondition: precondition.clone(),
            ..put
        })
    };
    let none = Rejection::PreconditionFailed { current: None };
    assert_eq!(world.rejected(put("m1", &Precondition::Exists)), none);
    let matches = Precondition::Matches(vec![digest("m1")]);
    assert_eq!(world.rejected(put("m2", &matches)), none);
    assert!(!query::repository_exists(&world.view, &repository("a")).unwrap());

    assert_eq!(
        world.apply(put("m1", &Precondition::Absent)),
        Response::ManifestPut
    );
    let points = Rejection::PreconditionFailed {
        current: Some(digest("m1")),
    };
    assert_eq!(world.rejected(put("m2", &Precondition::Absent)), points);
    assert_eq!(world.apply(put("m2", &matches)), Response::ManifestPut);
    assert_eq!(
        world.apply(put("m3", &Precondition::Exists)),
        Response::ManifestPut
    );
    assert_eq!(world.tag_of("a", "v1"), Some(digest("m3")));
}

#[test]
fn all_tags_of_a_push_move_or_none() {
    let mut world = World::new();
    world.push(manifest("a", "m1", &[], &["v2"]));
    let mut put = manifest("a", "m2", &[], &["v1", "v2", "v3"]);
    put.precondition = Precondition::Absent;
    let rejection = world.rejected(Command::PutManifest(put.clone()));
    assert_eq!(
        rejection,
        Rejection::PreconditionFailed {
            current: Some(digest("m1"))
        }
    );
    put.precondition = Precondition::None;
    put.tags.push(tag("v1"));
    world.push(put);
    for name in ["v1", "v2", "v3"] {
        assert_eq!(world.tag_of("a", name), Some(digest("m2")));
    }
    assert_eq!(query::stats(&world.view).unwrap().tags, 3);
}

/// A tag that moves all the time must not fill the disk.
#[test]
fn only_the_newest_changes_of_a_tag_are_remembered() {
    let mut world = World::new();
    world.push(manifest("a", "m1", &[], &["v1"]));
    world.push(manifest("a", "m2", &[], &["v2", "latest"]));
    let changes = TAG_HISTORY_MAX + 200;
    let mut longest = 0;
    let history = |view: &MemoryView| {
        query::tag_history(view, &repository("a"), &tag("latest"), 2 * TAG_HISTORY_MAX).unwrap()
    };
    // Without the invariants after each, which read everything.
    for change in 0..changes {
        let body = ["m1", "m2"][change % 2];
        world.enter_unchecked(&Entry {
            proposed_at: Timestamp(1),
            subject: String::new(),
            request: None,
            command: Command::PutManifest(manifest("a", body, &[], &["latest"])),
        });
        if change > TAG_HISTORY_MAX {
            longest = longest.max(history(&world.view).len());
        }
    }
    assert!((TAG_HISTORY_MAX..=TAG_HISTORY_MAX + 64).contains(&longest));
    let newest = &history(&world.view)[0];
    assert_eq!(newest.number, changes as u64 + 1);
    assert_eq!(newest.digest, world.tag_of("a", "latest"));
    // What was trimmed is missing nowhere.
    assert_eq!(invariants::check(&world.view).unwrap(), []);
    world.done(delete("a", "latest", Precondition::None));
    world.done(delete("a", "v1", Precondition::None));
}
