//! Upload sessions of one node.

use futures::StreamExt as _;
use metadata::log::LogError;

use super::fixture::*;
use crate::{Chunk, RegistryError, UploadState};
use bytes::Bytes;
use oci::{Algorithm, ContentRange, Digest};

async fn start(cluster: &Cluster) -> String {
    cluster
        .registry(1)
        .start_upload(&caller(), &repository())
        .await
        .unwrap()
        .value
        .id
}

#[tokio::test]
async fn a_blob_arrives_in_chunks() {
    let cluster = Cluster::on_disk(1, 1, 1);
    let registry = cluster.registry(1);
    let blob = pattern(3 * SMALL_BYTES, 1);
    let id = start(&cluster).await;
    let (first, second) = (blob.slice(..5000), blob.slice(5000..));
    let state = registry
        .append_upload(&caller(), &repository(), &id, ranged(0, &first))
        .await
        .unwrap();
    assert_eq!(
        state,
        UploadState {
            id: id.clone(),
            offset_bytes: 5000
        }
    );
    assert_eq!(
        registry
            .upload_status(&caller(), &repository(), &id)
            .await
            .unwrap(),
        state
    );
    let digest = sha256(&blob);
    let done = registry
        .finish_upload(
            &caller(),
            &repository(),
            &id,
            &digest,
            ranged(5000, &second),
        )
        .await
        .unwrap();
    assert_eq!(done.value.size_bytes, blob.len() as u64);
    assert_eq!(done.revision, cluster.applied());
    assert_eq!(read(registry, &repository(), &digest).await.unwrap(), blob);
    // The session ended with it.
    let again = registry
        .finish_upload(&caller(), &repository(), &id, &digest, empty())
        .await;
    assert!(matches!(again, Err(RegistryError::UploadUnknown)));
    let status = registry.upload_status(&caller(), &repository(), &id).await;
    assert!(matches!(status, Err(RegistryError::UploadUnknown)));
}

#[tokio::test]
async fn a_chunk_out_of_order_changes_nothing() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let blob = pattern(2000, 1);
    let id = start(&cluster).await;
    let first = blob.slice(..1000);
    let early = registry
        .append_upload(&caller(), &repository(), &id, ranged(1, &first))
        .await;
    assert!(matches!(
        early,
        Err(RegistryError::RangeInvalid { offset_bytes: 0 })
    ));
    registry
        .append_upload(&caller(), &repository(), &id, ranged(0, &first))
        .await
        .unwrap();
    let digest = sha256(&blob);
    for start in [0, 999, 1001, 5000] {
        let chunk = || ranged(start, &blob.slice(1000..));
        let patch = registry
            .append_upload(&caller(), &repository(), &id, chunk())
            .await;
        assert!(
            matches!(
                patch,
                Err(RegistryError::RangeInvalid { offset_bytes: 1000 })
            ),
            "{start}"
        );
        let put = registry
            .finish_upload(&caller(), &repository(), &id, &digest, chunk())
            .await;
        assert!(
            matches!(put, Err(RegistryError::RangeInvalid { offset_bytes: 1000 })),
            "{start}"
        );
    }
    let last = ranged(1000, &blob.slice(1000..));
    registry
        .finish_upload(&caller(), &repository(), &id, &digest, last)
        .await
        .unwrap();
    assert_eq!(read(registry, &repository(), &digest).await.unwrap(), blob);
}

#[tokio::test]
async fn headers_and_body_must_agree_on_the_length() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let id = start(&cluster).await;
    let bytes = pattern(100, 1);
    let range = Some(ContentRange {
        start: 0,
        end_inclusive: 98,
    });
    let disagreeing = Chunk {
        range,
        ..chunk(&bytes)
    };
    let answer = registry
        .append_upload(&caller(), &repository(), &id, disagreeing)
        .await;
    assert!(matches!(
        answer,
        Err(RegistryError::SizeInvalid { offset_bytes: 0 })
    ));
    let longer = Chunk {
        range,
        length_bytes: None,
        ..chunk(&bytes)
    };
    let answer = registry
        .append_upload(&caller(), &repository(), &id, longer)
        .await;
    assert!(matches!(
        answer,
        Err(RegistryError::SizeInvalid { offset_bytes: 0 })
    ));
    let shorter = Chunk {
        length_bytes: Some(101),
        ..chunk(&bytes)
    };
    let answer = registry
        .append_upload(&caller(), &repository(), &id, shorter)
        .await;
    assert!(matches!(answer, Err(RegistryError::BodyInterrupted)));
    assert_eq!(
        registry
            .upload_status(&caller(), &repository(), &id)
            .await
            .unwrap()
            .offset_bytes,
        100
    );
}

