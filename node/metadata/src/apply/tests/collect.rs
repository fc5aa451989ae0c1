//! The stages of garbage collection and the races of protocols.md 3.3 (faults F-51 to F-60 at the level of the state).

use crate::apply::{DELETED_TTL_MS, MAX_BLOBS_PER_COMMAND, MAX_GC_BUDGET, MAX_REASON_BYTES};
use crate::command::{
    Command, CondemnedBlob, DeleteBlobs, GcLimits, GcStep, MountBlob, PauseGc, TouchBlob,
    UnlinkBlob,
};
use crate::ids::LogTime;
use crate::query::{self, DueStep};
use crate::response::{BlobsDeleted, GcStepped, Rejection, Response};
use crate::testing::{World, digest, manifest, repository, tag};

const HOUR_MS: u64 = 60 * 60 * 1000;

fn is_linked(world: &World, name: &str, content: &str) -> bool {
    query::linked_blob(&world.view, &repository(name), &digest(content))
        .unwrap()
        .is_some()
}

fn condemned(world: &World) -> Vec<CondemnedBlob> {
    query::condemned_blobs(&world.view, 0, None, 100).unwrap()
}

fn step(epoch: u64, budget: u32) -> Command {
    Command::GcStep(GcStep {
        epoch,
        limits: GcLimits::default(),
        budget,
    })
}

fn unlink(name: &str, content: &str) -> Command {
    Command::UnlinkBlob(UnlinkBlob {
        repository: repository(name),
        digest: digest(content),
    })
}

fn mount(from: &str, to: &str, content: &str) -> Command {
    Command::MountBlob(MountBlob {
        from: Some(repository(from)),
        repository: repository(to),
        digest: digest(content),
    })
}

/// A blob that is condemned and nothing else.
fn with_condemned() -> (World, CondemnedBlob) {
    let mut world = World::new();
    world.push_blob("a", "layer");
    world.done(unlink("a", "layer"));
    assert_eq!(world.step(0, 100).condemned_blobs, 1);
    let blob = condemned(&world)[0];
    (world, blob)
}

#[test]
fn a_deleted_image_is_collected_stage_by_stage() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    world.push(manifest("a", "m", &["layer"], &["v1"]));
    world.pass_ms(HOUR_MS);
    world.delete_manifest("a", "m");
    let limits = GcLimits {
        grace_ms: 3 * HOUR_MS,
        condemn_delay_ms: 0,
        undelete_ms: HOUR_MS,
    };
    assert_eq!(world.step_with(limits, 100), GcStepped::default());
    world.pass_ms(HOUR_MS);
    let purged = world.step_with(limits, 100);
    assert_eq!((purged.purged_manifests, purged.removed_links), (1, 0));
    // Freed a grace after the delete: the undelete window does not come on top.
    world.pass_ms(2 * HOUR_MS - 1);
    assert_eq!(world.step_with(limits, 100), GcStepped::default());
    world.pass_ms(1);
    let removed = world.step_with(limits, 100);
    assert_eq!((removed.removed_links, removed.condemned_blobs), (1, 1));
    assert!(!removed.is_more_due);
    assert!(!is_linked(&world, "a", "layer"));

    let deleted = world.delete_blobs(condemned(&world));
    let wanted = BlobsDeleted {
        digests: vec![digest("layer")],
        blob_bytes: 5,
        copy_bytes: 10,
    };
    assert_eq!(deleted, wanted);
    assert_eq!(query::blob(&world.view, &digest("layer")).unwrap(), None);
    world.pass_ms(3 * HOUR_MS);
    assert_eq!(world.step_with(limits, 100).removed_repositories, 1);
    assert!(!query::repository_exists(&world.view, &repository("a")).unwrap());
    assert_eq!(world.step_with(limits, 100), GcStepped::default());
    let collected = query::gc(&world.view).unwrap().collected;
    assert_eq!((collected.links, collected.blobs), (1, 1));
    assert_eq!((collected.blob_bytes, collected.copy_bytes), (5, 10));
    assert_eq!((collected.manifests, collected.repositories), (1, 1));
    let stats = query::stats(&world.view).unwrap();
    assert_eq!(
        (stats.blobs, stats.blob_bytes, stats.repositories),
        (0, 0, 0)
    );
}

