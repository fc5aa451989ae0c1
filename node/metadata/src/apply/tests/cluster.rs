use crate::command::{Command, SetReplication, Tick};
use crate::ids::{LogIndex, LogTime, NodeId};
use crate::query;
use crate::response::Rejection;
use crate::testing::{World, initialize, open, register};

#[test]
fn a_cluster_is_initialised_once() {
    let mut world = World::empty();
    assert_eq!(query::cluster(&world.view).unwrap(), None);
    world.done(initialize(3, 2));
    assert_eq!(
        world.rejected(initialize(1, 1)),
        Rejection::AlreadyInitialized
    );
    let cluster = query::cluster(&world.view).unwrap().unwrap();
    assert_eq!((cluster.copies, cluster.write_copies), (3, 2));
    assert_eq!(cluster.upload_key.len(), 32);
}

#[test]
fn write_copies_lie_between_one_and_copies() {
    for (copies, write_copies) in [(0, 0), (3, 0), (1, 2)] {
        let mut world = World::empty();
        let rejection = world.rejected(initialize(copies, write_copies));
        assert_eq!(rejection, Rejection::OutOfBounds);
        world.done(initialize(2, 1));
        let command = Command::SetReplication(SetReplication {
            copies,
            write_copies,
        });
        assert_eq!(world.rejected(command), Rejection::OutOfBounds);
    }
}

#[test]
fn replication_changes_and_nothing_else_does() {
    let mut world = World::new();
    let before = query::cluster(&world.view).unwrap().unwrap();
    world.done(Command::SetReplication(SetReplication {
        copies: 5,
        write_copies: 3,
    }));
    let after = query::cluster(&world.view).unwrap().unwrap();
    assert_eq!((after.copies, after.write_copies), (5, 3));
    assert_eq!(
        (after.cluster_id, after.upload_key),
        (before.cluster_id, before.upload_key)
    );
}

#[test]
fn nothing_comes_before_initialisation() {
    let mut world = World::empty();
    let replication = Command::SetReplication(SetReplication {
        copies: 3,
        write_copies: 2,
    });
    for command in [
        replication,
        register(1, "d"),
        open(crate::command::TicketKind::Upload, 1),
    ] {
        assert_eq!(world.rejected(command), Rejection::NotInitialized);
    }
}

#[test]
fn a_node_moves_but_never_changes_its_disk() {
    let mut world = World::new();
    world.done(register(9, "disk"));
    let first = query::node(&world.view, NodeId(9)).unwrap().unwrap();
    assert_eq!(first.registered_at, LogIndex(5));
    let mut moved = register(9, "disk");
    if let Command::RegisterNode(moved) = &mut moved {
        moved.http_address = "elsewhere:1".to_owned();
    }
    world.done(moved);
    let second = query::node(&world.view, NodeId(9)).unwrap().unwrap();
    assert_eq!(second.http_address, "elsewhere:1");
    assert_eq!(second.registered_at, first.registered_at);
    assert_eq!(
        world.rejected(register(9, "wiped")),
        Rejection::DiskMismatch(NodeId(9))
    );
    let ids: Vec<u64> = query::nodes(&world.view)
        .unwrap()
        .iter()
        .map(|n| n.node.0)
        .collect();
    assert_eq!(ids, [1, 2, 3, 9]);
}

#[test]
fn log_time_is_the_sum_of_clamped_ticks() {
    let mut world = World::new();
    let tick = |previous_sequence, elapsed_ms| {
        Command::Tick(Tick {
            previous_sequence,
            elapsed_ms,
        })
    };
    world.done(tick(0, 1500));
    assert_eq!(query::time(&world.view).unwrap(), (LogTime(1500), 1));
    world.done(tick(1, 3_600_000));
    assert_eq!(query::time(&world.view).unwrap(), (LogTime(21_500), 2));
}

#[test]
fn a_tick_that_does_not_follow_the_last_one_is_nothing() {
    let mut world = World::new();
    let tick = Command::Tick(Tick {
        previous_sequence: 0,
        elapsed_ms: 1000,
    });
    world.done(tick.clone());
    world.done(tick);
    world.done(Command::Tick(Tick {
        previous_sequence: 7,
        elapsed_ms: 1000,
    }));
    assert_eq!(query::time(&world.view).unwrap(), (LogTime(1000), 1));
}
