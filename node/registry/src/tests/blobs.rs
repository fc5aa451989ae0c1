//! Blobs: look up, read, delete, mount; and how fresh these answers are.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use metadata::ids::{LogIndex, NodeId};
use metadata::log::LogError;
use storage::blob::MemoryBlobs;

use super::fixture::*;
use crate::{BlobInfo, BlobSource, Caller, RegistryError, RegistryOptions};

#[tokio::test]
async fn a_blob_is_visible_only_where_it_was_pushed() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let blob = pattern(1000, 1);
    let digest = sha256(&blob);
    let pushed = push(registry, &repository(), &blob).await.unwrap();
    let info = registry
        .blob_info(&caller(), &repository(), &digest)
        .await
        .unwrap();
    assert_eq!(info, pushed);
    assert_eq!(
        info.value,
        BlobInfo {
            digest,
            size_bytes: 1000
        }
    );
    for result in [
        registry
            .blob_info(&caller(), &other_repository(), &digest)
            .await
            .map(drop),
        registry
            .open_blob(&caller(), &other_repository(), &digest)
            .await
            .map(drop),
        registry
            .delete_blob(&caller(), &other_repository(), &digest)
            .await
            .map(drop),
    ] {
        assert!(matches!(result, Err(RegistryError::BlobUnknown(unknown)) if unknown == digest));
    }
}

#[tokio::test]
async fn ranges_are_cut_to_the_blob() {
    let cluster = Cluster::on_disk(1, 1, 1);
    let registry = cluster.registry(1);
    // Longer than one read.
    let blob = pattern(5 * 256 * 1024 + 17, 1);
    let digest = sha256(&blob);
    push(registry, &repository(), &blob).await.unwrap();
    let end = blob.len() as u64;
    for (start, stop) in [
        (0, end),
        (0, u64::MAX),
        (1, 2),
        (262_143, 262_145),
        (end - 1, end),
        (end, end),
        (5, 5),
    ] {
        let got = read_range(registry, &repository(), &digest, start, stop)
            .await
            .unwrap();
        let [from, to] = [start, stop.min(end)].map(|at| usize::try_from(at).unwrap());
        assert_eq!(got, blob.slice(from..to), "{start}..{stop}");
    }
}

#[tokio::test]
async fn a_node_without_the_blob_reads_it_from_a_holder() {
    for cluster in [Cluster::memory(3, 2, 2), Cluster::on_disk(3, 2, 2)] {
        let blob = pattern(20 * SMALL_BYTES, 1);
        let digest = sha256(&blob);
        push(cluster.registry(1), &repository(), &blob)
            .await
            .unwrap();
        let holders = cluster.holders(&digest);
        assert_eq!(holders.len(), 2);
        let outsider = (1..=3).find(|node| !holders.contains(node)).unwrap();
        let registry = cluster.registry(outsider);
        let open = registry
            .open_blob(&caller(), &repository(), &digest)
            .await
            .unwrap();
        assert!(matches!(open.value.source, BlobSource::Remote(_)));
        assert_eq!(read(registry, &repository(), &digest).await.unwrap(), blob);
        let part = read_range(registry, &repository(), &digest, 5000, 50_000)
            .await
            .unwrap();
        assert_eq!(part, blob.slice(5000..50_000));
    }
}