#[tokio::test]
async fn what_arrived_before_the_body_broke_is_kept() {
    let cluster = Cluster::on_disk(1, 1, 1);
    let registry = cluster.registry(1);
    for length in [500, 2 * SMALL_BYTES] {
        let blob = pattern(length + 100, length as u64);
        let id = start(&cluster).await;
        let broken = torn(&blob.slice(..length), Some(blob.len() as u64));
        let answer = registry
            .append_upload(&caller(), &repository(), &id, broken)
            .await;
        assert!(matches!(answer, Err(RegistryError::BodyInterrupted)));
        let offset = registry
            .upload_status(&caller(), &repository(), &id)
            .await
            .unwrap()
            .offset_bytes;
        assert_eq!(offset, length as u64);
        let digest = sha256(&blob);
        let broken = torn(&blob.slice(length..length + 50), None);
        let answer = registry
            .finish_upload(&caller(), &repository(), &id, &digest, broken)
            .await;
        assert!(matches!(answer, Err(RegistryError::BodyInterrupted)));
        assert!(
            registry
                .blob_info(&caller(), &repository(), &digest)
                .await
                .is_err()
        );
        let rest = chunk(&blob.slice(length + 50..));
        registry
            .finish_upload(&caller(), &repository(), &id, &digest, rest)
            .await
            .unwrap();
        assert_eq!(read(registry, &repository(), &digest).await.unwrap(), blob);
    }
}

#[tokio::test]
async fn a_second_writer_is_told_where_the_first_stands() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1).clone();
    let id = start(&cluster).await;
    let (sender, receiver) = futures::channel::mpsc::unbounded();
    let body = Box::pin(receiver.map(|bytes: Bytes| Ok(bytes)));
    let slow = Chunk {
        range: None,
        length_bytes: None,
        body,
    };
    let (first_registry, first_id) = (registry.clone(), id.clone());
    let first = tokio::spawn(async move {
        first_registry
            .append_upload(&caller(), &repository(), &first_id, slow)
            .await
    });
    sender.unbounded_send(pattern(10, 1)).unwrap();
    while registry
        .upload_status(&caller(), &repository(), &id)
        .await
        .unwrap()
        .offset_bytes
        < 10
    {
        tokio::task::yield_now().await;
    }
    let second = registry
        .append_upload(&caller(), &repository(), &id, chunk(&pattern(5, 2)))
        .await;
    assert!(matches!(
        second,
        Err(RegistryError::RangeInvalid { offset_bytes: 10 })
    ));
    let digest = sha256(&pattern(10, 1));
    let third = registry
        .finish_upload(&caller(), &repository(), &id, &digest, empty())
        .await;
    assert!(matches!(
        third,
        Err(RegistryError::RangeInvalid { offset_bytes: 10 })
    ));
    drop(sender);
    assert_eq!(first.await.unwrap().unwrap().offset_bytes, 10);
    registry
        .finish_upload(&caller(), &repository(), &id, &digest, empty())
        .await
        .unwrap();
}

