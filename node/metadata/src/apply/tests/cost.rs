//! Work is proportional to the command, never to what the repository holds.

use crate::apply::apply;
use crate::changes::Overlay;
use crate::command::{
    Command, DeleteBlobs, DeleteManifest, DeleteTag, Precondition, TicketKind, UnlinkBlob,
};
use crate::entry::Entry;
use crate::ids::{LogIndex, NodeId, RequestId, TicketId, Timestamp};
use crate::query;
use crate::response::Response;
use crate::testing::{World, commit, digest, manifest, reference, repository, tag};
use crate::view::{Counted, MetadataView as _};

/// A repository with this many images that share a layer, and one image and a loose blob more.
fn world(size: usize) -> (World, TicketId) {
    let mut world = World::new();
    world.push_blob("a", "shared");
    world.push_blob("a", "layer");
    world.push_blob("a", "loose");
    for n in 0..size {
        let (blob, body, tag) = (
            format!("blob {n}"),
            format!("manifest {n}"),
            format!("v{n}"),
        );
        world.push_blob("a", &blob);
        world.push(manifest("a", &body, &["shared", &blob], &[&tag]));
    }
    world.push(manifest("a", "manifest", &["shared", "layer"], &["v"]));
    let ticket = world.open(TicketKind::Upload);
    (world, ticket)
}

/// How many reads and writes each command takes.
fn costs(size: usize) -> Vec<(u64, usize)> {
    let (world, ticket) = world(size);
    let (repository, loose) = (repository("a"), digest("loose"));
    let commands = [
        Command::CommitBlob(commit(ticket, "a", "new", &[1, 2])),
        Command::PutManifest(manifest("a", "new manifest", &["shared", "loose"], &["v"])),
        Command::DeleteTag(DeleteTag {
            repository: repository.clone(),
            tag: tag("v"),
            precondition: Precondition::None,
        }),
        Command::DeleteManifest(DeleteManifest {
            repository: repository.clone(),
            digest: digest("manifest"),
        }),
        Command::UnlinkBlob(UnlinkBlob {
            repository,
            digest: loose,
        }),
    ];
    let cost = |command: Command| {
        let view = Counted::new(&world.view);
        let entry = Entry {
            proposed_at: Timestamp(0),
            subject: String::new(),
            request: Some(RequestId {
                node: NodeId(1),
                boot: 1,
                sequence: 1,
            }),
            command,
        };
        let mut overlay = Overlay::new(&view);
        let at = LogIndex(world.view.applied().0 + 1);
        let response = apply(&mut overlay, at, &entry).unwrap();
        assert!(
            !matches!(response, crate::response::Response::Rejected(_)),
            "{response:?}"
        );
        (view.reads(), overlay.into_changes().len())
    };
    commands.into_iter().map(cost).collect()
}

#[test]
fn work_does_not_grow_with_the_repository() {
    for (small, large) in costs(1).into_iter().zip(costs(60)) {
        assert_eq!(small.1, large.1, "writes");
        // Where the removed edge of a shared layer lies among the others makes a difference of one.
        assert!(
            small.0.abs_diff(large.0) <= 1,
            "{} and {} reads",
            small.0,
            large.0
        );
    }
}

#[test]
fn a_push_is_a_handful_of_reads_and_writes() {
    for (reads, writes) in costs(1) {
        assert!(
            reads <= 32 && writes <= 20,
            "{reads} reads, {writes} writes"
        );
    }
}

/// Reads and writes of the step that collects one deleted image, with `size` others stored and `size` blobs waiting.
fn cost_of_a_step(size: usize) -> (u64, usize) {
    let (mut world, _) = world(size);
    world.pass_ms(1000);
    world.delete_manifest("a", "manifest");
    for n in 0..size {
        world.push_blob("a", &format!("waiting {n}"));
    }
    // Due: the blob that was loose from the start, and the deleted manifest. What came later waits.
    world.pass_ms(10);
    for n in 0..size {
        world.push_blob("a", &format!("later {n}"));
    }
    let view = Counted::new(&world.view);
    let command = Command::GcStep(crate::command::GcStep {
        epoch: 0,
        limits: crate::command::GcLimits {
            grace_ms: 1005,
            condemn_delay_ms: 0,
            undelete_ms: 10,
        },
        budget: 1000,
    });
    let entry = Entry {
        proposed_at: Timestamp(0),
        subject: String::new(),
        request: None,
        command,
    };
    let mut overlay = Overlay::new(&view);
    let at = LogIndex(world.view.applied().0 + 1);
    let response = apply(&mut overlay, at, &entry).unwrap();
    let crate::response::Response::GcStepped(done) = response else {
        panic!("{response:?}")
    };
    assert_eq!((done.purged_manifests, done.removed_links), (1, 1));
    assert_eq!(done.condemned_blobs, 1);
    (view.reads(), overlay.into_changes().len())
}

#[test]
fn a_step_costs_what_is_due_and_not_what_is_stored_or_waits() {
    let (small, large) = (cost_of_a_step(1), cost_of_a_step(60));
    assert_eq!(small.1, large.1, "writes");
    assert!(small.0.abs_diff(large.0) <= 4, "{small:?} and {large:?}");
}

/// Many indexes may name as a child what is also a blob. Whether one of them needs the blob must not take reading
/// their references, which are long.
#[test]
fn deleting_a_blob_reads_no_references() {
    let mut world = World::new();
    world.push_blob("a", "child");
    world.push(manifest("b", "child", &[], &[]));
    for n in 0..50 {
        let mut index = manifest("b", &format!("index {n}"), &[], &[&format!("v{n}")]);
        index.facts.manifests = vec![reference("child")];
        world.push(index);
    }
    world.done(Command::UnlinkBlob(UnlinkBlob {
        repository: repository("a"),
        digest: digest("child"),
    }));
    world.step(0, 100);
    let blobs = query::condemned_blobs(&world.view, 0, None, 9).unwrap();
    let view = Counted::new(&world.view);
    let entry = Entry {
        proposed_at: Timestamp(0),
        subject: String::new(),
        request: None,
        command: Command::DeleteBlobs(DeleteBlobs {
            epoch: 0,
            quarantine_ms: 0,
            blobs,
        }),
    };
    let at = LogIndex(world.view.applied().0 + 1);
    let response = apply(&mut Overlay::new(&view), at, &entry).unwrap();
    assert!(matches!(response, Response::BlobsDeleted(deleted) if deleted.digests.len() == 1));
    let reads = view.reads();
    assert!(reads < 50 + 30, "{reads} reads for 50 edges");
}
