use oci::MediaType;

use crate::command::{
    Command, DeleteManifest, GcLimits, ManifestReference, PutManifest, ReportLost,
};
use crate::ids::{LogTime, NodeId};
use crate::query::{self, Stats};
use crate::response::{Rejection, Response};
use crate::testing::{World, digest, manifest, reference, repository, tag};

fn delete(name: &str, body: &str) -> Command {
    Command::DeleteManifest(DeleteManifest {
        repository: repository(name),
        digest: digest(body),
    })
}

fn index(name: &str, body: &str, children: &[&str]) -> PutManifest {
    let mut index = manifest(name, body, &[], &[]);
    index.facts.is_index = true;
    index.facts.manifests = children.iter().map(|child| reference(child)).collect();
    index
}

fn referring(name: &str, body: &str, subject: &str, artifact_type: &str) -> PutManifest {
    let mut put = manifest(name, body, &[], &[]);
    put.facts.subject = Some(digest(subject));
    put.facts.artifact_type = Some(MediaType::parse(artifact_type).unwrap());
    put.facts
        .annotations
        .insert("key".to_owned(), body.to_owned());
    put
}

fn exists(world: &World, name: &str, body: &str) -> bool {
    let (name, digest) = (repository(name), digest(body));
    let found = query::manifest(&world.view, &name, &digest)
        .unwrap()
        .is_some();
    let body = query::manifest_body(&world.view, &name, &digest).unwrap();
    assert_eq!(found, body.is_some());
    found
}

fn grace(world: &World, content: &str) -> Option<LogTime> {
    let linked = query::linked_blob(&world.view, &repository("a"), &digest(content)).unwrap();
    linked.unwrap().unreferenced_since
}

#[test]
fn a_manifest_is_stored_with_its_bytes() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    world.push(manifest("a", "m", &["layer"], &["v1"]));
    let record = query::manifest(&world.view, &repository("a"), &digest("m"))
        .unwrap()
        .unwrap();
    assert_eq!(
        (record.media_type, record.size_bytes),
        (MediaType::oci_manifest(), 1)
    );
    let body = query::manifest_body(&world.view, &repository("a"), &digest("m")).unwrap();
    assert_eq!(body.unwrap(), "m");
    assert!(!exists(&world, "b", "m"));
    assert_eq!(grace(&world, "layer"), None, "a manifest needs it now");
}

#[test]
fn every_unknown_reference_is_listed_in_order() {
    let mut world = World::new();
    world.push_blob("a", "known");
    world.push_blob("b", "elsewhere");
    let mut put = manifest("a", "m", &["x", "known", "elsewhere"], &["v1"]);
    put.facts.manifests = vec![reference("child")];
    let rejection = world.rejected(Command::PutManifest(put));
    let wanted = ["x", "elsewhere", "child"].map(digest).to_vec();
    assert_eq!(rejection, Rejection::ReferencesUnknown(wanted));
    let rejection = world.rejected(Command::PutManifest(manifest("new", "m", &["known"], &[])));
    assert_eq!(
        rejection,
        Rejection::ReferencesUnknown(vec![digest("known")])
    );
    assert!(!query::repository_exists(&world.view, &repository("new")).unwrap());
}

#[test]
fn a_wrong_size_of_blob_or_child_is_refused() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    world.push(manifest("a", "child", &[], &[]));
    let wrong = |content: &str| ManifestReference {
        digest: digest(content),
        size_bytes: 99,
    };
    let mut put = manifest("a", "m", &[], &[]);
    put.facts.blobs = vec![wrong("layer")];
    let rejection = world.rejected(Command::PutManifest(put));
    let mismatch = |content: &str| Rejection::SizeMismatch {
        digest: digest(content),
        claimed_bytes: 99,
        actual_bytes: content.len() as u64,
    };
    assert_eq!(rejection, mismatch("layer"));
    let mut put = manifest("a", "m", &[], &[]);
    put.facts.manifests = vec![wrong("child")];
    assert_eq!(world.rejected(Command::PutManifest(put)), mismatch("child"));
}

#[test]
fn a_blob_with_too_few_copies_is_no_ground_for_a_manifest() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    world.done(Command::ReportLost(ReportLost {
        node: NodeId(1),
        digest: digest("layer"),
        is_gone: true,
    }));
    let put = manifest("a", "m", &["layer"], &[]);
    let rejection = world.rejected(Command::PutManifest(put.clone()));
    assert_eq!(
        rejection,
        Rejection::TooFewCopies {
            reached: 1,
            wanted: 2
        }
    );
    world.push_blob("a", "layer");
    world.push(put);
}