#[tokio::test]
async fn wrong_content_ends_the_session_and_stores_nothing() {
    let cluster = Cluster::on_disk(1, 1, 1);
    let registry = cluster.registry(1);
    let blob = pattern(2 * SMALL_BYTES, 1);
    let (wanted, actual) = (sha256(b"something else"), sha256(&blob));
    let id = start(&cluster).await;
    registry
        .append_upload(&caller(), &repository(), &id, chunk(&blob))
        .await
        .unwrap();
    let answer = registry
        .finish_upload(&caller(), &repository(), &id, &wanted, empty())
        .await;
    assert!(matches!(answer, Err(RegistryError::DigestInvalid)));
    let answer = registry
        .finish_upload(&caller(), &repository(), &id, &actual, empty())
        .await;
    assert!(matches!(answer, Err(RegistryError::UploadUnknown)));
    for digest in [wanted, actual] {
        assert!(
            cluster.nodes[0]
                .blobs
                .stat(&digest)
                .await
                .unwrap()
                .is_none()
        );
        let info = registry.blob_info(&caller(), &repository(), &digest).await;
        assert!(matches!(info, Err(RegistryError::BlobUnknown(_))));
    }
    assert!(
        cluster.nodes[0]
            .blobs
            .staged_names()
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn sha512_needs_no_announcement() {
    let cluster = Cluster::on_disk(1, 1, 1);
    let registry = cluster.registry(1);
    for length in [10, 3 * SMALL_BYTES] {
        let blob = pattern(length, length as u64);
        let digest = Digest::of(Algorithm::Sha512, &blob);
        let id = start(&cluster).await;
        registry
            .append_upload(
                &caller(),
                &repository(),
                &id,
                chunk(&blob.slice(..length / 2)),
            )
            .await
            .unwrap();
        let rest = chunk(&blob.slice(length / 2..));
        registry
            .finish_upload(&caller(), &repository(), &id, &digest, rest)
            .await
            .unwrap();
        assert_eq!(read(registry, &repository(), &digest).await.unwrap(), blob);
        let whole = pattern(length, 77);
        let digest = Digest::of(Algorithm::Sha512, &whole);
        registry
            .push_blob(&caller(), &repository(), &digest, chunk(&whole))
            .await
            .unwrap();
        assert_eq!(read(registry, &repository(), &digest).await.unwrap(), whole);
    }
}

#[tokio::test]
async fn the_empty_blob_is_a_blob() {
    for cluster in [Cluster::single(), Cluster::on_disk(1, 1, 1)] {
        let registry = cluster.registry(1);
        let id = start(&cluster).await;
        let digest = sha256(b"");
        let done = registry
            .finish_upload(&caller(), &repository(), &id, &digest, empty())
            .await
            .unwrap();
        assert_eq!(done.value.size_bytes, 0);
        assert_eq!(
            registry
                .blob_info(&caller(), &repository(), &digest)
                .await
                .unwrap()
                .value,
            done.value
        );
        assert!(
            read(registry, &repository(), &digest)
                .await
                .unwrap()
                .is_empty()
        );
    }
}

#[tokio::test]
async fn a_cancelled_session_is_gone() {
    let cluster = Cluster::on_disk(1, 1, 1);
    let registry = cluster.registry(1);
    let id = start(&cluster).await;
    let blob = pattern(2 * SMALL_BYTES, 1);
    registry
        .append_upload(&caller(), &repository(), &id, chunk(&blob))
        .await
        .unwrap();
    assert_eq!(
        cluster.nodes[0].blobs.staged_names().await.unwrap().len(),
        1
    );
    registry
        .cancel_upload(&caller(), &repository(), &id)
        .await
        .unwrap();
    assert!(
        cluster.nodes[0]
            .blobs
            .staged_names()
            .await
            .unwrap()
            .is_empty()
    );
    let again = registry.cancel_upload(&caller(), &repository(), &id).await;
    assert!(matches!(again, Err(RegistryError::UploadUnknown)));
    let append = registry
        .append_upload(&caller(), &repository(), &id, empty())
        .await;
    assert!(matches!(append, Err(RegistryError::UploadUnknown)));
    // Also one that never had a byte.
    let id = start(&cluster).await;
    registry
        .cancel_upload(&caller(), &repository(), &id)
        .await
        .unwrap();
    let status = registry.upload_status(&caller(), &repository(), &id).await;
    assert!(matches!(status, Err(RegistryError::UploadUnknown)));
}

#[tokio::test]
async fn an_id_works_only_as_it_was_issued() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let id = start(&cluster).await;
    let elsewhere = registry
        .append_upload(&caller(), &other_repository(), &id, empty())
        .await;
    assert!(matches!(elsewhere, Err(RegistryError::UploadUnknown)));
    let mut forged = id.clone().into_bytes();
    forged[5] = if forged[5] == b'A' { b'B' } else { b'A' };
    for id in [
        "",
        "../x",
        "00000000-0000-0000-0000-000000000000",
        std::str::from_utf8(&forged).unwrap(),
    ] {
        let status = registry.upload_status(&caller(), &repository(), id).await;
        assert!(matches!(status, Err(RegistryError::UploadUnknown)), "{id}");
    }
    registry
        .append_upload(&caller(), &repository(), &id, empty())
        .await
        .unwrap();
}

#[tokio::test]
async fn sessions_with_bytes_are_bounded() {
    let options = crate::RegistryOptions {
        uploads_max: 2,
        ..quick_options()
    };
    let cluster = Cluster::with_options(1, 1, 1, options);
    let registry = cluster.registry(1);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(start(&cluster).await);
    }
    let bytes = pattern(10, 1);
    for id in &ids[..2] {
        registry
            .append_upload(&caller(), &repository(), id, chunk(&bytes))
            .await
            .unwrap();
    }
    let third = registry
        .append_upload(&caller(), &repository(), &ids[2], chunk(&bytes))
        .await;
    assert!(matches!(third, Err(RegistryError::Overloaded)));
    registry
        .cancel_upload(&caller(), &repository(), &ids[0])
        .await
        .unwrap();
    registry
        .append_upload(&caller(), &repository(), &ids[2], chunk(&bytes))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_blob_may_not_outgrow_the_limit() {
    let options = crate::RegistryOptions {
        upload_max_bytes: Some(1000),
        ..quick_options()
    };
    let cluster = Cluster::with_options(1, 1, 1, options);
    let registry = cluster.registry(1);
    let blob = pattern(1001, 1);
    let announced = push(registry, &repository(), &blob).await;
    assert!(matches!(announced, Err(RegistryError::SizeInvalid { .. })));
    let streamed = Chunk {
        length_bytes: None,
        ..chunk(&blob)
    };
    let streamed = registry
        .push_blob(&caller(), &repository(), &sha256(&blob), streamed)
        .await;
    assert!(matches!(streamed, Err(RegistryError::SizeInvalid { .. })));
    push(registry, &repository(), &blob.slice(..1000))
        .await
        .unwrap();
}

#[tokio::test]
async fn starting_an_upload_costs_no_log_entry_of_its_own() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    start(&cluster).await;
    let before = cluster.applied();
    for _ in 0..200 {
        start(&cluster).await;
    }
    let entries = cluster.applied().0 - before.0;
    assert!(entries <= 4, "{entries} entries for 200 uploads");
    assert!(
        registry.sessions.all().is_empty(),
        "a session without bytes takes no memory"
    );
}