/// protocols.md 3.3: either order, never a manifest without its blobs.
#[test]
fn a_push_that_races_a_step_is_decided_by_the_log() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    let mut other = world.clone();
    world.push(manifest("a", "m", &["layer"], &["v1"]));
    assert_eq!(world.step(0, 100), GcStepped::default());
    assert!(is_linked(&world, "a", "layer"));

    assert_eq!(other.step(0, 100).removed_links, 1);
    let put = Command::PutManifest(manifest("a", "m", &["layer"], &["v1"]));
    let unknown = Rejection::ReferencesUnknown(vec![digest("layer")]);
    assert_eq!(other.rejected(put), unknown);
}

#[test]
fn a_mount_that_races_the_last_delete_is_safe_or_refused() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    world.push(manifest("a", "m", &["layer"], &[]));
    world.delete_manifest("a", "m");
    let mut late = world.clone();
    let mounted = world.apply(mount("a", "b", "layer"));
    assert_eq!(mounted, Response::BlobMounted { size_bytes: 5 });
    world.pass_ms(10);
    world.step(11, 100);
    assert!(is_linked(&world, "b", "layer"));
    world.push(manifest("b", "m", &["layer"], &["v1"]));
    world.step(0, 100);
    assert!(is_linked(&world, "b", "layer"));
    assert!(!is_linked(&world, "a", "layer"));
    assert_eq!(condemned(&world), []);

    late.step(0, 100);
    assert_eq!(
        late.rejected(mount("a", "b", "layer")),
        Rejection::BlobUnknown
    );
}

/// F-53: what a HEAD promised holds, also when only a deleted manifest kept the blob.
#[test]
fn a_touch_starts_the_grace_again_even_behind_a_deleted_manifest() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    world.push(manifest("a", "m", &["layer"], &[]));
    world.delete_manifest("a", "m");
    world.pass_ms(HOUR_MS);
    world.done(Command::TouchBlob(TouchBlob {
        repository: repository("a"),
        digest: digest("layer"),
    }));
    let linked = query::linked_blob(&world.view, &repository("a"), &digest("layer")).unwrap();
    assert_eq!(linked.unwrap().unreferenced_since, Some(LogTime(HOUR_MS)));
    world.pass_ms(HOUR_MS - 1);
    assert_eq!(world.step(HOUR_MS, 100).purged_manifests, 1);
    assert!(is_linked(&world, "a", "layer"));
    world.push(manifest("a", "m2", &["layer"], &["v1"]));
    world.pass_ms(HOUR_MS);
    world.step(0, 100);
    assert!(is_linked(&world, "a", "layer"));
}

#[test]
fn a_condemned_blob_is_rescued_by_a_push() {
    let (mut world, blob) = with_condemned();
    world.push_blob("b", "layer");
    assert_eq!(world.delete_blobs(vec![blob]), BlobsDeleted::default());
    assert!(is_linked(&world, "b", "layer"));
    // Condemned again, it has another time: what was proposed before does not hit it.
    world.pass_ms(1);
    world.done(unlink("b", "layer"));
    world.step(0, 100);
    assert_eq!(world.delete_blobs(vec![blob]), BlobsDeleted::default());
    assert_eq!(world.delete_blobs(condemned(&world)).digests, [blob.digest]);
}

/// Nobody may serve it, so nobody may mount or touch it; the client uploads and rescues it so.
#[test]
fn a_condemned_blob_can_not_be_mounted_or_touched() {
    let (mut world, _) = with_condemned();
    world.push_blob("a", "other");
    assert_eq!(
        world.rejected(mount("a", "b", "layer")),
        Rejection::BlobUnknown
    );
    let touch = Command::TouchBlob(TouchBlob {
        repository: repository("a"),
        digest: digest("layer"),
    });
    assert_eq!(world.rejected(touch), Rejection::BlobUnknown);
}