#[test]
fn a_child_must_be_in_the_same_repository() {
    let mut world = World::new();
    world.push(manifest("b", "child", &[], &[]));
    let rejection = world.rejected(Command::PutManifest(index("a", "index", &["child"])));
    assert_eq!(
        rejection,
        Rejection::ReferencesUnknown(vec![digest("child")])
    );
    world.push(manifest("a", "child", &[], &[]));
    world.push(index("a", "index", &["child"]));
    let record = query::manifest(&world.view, &repository("a"), &digest("index")).unwrap();
    assert!(record.unwrap().is_index);
    world.done(delete("a", "child"));
    assert!(
        exists(&world, "a", "index"),
        "clients may delete what an index names"
    );
}

/// Sparse indexes: a child that is missing may come later, as a manifest or as a blob, or never.
#[test]
fn a_sparse_index_may_name_children_that_are_missing() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    world.push(manifest("a", "here", &["layer"], &[]));
    let dense = index("a", "index", &["here", "missing"]);
    let sparse = PutManifest {
        allows_missing_manifests: true,
        ..dense.clone()
    };
    let unknown = Rejection::ReferencesUnknown(vec![digest("missing")]);
    assert_eq!(world.rejected(Command::PutManifest(dense.clone())), unknown);
    let mut wrong = sparse.clone();
    wrong.facts.manifests[0].size_bytes = 99;
    let rejection = world.rejected(Command::PutManifest(wrong));
    assert!(matches!(rejection, Rejection::SizeMismatch { .. }));
    let mut without_blob = sparse.clone();
    without_blob.facts.blobs = vec![reference("no such blob")];
    let rejection = world.rejected(Command::PutManifest(without_blob));
    let wanted = Rejection::ReferencesUnknown(vec![digest("no such blob")]);
    assert_eq!(rejection, wanted, "blobs are never optional");

    world.push(sparse.clone());
    assert!(exists(&world, "a", "index") && !exists(&world, "a", "missing"));
    assert_eq!(world.rejected(Command::PutManifest(dense)), unknown);
    world.push_blob("a", "missing");
    assert_eq!(grace(&world, "missing"), None, "the index names it");
    world.push(manifest("a", "missing", &["layer"], &[]));
    world.push(sparse);
    world.done(delete("a", "missing"));
    assert_eq!(grace(&world, "missing"), None);
    world.pass_ms(1000);
    world.done(delete("a", "index"));
    assert_eq!(grace(&world, "missing"), Some(LogTime(0)), "its last use");
    let limits = GcLimits {
        grace_ms: 5000,
        undelete_ms: 0,
        condemn_delay_ms: 0,
    };
    world.step_with(limits, 100);
    assert_eq!(grace(&world, "missing"), Some(LogTime(1000)));
    assert_eq!(grace(&world, "layer"), None, "another manifest needs it");
}

#[test]
fn the_same_push_again_only_moves_tags() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    world.push(manifest("a", "m", &["layer"], &["v1"]));
    let before = query::manifest(&world.view, &repository("a"), &digest("m")).unwrap();
    world.push(manifest("a", "m", &["layer"], &["v2"]));
    let after = query::manifest(&world.view, &repository("a"), &digest("m")).unwrap();
    assert_eq!(before, after);
    assert_eq!(world.tag_of("a", "v2"), Some(digest("m")));
    assert_eq!(query::stats(&world.view).unwrap().manifests, 1);
}

#[test]
fn the_same_bytes_read_differently_replace_what_was_derived() {
    let mut world = World::new();
    world.push_blob("a", "one");
    world.push_blob("a", "two");
    world.push(manifest("a", "m", &["one"], &["v1"]));
    world.pass_ms(1000);
    let mut put = manifest("a", "m", &["two"], &[]);
    put.media_type = MediaType::oci_index();
    put.facts.subject = Some(digest("subject"));
    world.push(put);
    assert_eq!(
        (grace(&world, "one"), grace(&world, "two")),
        (Some(LogTime(1000)), None)
    );
    let listed = query::referrers(
        &world.view,
        &repository("a"),
        &digest("subject"),
        None,
        None,
        9,
    )
    .unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(world.tag_of("a", "v1"), Some(digest("m")));
    assert_eq!(query::stats(&world.view).unwrap().manifests, 1);
}

