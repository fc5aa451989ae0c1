//! Three nodes that agree.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use metadata::log::MetadataLog;
use metadata::query;
use metadata::response::Response;

use super::{
    TestCluster, eventually, has_tag, open_ticket, put, put_manifest, repository, soon, tag,
};
use crate::Role;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_through_any_node_is_read_there_at_once_and_elsewhere_behind_a_barrier() {
    let cluster = TestCluster::formed(3).await;
    for writer in 1..=3 {
        let name = format!("from-{writer}");
        let index = put(cluster.node(writer), &name).await.unwrap();
        assert!(
            has_tag(cluster.node(writer), &name),
            "the writer reads its own write"
        );
        for reader in 1..=3 {
            let seen = cluster.node(reader).barrier(soon()).await.unwrap();
            assert!(seen >= index);
            assert!(
                has_tag(cluster.node(reader), &name),
                "node {reader} behind its barrier"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_concurrent_proposals_and_barriers_share_rounds() {
    let cluster = Arc::new(TestCluster::formed(3).await);
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..300_u64 {
        let cluster = cluster.clone();
        tasks.spawn(async move {
            let name = format!("t{number}");
            let index = put(cluster.node(number % 3 + 1), &name).await.unwrap();
            let reader = cluster.node((number + 1) % 3 + 1);
            assert!(reader.barrier(soon()).await.unwrap() >= index);
            assert!(has_tag(reader, &name));
            index
        });
    }
    let indexes: BTreeSet<_> = tasks.join_all().await.into_iter().collect();
    assert_eq!(indexes.len(), 300, "every proposal has its own entry");
    println!("300 proposals with barriers: {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_names_itself_and_registers_every_node() {
    let cluster = TestCluster::formed(3).await;
    let mut ids = BTreeSet::new();
    for node in cluster.running() {
        node.barrier(soon()).await.unwrap();
        let (record, nodes) = metadata::log::read(&**node, |view| {
            Ok((query::cluster(view)?.unwrap(), query::nodes(view)?))
        })
        .unwrap();
        assert_eq!(record.cluster_id.len(), 32);
        assert_eq!(record.upload_key.len(), 32);
        ids.insert(record.cluster_id);
        eventually("all registered", || {
            metadata::log::read(&**node, query::nodes).unwrap().len() == 3
        })
        .await;
        assert!(
            nodes
                .iter()
                .all(|known| known.disk_id == format!("disk-{}", known.node))
        );
    }
    assert_eq!(ids.len(), 1, "all nodes name the same cluster");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_knows_how_far_the_others_are() {
    let cluster = TestCluster::formed(3).await;
    let leader = cluster.leader().await;
    put(cluster.node(leader), "one").await.unwrap();
    eventually("no lag", || {
        let status = cluster.node(leader).status();
        assert_eq!(status.role, Role::Leader);
        status.members.len() == 3
            && status
                .members
                .iter()
                .all(|member| member.is_voter && member.lag_entries == Some(0))
            && status
                .members
                .iter()
                .filter(|member| member.last_contact_ms.is_some())
                .count()
                == 2
    })
    .await;
    let follower = cluster.node(cluster.follower().await).status();
    assert_eq!(follower.role, Role::Follower);
    assert_eq!(follower.leader.map(|node| node.0), Some(leader));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_of_the_largest_size_replicate() {
    let cluster = Arc::new(TestCluster::formed(3).await);
    let mut tasks = tokio::task::JoinSet::new();
    let start = Instant::now();
    for number in 0..20_u8 {
        let cluster = cluster.clone();
        tasks.spawn(async move {
            let command = put_manifest(&format!("big{number}"), Bytes::from(vec![number; 4 << 20]));
            let through = cluster.node(u64::from(number) % 3 + 1);
            let outcome = through.propose(command, "", soon()).await.unwrap();
            assert_eq!(outcome.response, Response::ManifestPut);
        });
    }
    tasks.join_all().await;
    println!("20 manifests of 4 MiB: {:?}", start.elapsed());
    for node in cluster.running() {
        node.barrier(soon()).await.unwrap();
        for number in 0..20_u8 {
            let body = metadata::log::read(&**node, |view| {
                let digest = query::tag(view, &repository(), &tag(&format!("big{number}")))?
                    .unwrap()
                    .digest;
                query::manifest_body(view, &repository(), &digest)
            });
            assert_eq!(body.unwrap().unwrap(), vec![number; 4 << 20]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_too_large_for_a_message_is_refused_before_it_is_proposed() {
    let cluster = TestCluster::formed(1).await;
    let command = put_manifest("huge", Bytes::from(vec![0; crate::MAX_ENTRY_BYTES]));
    let outcome = cluster.node(1).propose(command, "", soon()).await.unwrap();
    assert!(matches!(outcome.response, Response::Rejected(_)));
    assert!(!has_tag(cluster.node(1), "huge"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_all_nodes_restart() {
    let mut cluster = TestCluster::formed(3).await;
    for number in 0..20 {
        put(cluster.node(number % 3 + 1), &format!("t{number}"))
            .await
            .unwrap();
    }
    for node in 1..=3 {
        cluster.stop(node).await;
    }
    cluster.start_all().await;
    for node in cluster.running() {
        node.barrier(soon()).await.unwrap();
        assert!((0..20).all(|number| has_tag(node, &format!("t{number}"))));
    }
    put(cluster.node(2), "after").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_forms_its_own_cluster_and_is_quick() {
    let cluster = TestCluster::formed(1).await;
    let node = cluster.node(1);
    let outcome = node.propose(open_ticket(1), "", soon()).await.unwrap();
    assert!(matches!(
        outcome.response,
        Response::TicketsOpened { count: 1, .. }
    ));
    let start = Instant::now();
    for _ in 0..100 {
        node.barrier(soon()).await.unwrap();
    }
    let each = start.elapsed() / 100;
    println!("a barrier on a single node: {each:?}");
    assert!(
        each < Duration::from_millis(50),
        "no quorum to ask, no timer to wait for"
    );
}
