//! What a push that failed leaves behind, and how it goes on.

use std::time::Duration;

use metadata::ids::NodeId;
use metadata::log::LogError;

use super::fixture::*;
use crate::{RegistryError, RegistryOptions};

const TTL_MS: u64 = 60_000;

#[tokio::test]
async fn a_renewal_that_failed_is_made_up_for() {
    let options = RegistryOptions {
        upload_ttl_ms: TTL_MS,
        ..RegistryOptions::default()
    };
    let cluster = Cluster::with_options(1, 1, 1, options);
    let registry = cluster.registry(1);
    let id = begin(registry).await;
    let blob = pattern(100, 1);
    registry
        .append_upload(&caller(), &repository(), &id, chunk(&blob))
        .await
        .unwrap();
    cluster.log.set_failure(Some(LogError::NoLeader));
    registry.tend_uploads().await;
    cluster.log.set_failure(None);
    cluster.log.advance_ms(TTL_MS * 2 / 3).unwrap();
    registry.tend_uploads().await;
    cluster.log.advance_ms(TTL_MS * 2 / 3).unwrap();
    registry
        .finish_upload(&caller(), &repository(), &id, &sha256(&blob), empty())
        .await
        .unwrap();
}

/// What a failed push holds in memory, nobody has counted: its copies start again with the next PUT.
#[tokio::test]
async fn a_small_push_that_failed_keeps_no_copies_going() {
    let cluster = Cluster::with_options(2, 2, 2, impatient());
    let registry = cluster.registry(1);
    let blob = pattern(100, 1);
    let digest = sha256(&blob);
    let id = begin(registry).await;
    cluster.network.hold(NodeId(2));
    let finish = registry
        .finish_upload(&caller(), &repository(), &id, &digest, chunk(&blob))
        .await;
    assert!(matches!(finish, Err(RegistryError::TooFewCopies { .. })));
    cluster.network.release(NodeId(2));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let copy = cluster.nodes[1].blobs.stat(&digest).await.unwrap();
    assert_eq!(copy, None, "a copy went on");
    registry
        .finish_upload(&caller(), &repository(), &id, &digest, empty())
        .await
        .unwrap();
    assert_eq!(cluster.holders(&digest), [1, 2]);
}
