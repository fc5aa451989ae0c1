//! Who may take part, and who forms the cluster.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metadata::changes::Changes;
use metadata::ids::{LogIndex, NodeId};
use metadata::log::{LogError, MetadataLog};
use openraft::alias::LeaderIdOf;
use openraft::entry::RaftEntry;
use openraft::vote::RaftLeaderId;
use storage::log::LogStore;
use storage::memory::{MemoryLogStore, MemoryStateStore};
use storage::state::{Applied, StateStore};

use super::{TestCluster, eventually, has_tag, put, soon};
use crate::network::convert;
use crate::network::peers::{CLUSTER_HEADER, DISK_HEADER};
use crate::types::{LogEntry, LogId, TypeConfig, Vote};
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
    cluster.lose_disk(wiped);
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
    cluster.lose_disk(wiped);
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

/// One node that grew into three: its own list of members stayed empty.
async fn grown() -> TestCluster {
    let mut cluster = TestCluster::seats(3).await;
    cluster.adjust = |options| {
        options.members.clear();
        if options.node != NodeId(1) {
            options.formation = Formation::Manual;
        }
    };
    cluster.start(1).await.unwrap();
    cluster.settled().await;
    for node in [2, 3] {
        cluster.start(node).await.unwrap();
        let member = Member {
            node: NodeId(node),
            grpc_address: cluster.seat(node).options().grpc_address,
        };
        cluster.node(1).add_voter(&member, soon()).await.unwrap();
    }
    cluster.settled().await;
    for node in [2, 3] {
        eventually("the disk of node 1 is known", || {
            let request = cluster.node(node).cluster.peers.request(NodeId(1), ());
            let headers = request.metadata();
            headers.contains_key(DISK_HEADER) && headers.contains_key(CLUSTER_HEADER)
        })
        .await;
    }
    put(cluster.node(2), "kept").await.unwrap();
    cluster
}

