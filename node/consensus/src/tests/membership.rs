//! Changes of who belongs, finished and not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use metadata::ids::NodeId;
use openraft::async_runtime::watch::WatchReceiver;

use super::{TestCluster, eventually, put, soon};
use crate::types::{Membership, NodeAddress};
use crate::{Member, MembershipError, RaftNode};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_changes_only_on_the_leader() {
    let cluster = TestCluster::formed(3).await;
    let follower = cluster.node(cluster.follower().await);
    let member = Member {
        node: NodeId(9),
        grpc_address: "127.0.0.1:1".into(),
    };
    let refused = follower.add_voter(&member, soon()).await.unwrap_err();
    assert!(
        matches!(refused, MembershipError::NotLeader { leader: Some(_) }),
        "{refused}"
    );

    // A node that does not answer is not even a learner, nor is one that is somebody else.
    let leader = cluster.node(cluster.leader().await);
    let deadline = std::time::Instant::now() + Duration::from_secs(2);
    let refused = leader.add_voter(&member, deadline).await.unwrap_err();
    assert!(
        matches!(refused, MembershipError::Silent { .. }),
        "{refused}"
    );
    let other = Member {
        grpc_address: follower.options.grpc_address.clone(),
        ..member
    };
    let refused = leader.add_voter(&other, soon()).await.unwrap_err();
    let is_named = refused.to_string().contains("another node is meant");
    assert!(is_named, "{refused}");
    assert_eq!(leader.status().members.len(), 3);
    put(leader, "goes-on").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_where_it_is_sent_and_nowhere_else() {
    let mut cluster = TestCluster::formed(3).await;
    for wanted in [1, 2, 3, 1].map(NodeId) {
        let leader = cluster.leader().await;
        let sent = cluster
            .node(leader)
            .transfer_leadership(Some(wanted), soon());
        assert_eq!(sent.await.unwrap(), wanted);
        assert_eq!(cluster.leader().await, wanted.0);
        put(cluster.node(wanted.0), &format!("after-{leader}"))
            .await
            .unwrap();
    }
    let refused = |node: u64, to| {
        let node = cluster.node(node).clone();
        async move { node.transfer_leadership(Some(NodeId(to)), soon()).await }
    };
    let error = refused(2, 3).await.unwrap_err();
    assert!(
        matches!(error, MembershipError::NotLeader { .. }),
        "{error}"
    );
    let error = refused(1, 9).await.unwrap_err();
    assert!(matches!(error, MembershipError::Invalid(_)), "{error}");
    cluster.stop(3).await;
    // Before the leader misses it, the transfer begins, and ends in an election.
    eventually("the leader misses node 3", || {
        let silence = cluster.node(1).silence_of(NodeId(3));
        silence.is_some_and(|silence| silence > Duration::from_secs(2))
    })
    .await;
    let transfer = cluster.node(1).transfer_leadership(Some(NodeId(3)), soon());
    let error = transfer.await.unwrap_err();
    let is_silent = matches!(error, MembershipError::Silent { node } if node == NodeId(3));
    assert!(is_silent, "{error}");
    assert_eq!(cluster.leader().await, 1);
    put(cluster.node(1), "goes-on").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_is_taken_and_given_back() {
    let cluster = TestCluster::formed(4).await;
    let first = cluster.leader().await;
    let leader = cluster.node(first);
    let others: Vec<NodeId> = (1..=4).filter(|node| *node != first).map(NodeId).collect();
    let (node, other) = (others[0], others[1]);
    for _ in 0..2 {
        leader.demote(node, false, soon()).await.unwrap();
        assert!(leader.is_member(node) && !leader.is_voter(node));
    }
    let few = leader.demote(other, false, soon()).await.unwrap_err();
    assert!(
        matches!(few, MembershipError::TooFewVoters { left: 2 }),
        "{few}"
    );
    put(cluster.node(node.0), "without-a-vote").await.unwrap();
    for _ in 0..2 {
        leader.promote(node, soon()).await.unwrap();
        assert!(leader.is_voter(node));
    }
    for outcome in [
        leader.promote(NodeId(9), soon()).await,
        leader.demote(NodeId(9), true, soon()).await,
    ] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, MembershipError::Unknown { .. }), "{error}");
    }
    let leads = leader.demote(NodeId(first), false, soon()).await;
    let error = leads.unwrap_err();
    assert!(matches!(error, MembershipError::Leads { .. }), "{error}");
    put(leader, "goes-on").await.unwrap();
}

/// The voters of a node: one set, or two while a change is unfinished.
fn voters(node: &RaftNode) -> Vec<BTreeSet<u64>> {
    let metrics = node.cluster.raft.metrics();
    let metrics = metrics.borrow_watched();
    metrics
        .membership_config
        .membership()
        .get_joint_config()
        .clone()
}

/// Leaves the change from voters 1 and 2 to all three halfway, as a leader does that is killed or runs out of time.
async fn leave_halfway(leader: &Arc<RaftNode>) {
    let metrics = leader.cluster.raft.metrics();
    let nodes: BTreeMap<u64, NodeAddress> = metrics
        .borrow_watched()
        .membership_config
        .nodes()
        .map(|(node, address)| (*node, address.clone()))
        .collect();
    let sets = vec![BTreeSet::from([1, 2]), BTreeSet::from([1, 2, 3])];
    let halfway = Membership::new(sets.clone(), nodes).unwrap();
    let raft = &leader.cluster.raft;
    let blank = openraft::EntryPayload::Blank;
    raft.append_membership(halfway, blank, []).await.unwrap();
    assert_eq!(voters(leader), sets);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adding_a_voter_again_finishes_the_change_that_was_left_halfway() {
    let cluster = TestCluster::formed(3).await;
    // No duty comes first.
    for node in cluster.running() {
        node.tasks.close_and_wait(super::PATIENCE).await.unwrap();
    }
    let leader = cluster.node(cluster.leader().await);
    leave_halfway(leader).await;
    let member = Member {
        node: NodeId(3),
        grpc_address: cluster.seat(3).options().grpc_address,
    };
    leader.add_voter(&member, soon()).await.unwrap();
    assert_eq!(voters(leader), [BTreeSet::from([1, 2, 3])]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_finishes_the_change_that_was_left_halfway() {
    let cluster = TestCluster::formed(3).await;
    let old = cluster.leader().await;
    let leader = cluster.node(old).clone();
    leader.tasks.close_and_wait(super::PATIENCE).await.unwrap();
    leave_halfway(&leader).await;
    leader.hand_over(soon()).await;
    let new = cluster.leader().await;
    assert_ne!(new, old);
    eventually("one set of voters", || {
        voters(cluster.node(new)) == [BTreeSet::from([1, 2, 3])]
    })
    .await;
    put(cluster.node(new), "goes-on").await.unwrap();
}
