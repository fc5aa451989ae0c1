//! What copies on nodes that are down or draining are worth.

use crate::command::{
    AddPlacement, Command, DropPlacement, NodeState, RecoverCluster, RemoveNode, ReportLost,
    SetNodeState, TicketKind, UnlinkBlob,
};
use crate::ids::{LogTime, NodeId};
use crate::query;
use crate::response::Rejection;
use crate::testing::{World, commit, digest, manifest, register};

fn set(node: u64, state: NodeState) -> Command {
    let node = NodeId(node);
    Command::SetNodeState(SetNodeState { node, state })
}

fn add(world: &mut World, node: u64) {
    let ticket = world.open(TicketKind::Repair);
    world.done(Command::AddPlacement(AddPlacement {
        ticket,
        node: NodeId(node),
        digest: digest("layer"),
    }));
}

fn drop_copy(node: u64) -> Command {
    Command::DropPlacement(DropPlacement {
        node: NodeId(node),
        digest: digest("layer"),
    })
}

#[test]
fn a_state_has_a_time_and_outlives_a_registration() {
    let mut world = World::new();
    world.pass_ms(5);
    world.done(set(2, NodeState::Down));
    world.pass_ms(5);
    world.done(set(2, NodeState::Down));
    world.done(register(2, "disk-2"));
    let node = query::node(&world.view, NodeId(2)).unwrap().unwrap();
    assert_eq!(
        (node.state, node.state_since),
        (NodeState::Down, LogTime(5))
    );
    let unknown = Rejection::NodeUnknown(NodeId(9));
    assert_eq!(world.rejected(set(9, NodeState::Up)), unknown);
}

#[test]
fn copies_on_a_node_that_is_down_do_not_count_for_a_push() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    world.done(set(2, NodeState::Down));
    let few = Rejection::TooFewCopies {
        reached: 1,
        wanted: 2,
    };
    let put = Command::PutManifest(manifest("a", "m", &["layer"], &[]));
    assert_eq!(world.rejected(put.clone()), few);
    let ticket = world.open(TicketKind::Upload);
    let push = Command::CommitBlob(commit(ticket, "a", "new", &[1, 2]));
    assert_eq!(world.rejected(push), few);
    world.done(set(2, NodeState::Draining));
    world.apply(put);
    assert_eq!(query::stats(&world.view).unwrap().manifests, 1);
}

#[test]
fn new_copies_are_counted_on_nodes_that_are_up() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    let ticket = world.open(TicketKind::Repair);
    let add = |node| {
        Command::AddPlacement(AddPlacement {
            ticket,
            node: NodeId(node),
            digest: digest("layer"),
        })
    };
    for state in [NodeState::Down, NodeState::Draining] {
        world.done(set(3, state));
        let refused = Rejection::NodeNotUp(NodeId(3));
        assert_eq!(world.rejected(add(3)), refused);
        // What it has already may be made anew.
        world.done(set(2, state));
        world.done(add(2));
    }
    world.done(set(3, NodeState::Up));
    // The ticket protects the bytes as before.
    world.done(add(3));
    let blob = query::blob(&world.view, &digest("layer")).unwrap().unwrap();
    assert_eq!(blob.holders, [1, 2, 3].map(NodeId));
}

#[test]
fn a_surplus_copy_is_one_beyond_r_lasting_ones() {
    let mut world = World::new();
    world.done(register(4, "disk-4"));
    world.push_blob("a", "layer");
    add(&mut world, 3);
    add(&mut world, 4);
    let surplus = |world: &World| {
        query::surplus_blobs(&world.view, None, 9)
            .unwrap()
            .blobs
            .len()
    };
    assert_eq!(surplus(&world), 1);
    world.done(set(1, NodeState::Down));
    assert_eq!(surplus(&world), 0);
    let floor = Rejection::TooFewCopies {
        reached: 2,
        wanted: 3,
    };
    assert_eq!(world.rejected(drop_copy(2)), floor);
    world.done(drop_copy(1));
    // A node that leaves gives its copy up when W others are there.
    world.done(set(2, NodeState::Draining));
    world.done(drop_copy(2));
    world.done(set(3, NodeState::Draining));
    let last = Rejection::TooFewCopies {
        reached: 1,
        wanted: 2,
    };
    assert_eq!(world.rejected(drop_copy(3)), last);
}

#[test]
fn copies_that_only_nodes_out_of_duty_have_are_missing() {
    let mut world = World::new();
    world.done(register(4, "disk-4"));
    world.push_blob("a", "layer");
    add(&mut world, 3);
    world.push_blob("a", "other");
    let missing = |world: &World| {
        let stats = query::stats(&world.view).unwrap();
        (stats.under_replicated_blobs, stats.missing_copies)
    };
    assert_eq!(missing(&world), (1, 1));
    for state in [NodeState::Down, NodeState::Draining] {
        world.done(set(2, state));
        assert_eq!(missing(&world), (2, 3));
    }
    world.done(set(1, NodeState::Down));
    assert_eq!(missing(&world), (2, 3), "two nodes are left for two copies");
    world.done(set(1, NodeState::Up));
    world.done(set(2, NodeState::Up));
    assert_eq!(missing(&world), (1, 1));
}

#[test]
fn blobs_of_a_node_that_is_down_are_found_page_by_page() {
    let mut world = World::new();
    for content in ["one", "two", "three"] {
        world.push_blob("a", content);
    }
    world.done(set(2, NodeState::Down));
    let mut after = None;
    let mut found = Vec::new();
    loop {
        let page =
            query::under_replicated_of_node(&world.view, NodeId(2), after.as_ref(), 2).unwrap();
        found.extend(page.blobs.iter().map(|blob| blob.copies));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, [1, 1, 1]);
    world.done(set(2, NodeState::Up));
    let page = query::under_replicated_of_node(&world.view, NodeId(2), None, 9).unwrap();
    assert_eq!(page.blobs.len(), 3, "three nodes are up for R = 3");
}

