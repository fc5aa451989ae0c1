//! Garbage collection against pushes, mounts, reads and nodes that lag.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt as _;
use metadata::command::{Command, CondemnedBlob, DeleteBlobs, GcLimits, GcStep};
use metadata::ids::NodeId;
use metadata::query;
use metadata::response::{Rejection, Response};
use oci::Reference;
use storage::blob::{MemoryBlobs, Unlink};

use super::fixture::*;
use super::gc::{at_once, blobs_of, delete_manifest, gone_from_disks};
use crate::RegistryError;

const HOUR_MS: u64 = 60 * 60 * 1000;

/// F-57: what was proposed in an earlier epoch does nothing, whoever proposed it.
#[tokio::test]
async fn steps_of_an_earlier_epoch_do_nothing() {
    let mut options = at_once();
    options.gc.quarantine_ms = HOUR_MS;
    let cluster = Cluster::with_options(2, 2, 2, options);
    let registry = cluster.registry(1);
    let blob = pattern(500, 1);
    push(registry, &repository(), &blob).await.unwrap();
    assert_eq!(registry.gc_run().await.unwrap().condemned_blobs, 1);
    let state = cluster.log.snapshot();
    let epoch = query::gc(&state).unwrap().epoch;
    let condemned = query::condemned_blobs(&state, 0, None, 10).unwrap();
    assert_eq!(condemned.len(), 1);
    // The leader changes, and collection is paused and resumed, while the delete is under way.
    cluster.log.set_leader(NodeId(2));
    registry.gc_pause("looking", "").await.unwrap();
    registry.gc_resume("").await.unwrap();
    cluster.log.advance_ms(HOUR_MS).unwrap();
    let stale = [
        Command::DeleteBlobs(DeleteBlobs {
            epoch,
            quarantine_ms: 0,
            blobs: condemned,
        }),
        Command::GcStep(GcStep {
            epoch,
            limits: GcLimits::default(),
            budget: 100,
        }),
    ];
    for command in stale {
        let response = cluster.log.apply(command).unwrap().response;
        let refused = matches!(response, Response::Rejected(Rejection::StaleEpoch { .. }));
        assert!(refused, "{response:?}");
    }
    assert!(
        query::blob(&cluster.log.snapshot(), &sha256(&blob))
            .unwrap()
            .is_some()
    );
    let round = cluster.registry(2).gc_run().await.unwrap();
    assert_eq!(round.deleted_blobs, 1);
}

/// A blob that is pushed again between the scan and the delete was condemned at another time, if at all.
#[tokio::test]
async fn a_push_rescues_what_was_condemned() {
    let mut options = at_once();
    options.gc.quarantine_ms = HOUR_MS;
    let cluster = Cluster::with_options(1, 1, 1, options);
    let registry = cluster.registry(1);
    let blob = pattern(500, 1);
    let digest = sha256(&blob);
    push(registry, &repository(), &blob).await.unwrap();
    registry.gc_run().await.unwrap();
    let state = cluster.log.snapshot();
    let condemned: Vec<CondemnedBlob> = query::condemned_blobs(&state, 0, None, 10).unwrap();
    cluster.log.advance_ms(HOUR_MS).unwrap();
    push(registry, &other_repository(), &blob).await.unwrap();
    let late = Command::DeleteBlobs(DeleteBlobs {
        epoch: query::gc(&state).unwrap().epoch,
        quarantine_ms: 0,
        blobs: condemned,
    });
    match cluster.log.apply(late).unwrap().response {
        Response::BlobsDeleted(deleted) => assert_eq!(deleted.digests, []),
        other => panic!("{other:?}"),
    }
    let found = read(registry, &other_repository(), &digest).await;
    assert_eq!(found.unwrap(), blob);
}

/// F-53: a HEAD answered 200 is good for a manifest that comes late.
#[tokio::test]
async fn a_blob_that_was_found_waits_for_a_late_manifest() {
    let mut options = at_once();
    options.gc.grace_ms = HOUR_MS;
    let cluster = Cluster::with_options(1, 1, 1, options);
    let registry = cluster.registry(1);
    let [config, layer] = blobs_of(1);
    for blob in [&config, &layer] {
        push(registry, &repository(), blob).await.unwrap();
    }
    cluster.log.advance_ms(HOUR_MS - 60_000).unwrap();
    for blob in [&config, &layer] {
        let found = registry
            .blob_info(&caller(), &repository(), &sha256(blob))
            .await;
        found.unwrap();
    }
    cluster.log.advance_ms(20 * 60_000).unwrap();
    let round = registry.gc_run().await.unwrap();
    assert_eq!(round.removed_links, 0);
    let body = image(&config, &[&layer], "");
    put(registry, &repository(), &by_tag("v1"), &body)
        .await
        .unwrap();
}

