use crate::command::{
    AddPlacement, Command, DropPlacement, NodeState, ReportLost, SetNodeState, SetReplication,
    TicketKind,
};
use crate::ids::{NodeId, TicketId};
use crate::query::{self, UnderReplicated};
use crate::response::Rejection;
use crate::testing::{World, digest, register};

fn add(ticket: TicketId, node: u64, content: &str) -> Command {
    Command::AddPlacement(AddPlacement {
        ticket,
        node: NodeId(node),
        digest: digest(content),
    })
}

fn drop_copy(node: u64, content: &str) -> Command {
    Command::DropPlacement(DropPlacement {
        node: NodeId(node),
        digest: digest(content),
    })
}

fn lost(node: u64, content: &str) -> Command {
    Command::ReportLost(ReportLost {
        node: NodeId(node),
        digest: digest(content),
        is_gone: true,
    })
}

fn damaged(node: u64, content: &str) -> Command {
    Command::ReportLost(ReportLost {
        node: NodeId(node),
        digest: digest(content),
        is_gone: false,
    })
}

fn holders(world: &World, content: &str) -> Vec<u64> {
    let blob = query::blob(&world.view, &digest(content)).unwrap().unwrap();
    blob.holders.iter().map(|node| node.0).collect()
}

fn missing(world: &World) -> (u64, Vec<UnderReplicated>) {
    let stats = query::stats(&world.view).unwrap();
    let list = query::under_replicated(&world.view, 100).unwrap();
    assert_eq!(stats.under_replicated_blobs, list.len() as u64);
    (stats.missing_copies, list)
}

#[test]
fn a_placement_needs_ticket_node_and_blob() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    let upload = world.open(TicketKind::Upload);
    assert_eq!(
        world.rejected(add(upload, 3, "layer")),
        Rejection::TicketClosed(upload)
    );
    let ticket = world.open(TicketKind::Repair);
    assert_eq!(
        world.rejected(add(ticket, 8, "layer")),
        Rejection::NodeUnknown(NodeId(8))
    );
    assert_eq!(
        world.rejected(add(ticket, 3, "other")),
        Rejection::BlobUnknown
    );
    world.done(add(ticket, 3, "layer"));
    assert_eq!(holders(&world, "layer"), [1, 2, 3]);
    assert_eq!(
        world.rejected(add(ticket, 3, "layer")),
        Rejection::TicketClosed(ticket)
    );
}

#[test]
fn only_surplus_copies_are_dropped() {
    let mut world = World::new();
    world.done(register(4, "disk-4"));
    world.push_blob("a", "layer");
    assert_eq!(
        world.rejected(drop_copy(1, "layer")),
        Rejection::TooFewCopies {
            reached: 1,
            wanted: 3
        }
    );
    for node in [3, 4] {
        let ticket = world.open(TicketKind::Repair);
        world.done(add(ticket, node, "layer"));
    }
    world.done(drop_copy(1, "layer"));
    assert_eq!(holders(&world, "layer"), [2, 3, 4]);
    let floor = Rejection::TooFewCopies {
        reached: 2,
        wanted: 3,
    };
    assert_eq!(
        world.rejected(drop_copy(2, "layer")),
        floor,
        "R counts here, not W"
    );
    assert_eq!(
        world.rejected(drop_copy(1, "layer")),
        Rejection::NotAHolder(NodeId(1))
    );
    assert_eq!(
        world.rejected(drop_copy(1, "other")),
        Rejection::BlobUnknown
    );
    assert_eq!(
        query::blobs_of_node(&world.view, NodeId(1), None, 10).unwrap(),
        []
    );
}

#[test]
fn every_copy_may_be_lost() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    world.done(lost(1, "layer"));
    assert_eq!(
        world.rejected(lost(1, "layer")),
        Rejection::NotAHolder(NodeId(1))
    );
    world.done(lost(2, "layer"));
    assert_eq!(holders(&world, "layer"), [0; 0]);
    assert_eq!(world.rejected(lost(2, "other")), Rejection::BlobUnknown);
    let all = UnderReplicated {
        digest: digest("layer"),
        copies: 0,
    };
    assert_eq!(missing(&world), (3, vec![all]));
}

#[test]
fn the_last_live_copy_is_counted_however_damaged() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    let last = Rejection::TooFewCopies {
        reached: 0,
        wanted: 1,
    };
    // The other one may never come back.
    let set = |state| {
        let node = NodeId(2);
        Command::SetNodeState(SetNodeState { node, state })
    };
    world.done(set(NodeState::Down));
    assert_eq!(world.rejected(damaged(1, "layer")), last);
    world.done(set(NodeState::Draining));
    world.done(damaged(1, "layer"));
    assert_eq!(world.rejected(damaged(2, "layer")), last);
    assert_eq!(holders(&world, "layer"), [2]);
    let ticket = world.open(TicketKind::Repair);
    world.done(add(ticket, 3, "layer"));
    world.done(damaged(2, "layer"));
    assert_eq!(holders(&world, "layer"), [3]);
}

#[test]
fn the_work_list_has_the_neediest_first() {
    let mut world = World::new();
    for content in ["one", "two", "three"] {
        world.push_blob("a", content);
    }
    let ticket = world.open(TicketKind::Repair);
    world.done(add(ticket, 3, "three"));
    world.done(lost(2, "one"));
    let (copies, list) = missing(&world);
    assert_eq!(copies, 2 + 1);
    let found: Vec<_> = list.iter().map(|item| (item.digest, item.copies)).collect();
    assert_eq!(found, [(digest("one"), 1), (digest("two"), 2)]);
    assert_eq!(query::under_replicated(&world.view, 1).unwrap().len(), 1);
    assert_eq!(query::under_replicated(&world.view, 0).unwrap(), []);
}

#[test]
fn another_number_of_copies_changes_what_is_missing_at_once() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    assert_eq!(missing(&world).0, 1);
    world.done(Command::SetReplication(SetReplication {
        copies: 2,
        write_copies: 2,
    }));
    assert_eq!(missing(&world).0, 0);
    world.done(Command::SetReplication(SetReplication {
        copies: 5,
        write_copies: 2,
    }));
    assert_eq!(
        missing(&world).0,
        1,
        "there are three nodes for five copies"
    );
    world.done(register(4, "disk-4"));
    world.done(register(5, "disk-5"));
    assert_eq!(missing(&world).0, 3);
}
