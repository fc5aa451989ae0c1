//! Nodes that come too late for the log.

use bytes::Bytes;
use metadata::log::MetadataLog;
use metadata::response::Response;

use super::{TestCluster, eventually, has_tag, put, put_manifest, soon};
use crate::Member;

fn purge_early(options: &mut crate::RaftOptions) {
    options.snapshot_after_entries = 20;
    options.keep_entries = 5;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_third_node_gets_the_state_and_then_the_log() {
    let mut cluster = TestCluster::seats(3).await;
    cluster.adjust = purge_early;
    cluster.start_without_third().await;
    for number in 0..100 {
        put(cluster.node(number % 2 + 1), &format!("t{number}"))
            .await
            .unwrap();
    }
    // Several chunks, so that the pipe fills.
    let big = put_manifest("big", Bytes::from(vec![7; 4 << 20]));
    assert_eq!(
        cluster
            .node(1)
            .propose(big, "", soon())
            .await
            .unwrap()
            .response,
        Response::ManifestPut
    );
    eventually("purged", || {
        cluster.node(cluster_leader(&cluster)).purged() > 50
    })
    .await;

    cluster.start(3).await.unwrap();
    cluster.settled().await;
    let late = cluster.node(3);
    late.barrier(soon()).await.unwrap();
    assert!((0..100).all(|number| has_tag(late, &format!("t{number}"))) && has_tag(late, "big"));
    put(late, "from-the-late-one").await.unwrap();
    let left = std::fs::read_dir(cluster.seat(3).directory.path().join("received"))
        .unwrap()
        .count();
    assert_eq!(left, 0, "received snapshots are removed");

    // And it survives a restart on what it received.
    cluster.stop(3).await;
    cluster.start(3).await.unwrap();
    cluster.node(3).barrier(soon()).await.unwrap();
    assert!(has_tag(cluster.node(3), "t7") && has_tag(cluster.node(3), "from-the-late-one"));
}

fn cluster_leader(cluster: &TestCluster) -> u64 {
    cluster
        .running()
        .find(|node| node.is_leader())
        .map_or(1, |node| node.node_id().0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_grows_to_three_without_losing_anything() {
    let mut cluster = TestCluster::seats(3).await;
    cluster.adjust = |options| {
        purge_early(options);
        if options.node.0 == 1 {
            // As it was before anybody thought of a cluster.
            options.members.clear();
        }
    };
    cluster.start(1).await.unwrap();
    cluster.settled().await;
    for number in 0..60 {
        put(cluster.node(1), &format!("t{number}")).await.unwrap();
    }
    for node in 2..=3 {
        cluster.start(node).await.unwrap();
        let grpc_address = cluster.seat(node).options().grpc_address;
        let member = Member {
            node: metadata::ids::NodeId(node),
            grpc_address,
        };
        cluster.node(1).add_voter(&member, soon()).await.unwrap();
        cluster.node(1).add_voter(&member, soon()).await.unwrap();
    }
    cluster.settled().await;
    for node in cluster.running() {
        node.barrier(soon()).await.unwrap();
        assert!((0..60).all(|number| has_tag(node, &format!("t{number}"))));
        let voters = node
            .status()
            .members
            .iter()
            .filter(|member| member.is_voter)
            .count();
        assert_eq!(voters, 3);
    }
    cluster.stop(1).await;
    put(cluster.node(3), "without-the-first").await.unwrap();
}