/// F-54: a mount from a repository whose last manifest goes is safe, or not made at all.
#[tokio::test]
async fn a_mount_races_the_last_manifest_of_its_source() {
    for gc_first in [false, true] {
        let cluster = Cluster::with_options(3, 3, 2, at_once());
        let registry = cluster.registry(1);
        let body = push_image(registry, &repository(), "v1", 1).await;
        let [config, layer] = blobs_of(1);
        delete_manifest(&cluster, &body).await;
        if gc_first {
            registry.gc_run().await.unwrap();
        }
        let mut mounted = Vec::new();
        for blob in [&config, &layer] {
            let (from, to, digest) = (repository(), other_repository(), sha256(blob));
            let mount = cluster
                .registry(2)
                .mount_blob(&caller(), Some(&from), &to, &digest)
                .await;
            mounted.push(mount.unwrap().is_some());
        }
        assert_eq!(mounted, [!gc_first, !gc_first]);
        let by_tag = by_tag("v1");
        let pushed = put(registry, &other_repository(), &by_tag, &body).await;
        registry.gc_run().await.unwrap();
        if gc_first {
            assert!(matches!(pushed, Err(RegistryError::ReferencesUnknown(_))));
            gone_from_disks(&cluster, &[sha256(&config), sha256(&layer)]).await;
        } else {
            pushed.unwrap();
            for blob in [&config, &layer] {
                let found = read(registry, &other_repository(), &sha256(blob)).await;
                assert_eq!(&found.unwrap(), blob);
            }
        }
    }
}

/// F-55: a node that slept through delete, collection and a push of the same blob keeps what is counted now.
#[tokio::test]
async fn a_stale_node_keeps_what_was_pushed_again() {
    let mut cluster = Cluster::with_options(0, 2, 2, at_once());
    cluster.log = metadata::memory::MemoryLog::with_nodes(&[1, 2, 3].map(NodeId), 3, 2).unwrap();
    cluster.start(NodeId(1), Arc::new(MemoryBlobs::new()));
    cluster.start(NodeId(2), Arc::new(MemoryBlobs::new()));
    let lagging = LaggingLog::new(cluster.log.on_node(NodeId(3)));
    let node = cluster.assemble(NodeId(3), lagging.clone(), Arc::new(MemoryBlobs::new()));
    cluster.nodes.push(node);
    let registry = cluster.registry(1);
    let (again, gone) = (pattern(500, 1), pattern(500, 2));
    for blob in [&again, &gone] {
        push(registry, &repository(), blob).await.unwrap();
        let digest = sha256(blob);
        eventually("three copies", || async {
            cluster.holders(&digest) == [1, 2, 3]
        })
        .await;
    }
    lagging.freeze();
    assert_eq!(registry.gc_run().await.unwrap().deleted_blobs, 2);
    push(registry, &repository(), &again).await.unwrap();
    let stale = &cluster.nodes[2].blobs;
    // In its old state it counts both: nothing may go.
    for blob in [&again, &gone] {
        let unlinked = stale.unlink_if_unneeded(&sha256(blob), &*lagging).await;
        assert_eq!(unlinked.unwrap(), Unlink::Needed);
    }
    lagging.thaw();
    eventually("what is not counted is gone", || async {
        stale.stat(&sha256(&gone)).await.unwrap().is_none()
    })
    .await;
    let digest = sha256(&again);
    eventually("every counted copy is there", || async {
        let mut is_whole = true;
        for holder in cluster.holders(&digest) {
            let held = cluster.nodes.iter().find(|node| node.id.0 == holder);
            let stat = held.unwrap().blobs.stat(&digest).await;
            is_whole &= stat.unwrap().is_some();
        }
        is_whole
    })
    .await;
    let found = read(cluster.registry(3), &repository(), &digest).await;
    assert_eq!(found.unwrap(), again);
}

