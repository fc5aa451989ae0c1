//! Uploads across restarts, expiry, and times when too few nodes can be reached.

use std::sync::Arc;
use std::time::Duration;

use metadata::ids::NodeId;
use metadata::log::LogError;

use super::fixture::*;
use crate::{RegistryError, RegistryOptions};

const TTL_MS: u64 = 60_000;

fn expiring() -> RegistryOptions {
    RegistryOptions {
        upload_ttl_ms: TTL_MS,
        ..RegistryOptions::default()
    }
}

#[tokio::test]
async fn a_session_resumes_after_a_restart_where_its_bytes_are_durable() {
    let mut cluster = Cluster::on_disk(1, 1, 1);
    let (large, small) = (pattern(5 * SMALL_BYTES, 1), pattern(100, 2));
    let mut ids = Vec::new();
    for blob in [&large, &small] {
        let registry = cluster.registry(1);
        let id = begin(registry).await;
        let half = chunk(&blob.slice(..blob.len() / 2));
        registry
            .append_upload(&caller(), &repository(), &id, half)
            .await
            .unwrap();
        ids.push(id);
    }
    let stopped = cluster.nodes.remove(0);
    stopped
        .shutdown
        .close_and_wait(Duration::from_secs(5))
        .await
        .unwrap();
    drop((stopped.registry, stopped.blobs));
    cluster.network = replication::memory::MemoryNetwork::new();
    let blobs = cluster.open_directory(NodeId(1));
    cluster.start(NodeId(1), blobs);

    let registry = cluster.registry(1);
    registry.tend_uploads().await;
    let offset = registry
        .upload_status(&caller(), &repository(), &ids[0])
        .await
        .unwrap()
        .offset_bytes;
    assert_eq!(offset, large.len() as u64 / 2);
    let rest = ranged(offset, &large.slice(large.len() / 2..));
    let digest = sha256(&large);
    registry
        .finish_upload(&caller(), &repository(), &ids[0], &digest, rest)
        .await
        .unwrap();
    assert_eq!(read(registry, &repository(), &digest).await.unwrap(), large);

    // Bytes that were in memory are gone, and the session says so.
    let offset = registry
        .upload_status(&caller(), &repository(), &ids[1])
        .await
        .unwrap()
        .offset_bytes;
    assert_eq!(offset, 0);
    let digest = sha256(&small);
    registry
        .finish_upload(&caller(), &repository(), &ids[1], &digest, chunk(&small))
        .await
        .unwrap();
    assert_eq!(read(registry, &repository(), &digest).await.unwrap(), small);
}

