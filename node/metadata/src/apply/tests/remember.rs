//! What is remembered of purged manifests.

use crate::apply::DELETED_TTL_MS;
use crate::command::{
    CollectManifests, Command, DeleteTag, Precondition, RestoreManifest, UnneededManifest,
};
use crate::ids::LogTime;
use crate::key::{self, Table};
use crate::query::{self, DeleteReason, PurgedManifestRecord};
use crate::response::Response;
use crate::scan;
use crate::testing::{World, digest, manifest, repository, tag};
use crate::view::MetadataView as _;

fn purged(world: &World, body: &str) -> Vec<PurgedManifestRecord> {
    query::explain(&world.view, None, &digest(body), 10)
        .unwrap()
        .purged
}

/// Everything that is remembered, in whichever table.
fn remembered(world: &World) -> usize {
    let count = |table| {
        scan::page(&world.view, &key::table(table), None, 100, |_, _| {
            Ok(Some(()))
        })
    };
    count(Table::PurgedManifest).unwrap().len() + count(Table::PurgedManifestAt).unwrap().len()
}

fn delete_tag(name: &str) -> Command {
    Command::DeleteTag(DeleteTag {
        repository: repository("a"),
        tag: tag(name),
        precondition: Precondition::None,
    })
}

/// Collects whatever nothing needs.
fn collect(world: &mut World) -> usize {
    let unneeded = query::unneeded_manifests(&world.view, 0, None, 100).unwrap();
    let manifests = unneeded.into_iter().map(|found| found.manifest);
    let command = Command::CollectManifests(CollectManifests {
        epoch: 0,
        min_age_ms: 0,
        manifests: manifests.collect::<Vec<UnneededManifest>>(),
    });
    match world.apply(command) {
        Response::ManifestsCollected(collected) => collected.len(),
        other => panic!("{other:?}"),
    }
}

fn restore(world: &mut World, body: &str) {
    let restored = world.apply(Command::RestoreManifest(RestoreManifest {
        repository: repository("a"),
        digest: digest(body),
    }));
    assert!(matches!(restored, Response::ManifestRestored { .. }));
}

#[test]
fn a_purged_manifest_is_remembered_with_who_deleted_it_and_its_tags() {
    let mut world = World::new();
    world.push(manifest("a", "m", &[], &["v2", "v1"]));
    world.push(manifest("a", "stays", &[], &["v3"]));
    world.pass_ms(3);
    world.delete_manifest("a", "m");
    assert_eq!(purged(&world, "m"), [], "it can be restored");
    let deleted = query::explain(&world.view, Some(&repository("a")), &digest("m"), 10).unwrap();
    let by_somebody = DeleteReason::Asked {
        by: "somebody".into(),
    };
    let deletion = deleted.manifests[0].deleted.clone().unwrap();
    assert_eq!(
        (deletion.at, deletion.reason),
        (LogTime(3), by_somebody.clone())
    );
    world.pass_ms(4);
    world.step(4, 100);
    let found = purged(&world, "m").pop().unwrap();
    assert_eq!((found.repository, found.size_bytes), (repository("a"), 1));
    assert_eq!(
        (found.tags, found.more_tags),
        (vec![tag("v1"), tag("v2")], 0)
    );
    assert_eq!((found.deleted_at, found.reason), (LogTime(3), by_somebody));
    assert_eq!(
        (found.deleted_index, found.purged_at),
        (deletion.index, LogTime(7))
    );
    assert_eq!(found.purged_index, world.view.applied());
}

#[test]
fn a_collected_referrer_is_remembered_with_its_subject_and_since_when_nothing_needed_it() {
    let mut world = World::new();
    let mut signature = manifest("a", "signature", &[], &[]);
    signature.facts.subject = Some(digest("image"));
    world.push(manifest("a", "image", &[], &["v1"]));
    world.push(signature);
    world.push(manifest("a", "untagged", &[], &["v2"]));
    world.push(manifest("a", "stays", &[], &["v3"]));
    world.pass_ms(2);
    world.done(delete_tag("v2"));
    world.delete_manifest("a", "image");
    world.step(0, 100);
    assert_eq!(purged(&world, "image").len(), 1);
    world.step(0, 100);
    world.pass_ms(5);
    assert_eq!(collect(&mut world), 2);
    world.step(0, 100);
    let unneeded = DeleteReason::Unneeded { since: LogTime(2) };
    let found = purged(&world, "untagged").pop().unwrap();
    assert_eq!((found.reason, found.subject), (unneeded.clone(), None));
    assert_eq!((found.tags, found.deleted_at), (vec![], LogTime(7)));
    let found = purged(&world, "signature").pop().unwrap();
    assert_eq!(
        (found.reason, found.subject),
        (unneeded, Some(digest("image")))
    );
}

#[test]
fn many_tags_are_counted_and_not_all_remembered() {
    let mut world = World::new();
    let names: Vec<String> = (10..23).map(|number| format!("v{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.push(manifest("a", "m", &[], &names));
    world.delete_manifest("a", "m");
    world.step(0, 100);
    let found = purged(&world, "m").pop().unwrap();
    assert_eq!((found.tags.len(), found.more_tags), (10, 3));
    assert_eq!(found.tags.last(), Some(&tag("v19")));
}

#[test]
fn it_is_forgotten_after_a_day_also_when_its_repository_is_gone() {
    let mut world = World::new();
    world.push(manifest("a", "m", &[], &["v1"]));
    world.delete_manifest("a", "m");
    let done = world.step(0, 100);
    assert_eq!((done.purged_manifests, done.removed_repositories), (1, 1));
    world.pass_ms(DELETED_TTL_MS - 1);
    world.step(0, 100);
    assert_eq!(purged(&world, "m")[0].repository, repository("a"));
    world.pass_ms(1);
    let head = query::gc(&world.view).unwrap().heads.purged_manifests;
    assert_eq!(head, Some(LogTime(0)));
    // Also when the budget is used up by other work, somebody must come back for it.
    world.push_blob("a", "loose");
    assert!(world.step(0, 1).is_more_due);
    assert!(!world.step(0, 100).is_more_due);
    assert_eq!(remembered(&world), 0);
    assert_eq!(query::gc(&world.view).unwrap().heads.purged_manifests, None);
}

#[test]
fn what_is_there_again_is_no_purged_manifest_and_a_second_purge_replaces_the_first() {
    let mut world = World::new();
    for day in 0..2_u64 {
        world.push(manifest("a", "m", &[], &["v1"]));
        world.push(manifest("a", "stays", &[], &["v2"]));
        assert_eq!(purged(&world, "m"), [], "it is there");
        world.delete_manifest("a", "m");
        assert_eq!(purged(&world, "m"), [], "it can be restored");
        restore(&mut world, "m");
        world.delete_manifest("a", "m");
        world.pass_ms(5);
        world.step(0, 100);
        assert_eq!(remembered(&world), 2, "one record and its place");
        assert_eq!(purged(&world, "m")[0].purged_at, LogTime(5 * (day + 1)));
    }
}