/// F-56: a node that comes back after the history of deletes has forgotten them finds its surplus by a walk.
#[tokio::test]
async fn a_node_that_missed_every_delete_walks_over_its_blobs() {
    let mut cluster = Cluster::with_options(2, 2, 2, at_once());
    let registry = cluster.registry(1).clone();
    let lost = pattern(500, 1);
    push(&registry, &repository(), &lost).await.unwrap();
    let blobs = cluster.nodes[1].blobs.clone();
    let sleeping = cluster.nodes.remove(1);
    sleeping
        .shutdown
        .close_and_wait(std::time::Duration::from_secs(20))
        .await
        .unwrap();
    drop(sleeping);
    assert_eq!(registry.gc_run().await.unwrap().deleted_blobs, 1);
    cluster.log.advance_ms(25 * HOUR_MS).unwrap();
    let kept = pattern(500, 2);
    let forget = registry.gc_run().await.unwrap();
    assert_eq!(forget.deleted_blobs, 0);
    let remembered = query::deleted_blobs(&cluster.log.snapshot(), None, 10).unwrap();
    assert_eq!(remembered, []);
    assert!(blobs.stat(&sha256(&lost)).await.unwrap().is_some());
    cluster.start(NodeId(2), blobs.clone());
    eventually("the surplus is gone", || async {
        blobs.stat(&sha256(&lost)).await.unwrap().is_none()
    })
    .await;
    push(&registry, &repository(), &kept).await.unwrap();
    assert!(blobs.stat(&sha256(&kept)).await.unwrap().is_some());
}

/// After a power cut the state of a node may be older than the one under which it removed the pins of a copy.
#[tokio::test]
async fn nothing_is_unlinked_by_a_state_that_went_back() {
    let mut cluster = Cluster::with_options(2, 2, 2, at_once());
    let lagging = LaggingLog::new(cluster.log.on_node(NodeId(2)));
    lagging.freeze();
    let registry = cluster.registry(1).clone();
    let blob = pattern(500, 1);
    let digest = sha256(&blob);
    push(&registry, &repository(), &blob).await.unwrap();
    let blobs = cluster.nodes[1].blobs.clone();
    // The ticket is closed, so this removes the pin and nothing else.
    let log = cluster.log.on_node(NodeId(2));
    assert_eq!(
        blobs.unlink_if_unneeded(&digest, &log).await.unwrap(),
        Unlink::Needed
    );
    let stopped = cluster.nodes.remove(1);
    let patience = std::time::Duration::from_secs(20);
    stopped.shutdown.close_and_wait(patience).await.unwrap();
    drop(stopped);
    let node = cluster.assemble(NodeId(2), lagging.clone(), blobs.clone());
    eventually("it asks for a newer state", || async {
        lagging.barriers.load(Ordering::Relaxed) > 0
    })
    .await;
    eventually("a walk", || async {
        node.registry.gc_status().await.unwrap().local.walks > 0
    })
    .await;
    assert!(blobs.stat(&digest).await.unwrap().is_some());
}

