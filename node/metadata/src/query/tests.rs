use crate::command::{Command, DeleteManifest};
use crate::query;
use crate::testing::{World, digest, manifest, repository};
use crate::view::MetadataView;

fn names(world: &World, after: Option<&str>, limit: usize) -> Vec<String> {
    let names = query::repositories(&world.view, after, limit).unwrap();
    names.iter().map(|name| name.as_str().to_owned()).collect()
}

fn tags(world: &World, name: &str, after: Option<&str>, limit: usize) -> Option<Vec<String>> {
    let tags = query::tags(&world.view, &repository(name), after, limit).unwrap();
    tags.map(|tags| tags.iter().map(|tag| tag.as_str().to_owned()).collect())
}

#[test]
fn repositories_are_listed_in_byte_order_and_paged() {
    let mut world = World::new();
    assert_eq!(names(&world, None, 10), [""; 0]);
    for name in ["b", "a/b", "a", "a0", "a-b", "a/b/c"] {
        world.push(manifest(name, "m", &[], &[]));
    }
    let all = ["a", "a-b", "a/b", "a/b/c", "a0", "b"];
    assert_eq!(names(&world, None, 10), all);
    assert_eq!(names(&world, None, 2), all[..2]);
    assert_eq!(names(&world, Some("a-b"), 2), all[2..4]);
    assert_eq!(
        names(&world, Some("a/"), 10),
        all[2..],
        "`after` need not exist"
    );
    assert_eq!(names(&world, Some(""), 10), all);
    assert_eq!(names(&world, Some("b"), 10), [""; 0]);
    assert_eq!(names(&world, None, 0), [""; 0]);
}

#[test]
fn tags_are_listed_in_byte_order_and_paged_within_their_repository() {
    let mut world = World::new();
    world.push(manifest("a", "m", &[], &["v10", "v1", "B", "_x", "1"]));
    world.push(manifest("a/b", "m", &[], &["other"]));
    let all = ["1", "B", "_x", "v1", "v10"];
    assert_eq!(tags(&world, "a", None, 10).unwrap(), all);
    assert_eq!(tags(&world, "a", Some("B"), 2).unwrap(), all[2..4]);
    assert_eq!(tags(&world, "a", Some("v"), 10).unwrap(), all[3..]);
    assert_eq!(tags(&world, "a", Some("zzz"), 10).unwrap(), [""; 0]);
    assert_eq!(tags(&world, "unknown", None, 10), None);
}

#[test]
fn a_repository_without_tags_is_not_an_unknown_one() {
    let mut world = World::new();
    world.push(manifest("a", "m", &[], &[]));
    assert_eq!(tags(&world, "a", None, 10), Some(Vec::new()));
}

#[test]
fn a_list_has_a_new_revision_when_a_name_comes_or_goes_and_only_then() {
    let mut world = World::new();
    let revision = |world: &World, name| query::tag_list(&world.view, &repository(name)).unwrap();
    let catalog = |world: &World| query::catalog(&world.view).unwrap();
    assert_eq!(revision(&world, "a"), None);
    let empty = catalog(&world);
    assert_eq!(empty.changed_at.0, 0);

    world.push(manifest("a", "m", &[], &[]));
    let (born, named) = (revision(&world, "a").unwrap(), catalog(&world));
    assert_ne!(named, empty);
    world.push(manifest("a", "m", &[], &["v1", "v2"]));
    let two = revision(&world, "a").unwrap();
    assert_eq!(two.changed_at, world.view.applied());
    assert_ne!(two, born);

    // Moved, pushed again, and another repository: the list is the same.
    world.push(manifest("a", "n", &[], &["v1"]));
    world.push(manifest("a", "n", &[], &["v1"]));
    assert_eq!(catalog(&world), named);
    world.push(manifest("b", "n", &[], &["v3"]));
    assert_eq!(revision(&world, "a"), Some(two));
    assert_ne!(catalog(&world), named);
    assert_ne!(revision(&world, "b"), Some(two));

    // A manifest takes its tags along.
    let named = catalog(&world);
    world.done(Command::DeleteManifest(DeleteManifest {
        repository: repository("a"),
        digest: digest("n"),
    }));
    let one = revision(&world, "a").unwrap();
    assert_eq!(one.changed_at, world.view.applied());
    assert_eq!(tags(&world, "a", None, 10).unwrap(), ["v2"]);
    assert_eq!(catalog(&world), named);
}

#[test]
fn blobs_of_a_node_are_paged_by_digest() {
    let mut world = World::new();
    let mut digests = Vec::new();
    for content in ["one", "two", "three", "four"] {
        world.push_blob("a", content);
        digests.push(digest(content));
    }
    digests.sort();
    let page = |after, limit| {
        query::blobs_of_node(&world.view, crate::ids::NodeId(1), after, limit).unwrap()
    };
    assert_eq!(page(None, 10), digests);
    assert_eq!(page(Some(&digests[1]), 1), digests[2..3]);
    assert_eq!(
        query::blobs_of_node(&world.view, crate::ids::NodeId(3), None, 10).unwrap(),
        []
    );
    let counted = |node| {
        let held = query::copies_on(&world.view, crate::ids::NodeId(node)).unwrap();
        (held.blobs, held.bytes)
    };
    let bytes = query::stats(&world.view).unwrap().blob_bytes;
    assert_eq!((counted(1), counted(3)), ((4, bytes), (0, 0)));
}

#[test]
fn what_is_unknown_is_none_everywhere() {
    let world = World::new();
    let (name, digest) = (repository("a"), digest("x"));
    let tag = crate::testing::tag("v1");
    assert!(!query::repository_exists(&world.view, &name).unwrap());
    assert_eq!(query::tag(&world.view, &name, &tag).unwrap(), None);
    assert_eq!(query::manifest(&world.view, &name, &digest).unwrap(), None);
    assert_eq!(
        query::manifest_body(&world.view, &name, &digest).unwrap(),
        None
    );
    assert_eq!(
        query::linked_blob(&world.view, &name, &digest).unwrap(),
        None
    );
    assert_eq!(query::blob(&world.view, &digest).unwrap(), None);
    assert_eq!(
        query::referrers(&world.view, &name, &digest, None, None, 9).unwrap(),
        []
    );
    assert_eq!(query::tag_history(&world.view, &name, &tag, 9).unwrap(), []);
    assert_eq!(
        query::node(&world.view, crate::ids::NodeId(9)).unwrap(),
        None
    );
}

#[test]
fn a_record_that_cannot_be_decoded_is_an_error_with_its_cause() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    let key = crate::key::blob(&digest("layer"));
    let applied = world.view.applied();
    world.view.commit([(key, Some(vec![0xff]))].into(), applied);
    let error = query::blob(&world.view, &digest("layer")).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap();
    assert!(
        cause.downcast_ref::<crate::codec::CodecError>().is_some(),
        "{cause}"
    );
}