#[test]
fn only_blobs_whose_quarantine_is_over_are_deleted() {
    let (mut world, blob) = with_condemned();
    world.pass_ms(99);
    let delete = |quarantine_ms, blobs| {
        Command::DeleteBlobs(DeleteBlobs {
            epoch: 0,
            quarantine_ms,
            blobs,
        })
    };
    let none = Response::BlobsDeleted(BlobsDeleted::default());
    assert_eq!(world.apply(delete(100, vec![blob])), none);
    assert_eq!(
        query::condemned_blobs(&world.view, 100, None, 9).unwrap(),
        []
    );
    let other = CondemnedBlob {
        condemned_since: LogTime(1),
        ..blob
    };
    let unknown = CondemnedBlob {
        digest: digest("never pushed"),
        ..blob
    };
    assert_eq!(world.apply(delete(99, vec![other, unknown])), none);
    let many = vec![blob; MAX_BLOBS_PER_COMMAND + 1];
    assert_eq!(world.rejected(delete(0, many)), Rejection::OutOfBounds);
    let twice = world.delete_blobs(vec![blob, blob]);
    assert_eq!((twice.digests.len(), twice.copy_bytes), (1, 10));
}

/// Its repository let go of it, but a manifest that can be restored names it.
#[test]
fn a_blob_of_a_deleted_manifest_is_not_deleted() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    world.push(manifest("a", "m", &["layer"], &[]));
    world.delete_manifest("a", "m");
    world.done(unlink("a", "layer"));
    let limits = GcLimits {
        undelete_ms: HOUR_MS,
        ..GcLimits::default()
    };
    assert_eq!(world.step_with(limits, 100).condemned_blobs, 1);
    assert_eq!(world.delete_blobs(condemned(&world)).digests, []);
    assert_eq!(world.step(0, 100).purged_manifests, 1);
    assert_eq!(world.delete_blobs(condemned(&world)).digests.len(), 1);
}

#[test]
fn a_child_manifest_of_the_same_digest_is_no_need_of_the_blob() {
    let mut world = World::new();
    world.push_blob("a", "child");
    world.push(manifest("b", "child", &[], &[]));
    let mut index = manifest("b", "index", &[], &["v1"]);
    index.facts.manifests = vec![crate::testing::reference("child")];
    world.push(index);
    world.done(unlink("a", "child"));
    world.step(0, 100);
    assert_eq!(world.delete_blobs(condemned(&world)).digests.len(), 1);
}

/// F-57: what was queued before a pause or by an old leader does nothing.
#[test]
fn a_pause_makes_queued_steps_stale() {
    let (mut world, blob) = with_condemned();
    world.push_blob("a", "loose");
    let pause = |reason: String| Command::PauseGc(PauseGc { reason });
    world.done(pause("alarm".to_owned()));
    assert_eq!(
        world.rejected(step(0, 9)),
        Rejection::StaleEpoch { current: 1 }
    );
    assert_eq!(world.rejected(step(1, 9)), Rejection::GcPaused);
    let delete = |epoch| {
        Command::DeleteBlobs(DeleteBlobs {
            epoch,
            quarantine_ms: 0,
            blobs: vec![blob],
        })
    };
    assert_eq!(
        world.rejected(delete(0)),
        Rejection::StaleEpoch { current: 1 }
    );
    assert_eq!(world.rejected(delete(1)), Rejection::GcPaused);
    let status = query::gc(&world.view).unwrap();
    assert_eq!((status.epoch, status.paused.as_deref()), (1, Some("alarm")));
    world.done(Command::ResumeGc);
    assert_eq!(
        world.rejected(delete(1)),
        Rejection::StaleEpoch { current: 2 }
    );
    assert_eq!(world.step(0, 9).removed_links, 1);
    assert_eq!(world.delete_blobs(vec![blob]).digests.len(), 1);
    let long = pause("x".repeat(MAX_REASON_BYTES + 1));
    assert_eq!(world.rejected(long), Rejection::OutOfBounds);
}

#[test]
fn a_step_keeps_to_its_budget() {
    let mut world = World::new();
    for n in 0..5 {
        world.push_blob("a", &format!("loose {n}"));
    }
    for budget in [0, MAX_GC_BUDGET + 1] {
        assert_eq!(world.rejected(step(0, budget)), Rejection::OutOfBounds);
    }
    let first = world.step(0, 3);
    assert_eq!((first.removed_links, first.condemned_blobs), (3, 0));
    assert!(first.is_more_due);
    let second = world.step(0, 4);
    assert_eq!((second.removed_links, second.condemned_blobs), (2, 2));
    let third = world.step(0, 100);
    assert_eq!((third.condemned_blobs, third.removed_repositories), (3, 1));
    assert!(!third.is_more_due);
    assert_eq!(world.step(0, 100), GcStepped::default());
}