#[tokio::test]
async fn without_a_quorum_nothing_starts_and_what_arrived_waits() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let blob = pattern(100, 1);
    let digest = sha256(&blob);
    let id = start(&cluster).await;
    cluster.log.set_failure(Some(LogError::QuorumLost));
    let finish = registry
        .finish_upload(&caller(), &repository(), &id, &digest, chunk(&blob))
        .await;
    assert!(matches!(
        finish,
        Err(RegistryError::Unavailable(LogError::QuorumLost))
    ));
    let missing = registry.blob_info(&caller(), &repository(), &digest).await;
    assert!(
        matches!(
            missing,
            Err(RegistryError::Unavailable(LogError::QuorumLost))
        ),
        "not known to be missing"
    );
    assert_eq!(
        registry
            .upload_status(&caller(), &repository(), &id)
            .await
            .unwrap()
            .offset_bytes,
        100
    );
    cluster.log.set_failure(None);
    registry
        .finish_upload(&caller(), &repository(), &id, &digest, empty())
        .await
        .unwrap();
    assert_eq!(read(registry, &repository(), &digest).await.unwrap(), blob);
}

#[tokio::test]
async fn a_repeated_put_may_add_nothing_and_change_nothing() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let blob = pattern(100, 1);
    let digest = sha256(&blob);
    let id = start(&cluster).await;
    cluster.log.set_failure(Some(LogError::NoLeader));
    registry
        .finish_upload(&caller(), &repository(), &id, &digest, chunk(&blob))
        .await
        .unwrap_err();
    cluster.log.set_failure(None);
    let more = registry
        .append_upload(&caller(), &repository(), &id, chunk(&blob))
        .await;
    assert!(matches!(
        more,
        Err(RegistryError::RangeInvalid { offset_bytes: 100 })
    ));
    let other = registry
        .finish_upload(&caller(), &repository(), &id, &sha256(b"other"), empty())
        .await;
    assert!(matches!(other, Err(RegistryError::DigestInvalid)));
    // Nothing needs the bytes any more.
    assert!(
        cluster.nodes[0]
            .blobs
            .stat(&digest)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn without_tickets_uploads_wait_for_a_quorum() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    cluster.log.set_failure(Some(LogError::NoLeader));
    let started = registry.start_upload(&caller(), &repository()).await;
    assert!(matches!(
        started,
        Err(RegistryError::Unavailable(LogError::NoLeader))
    ));
    cluster.log.set_failure(None);
    start(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_uploads_at_once_get_a_ticket_each() {
    let cluster = Cluster::single();
    let starts = (0..300).map(|_| {
        let registry = cluster.registry(1).clone();
        tokio::spawn(async move { registry.start_upload(&caller(), &repository()).await })
    });
    let key = cluster.registry(1).upload_key().unwrap();
    let mut tickets = std::collections::BTreeSet::new();
    for started in futures::future::join_all(starts).await {
        let id = started.unwrap().unwrap().value.id;
        tickets.insert(
            oci::UploadId::decode(&id, &key, &repository())
                .unwrap()
                .ticket,
        );
    }
    assert_eq!(tickets.len(), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_blob_may_be_pushed_by_many_at_once() {
    for cluster in [Cluster::memory(3, 3, 2), Cluster::on_disk(3, 3, 2)] {
        let blob = pattern(3 * SMALL_BYTES, 1);
        let pushes = (0..12).map(|number| {
            let (registry, blob) = (cluster.registry(1 + number % 3).clone(), blob.clone());
            tokio::spawn(async move { push(&registry, &repository(), &blob).await })
        });
        for pushed in futures::future::join_all(pushes).await {
            assert_eq!(pushed.unwrap().unwrap().value.size_bytes, blob.len() as u64);
        }
        for node in 1..=3 {
            let got = read(cluster.registry(node), &repository(), &sha256(&blob))
                .await
                .unwrap();
            assert_eq!(got, blob);
        }
    }
}