#[tokio::test]
async fn acknowledged_content_that_nobody_can_deliver_is_not_unknown() {
    let cluster = Cluster::memory(3, 2, 2);
    let blob = pattern(1000, 1);
    let digest = sha256(&blob);
    push(cluster.registry(1), &repository(), &blob)
        .await
        .unwrap();
    let holders = cluster.holders(&digest);
    let outsider = (1..=3).find(|node| !holders.contains(node)).unwrap();
    for holder in holders {
        cluster.network.cut(NodeId(outsider), NodeId(holder));
    }
    let registry = cluster.registry(outsider);
    let open = registry.open_blob(&caller(), &repository(), &digest).await;
    assert!(matches!(
        open.map(drop),
        Err(RegistryError::ContentUnavailable(_))
    ));
    assert!(
        registry
            .blob_info(&caller(), &repository(), &digest)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn deleting_removes_the_link_and_nothing_else() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let blob = pattern(1000, 1);
    let digest = sha256(&blob);
    push(registry, &repository(), &blob).await.unwrap();
    push(registry, &other_repository(), &blob).await.unwrap();
    let deleted = registry
        .delete_blob(&caller(), &repository(), &digest)
        .await
        .unwrap();
    assert_eq!(deleted.revision, cluster.applied());
    let info = registry.blob_info(&caller(), &repository(), &digest).await;
    assert!(matches!(info, Err(RegistryError::BlobUnknown(_))));
    let again = registry
        .delete_blob(&caller(), &repository(), &digest)
        .await;
    assert!(matches!(again, Err(RegistryError::BlobUnknown(_))));
    assert_eq!(
        read(registry, &other_repository(), &digest).await.unwrap(),
        blob
    );
    push(registry, &repository(), &blob).await.unwrap();
    assert_eq!(read(registry, &repository(), &digest).await.unwrap(), blob);
}

#[tokio::test]
async fn a_blob_that_a_manifest_names_stays() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let manifest = push_image(registry, &repository(), "v1", 1).await;
    let layer = sha256(&pattern(3000, 1_000_001));
    let answer = registry.delete_blob(&caller(), &repository(), &layer).await;
    let expected = sha256(&manifest);
    assert!(
        matches!(answer, Err(RegistryError::BlobReferenced { manifest }) if manifest == expected)
    );
    assert!(
        registry
            .blob_info(&caller(), &repository(), &layer)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn deletes_can_be_switched_off() {
    let options = RegistryOptions {
        deletes_enabled: false,
        ..RegistryOptions::default()
    };
    let cluster = Cluster::with_options(1, 1, 1, options);
    let registry = cluster.registry(1);
    let manifest = push_image(registry, &repository(), "v1", 1).await;
    let digest = sha256(&manifest);
    let layer = sha256(&pattern(3000, 1_000_001));
    let none = metadata::command::Precondition::None;
    for result in [
        registry.delete_blob(&caller(), &repository(), &layer).await,
        registry
            .delete_manifest(&caller(), &repository(), &digest)
            .await,
        registry
            .delete_tag(&caller(), &repository(), &tag("v1"), none)
            .await,
    ] {
        assert!(matches!(result, Err(RegistryError::DeletesDisabled)));
    }
    assert!(
        registry
            .manifest(&caller(), &repository(), &by_tag("v1"))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_mount_needs_a_source_that_has_the_blob() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let blob = pattern(1000, 1);
    let digest = sha256(&blob);
    push(registry, &repository(), &blob).await.unwrap();
    let entries = cluster.applied();
    let (who, target) = (caller(), other_repository());
    let from = |from| registry.mount_blob(&who, from, &target, &digest);
    let (source, third) = (repository(), oci::RepositoryName::parse("third").unwrap());
    // Clients ask for every layer: what cannot be mounted must cost nothing.
    assert!(from(Some(&third)).await.unwrap().is_none());
    let unknown = sha256(b"unknown");
    for source in [None, Some(&source)] {
        let mounted = registry
            .mount_blob(&caller(), source, &other_repository(), &unknown)
            .await
            .unwrap();
        assert!(mounted.is_none());
    }
    assert_eq!(cluster.applied(), entries);
    let mounted = from(Some(&source)).await.unwrap().unwrap();
    assert_eq!(
        mounted.value,
        BlobInfo {
            digest,
            size_bytes: 1000
        }
    );
    assert_eq!(mounted.revision, cluster.applied());
    assert_eq!(
        read(registry, &other_repository(), &digest).await.unwrap(),
        blob
    );
    let anonymous = registry
        .mount_blob(&caller(), None, &third, &digest)
        .await
        .unwrap();
    assert!(anonymous.is_some());
    registry
        .delete_blob(&caller(), &repository(), &digest)
        .await
        .unwrap();
    assert_eq!(read(registry, &third, &digest).await.unwrap(), blob);
}

#[tokio::test]
async fn a_look_that_finds_a_blob_keeps_it_for_a_while() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let blob = pattern(1000, 1);
    let digest = sha256(&blob);
    push(registry, &repository(), &blob).await.unwrap();
    let minutes = |minutes: u64| minutes * 60 * 1000;
    let look = || async {
        registry
            .blob_info(&caller(), &repository(), &digest)
            .await
            .unwrap()
    };
    cluster.log.advance_ms(minutes(23 * 60)).unwrap();
    let before = cluster.applied();
    assert_eq!(look().await.revision, before, "an hour is left");
    cluster.log.advance_ms(minutes(31)).unwrap();
    let before = cluster.applied();
    assert_eq!(
        look().await.revision,
        LogIndex(before.0 + 1),
        "29 minutes are left"
    );
    assert_eq!(
        look().await.revision,
        LogIndex(before.0 + 1),
        "a new grace began"
    );
    // Without a quorum it is found all the same.
    cluster.log.advance_ms(minutes(23 * 60 + 40)).unwrap();
    cluster.log.set_failure(Some(LogError::QuorumLost));
    assert_eq!(look().await.revision, cluster.applied());
}

#[tokio::test]
async fn a_digest_is_looked_for_again_before_it_is_missing() {
    let mut cluster = Cluster::memory(1, 1, 1);
    let lagging = LaggingLog::new(cluster.log.on_node(NodeId(2)));
    let node = cluster.assemble(NodeId(2), lagging.clone(), Arc::new(MemoryBlobs::new()));
    cluster.nodes.push(node);
    lagging.freeze();
    let barriers = || lagging.barriers.load(Ordering::Relaxed);
    let (first, second) = (pattern(100, 1), pattern(100, 2));
    push(cluster.registry(1), &repository(), &first)
        .await
        .unwrap();
    let behind = cluster.registry(2);
    let found = behind
        .blob_info(&caller(), &repository(), &sha256(&first))
        .await
        .unwrap();
    assert_eq!((found.revision, barriers()), (cluster.applied(), 1));
    // What is there may have been deleted elsewhere: asked again.
    lagging.freeze();
    behind
        .blob_info(&caller(), &repository(), &sha256(&first))
        .await
        .unwrap();
    assert_eq!(barriers(), 2);
    let missing = behind
        .blob_info(&caller(), &repository(), &sha256(&second))
        .await;
    assert!(matches!(missing, Err(RegistryError::BlobUnknown(_))));
    assert_eq!(barriers(), 3);
    // Without a quorum what this node knew a moment ago is served, but nothing can be said about what is not there.
    cluster.log.set_failure(Some(LogError::QuorumLost));
    behind
        .blob_info(&caller(), &repository(), &sha256(&first))
        .await
        .unwrap();
    assert_eq!(
        read(cluster.registry(1), &repository(), &sha256(&first))
            .await
            .unwrap(),
        first
    );
    let missing = behind
        .blob_info(&caller(), &repository(), &sha256(&second))
        .await;
    assert!(matches!(
        missing,
        Err(RegistryError::Unavailable(LogError::QuorumLost))
    ));
}

/// I11: a node that is cut off must not serve for ever what the others deleted.
#[tokio::test]
async fn without_a_quorum_blobs_are_served_for_a_while() {
    const WHILE: Duration = Duration::from_secs(1);
    let options = RegistryOptions {
        offline_reads: WHILE,
        ..RegistryOptions::default()
    };
    let cluster = Cluster::with_options(1, 1, 1, options);
    let registry = cluster.registry(1);
    let blob = pattern(100, 1);
    push(registry, &repository(), &blob).await.unwrap();
    let digest = sha256(&blob);
    let until_refused = async || {
        let mut served = 0;
        loop {
            match read(registry, &repository(), &digest).await {
                Ok(bytes) => assert_eq!(bytes, blob),
                Err(RegistryError::Unavailable(LogError::QuorumLost)) => return served,
                Err(error) => panic!("{error}"),
            }
            served += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    for _ in 0..2 {
        let start = Instant::now();
        // The quorum's last answer.
        read(registry, &repository(), &digest).await.unwrap();
        cluster.log.set_failure(Some(LogError::QuorumLost));
        assert!(until_refused().await > 0, "served for a while");
        assert!(start.elapsed() >= WHILE, "{:?}", start.elapsed());
        let info = registry.blob_info(&caller(), &repository(), &digest).await;
        assert!(matches!(info, Err(RegistryError::Unavailable(_))));
        cluster.log.set_failure(None);
    }
}

#[tokio::test]
async fn an_answer_is_never_older_than_the_caller_wants() {
    let mut cluster = Cluster::memory(1, 1, 1);
    let lagging = LaggingLog::new(cluster.log.on_node(NodeId(2)));
    let node = cluster.assemble(NodeId(2), lagging.clone(), Arc::new(MemoryBlobs::new()));
    cluster.nodes.push(node);
    let blob = pattern(100, 1);
    let digest = sha256(&blob);
    push(cluster.registry(1), &repository(), &blob)
        .await
        .unwrap();
    lagging.freeze();
    let deleted = cluster
        .registry(1)
        .delete_blob(&caller(), &repository(), &digest)
        .await
        .unwrap();
    let behind = cluster.registry(2);
    let gone = behind.blob_info(&caller(), &repository(), &digest).await;
    assert!(
        matches!(gone, Err(RegistryError::BlobUnknown(_))),
        "deleted through another node"
    );
    lagging.freeze();
    let informed = Caller {
        min_revision: Some(deleted.revision),
        ..caller()
    };
    let missing = behind.blob_info(&informed, &repository(), &digest).await;
    assert!(matches!(missing, Err(RegistryError::BlobUnknown(_))));
    let future = Caller {
        min_revision: Some(LogIndex(u64::MAX)),
        ..caller()
    };
    let early = behind.blob_info(&future, &repository(), &digest).await;
    assert!(matches!(
        early,
        Err(RegistryError::Unavailable(LogError::Lagging))
    ));
    let early = behind.start_upload(&future, &repository()).await;
    assert!(matches!(
        early,
        Err(RegistryError::Unavailable(LogError::Lagging))
    ));
    let early = behind.delete_blob(&future, &repository(), &digest).await;
    assert!(matches!(
        early,
        Err(RegistryError::Unavailable(LogError::Lagging))
    ));
}
