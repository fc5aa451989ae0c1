use crate::apply::REPAIR_TTL_MS;
use crate::command::{
    AddPlacement, CloseTickets, Command, MountBlob, TicketKind, TouchBlob, UnlinkBlob,
};
use crate::ids::{LogTime, NodeId};
use crate::query::{self, LinkedBlob, TicketState};
use crate::response::{Rejection, Response};
use crate::testing::{World, commit, digest, manifest, repository};

fn linked(world: &World, name: &str, content: &str) -> Option<LinkedBlob> {
    query::linked_blob(&world.view, &repository(name), &digest(content)).unwrap()
}

fn mount(from: Option<&str>, to: &str, content: &str) -> Command {
    Command::MountBlob(MountBlob {
        from: from.map(repository),
        repository: repository(to),
        digest: digest(content),
    })
}

fn unlink(name: &str, content: &str) -> Command {
    Command::UnlinkBlob(UnlinkBlob {
        repository: repository(name),
        digest: digest(content),
    })
}

fn touch(name: &str, content: &str) -> Command {
    Command::TouchBlob(TouchBlob {
        repository: repository(name),
        digest: digest(content),
    })
}

#[test]
fn a_committed_blob_is_visible_where_it_was_pushed() {
    let mut world = World::new();
    let ticket = world.open(TicketKind::Upload);
    let response = world.apply(Command::CommitBlob(commit(
        ticket,
        "a",
        "layer",
        &[2, 1, 2],
    )));
    assert_eq!(
        response,
        Response::BlobCommitted {
            repair_ticket: None
        }
    );
    let blob = linked(&world, "a", "layer").unwrap();
    assert_eq!(blob.size_bytes, 5);
    assert_eq!(blob.holders, [NodeId(1), NodeId(2)]);
    assert_eq!(blob.unreferenced_since, Some(LogTime(0)));
    assert_eq!(linked(&world, "a/b", "layer"), None);
    assert_eq!(
        query::ticket(&world.view, ticket).unwrap(),
        TicketState::Closed
    );
    assert!(query::repository_exists(&world.view, &repository("a")).unwrap());
    let of_two = query::blobs_of_node(&world.view, NodeId(2), None, 10).unwrap();
    assert_eq!(of_two, [digest("layer")]);
}

#[test]
fn a_commit_needs_its_open_upload_ticket() {
    let mut world = World::new();
    let repair = world.open(TicketKind::Repair);
    let command = Command::CommitBlob(commit(repair, "a", "layer", &[1, 2]));
    assert_eq!(world.rejected(command), Rejection::TicketClosed(repair));
    let upload = world.open(TicketKind::Upload);
    world.done(Command::CloseTickets(CloseTickets {
        tickets: vec![upload],
    }));
    let command = Command::CommitBlob(commit(upload, "a", "layer", &[1, 2]));
    assert_eq!(world.rejected(command), Rejection::TicketClosed(upload));
    assert!(!query::repository_exists(&world.view, &repository("a")).unwrap());
}

#[test]
fn a_commit_needs_enough_registered_holders() {
    let mut world = World::new();
    let ticket = world.open(TicketKind::Upload);
    let few = Command::CommitBlob(commit(ticket, "a", "layer", &[3, 3]));
    assert_eq!(
        world.rejected(few),
        Rejection::TooFewCopies {
            reached: 1,
            wanted: 2
        }
    );
    let unknown = Command::CommitBlob(commit(ticket, "a", "layer", &[1, 2, 8]));
    assert_eq!(world.rejected(unknown), Rejection::NodeUnknown(NodeId(8)));
}

#[test]
fn copies_already_counted_count_for_the_next_commit() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    let ticket = world.open(TicketKind::Upload);
    let response = world.apply(Command::CommitBlob(commit(ticket, "b", "layer", &[3])));
    assert_eq!(
        response,
        Response::BlobCommitted {
            repair_ticket: None
        }
    );
    let holders = linked(&world, "b", "layer").unwrap().holders;
    assert_eq!(holders, [NodeId(1), NodeId(2), NodeId(3)]);
}

#[test]
fn a_commit_with_another_size_is_refused() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    let ticket = world.open(TicketKind::Upload);
    let mut wrong = commit(ticket, "a", "layer", &[1, 2]);
    wrong.size_bytes = 6;
    let rejection = world.rejected(Command::CommitBlob(wrong));
    let digest = digest("layer");
    let wanted = Rejection::SizeMismatch {
        digest,
        claimed_bytes: 6,
        actual_bytes: 5,
    };
    assert_eq!(rejection, wanted);
}

#[test]
fn stragglers_share_a_repair_ticket_that_closes_with_the_last() {
    let mut world = World::new();
    world.done(crate::testing::register(4, "disk-4"));
    let ticket = world.open(TicketKind::Upload);
    let mut command = commit(ticket, "a", "layer", &[1, 2]);
    command.stragglers = 2;
    let response = world.apply(Command::CommitBlob(command));
    let Response::BlobCommitted {
        repair_ticket: Some(ticket),
    } = response
    else {
        panic!("{response:?}")
    };
    let add = |node| {
        Command::AddPlacement(AddPlacement {
            ticket,
            node: NodeId(node),
            digest: digest("layer"),
        })
    };
    world.done(add(3));
    world.done(add(3));
    assert_eq!(
        query::ticket(&world.view, ticket).unwrap(),
        TicketState::Open
    );
    world.done(add(4));
    assert_eq!(
        query::ticket(&world.view, ticket).unwrap(),
        TicketState::Closed
    );
    assert_eq!(linked(&world, "a", "layer").unwrap().holders.len(), 4);
}