#[test]
fn a_removed_repository_goes_in_pieces_and_its_name_is_free_at_once() {
    let mut world = World::new();
    for body in ["m1", "m2", "m3"] {
        world.push(manifest("a", body, &[], &["v1"]));
    }
    for body in ["m1", "m2", "m3"] {
        world.delete_manifest("a", body);
    }
    let purged = world.step(0, 4);
    assert_eq!(
        (purged.purged_manifests, purged.removed_repositories),
        (3, 1)
    );
    assert!(purged.is_more_due, "its history is left");
    world.push(manifest("a", "new", &[], &["v2"]));
    let history = |name| query::tag_history(&world.view, &repository("a"), &tag(name), 9).unwrap();
    assert_eq!((history("v1").len(), history("v2").len()), (0, 1));
    assert!(world.step(HOUR_MS, 3).is_more_due);
    assert!(!world.step(HOUR_MS, 3).is_more_due);
}

#[test]
fn a_repository_that_got_content_again_stays() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    world.done(unlink("a", "layer"));
    world.push_blob("a", "other");
    world.push(manifest("a", "m", &["other"], &["v1"]));
    world.step(0, 100);
    assert!(query::repository_exists(&world.view, &repository("a")).unwrap());
    assert_eq!(
        query::gc(&world.view).unwrap().heads.empty_repositories,
        None
    );
}

#[test]
fn a_deleted_blob_is_remembered_for_a_day() {
    let (mut world, blob) = with_condemned();
    world.pass_ms(7);
    world.delete_blobs(vec![blob]);
    let found = query::deleted_blob(&world.view, &blob.digest)
        .unwrap()
        .unwrap();
    assert_eq!((found.size_bytes, found.deleted_at), (5, LogTime(7)));
    let listed = query::deleted_blobs(&world.view, None, 9).unwrap();
    assert_eq!(listed.len(), 1);
    let after = Some((found.deleted_index, blob.digest));
    assert_eq!(query::deleted_blobs(&world.view, after, 9).unwrap(), []);
    world.pass_ms(DELETED_TTL_MS - 1);
    world.step(0, 100);
    assert!(
        query::deleted_blob(&world.view, &blob.digest)
            .unwrap()
            .is_some()
    );
    world.pass_ms(1);
    let head = query::gc(&world.view).unwrap().heads.deleted_blobs;
    assert_eq!(head, Some(LogTime(7)));
    // Also when the budget is used up by other work, somebody must come back for it.
    world.push_blob("a", "loose");
    assert!(world.step(0, 1).is_more_due);
    assert!(!world.step(0, 100).is_more_due);
    assert_eq!(
        query::deleted_blob(&world.view, &blob.digest).unwrap(),
        None
    );
}

#[test]
fn the_plan_pages_through_everything_that_waits() {
    let mut world = World::new();
    for content in ["condemned", "unlinked", "loose"] {
        world.push_blob("a", content);
    }
    world.push(manifest("a", "m", &[], &["v1"]));
    world.delete_manifest("a", "m");
    world.done(unlink("a", "condemned"));
    let far = GcLimits {
        grace_ms: HOUR_MS,
        condemn_delay_ms: 0,
        undelete_ms: HOUR_MS,
    };
    world.step_with(far, 100);
    world.done(unlink("a", "unlinked"));
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let plan = query::gc_plan(&world.view, &far, 5, after.as_deref(), 1).unwrap();
        found.extend(
            plan.items
                .iter()
                .map(|item| (item.step, item.digest, item.due_at.0)),
        );
        after = plan.next;
        if after.is_none() {
            break;
        }
    }
    let wanted = [
        (DueStep::PurgeManifest, Some(digest("m")), HOUR_MS),
        (DueStep::RemoveLink, Some(digest("loose")), HOUR_MS),
        (DueStep::CondemnBlob, Some(digest("unlinked")), 0),
        (DueStep::DeleteBlob, Some(digest("condemned")), 5),
    ];
    assert_eq!(found, wanted);
    let why = query::explain(&world.view, None, &digest("loose"), 10).unwrap();
    assert_eq!(why.links[0].unreferenced_since, Some(LogTime(0)));
}