#[test]
fn deleting_a_manifest_takes_its_tags_and_frees_its_blobs() {
    let mut world = World::new();
    world.push_blob("a", "shared");
    world.push_blob("a", "own");
    world.push(manifest("a", "m1", &["shared", "own"], &["v1", "latest"]));
    world.push(manifest("a", "m2", &["shared"], &["v2"]));
    world.pass_ms(3000);
    world.done(delete("a", "m1"));
    assert!(!exists(&world, "a", "m1"));
    let tags = query::tags(&world.view, &repository("a"), None, 10)
        .unwrap()
        .unwrap();
    assert_eq!(tags, [tag("v2")]);
    assert_eq!(grace(&world, "shared"), None);
    // While the manifest can be restored, the link is kept; its grace may count from its last use.
    assert_eq!(grace(&world, "own"), Some(LogTime(0)));
    let history = query::tag_history(&world.view, &repository("a"), &tag("v1"), 9).unwrap();
    assert_eq!(history.first().map(|change| change.digest), Some(None));
    assert_eq!(
        world.rejected(delete("a", "m1")),
        Rejection::ManifestUnknown
    );
    assert_eq!(
        world.rejected(delete("b", "m1")),
        Rejection::RepositoryUnknown
    );
    let stats = query::stats(&world.view).unwrap();
    let counts = (
        stats.manifests,
        stats.manifest_bytes,
        stats.tags,
        stats.blobs,
    );
    assert_eq!(counts, (1, 2, 1, 2));
}

#[test]
fn a_deleted_manifest_stays_away_until_it_is_pushed_again() {
    let mut world = World::new();
    world.push(manifest("a", "m", &[], &["v1"]));
    world.done(delete("a", "m"));
    world.push(manifest("a", "m", &[], &[]));
    assert!(exists(&world, "a", "m"));
    assert_eq!(world.tag_of("a", "v1"), None);
}

#[test]
fn referrers_are_listed_with_or_without_a_filter_and_paged() {
    let mut world = World::new();
    for (body, kind) in [
        ("r1", "t/one"),
        ("r2", "t/two"),
        ("r3", "t/one"),
        ("r4", "t/one"),
    ] {
        world.push(referring("a", body, "subject", kind));
    }
    world.push(referring("b", "r5", "subject", "t/one"));
    let list = |kind: Option<&str>, after: Option<&oci::Digest>, limit| {
        let kind = kind.map(|kind| MediaType::parse(kind).unwrap());
        let (name, subject) = (repository("a"), digest("subject"));
        query::referrers(&world.view, &name, &subject, kind.as_ref(), after, limit).unwrap()
    };
    assert_eq!(list(None, None, 10).len(), 4);
    let ones = list(Some("t/one"), None, 10);
    assert_eq!(ones.len(), 3);
    assert!(ones.is_sorted_by(|a, b| a.digest < b.digest));
    let first = list(Some("t/one"), None, 2);
    let rest = list(Some("t/one"), Some(&first[1].digest), 2);
    assert_eq!([first, rest].concat(), ones, "filtered pages are full");
    let one = ones
        .iter()
        .find(|referrer| referrer.digest == digest("r1"))
        .unwrap();
    assert_eq!((one.size_bytes, one.annotations["key"].as_str()), (2, "r1"));
    assert_eq!(list(Some("t/three"), None, 10), []);
    world.done(delete("a", "r1"));
    let (name, subject) = (repository("a"), digest("subject"));
    let left = query::referrers(&world.view, &name, &subject, None, None, 10).unwrap();
    assert_eq!(left.len(), 3);
}

/// The bytes of a child manifest may be uploaded as a blob, too: then the index names both.
#[test]
fn a_blob_that_is_also_a_child_is_referenced() {
    let mut world = World::new();
    world.push(manifest("a", "child", &[], &[]));
    world.push(index("a", "index", &["child"]));
    world.push_blob("a", "child");
    assert_eq!(grace(&world, "child"), None);
    world.done(delete("a", "index"));
    assert_eq!(grace(&world, "child"), Some(LogTime(0)));
}

#[test]
fn totals_count_everything_once() {
    let mut world = World::new();
    assert_eq!(query::stats(&world.view).unwrap(), Stats::default());
    world.push_blob("a", "layer");
    world.push_blob("b", "layer");
    world.push(manifest("a", "m", &["layer"], &["v1", "v2"]));
    let response = world.apply(Command::PutManifest(manifest(
        "b",
        "m",
        &["layer"],
        &["v1"],
    )));
    assert_eq!(response, Response::ManifestPut);
    let wanted = Stats {
        repositories: 2,
        tags: 3,
        manifests: 2,
        manifest_bytes: 2,
        blobs: 1,
        blob_bytes: 5,
        under_replicated_blobs: 1,
        missing_copies: 1,
    };
    assert_eq!(query::stats(&world.view).unwrap(), wanted);
}
