//! Undelete.

use crate::command::{Command, DeleteManifest, GcLimits, RestoreManifest, RestoreTag, UnlinkBlob};
use crate::ids::LogIndex;
use crate::query;
use crate::response::{GcStepped, Rejection, Response};
use crate::testing::{World, digest, manifest, reference, repository, tag};
use crate::view::MetadataView;

fn restore(body: &str) -> Command {
    Command::RestoreManifest(RestoreManifest {
        repository: repository("a"),
        digest: digest(body),
    })
}

fn restore_tag(name: &str, revision: Option<LogIndex>) -> Command {
    Command::RestoreTag(RestoreTag {
        repository: repository("a"),
        tag: tag(name),
        revision,
    })
}

fn body(world: &World, of: &str) -> Option<bytes::Bytes> {
    query::manifest_body(&world.view, &repository("a"), &digest(of)).unwrap()
}

/// An image with a signature: both deleted.
fn deleted() -> World {
    let mut world = World::new();
    world.push_blob("a", "layer");
    world.push(manifest("a", "m", &["layer"], &["v1", "v2"]));
    let mut signature = manifest("a", "signature", &[], &[]);
    signature.facts.subject = Some(digest("m"));
    world.push(signature);
    world.delete_manifest("a", "m");
    world.delete_manifest("a", "signature");
    world
}

fn referrers(world: &World) -> usize {
    let (name, subject) = (repository("a"), digest("m"));
    query::referrers(&world.view, &name, &subject, None, None, 9)
        .unwrap()
        .len()
}

#[test]
fn a_deleted_manifest_is_nowhere_to_be_seen() {
    let mut world = deleted();
    let name = repository("a");
    assert_eq!(
        query::manifest(&world.view, &name, &digest("m")).unwrap(),
        None
    );
    assert_eq!(body(&world, "m"), None);
    assert_eq!(referrers(&world), 0);
    assert_eq!(
        query::tags(&world.view, &name, None, 9).unwrap().unwrap(),
        []
    );
    let again = Command::DeleteManifest(DeleteManifest {
        repository: name.clone(),
        digest: digest("m"),
    });
    assert_eq!(world.rejected(again), Rejection::ManifestUnknown);
    let listed = query::deleted_manifests(&world.view, &name, None, 9).unwrap();
    assert_eq!(listed.len(), 2);
    let record = query::deleted_manifest(&world.view, &name, &digest("m")).unwrap();
    assert_eq!(record.unwrap().tags, [tag("v1"), tag("v2")]);
    let bodies = query::manifest_bodies(&world.view, None, 9, 1).unwrap();
    assert!(bodies.len() == 1 && bodies[0].is_deleted);
    let why = query::explain(&world.view, None, &digest("layer"), 9).unwrap();
    assert_eq!(why.edges, []);
    assert_eq!(why.deleted_edges[0].manifest, digest("m"));
}

#[test]
fn a_restored_manifest_is_back_with_its_tags_and_referrers() {
    let mut world = deleted();
    world.push(manifest("a", "other", &[], &["v2"]));
    let restored = world.apply(restore("m"));
    let tags = vec![tag("v1")];
    assert_eq!(restored, Response::ManifestRestored { tags });
    assert_eq!(body(&world, "m").unwrap(), "m");
    assert_eq!(world.tag_of("a", "v1"), Some(digest("m")));
    assert_eq!(
        world.tag_of("a", "v2"),
        Some(digest("other")),
        "it exists now"
    );
    world.apply(restore("signature"));
    assert_eq!(referrers(&world), 1);
    assert_eq!(world.rejected(restore("m")), Rejection::NotDeleted);
    assert_eq!(world.rejected(restore("never")), Rejection::ManifestUnknown);
    assert_eq!(world.step(0, 100), GcStepped::default());
}

#[test]
fn nothing_can_be_restored_after_the_window() {
    let mut world = deleted();
    world.pass_ms(10);
    assert_eq!(world.step(10, 100).purged_manifests, 2);
    assert_eq!(world.rejected(restore("m")), Rejection::ManifestUnknown);
    assert_eq!(
        world.rejected(restore_tag("v1", None)),
        Rejection::ManifestUnknown
    );
}

