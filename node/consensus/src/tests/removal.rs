//! Nodes that leave for good.

use metadata::command::{Command, NodeState, RemoveNode, SetNodeState};
use metadata::ids::NodeId;
use metadata::log::MetadataLog as _;

use super::{TestCluster, eventually, put, soon};
use crate::{Member, MembershipError, RaftNode, RemoveOptions};

fn members(node: &RaftNode) -> Vec<u64> {
    let members = node.status().members;
    members.iter().map(|member| member.node.0).collect()
}

/// A node that does not lead.
fn other(nodes: u64, leader: u64) -> NodeId {
    NodeId((1..=nodes).rev().find(|node| *node != leader).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_goes_and_its_number_is_spent() {
    let cluster = TestCluster::formed(4).await;
    let first = cluster.leader().await;
    let leader = cluster.node(first);
    let leaving = other(4, first);
    let drained = leader.drain(leaving, Some(true), soon()).await.unwrap();
    assert_eq!(drained.state, NodeState::Draining);
    assert_eq!((drained.held.blobs, drained.needed.blobs), (0, 0));
    let back = leader.drain(leaving, Some(false), soon()).await.unwrap();
    assert_eq!(back.state, NodeState::Up);
    leader.drain(leaving, Some(true), soon()).await.unwrap();
    let looked = leader.drain(leaving, None, soon()).await.unwrap();
    assert_eq!(looked.state, NodeState::Draining);
    let options = RemoveOptions::default();
    let elsewhere = cluster.node(leaving.0);
    let error = elsewhere
        .remove(leaving, options, soon())
        .await
        .unwrap_err();
    assert!(
        matches!(error, MembershipError::NotLeader { .. }),
        "{error}"
    );
    let lost = leader.remove(leaving, options, soon()).await.unwrap();
    assert_eq!(lost, []);
    assert!(!members(leader).contains(&leaving.0));
    put(leader, "goes-on").await.unwrap();
    // Whoever did not get the answer asks again.
    leader.remove(leaving, options, soon()).await.unwrap();
    let again = Member {
        node: leaving,
        grpc_address: cluster.seat(leaving.0).options().grpc_address,
    };
    let refused = leader.add_voter(&again, soon()).await.unwrap_err();
    assert!(
        matches!(refused, MembershipError::Removed { node } if node == leaving),
        "{refused}"
    );
    let gone = leader.drain(leaving, Some(true), soon()).await.unwrap_err();
    assert!(matches!(gone, MembershipError::Removed { .. }), "{gone}");
    let unknown = leader.drain(NodeId(9), Some(true), soon()).await;
    let unknown = unknown.unwrap_err();
    assert!(
        matches!(unknown, MembershipError::Unknown { .. }),
        "{unknown}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_costs_the_quorum_is_refused_and_changes_nothing() {
    let mut cluster = TestCluster::seats(3).await;
    cluster.adjust = |options| (options.copies, options.write_copies) = (3, 2);
    cluster.start_all().await;
    cluster.settled().await;
    let first = cluster.leader().await;
    let leader = cluster.node(first).clone();
    let leaving = other(3, first);
    let remove = |node, allow_few| {
        let leader = leader.clone();
        let options = RemoveOptions {
            force: true,
            allow_few,
        };
        async move { leader.remove(node, options, soon()).await.unwrap_err() }
    };
    let error = remove(leaving, true).await;
    assert!(
        matches!(error, MembershipError::NotDraining { .. }),
        "{error}"
    );
    let error = remove(NodeId(9), true).await;
    assert!(matches!(error, MembershipError::Unknown { .. }), "{error}");
    let drain = |draining| leader.drain(NodeId(first), Some(draining), soon());
    drain(true).await.unwrap();
    let error = remove(NodeId(first), true).await;
    assert!(matches!(error, MembershipError::Leads { .. }), "{error}");
    drain(false).await.unwrap();
    {
        let _another_operator = leader.changing_membership.lock().await;
        let error = remove(leaving, true).await;
        assert!(matches!(error, MembershipError::Busy), "{error}");
    }
    leader.drain(leaving, Some(true), soon()).await.unwrap();
    let error = remove(leaving, false).await;
    assert!(
        matches!(error, MembershipError::TooFewVoters { left: 2 }),
        "{error}"
    );
    // Pushes need two copies, so a second node may not drain.
    let third = NodeId(6 - first - leaving.0);
    let error = leader.drain(third, Some(true), soon()).await.unwrap_err();
    assert!(
        matches!(error, MembershipError::TooFewNodes { up: 1, needed: 2 }),
        "{error}"
    );
    cluster.stop(third.0).await;
    let is_refused = async || {
        let options = RemoveOptions {
            force: false,
            allow_few: true,
        };
        let outcome = leader.check_removable(leaving, options);
        matches!(
            outcome,
            Err(MembershipError::NoMajority { answering: 1, .. })
        )
    };
    let deadline = soon();
    while !is_refused().await {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let error = remove(leaving, true).await;
    assert!(
        matches!(error, MembershipError::NoMajority { needed: 2, .. }),
        "{error}"
    );
    assert_eq!(members(&leader).len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_takes_the_vote_of_a_node_that_somebody_removed() {
    let cluster = TestCluster::formed(4).await;
    let first = cluster.leader().await;
    let node = other(4, first);
    let leader = cluster.node(first);
    let state = NodeState::Draining;
    for command in [
        Command::SetNodeState(SetNodeState { node, state }),
        Command::RemoveNode(RemoveNode { node }),
    ] {
        leader.propose(command, "", soon()).await.unwrap();
    }
    for left in cluster.running().filter(|left| left.options.node != node) {
        eventually("three members are left", || members(left).len() == 3).await;
    }
    put(leader, "goes-on").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_down_is_removed_as_it_is() {
    let mut cluster = TestCluster::formed(4).await;
    let first = cluster.leader().await;
    let node = other(4, first);
    cluster.stop(node.0).await;
    let leader = cluster.node(first);
    let state = NodeState::Down;
    let down = Command::SetNodeState(SetNodeState { node, state });
    leader.propose(down, "", soon()).await.unwrap();
    let drained = leader.drain(node, Some(true), soon()).await.unwrap();
    assert_eq!(drained.state, state, "draining copies would count again");
    let options = RemoveOptions::default();
    assert_eq!(leader.remove(node, options, soon()).await.unwrap(), []);
    assert!(!members(leader).contains(&node.0));
    put(leader, "goes-on").await.unwrap();
}
