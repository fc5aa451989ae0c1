//! Uploads while nodes leave.

use std::time::Duration;

use metadata::command::{Command, NodeState, RemoveNode, SetNodeState};

use super::{MIB, end_of, start};
use crate::testing::{Cluster, ONE, noise, staged, stop};

/// The log refuses a commit that names it, so the client tries again.
#[tokio::test(start_paused = true)]
async fn a_copy_on_a_node_that_was_removed_is_made_elsewhere() {
    let cluster = Cluster::new(4, 2, 2);
    let body = noise(MIB, 35);
    let staged = staged(&cluster, &body).await;
    let mut spread = start(&cluster, staged.reader());
    let end = end_of(&cluster, &body);
    let holders = spread.finish(end).await.unwrap().holders;
    let node = holders[0];
    let state = NodeState::Draining;
    for command in [
        Command::SetNodeState(SetNodeState { node, state }),
        Command::RemoveNode(RemoveNode { node }),
    ] {
        cluster.log.apply(command).unwrap();
    }
    let mut holders = spread.finish(end).await.unwrap().holders;
    for _ in 0..100 {
        if holders == [node] {
            tokio::time::sleep(Duration::from_millis(5)).await;
            holders = spread.finish(end).await.unwrap().holders;
        }
    }
    assert!(holders.len() == 1 && holders[0] != node, "{holders:?}");
    spread.stragglers(None);
    stop(cluster).await;
}

/// Or a node that drains while pushes go on through it would never be empty.
#[tokio::test(start_paused = true)]
async fn a_node_that_drains_makes_all_copies_elsewhere() {
    let cluster = Cluster::new(4, 3, 2);
    for state in [NodeState::Draining, NodeState::Down] {
        let node = ONE;
        let change = SetNodeState { node, state };
        cluster.log.apply(Command::SetNodeState(change)).unwrap();
        let body = noise(MIB, state as u64);
        let staged = staged(&cluster, &body).await;
        let mut spread = start(&cluster, staged.reader());
        let end = end_of(&cluster, &body);
        let copies = spread.finish(end).await.unwrap();
        assert!(!copies.counts_own);
        assert_eq!(copies.holders.len(), 3);
        // It is back while the client tries again.
        let node = ONE;
        let back = SetNodeState {
            node,
            state: NodeState::Up,
        };
        cluster.log.apply(Command::SetNodeState(back)).unwrap();
        assert!(spread.finish(end).await.unwrap().counts_own);
        spread.stragglers(None);
    }
    stop(cluster).await;
}