#[tokio::test]
async fn an_idle_session_expires_and_its_bytes_go() {
    let mut cluster = Cluster::on_disk(1, 1, 1);
    cluster.options = expiring();
    let blobs = cluster.nodes[0].blobs.clone();
    cluster.start(NodeId(1), blobs);
    let registry = cluster.registry(1);
    let blob = pattern(2 * SMALL_BYTES, 1);
    let id = begin(registry).await;
    registry
        .append_upload(&caller(), &repository(), &id, chunk(&blob))
        .await
        .unwrap();
    registry.tend_uploads().await;
    cluster.log.advance_ms(2 * TTL_MS + 1).unwrap();
    let digest = sha256(&blob);
    let finish = registry
        .finish_upload(&caller(), &repository(), &id, &digest, empty())
        .await;
    assert!(matches!(finish, Err(RegistryError::UploadUnknown)));
    assert_eq!(registry.sessions.all().len(), 1);
    registry.tend_uploads().await;
    assert!(registry.sessions.all().is_empty());
    cluster.nothing_is_staged().await;
    assert!(
        registry
            .blob_info(&caller(), &repository(), &digest)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn what_a_crash_left_of_an_expired_session_goes() {
    let mut cluster = Cluster::on_disk(1, 1, 1);
    let registry = cluster.registry(1);
    let blob = pattern(2 * SMALL_BYTES, 1);
    let id = begin(registry).await;
    registry
        .append_upload(&caller(), &repository(), &id, chunk(&blob))
        .await
        .unwrap();
    let stopped = cluster.nodes.remove(0);
    stopped
        .shutdown
        .close_and_wait(Duration::from_secs(5))
        .await
        .unwrap();
    let blobs = stopped.blobs.clone();
    drop(stopped);
    cluster.start(NodeId(1), blobs);
    let registry = cluster.registry(1);
    registry.tend_uploads().await;
    assert_eq!(
        cluster.nodes[0].blobs.staged_names().await.unwrap().len(),
        1,
        "its ticket is still open"
    );
    cluster
        .log
        .advance_ms(2 * cluster.options.upload_ttl_ms + 1)
        .unwrap();
    registry.tend_uploads().await;
    cluster.nothing_is_staged().await;
}

#[tokio::test]
async fn a_session_that_receives_bytes_does_not_expire() {
    let cluster = Cluster::with_options(1, 1, 1, expiring());
    let registry = cluster.registry(1);
    let blob = pattern(1000, 1);
    let id = begin(registry).await;
    for start in (0..900).step_by(100) {
        let part = ranged(start as u64, &blob.slice(start..start + 100));
        registry
            .append_upload(&caller(), &repository(), &id, part)
            .await
            .unwrap();
        registry.tend_uploads().await;
        cluster.log.advance_ms(TTL_MS * 2 / 3).unwrap();
    }
    let last = ranged(900, &blob.slice(900..));
    registry
        .finish_upload(&caller(), &repository(), &id, &sha256(&blob), last)
        .await
        .unwrap();
    // Without new bytes there is no renewal.
    let id = begin(registry).await;
    registry
        .append_upload(&caller(), &repository(), &id, chunk(&blob))
        .await
        .unwrap();
    for _ in 0..3 {
        registry.tend_uploads().await;
        cluster.log.advance_ms(TTL_MS * 2 / 3).unwrap();
    }
    let status = registry.upload_status(&caller(), &repository(), &id).await;
    assert!(matches!(status, Err(RegistryError::UploadUnknown)));
}

#[tokio::test]
async fn an_upload_starts_with_a_whole_lifetime() {
    let cluster = Cluster::with_options(1, 1, 1, expiring());
    let registry = cluster.registry(1);
    for waited_ms in [0, TTL_MS / 2, TTL_MS, TTL_MS, 10 * TTL_MS] {
        cluster.log.advance_ms(waited_ms).unwrap();
        let id = begin(registry).await;
        cluster.log.advance_ms(TTL_MS - 1).unwrap();
        registry
            .append_upload(&caller(), &repository(), &id, empty())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_ticket_that_expires_under_a_writer_ends_its_upload() {
    let cluster = Cluster::with_options(1, 1, 1, expiring());
    let registry = cluster.registry(1).clone();
    let id = begin(&registry).await;
    let (sender, receiver) = futures::channel::mpsc::unbounded::<bytes::Bytes>();
    let body = Box::pin(futures::StreamExt::map(receiver, Ok));
    let slow = crate::Chunk {
        range: None,
        length_bytes: None,
        body,
    };
    let (writing, writer_id) = (registry.clone(), id.clone());
    let digest = sha256(&pattern(20, 1));
    let writer = tokio::spawn(async move {
        writing
            .finish_upload(&caller(), &repository(), &writer_id, &digest, slow)
            .await
    });
    sender.unbounded_send(pattern(20, 1).slice(..10)).unwrap();
    while registry
        .sessions
        .all()
        .iter()
        .all(|session| session.offset_bytes() < 10)
    {
        tokio::task::yield_now().await;
    }
    cluster.log.advance_ms(2 * TTL_MS + 1).unwrap();
    sender.unbounded_send(pattern(20, 1).slice(10..)).unwrap();
    drop(sender);
    assert!(matches!(
        writer.await.unwrap(),
        Err(RegistryError::UploadUnknown)
    ));
    assert!(
        registry
            .blob_info(&caller(), &repository(), &digest)
            .await
            .is_err()
    );
    assert!(registry.sessions.all().is_empty());
}

#[tokio::test]
async fn a_push_needs_w_copies_and_goes_on_when_they_can_be_made() {
    for cluster in [
        Cluster::with_options(3, 3, 2, impatient()),
        Cluster::on_disk_with(3, 3, 2, impatient()),
    ] {
        let registry = cluster.registry(1);
        for (seed, length) in [(1, 100), (2, 5 * SMALL_BYTES)] {
            let blob = pattern(length, seed);
            let digest = sha256(&blob);
            let id = begin(registry).await;
            cluster.network.cut(NodeId(1), NodeId(2));
            cluster.network.cut(NodeId(1), NodeId(3));
            for chunk in [chunk(&blob), empty()] {
                let finish = registry
                    .finish_upload(&caller(), &repository(), &id, &digest, chunk)
                    .await;
                assert!(
                    matches!(
                        finish,
                        Err(RegistryError::TooFewCopies {
                            reached: 1,
                            wanted: 2
                        })
                    ),
                    "{finish:?}"
                );
                let info = registry.blob_info(&caller(), &repository(), &digest).await;
                assert!(matches!(info, Err(RegistryError::BlobUnknown(_))));
            }
            let offset = registry
                .upload_status(&caller(), &repository(), &id)
                .await
                .unwrap()
                .offset_bytes;
            assert_eq!(offset, length as u64);
            cluster.network.heal(NodeId(1), NodeId(3));
            eventually("the repeated PUT succeeds", || async {
                let again = registry
                    .finish_upload(&caller(), &repository(), &id, &digest, empty())
                    .await;
                assert!(matches!(
                    again,
                    Ok(_) | Err(RegistryError::TooFewCopies { .. })
                ));
                again.is_ok()
            })
            .await;
            assert_eq!(cluster.holders(&digest), [1, 3]);
            cluster.network.heal(NodeId(1), NodeId(2));
            assert_eq!(
                read(cluster.registry(2), &repository(), &digest)
                    .await
                    .unwrap(),
                blob
            );
        }
    }
}

#[tokio::test]
async fn a_push_that_nobody_can_repeat_leaves_nothing() {
    let cluster = Cluster::with_options(2, 2, 2, impatient());
    let registry = cluster.registry(1);
    let blob = pattern(100, 1);
    cluster.network.cut(NodeId(1), NodeId(2));
    let pushed = push(registry, &repository(), &blob).await;
    assert!(matches!(pushed, Err(RegistryError::TooFewCopies { .. })));
    assert!(registry.sessions.all().is_empty());
    assert!(
        cluster.nodes[0]
            .blobs
            .stat(&sha256(&blob))
            .await
            .unwrap()
            .is_none()
    );
    cluster.network.heal(NodeId(1), NodeId(2));
    eventually("another push succeeds", || async {
        push(registry, &repository(), &blob).await.is_ok()
    })
    .await;
    assert_eq!(cluster.holders(&sha256(&blob)), [1, 2]);
}

#[tokio::test]
async fn stragglers_are_counted_when_they_arrive() {
    let cluster = Cluster::on_disk(3, 3, 2);
    let registry = cluster.registry(1);
    let blob = pattern(5 * SMALL_BYTES, 1);
    let digest = sha256(&blob);
    cluster.network.hold(NodeId(3));
    push(registry, &repository(), &blob).await.unwrap();
    assert_eq!(cluster.holders(&digest), [1, 2]);
    cluster.network.release(NodeId(3));
    eventually("the third copy is counted", || async {
        cluster.holders(&digest) == [1, 2, 3]
    })
    .await;
}

#[tokio::test]
async fn what_has_its_copies_is_not_copied_again() {
    let cluster = Cluster::memory(3, 3, 2);
    let blob = pattern(1000, 1);
    let digest = sha256(&blob);
    push(cluster.registry(1), &repository(), &blob)
        .await
        .unwrap();
    let pushes = || {
        (1..=3)
            .map(|node| cluster.network.pushes(NodeId(node)))
            .sum::<u64>()
    };
    let before = pushes();
    for node in 1..=3 {
        push(cluster.registry(node), &repository(), &blob)
            .await
            .unwrap();
        push(cluster.registry(node), &other_repository(), &blob)
            .await
            .unwrap();
    }
    assert_eq!(pushes(), before);
    assert_eq!(
        read(cluster.registry(3), &other_repository(), &digest)
            .await
            .unwrap(),
        blob
    );
}

#[tokio::test]
async fn an_unknown_outcome_is_said_to_be_unknown() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let blob = pattern(100, 1);
    let digest = sha256(&blob);
    let id = begin(registry).await;
    registry
        .append_upload(&caller(), &repository(), &id, chunk(&blob))
        .await
        .unwrap();
    cluster.log.lose_outcomes(1);
    let finish = registry
        .finish_upload(&caller(), &repository(), &id, &digest, empty())
        .await;
    assert!(matches!(
        finish,
        Err(RegistryError::Unavailable(LogError::OutcomeUnknown))
    ));
    // It was applied after all: the session is over and the blob is there, which is what the client wants.
    for body in [empty(), chunk(&blob)] {
        let again = registry
            .finish_upload(&caller(), &repository(), &id, &digest, body)
            .await;
        assert_eq!(again.unwrap().value.size_bytes, 100);
    }
    let other = sha256(b"something else");
    let again = registry
        .finish_upload(&caller(), &repository(), &id, &other, empty())
        .await;
    assert!(matches!(again, Err(RegistryError::UploadUnknown)));
    let append = registry
        .append_upload(&caller(), &repository(), &id, empty())
        .await;
    assert!(matches!(append, Err(RegistryError::UploadUnknown)));
    assert_eq!(read(registry, &repository(), &digest).await.unwrap(), blob);
    registry.tend_uploads().await;
    assert!(registry.sessions.all().is_empty());
    assert_eq!(
        read(registry, &repository(), &digest).await.unwrap(),
        blob,
        "tending takes nothing that counts"
    );
}

#[tokio::test]
async fn a_client_that_leaves_does_not_stop_what_it_began() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let blob = pattern(100, 1);
    let id = begin(registry).await;
    let digest = sha256(&blob);
    let (who, repository) = (caller(), repository());
    let mut finish =
        Box::pin(registry.finish_upload(&who, &repository, &id, &digest, chunk(&blob)));
    assert!(futures::poll!(&mut finish).is_pending());
    drop(finish);
    cluster.nodes[0]
        .shutdown
        .close_and_wait(Duration::from_secs(5))
        .await
        .unwrap();
    assert!(
        registry
            .blob_info(&caller(), &repository, &digest)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn the_registry_is_dropped_with_its_last_owner() {
    let cluster = Cluster::single();
    let weak = Arc::downgrade(cluster.registry(1));
    drop(cluster);
    eventually("no background task keeps it", || async {
        weak.strong_count() == 0
    })
    .await;
}