async fn lose_disk_of_first(cluster: &mut TestCluster) {
    cluster.stop(1).await;
    cluster.lose_disk(1);
    cluster.adjust = |options| {
        options.members.clear();
        match options.node {
            NodeId(1) => options.disk_id = "disk-1-new".into(),
            _ => options.formation = Formation::Manual,
        }
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_node_of_a_grown_cluster_does_not_form_another_one_after_losing_its_disk() {
    let mut cluster = grown().await;
    lose_disk_of_first(&mut cluster).await;
    put(cluster.node(2), "goes-on").await.unwrap();
    let refused = cluster.start(1).await.unwrap_err();
    assert!(
        matches!(refused, StartError::DiskReplaced { .. }),
        "{refused}"
    );
    assert!(cluster.node(1).log.is_empty().unwrap());
    put(cluster.node(3), "still").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_cluster_acknowledges_nothing_once_the_first_one_calls() {
    let mut cluster = grown().await;
    lose_disk_of_first(&mut cluster).await;
    // Nobody calls while it starts, so it cannot know better.
    cluster.seat(1).set_front_cut(true);
    cluster.start(1).await.unwrap();
    cluster.settled().await;
    let wiped = cluster.node(1).clone();
    assert!(wiped.is_ready());
    cluster.seat(1).set_front_cut(false);
    eventually("the first cluster is heard", || !wiped.is_ready()).await;
    assert!(wiped.is_claimed_elsewhere());
    let refused = put(&wiped, "acknowledged-twice").await.unwrap_err();
    assert!(matches!(refused, LogError::NoLeader), "{refused}");
    assert!(wiped.barrier(soon()).await.is_err());
    assert!(!has_tag(&wiped, "acknowledged-twice"));
    put(cluster.node(2), "goes-on").await.unwrap();
    assert!(!cluster.node(2).is_claimed_elsewhere());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_formed_when_all_its_members_run() {
    let mut cluster = TestCluster::seats(3).await;
    for running in [1, 3] {
        cluster.open(running).await.unwrap();
        let joins = futures::future::join_all(cluster.running().map(|node| node.join()));
        let some = tokio::time::timeout(Duration::from_secs(2), joins).await;
        assert!(
            some.is_err() && cluster.running().all(|node| !node.has_joined()),
            "the silent ones may be a cluster that these have forgotten"
        );
    }
    cluster.open(2).await.unwrap();
    for joined in futures::future::join_all(cluster.running().map(|node| node.join())).await {
        joined.unwrap();
    }
    cluster.settled().await;
    put(cluster.node(3), "three-of-three").await.unwrap();
}

/// Node 3 was never there, node 1 forgot, node 2 is away: neither of the two that are left may take the other's word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_know_nothing_do_not_form_a_second_cluster_while_those_that_know_are_away() {
    let mut cluster = TestCluster::seats(3).await;
    cluster.start_without_third().await;
    put(cluster.node(2), "kept").await.unwrap();
    for node in [1, 2] {
        cluster.stop(node).await;
    }
    cluster.lose_disk(1);
    cluster.adjust = |options| {
        if options.node == NodeId(1) {
            options.disk_id = "disk-1-new".into();
        }
    };
    for node in [1, 3] {
        cluster.open(node).await.unwrap();
    }
    let joins = futures::future::join_all(cluster.running().map(|node| node.join()));
    let joined = tokio::time::timeout(Duration::from_secs(3), joins).await;
    assert!(joined.is_err(), "{joined:?}");
    for node in cluster.running() {
        assert!(!node.has_joined() && node.log.is_empty().unwrap());
    }
    cluster.open(2).await.unwrap();
    let (refused, second, third) = tokio::join!(
        cluster.node(1).join(),
        cluster.node(2).join(),
        cluster.node(3).join()
    );
    assert!(
        matches!(refused, Err(StartError::DiskReplaced { node: NodeId(1) })),
        "{refused:?}"
    );
    second.unwrap();
    third.unwrap();
    // Nodes 2 and 3 are two of the three voters.
    eventually("node 3 has what node 2 kept", || {
        has_tag(cluster.node(3), "kept")
    })
    .await;
    put(cluster.node(3), "goes-on").await.unwrap();
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
    cluster.start_without_third().await;
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

/// The vote went with the log: a node that starts with an older log, or none, could vote twice in a term.
#[tokio::test]
async fn a_log_older_than_the_state_is_refused() {
    let cluster = TestCluster::seats(1).await;
    let applied = |term| Applied {
        index: LogIndex(7),
        log_id: convert::encode_log_id(&LogId::new(LeaderIdOf::<TypeConfig>::new(term, 1), 7)),
        membership: Bytes::new(),
    };
    for (voted, term) in [(None, 1), (Some(3), 4)] {
        let log = Arc::new(MemoryLogStore::new());
        if let Some(term) = voted {
            let vote = convert::encode_vote(&Vote::new(term, 1));
            log.set_hard_state("vote", vote, true).unwrap();
        }
        let state = Arc::new(MemoryStateStore::new());
        state.commit(Changes::default(), applied(term)).unwrap();
        let opened = RaftNode::open(cluster.seat(1).options(), log, state).await;
        let is_refused = matches!(
            opened,
            Err(StartError::LogLost {
                applied: LogIndex(7)
            })
        );
        assert!(is_refused, "vote {voted:?}, applied term {term}");
    }
}

#[tokio::test]
async fn a_log_without_its_beginning_is_refused() {
    let cluster = TestCluster::seats(1).await;
    let log = Arc::new(MemoryLogStore::new());
    let entry = LogEntry::new_blank(LogId::new(LeaderIdOf::<TypeConfig>::new(1, 1), 5));
    let entries = vec![(5, convert::encode_entry(&entry))];
    log.append(entries, Box::new(|_| ())).unwrap();
    let state = Arc::new(MemoryStateStore::new());
    let opened = RaftNode::open(cluster.seat(1).options(), log, state).await;
    assert!(matches!(opened, Err(StartError::LogLost { .. })));
}
