//! Manifests that nothing needs.

use crate::command::{CollectManifests, Command, DeleteTag, Precondition, UnneededManifest};
use crate::ids::LogTime;
use crate::query;
use crate::response::{Rejection, Response};
use crate::testing::{World, digest, manifest, reference, repository, tag};

fn unneeded(world: &World) -> Vec<UnneededManifest> {
    let found = query::unneeded_manifests(&world.view, 0, None, 100).unwrap();
    found.into_iter().map(|item| item.manifest).collect()
}

fn since(world: &World, body: &str) -> Option<LogTime> {
    query::manifest(&world.view, &repository("a"), &digest(body))
        .unwrap()
        .unwrap()
        .unneeded_since
}

fn collect(epoch: u64, min_age_ms: u64, manifests: Vec<UnneededManifest>) -> Command {
    Command::CollectManifests(CollectManifests {
        epoch,
        min_age_ms,
        manifests,
    })
}

fn collected(world: &mut World, manifests: Vec<UnneededManifest>) -> usize {
    match world.apply(collect(0, 0, manifests)) {
        Response::ManifestsCollected(collected) => collected.len(),
        other => panic!("{other:?}"),
    }
}

fn index(body: &str, child: &str, tags: &[&str]) -> crate::command::PutManifest {
    let mut index = manifest("a", body, &[], tags);
    index.facts.manifests = vec![reference(child)];
    index
}

fn referrer(body: &str, subject: &str) -> crate::command::PutManifest {
    let mut referrer = manifest("a", body, &[], &[]);
    referrer.facts.subject = Some(digest(subject));
    referrer
}

#[test]
fn a_manifest_without_tag_waits_and_a_push_starts_its_time_again() {
    let mut world = World::new();
    world.push(manifest("a", "m", &[], &["v1"]));
    assert_eq!(since(&world, "m"), None);
    world.pass_ms(5);
    world.push(manifest("a", "m2", &[], &["v1"]));
    assert_eq!(since(&world, "m"), Some(LogTime(5)));
    world.pass_ms(5);
    world.push(manifest("a", "m", &[], &[]));
    assert_eq!(since(&world, "m"), Some(LogTime(10)));
    let delete = DeleteTag {
        repository: repository("a"),
        tag: tag("v1"),
        precondition: Precondition::None,
    };
    world.done(Command::DeleteTag(delete));
    assert_eq!(unneeded(&world).len(), 2);
    world.push(manifest("a", "m", &[], &["v2"]));
    assert_eq!(since(&world, "m"), None);
}

#[test]
fn a_child_of_an_index_is_needed_as_long_as_the_index_can_be_restored() {
    let mut world = World::new();
    world.push(manifest("a", "child", &[], &[]));
    let child = unneeded(&world);
    world.push(index("index", "child", &["v1"]));
    assert_eq!(since(&world, "child"), None);
    assert_eq!(collected(&mut world, child.clone()), 0);
    world.delete_manifest("a", "index");
    assert_eq!(since(&world, "child"), None);
    assert_eq!(collected(&mut world, child), 0);
    world.pass_ms(3);
    world.step(0, 100);
    assert_eq!(since(&world, "child"), Some(LogTime(3)));
    let child = unneeded(&world);
    assert_eq!(collected(&mut world, child), 1);
}

#[test]
fn referrers_are_reviewed_in_pieces_when_their_subject_comes_or_goes() {
    let mut world = World::new();
    for n in 0..5 {
        world.push(referrer(&format!("signature {n}"), "m"));
    }
    let early = unneeded(&world);
    assert_eq!(early.len(), 5);
    world.push(manifest("a", "m", &[], &["v1"]));
    // Nobody has told them yet, but the check at apply knows.
    assert_eq!(collected(&mut world, early), 0);
    let first = world.step(0, 2);
    assert_eq!((first.reviewed_referrers, first.is_more_due), (2, true));
    assert_eq!(unneeded(&world).len(), 3);
    assert_eq!(world.step(0, 100).reviewed_referrers, 3);
    assert_eq!(unneeded(&world), []);

    world.delete_manifest("a", "m");
    assert_eq!(unneeded(&world), [], "it can be restored");
    let last = world.step(0, 100);
    assert_eq!((last.purged_manifests, last.reviewed_referrers), (1, 5));
    let late = unneeded(&world);
    assert_eq!(collected(&mut world, late), 5);
}

#[test]
fn only_what_was_proposed_and_is_old_enough_is_collected() {
    let mut world = World::new();
    world.push(manifest("a", "m", &[], &[]));
    let old = unneeded(&world);
    world.pass_ms(9);
    let none = Response::ManifestsCollected(Vec::new());
    assert_eq!(world.apply(collect(0, 10, old.clone())), none);
    assert_eq!(
        world.rejected(collect(1, 0, old.clone())),
        Rejection::StaleEpoch { current: 0 }
    );
    world.push(manifest("a", "m", &[], &[]));
    assert_eq!(world.apply(collect(0, 0, old)), none, "it was pushed again");
    let manifests = unneeded(&world);
    assert_eq!(collected(&mut world, manifests.clone()), 1);
    assert_eq!(collected(&mut world, manifests), 0);
    let deleted = query::deleted_manifests(&world.view, &repository("a"), None, 9).unwrap();
    assert_eq!(deleted.len(), 1, "it can be restored");
}
