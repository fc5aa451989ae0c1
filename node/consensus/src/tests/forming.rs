//! Who may take part, and who forms the cluster.

use std::sync::Arc;
use std::time::Duration;

use metadata::ids::{LogIndex, NodeId};
use openraft::alias::LeaderIdOf;
use openraft::entry::RaftEntry;
use openraft::vote::RaftLeaderId;
use storage::log::LogStore;
use storage::memory::{MemoryLogStore, MemoryStateStore};

use super::{TestCluster, eventually, has_tag, put, soon};
use crate::network::convert;
use crate::types::{LogEntry, LogId, TypeConfig};
use crate::{Formation, Member, MembershipError, RaftNode, StartError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_disk_does_not_vote_and_says_why() {
    let mut cluster = TestCluster::formed(3).await;
    put(cluster.node(1), "kept").await.unwrap();
    for node in cluster.running() {
        eventually("all registered", || {
            metadata::log::read(&**node, metadata::query::nodes)
                .unwrap()
                .len()
                == 3
        })
        .await;
    }
    let wiped = cluster.follower().await;
    cluster.stop(wiped).await;
    for store in ["log", "state"] {
        std::fs::remove_dir_all(cluster.seat(wiped).directory.path().join(store)).unwrap();
    }
    cluster.adjust = |options| options.disk_id = format!("{}-new", options.disk_id);
    let refused = cluster.start(wiped).await.unwrap_err();
    assert!(
        matches!(refused, StartError::DiskReplaced { node } if node.0 == wiped),
        "{refused}"
    );
    assert!(!cluster.node(wiped).has_joined());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        !has_tag(cluster.node(wiped), "kept"),
        "it takes no part, not even as a follower"
    );
    let others: Vec<_> = (1..=3).filter(|node| *node != wiped).collect();
    put(cluster.node(others[0]), "goes-on").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_disk_that_knows_nobody_to_ask_is_told_by_those_who_call() {
    let mut cluster = TestCluster::formed(3).await;
    let wiped = cluster.follower().await;
    let leader = cluster.leader().await;
    // What the leader's calls say is looked up now and then.
    eventually("the leader knows the disk", || {
        let request = cluster
            .node(leader)
            .cluster
            .peers
            .request(NodeId(wiped), ());
        request
            .metadata()
            .contains_key(crate::network::peers::DISK_HEADER)
    })
    .await;
    cluster.stop(wiped).await;
    for store in ["log", "state"] {
        std::fs::remove_dir_all(cluster.seat(wiped).directory.path().join(store)).unwrap();
    }
    cluster.adjust = |options| {
        options.disk_id = format!("{}-new", options.disk_id);
        options.formation = Formation::Manual;
        options.members.clear();
    };
    let started = cluster.start(wiped).await;
    if let Ok(()) = started {
        let failed = tokio::time::timeout(super::PATIENCE, cluster.node(wiped).failed())
            .await
            .unwrap();
        assert!(failed.to_string().contains("replace the node"), "{failed}");
    }
    let log = &cluster.node(wiped).log;
    assert!(log.is_empty().unwrap(), "it took no entry and gave no vote");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_node_waits_for_a_majority() {
    let mut cluster = TestCluster::seats(3).await;
    cluster.open(1).await.unwrap();
    let node = cluster.node(1).clone();
    let alone = tokio::time::timeout(Duration::from_secs(2), node.join()).await;
    assert!(
        alone.is_err(),
        "alone it cannot know whether there is a cluster"
    );
    assert!(!node.has_joined());
    cluster.open(3).await.unwrap();
    let (first, third) = tokio::join!(node.join(), cluster.node(3).join());
    first.unwrap();
    third.unwrap();
    cluster.settled().await;
    put(cluster.node(3), "two-of-three").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_another_list_is_refused_and_says_why() {
    let mut cluster = TestCluster::seats(3).await;
    cluster.adjust = |options| {
        if options.node == NodeId(3) {
            options.members.push(Member {
                node: NodeId(4),
                grpc_address: "127.0.0.1:1".into(),
            });
        }
    };
    cluster.open(1).await.unwrap();
    cluster.open(3).await.unwrap();
    // Neither may form a cluster that the other does not mean.
    for node in [1, 3] {
        let refused = cluster.node(node).join().await.unwrap_err();
        assert!(
            matches!(refused, StartError::MembersDiffer { .. }),
            "{refused}"
        );
        let text = refused.to_string();
        assert!(text.contains("4=127.0.0.1:1"), "{text}");
        assert!(cluster.node(node).log.is_empty().unwrap());
    }
    for node in [1, 3] {
        cluster.stop(node).await;
    }
    for node in [1, 2] {
        cluster.open(node).await.unwrap();
    }
    let (first, second) = tokio::join!(cluster.node(1).join(), cluster.node(2).join());
    first.unwrap();
    second.unwrap();
    cluster.settled().await;
    let refused = cluster.start(3).await.unwrap_err();
    assert!(
        matches!(refused, StartError::MembersDiffer { .. }),
        "{refused}"
    );
    cluster.stop(3).await;
    cluster.adjust = |_| {};
    cluster.start(3).await.unwrap();
    cluster.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_forms_the_cluster_where_the_configuration_does_not() {
    let mut cluster = TestCluster::seats(3).await;
    cluster.adjust = |options| options.formation = Formation::Manual;
    cluster.start_all().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        cluster
            .running()
            .all(|node| node.leader().is_none() && !node.is_ready())
    );

    let members = cluster.seat(2).options().members;
    let others: Vec<Member> = members
        .iter()
        .filter(|member| member.node != NodeId(2))
        .cloned()
        .collect();
    let refused = cluster.node(2).initialize(&others).await.unwrap_err();
    assert!(matches!(refused, MembershipError::Invalid(_)), "{refused}");
    cluster.node(2).initialize(&members).await.unwrap();
    cluster.settled().await;
    put(cluster.node(1), "formed").await.unwrap();
    let again = cluster.node(2).initialize(&members).await.unwrap_err();
    assert!(
        matches!(again, MembershipError::AlreadyInitialized),
        "{again}"
    );
}

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

    // A node that never answers stays a learner and does not count for the quorum.
    let leader = cluster.node(cluster.leader().await);
    let deadline = std::time::Instant::now() + Duration::from_secs(2);
    let refused = leader.add_voter(&member, deadline).await.unwrap_err();
    assert!(
        matches!(refused, MembershipError::TooFarBehind { .. }),
        "{refused}"
    );
    assert!(!leader.is_voter(NodeId(9)));
    put(leader, "goes-on").await.unwrap();
}

#[tokio::test]
async fn a_state_that_lacks_purged_entries_is_refused() {
    let cluster = TestCluster::seats(1).await;
    let log = Arc::new(MemoryLogStore::new());
    let entry = |index| LogEntry::new_blank(LogId::new(LeaderIdOf::<TypeConfig>::new(1, 1), index));
    let entries = (0..=9)
        .map(|index| (index, convert::encode_entry(&entry(index))))
        .collect();
    log.append(entries, Box::new(|_| ())).unwrap();
    let marker = convert::encode_log_id(&entry(5).log_id);
    log.purge_through(5, marker).unwrap();
    let state = Arc::new(MemoryStateStore::new());
    let Err(refused) = RaftNode::open(cluster.seat(1).options(), log, state).await else {
        panic!("opened with a hole between state and log");
    };
    assert!(
        matches!(
            refused,
            StartError::StateTooOld {
                purged: LogIndex(5),
                ..
            }
        ),
        "{refused}"
    );
}