#[test]
fn a_node_goes_when_no_copy_is_counted_on_it_and_never_comes_back() {
    let mut world = World::new();
    let remove = Command::RemoveNode(RemoveNode { node: NodeId(2) });
    world.push_blob("a", "layer");
    add(&mut world, 3);
    world.done(set(2, NodeState::Draining));
    let holds = Rejection::NodeHoldsCopies(NodeId(2));
    assert_eq!(world.rejected(remove.clone()), holds);
    world.push_blob("a", "other");
    let count = |world: &World| {
        let held = query::copies_on(&world.view, NodeId(2)).unwrap();
        let needed = query::needed_copies_on(&world.view, NodeId(2)).unwrap();
        (held.blobs, needed.blobs)
    };
    assert_eq!(count(&world), (2, 1), "two nodes are left for two copies");
    world.done(Command::ReportLost(ReportLost {
        node: NodeId(2),
        digest: digest("other"),
        is_gone: true,
    }));
    assert_eq!(count(&world), (1, 0));
    world.done(drop_copy(2));
    world.done(remove.clone());
    assert_eq!(query::node(&world.view, NodeId(2)).unwrap(), None);
    assert!(query::is_removed(&world.view, NodeId(2)).unwrap());
    world.done(remove);
    let removed = Rejection::NodeRemoved(NodeId(2));
    for disk in ["disk-2", "another disk"] {
        assert_eq!(world.rejected(register(2, disk)), removed);
    }
    let unknown = Rejection::NodeUnknown(NodeId(2));
    let ticket = world.open(TicketKind::Upload);
    let push = Command::CommitBlob(commit(ticket, "a", "new", &[1, 2]));
    assert_eq!(world.rejected(push), unknown);
    // A member that never came to introduce itself.
    world.done(Command::RemoveNode(RemoveNode { node: NodeId(9) }));
    let removed = Rejection::NodeRemoved(NodeId(9));
    assert_eq!(world.rejected(register(9, "disk-9")), removed);
}

#[test]
fn a_condemned_blob_holds_its_nodes_because_a_push_brings_it_back() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    let digest = digest("layer");
    let repository = crate::testing::repository("a");
    world.done(Command::UnlinkBlob(UnlinkBlob { repository, digest }));
    world.step(0, 9);
    let blob = query::blob(&world.view, &digest).unwrap().unwrap();
    assert!(blob.condemned_since.is_some());
    let held = query::copies_on(&world.view, NodeId(2)).unwrap();
    assert_eq!((held.blobs, held.bytes), (0, 0));
    let remove = Command::RemoveNode(RemoveNode { node: NodeId(2) });
    let holds = Rejection::NodeHoldsCopies(NodeId(2));
    assert_eq!(world.rejected(remove.clone()), holds);
    // Nobody relies on its copies, not even on the last one.
    let drop_copy = |node| {
        Command::DropPlacement(DropPlacement {
            node: NodeId(node),
            digest,
        })
    };
    world.done(drop_copy(1));
    world.done(drop_copy(2));
    world.done(remove);
    let ticket = world.open(TicketKind::Upload);
    let few = Rejection::TooFewCopies {
        reached: 1,
        wanted: 2,
    };
    let push = |nodes: &[u64]| Command::CommitBlob(commit(ticket, "a", "layer", nodes));
    assert_eq!(world.rejected(push(&[1])), few);
    world.apply(push(&[1, 3]));
    let blob = query::blob(&world.view, &digest).unwrap().unwrap();
    assert_eq!(
        (blob.condemned_since, blob.holders),
        (None, vec![NodeId(1), NodeId(3)])
    );
}

#[test]
fn a_cluster_that_lost_its_quorum_goes_on_under_another_name() {
    let mut world = World::new();
    world.push_blob("a", "layer");
    add(&mut world, 3);
    world.done(set(3, NodeState::Draining));
    let recover = |survivor| {
        Command::RecoverCluster(RecoverCluster {
            cluster_id: "another".to_owned(),
            survivor: NodeId(survivor),
        })
    };
    let unknown = Rejection::NodeUnknown(NodeId(9));
    assert_eq!(world.rejected(recover(9)), unknown);
    let before = query::cluster(&world.view).unwrap().unwrap();
    world.done(recover(3));
    let after = query::cluster(&world.view).unwrap().unwrap();
    assert_eq!(after.cluster_id, "another");
    assert_eq!(after.upload_key, before.upload_key);
    let states = query::nodes(&world.view).unwrap().into_iter();
    let states: Vec<NodeState> = states.map(|node| node.state).collect();
    assert_eq!(states, [NodeState::Down, NodeState::Down, NodeState::Up]);
    let blob = query::blob(&world.view, &digest("layer")).unwrap().unwrap();
    assert_eq!(blob.holders.len(), 3, "what may be lost is not forgotten");
    world.done(Command::ReportLost(ReportLost {
        node: NodeId(3),
        digest: digest("layer"),
        is_gone: true,
    }));
    let elsewhere = |node| query::blobs_elsewhere(&world.view, NodeId(node)).unwrap();
    assert_eq!((elsewhere(3).blobs, elsewhere(1).blobs), (1, 0));
    assert_eq!(elsewhere(3).bytes, blob.size_bytes);
}