/// F-58: a pull that has begun ends, although its blob is deleted and unlinked meanwhile.
#[tokio::test]
async fn an_open_stream_outlives_its_blob() {
    let cluster = Cluster::on_disk_with(2, 2, 2, at_once());
    let registry = cluster.registry(1);
    let blob = pattern(6 * 256 * 1024, 1);
    let digest = sha256(&blob);
    push(registry, &repository(), &blob).await.unwrap();
    let opened = registry.open_blob(&caller(), &repository(), &digest).await;
    let opened = opened.unwrap().value;
    let mut stream = Box::pin(opened.stream(0, u64::MAX));
    let mut received = stream.next().await.unwrap().unwrap().to_vec();
    assert!(received.len() < blob.len());
    assert_eq!(registry.gc_run().await.unwrap().deleted_blobs, 1);
    gone_from_disks(&cluster, &[digest]).await;
    while let Some(piece) = stream.next().await {
        received.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(received, blob);
    let missing = read(registry, &repository(), &digest).await;
    assert!(matches!(missing, Err(RegistryError::BlobUnknown(_))));
}

/// A push of a manifest that shares layers with one that is deleted at the same moment: either order, never half.
#[tokio::test]
async fn a_manifest_is_whole_or_refused_whatever_is_collected_meanwhile() {
    let cluster = Cluster::with_options(3, 3, 2, at_once());
    let mut refused = 0;
    for seed in 0..20 {
        let registry = cluster.registry(1).clone();
        let body = push_image(&registry, &repository(), "v1", seed).await;
        let by_digest = Reference::Digest(sha256(&body));
        let deleting = async {
            let (caller, name) = (caller(), repository());
            let deleted = registry
                .delete_manifest(&caller, &name, &sha256(&body))
                .await;
            tokio::task::yield_now().await;
            registry.gc_run().await.unwrap();
            deleted
        };
        let by_tag = by_tag("again");
        let name = repository();
        let pushing = async {
            for _ in 0..seed % 5 {
                tokio::task::yield_now().await;
            }
            put(cluster.registry(2), &name, &by_tag, &body).await
        };
        let (deleted, pushed) = tokio::join!(deleting, pushing);
        deleted.unwrap();
        refused += u32::from(pushed.is_err());
        let listed = registry.manifest(&caller(), &name, &by_digest).await;
        if listed.is_ok() {
            for blob in blobs_of(seed) {
                assert_eq!(read(&registry, &name, &sha256(&blob)).await.unwrap(), blob);
            }
        }
    }
    assert!(refused < 20, "not one push came first");
}

#[tokio::test]
async fn what_was_deleted_and_forgotten_while_a_node_slept_goes_without_waiting_for_a_walk() {
    let mut cluster = Cluster::with_options(0, 2, 2, at_once());
    cluster.log = metadata::memory::MemoryLog::with_nodes(&[1, 2].map(NodeId), 2, 2).unwrap();
    cluster.start(NodeId(1), Arc::new(MemoryBlobs::new()));
    let lagging = LaggingLog::new(cluster.log.on_node(NodeId(2)));
    let node = cluster.assemble(NodeId(2), lagging.clone(), Arc::new(MemoryBlobs::new()));
    cluster.nodes.push(node);
    let (registry, blob) = (cluster.registry(1), pattern(500, 1));
    push(registry, &repository(), &blob).await.unwrap();
    eventually("the first walk is over", || async {
        cluster.registry(2).gc_status().await.unwrap().local.walks == 1
    })
    .await;
    lagging.freeze();
    assert_eq!(registry.gc_run().await.unwrap().deleted_blobs, 1);
    let lag = metadata::apply::DELETED_TTL_MS;
    cluster.log.advance_ms(lag).unwrap();
    registry.gc_run().await.unwrap();
    let state = cluster.log.snapshot();
    assert!(query::deleted_blobs(&state, None, 1).unwrap().is_empty());
    let digest = sha256(&blob);
    let here = &cluster.nodes[1].blobs;
    assert!(here.stat(&digest).await.unwrap().is_some());
    lagging.thaw();
    gone_from_disks(&cluster, &[digest]).await;
}

#[tokio::test]
async fn the_disk_has_its_space_back_when_the_time_in_the_trash_is_over() {
    const SIZE: usize = 4 << 20;
    let mut cluster = Cluster::on_disk_with(0, 1, 1, at_once());
    cluster.log = metadata::memory::MemoryLog::with_nodes(&[NodeId(1)], 1, 1).unwrap();
    let options = storage::blob::BlobOptions {
        trash_ttl: std::time::Duration::from_secs(2),
        trash_min_free_bytes: Some(0),
        ..storage::blob::BlobOptions::default()
    };
    let blobs = cluster.open_directory_with(NodeId(1), options);
    cluster.start(NodeId(1), blobs);
    let registry = cluster.registry(1);
    let used = || cluster.allocated_bytes(NodeId(1));
    let before = used();
    push(registry, &repository(), &pattern(SIZE, 1))
        .await
        .unwrap();
    assert!(used() >= before + SIZE as u64);
    assert_eq!(registry.gc_run().await.unwrap().deleted_blobs, 1);
    let blobs = &cluster.nodes[0].blobs;
    eventually("it is in the trash", || async {
        blobs.trash_usage().await.unwrap().bytes == SIZE as u64
    })
    .await;
    assert!(used() >= before + SIZE as u64, "and can be had back");
    eventually("it is gone", || async {
        let left = blobs.trash_usage().await.unwrap();
        used() < before + SIZE as u64 / 2 && left.files == 0
    })
    .await;
}