#[test]
fn what_lost_a_blob_can_not_be_restored_until_it_is_pushed_again() {
    let mut world = deleted();
    world.done(Command::UnlinkBlob(UnlinkBlob {
        repository: repository("a"),
        digest: digest("layer"),
    }));
    let unknown = Rejection::ReferencesUnknown(vec![digest("layer")]);
    assert_eq!(world.rejected(restore("m")), unknown);
    assert_eq!(world.rejected(restore_tag("v1", None)), unknown);
    world.push_blob("a", "layer");
    assert!(matches!(
        world.apply(restore("m")),
        Response::ManifestRestored { .. }
    ));
}

#[test]
fn an_index_needs_its_children_back_first() {
    let mut world = World::new();
    world.push(manifest("a", "child", &[], &[]));
    let mut index = manifest("a", "index", &[], &["v1"]);
    index.facts.manifests = vec![reference("child")];
    world.push(index);
    world.delete_manifest("a", "index");
    world.delete_manifest("a", "child");
    let unknown = Rejection::ReferencesUnknown(vec![digest("child")]);
    assert_eq!(world.rejected(restore("index")), unknown);
    world.apply(restore("child"));
    assert!(matches!(
        world.apply(restore("index")),
        Response::ManifestRestored { .. }
    ));
}

#[test]
fn a_push_of_a_deleted_manifest_makes_it_a_new_one() {
    let mut world = deleted();
    world.push(manifest("a", "m", &["layer"], &["v3"]));
    assert_eq!(world.rejected(restore("m")), Rejection::NotDeleted);
    assert_eq!(world.tag_of("a", "v1"), None);
    assert_eq!(world.step(0, 100).purged_manifests, 1, "the signature only");
    assert_eq!(body(&world, "m").unwrap(), "m");
    // Deleted once more, the window starts once more.
    world.pass_ms(5);
    world.delete_manifest("a", "m");
    let limits = GcLimits {
        undelete_ms: 1,
        ..GcLimits::default()
    };
    assert_eq!(world.step_with(limits, 100), GcStepped::default());
}

#[test]
fn a_tag_is_restored_with_its_manifest() {
    let mut world = deleted();
    let restored = world.apply(restore_tag("v1", None));
    let wanted = Response::TagRestored {
        digest: digest("m"),
        is_manifest_restored: true,
    };
    assert_eq!(restored, wanted);
    assert_eq!(world.tag_of("a", "v1"), Some(digest("m")));
    assert_eq!(world.tag_of("a", "v2"), None, "only what was asked for");
    assert_eq!(
        world.rejected(restore_tag("v1", None)),
        Rejection::NotDeleted
    );
    assert_eq!(
        world.rejected(restore_tag("never", None)),
        Rejection::TagUnknown
    );
}

#[test]
fn a_tag_goes_back_to_a_revision() {
    let mut world = World::new();
    let before = world.view.applied();
    world.push(manifest("a", "m1", &[], &["v"]));
    let first = world.view.applied();
    world.push(manifest("a", "other", &[], &[]));
    world.push(manifest("a", "m2", &[], &["v"]));
    let history = query::tag_history_before(
        &world.view,
        &repository("a"),
        &tag("v"),
        Some(world.view.applied()),
        9,
    );
    assert_eq!(history.unwrap().len(), 1);
    // Between two changes, the earlier one holds.
    let between = LogIndex(first.0 + 1);
    for (revision, body) in [(between, "m1"), (world.view.applied(), "m2"), (first, "m1")] {
        world.apply(restore_tag("v", Some(revision)));
        assert_eq!(world.tag_of("a", "v"), Some(digest(body)));
    }
    let too_early = world.rejected(restore_tag("v", Some(before)));
    assert_eq!(too_early, Rejection::TagUnknown);
}

#[test]
fn a_sparse_index_needs_no_children_to_come_back() {
    let mut world = World::new();
    let mut index = manifest("a", "index", &[], &["v1"]);
    index.facts.manifests = vec![reference("never pushed")];
    index.allows_missing_manifests = true;
    world.push(index);
    world.delete_manifest("a", "index");
    let tags = vec![tag("v1")];
    let restored = world.apply(restore("index"));
    assert_eq!(restored, Response::ManifestRestored { tags });
}
