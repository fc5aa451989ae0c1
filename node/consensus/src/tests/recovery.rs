//! One node of three goes on alone.

use std::collections::BTreeSet;

use metadata::ids::NodeId;
use metadata::log::MetadataLog as _;
use metadata::query;

use super::{TestCluster, open_stores, put, put_manifest, soon};
use crate::{StartError, facts, take_over};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_cluster_goes_on_alone() {
    let mut cluster = TestCluster::formed(3).await;
    put(cluster.node(1), "before").await.unwrap();
    let name = facts::cluster(&*cluster.node(1).state).unwrap().unwrap();
    for node in 1..=3 {
        cluster.stop(node).await;
    }
    let survivor = 2;
    let lost = |nodes: &[u64]| nodes.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
    {
        let (log, state) = open_stores(cluster.seat(survivor).directory.path());
        let address = (NodeId(survivor), "alone:1");
        for wrong in [lost(&[1]), lost(&[1, 3, 4])] {
            let refused = take_over(log.clone(), state.clone(), address, &wrong).await;
            let reason = refused.unwrap_err().to_string();
            assert!(reason.contains("the other voters are 1,3"), "{reason}");
        }
        let stranger = take_over(log.clone(), state.clone(), (NodeId(9), "x:1"), &lost(&[1])).await;
        assert!(matches!(stranger, Err(StartError::Options(_))));
        // The second time there is nothing to do.
        for _ in 0..2 {
            take_over(log.clone(), state.clone(), address, &lost(&[1, 3]))
                .await
                .unwrap();
        }
    }
    cluster.open(survivor).await.unwrap();
    let node = cluster.node(survivor).clone();
    node.join().await.unwrap();
    let new_name = node.rename_cluster(soon()).await.unwrap();
    put(&node, "after").await.unwrap();
    let now = facts::cluster(&*node.state).unwrap().unwrap();
    assert_eq!(now.cluster_id, new_name);
    assert_ne!(new_name, name.cluster_id);
    assert_eq!(node.status().members.len(), 1);
    let manifests = metadata::log::read(&*node, query::stats).unwrap().manifests;
    assert_eq!(manifests, 2, "what was acknowledged is there");
    // One of the others was not lost: nobody of the new cluster listens to it, and it alone decides nothing.
    cluster.open(1).await.unwrap();
    cluster.node(1).join().await.unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
    let split = put_manifest("split", "split".into());
    let old = cluster.node(1).propose(split, "tester", deadline).await;
    assert!(old.is_err(), "{old:?}");
    put(&node, "goes-on").await.unwrap();
    assert_eq!(node.status().members.len(), 1);
}