#[test]
fn a_straggler_that_never_comes_holds_the_ticket_for_ten_minutes() {
    let mut world = World::new();
    let ticket = world.open(TicketKind::Upload);
    let mut command = commit(ticket, "a", "layer", &[1, 2]);
    command.stragglers = 1;
    let response = world.apply(Command::CommitBlob(command));
    let Response::BlobCommitted {
        repair_ticket: Some(ticket),
    } = response
    else {
        panic!("{response:?}")
    };
    world.pass_ms(REPAIR_TTL_MS);
    assert_eq!(
        query::ticket(&world.view, ticket).unwrap(),
        TicketState::Open
    );
    world.pass_ms(1);
    assert_eq!(
        query::ticket(&world.view, ticket).unwrap(),
        TicketState::Closed
    );
}

#[test]
fn a_mount_links_what_the_source_links() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    let response = world.apply(mount(Some("a"), "b", "layer"));
    assert_eq!(response, Response::BlobMounted { size_bytes: 5 });
    assert!(linked(&world, "b", "layer").is_some());
    for (from, content) in [(Some("c"), "layer"), (Some("a"), "other"), (None, "other")] {
        let rejection = world.rejected(mount(from, "d", content));
        assert_eq!(rejection, Rejection::BlobUnknown);
    }
    assert!(!query::repository_exists(&world.view, &repository("d")).unwrap());
}

#[test]
fn a_mount_without_source_takes_any_repository_but_no_unlinked_blob() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    assert_eq!(
        world.apply(mount(None, "b", "layer")),
        Response::BlobMounted { size_bytes: 5 }
    );
    world.done(unlink("a", "layer"));
    world.done(unlink("b", "layer"));
    assert_eq!(
        world.rejected(mount(None, "c", "layer")),
        Rejection::BlobUnknown
    );
}

#[test]
fn a_touch_restarts_the_grace_of_what_nothing_names() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    world.pass_ms(5000);
    world.done(touch("a", "layer"));
    let since = linked(&world, "a", "layer").unwrap().unreferenced_since;
    assert_eq!(since, Some(LogTime(5000)));
    world.push(manifest("a", "m", &["layer"], &[]));
    world.done(touch("a", "layer"));
    assert_eq!(
        linked(&world, "a", "layer").unwrap().unreferenced_since,
        None
    );
    assert_eq!(world.rejected(touch("a", "other")), Rejection::BlobUnknown);
    assert_eq!(
        world.rejected(touch("b", "layer")),
        Rejection::RepositoryUnknown
    );
}

#[test]
fn unlinking_refuses_what_a_manifest_of_the_repository_names() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    world.apply(mount(Some("a"), "b", "layer"));
    world.push(manifest("a", "m", &["layer"], &[]));
    let rejection = world.rejected(unlink("a", "layer"));
    assert_eq!(
        rejection,
        Rejection::BlobReferenced {
            manifest: digest("m")
        }
    );
    world.done(unlink("b", "layer"));
    assert_eq!(linked(&world, "b", "layer"), None);
    assert_eq!(world.rejected(unlink("b", "layer")), Rejection::BlobUnknown);
    assert_eq!(
        world.rejected(unlink("c", "layer")),
        Rejection::RepositoryUnknown
    );
}

#[test]
fn the_last_link_lost_is_remembered_and_a_commit_rescues() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    world.apply(mount(None, "b", "layer"));
    world.pass_ms(7000);
    world.done(unlink("a", "layer"));
    let blob = |world: &World| query::blob(&world.view, &digest("layer")).unwrap().unwrap();
    assert_eq!(blob(&world).unlinked_since, None, "b still links it");
    world.done(unlink("b", "layer"));
    assert_eq!(blob(&world).unlinked_since, Some(LogTime(7000)));
    world.push_blob("c", "layer");
    assert_eq!(blob(&world).unlinked_since, None);
}

/// Condemning comes with garbage collection; the record and its rescue are here already.
#[test]
fn a_commit_rescues_a_condemned_blob() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    world.done(unlink("a", "layer"));
    condemn(&mut world, "layer");
    assert_eq!(
        query::stats(&world.view).unwrap().missing_copies,
        0,
        "not worth repairing"
    );
    world.push_blob("a", "layer");
    let blob = query::blob(&world.view, &digest("layer")).unwrap().unwrap();
    assert_eq!((blob.condemned_since, blob.unlinked_since), (None, None));
    assert_eq!(query::stats(&world.view).unwrap().missing_copies, 1);
}

/// What the collecting command will do, through the same index.
fn condemn(world: &mut World, content: &str) {
    use crate::apply::{Scope, index};
    use crate::changes::Overlay;
    use crate::ids::Timestamp;
    use crate::view::MetadataView;

    let before = query::blob(&world.view, &digest(content)).unwrap().unwrap();
    let after = query::BlobRecord {
        condemned_since: Some(LogTime(0)),
        ..before.clone()
    };
    let at = world.view.applied();
    let entry = crate::entry::Entry {
        proposed_at: Timestamp(0),
        subject: String::new(),
        request: None,
        command: touch("a", content),
    };
    let mut overlay = Overlay::new(&world.view);
    let mut scope = Scope {
        state: &mut overlay,
        at,
        now: LogTime(0),
        entry: &entry,
        totals: None,
    };
    index::put_blob(&mut scope, &digest(content), Some(&before), &after).unwrap();
    scope.save_totals();
    let changes = overlay.into_changes();
    world.view.commit(changes, at);
    assert_eq!(crate::invariants::check(&world.view).unwrap(), []);
}
