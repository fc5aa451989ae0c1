//! The bytes of an upload: order, length, bodies that break.

use bytes::Bytes;
use futures::StreamExt as _;
use oci::ContentRange;

use super::fixture::*;
use crate::{Chunk, RegistryError, UploadState};

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

fn at_most_1000_bytes() -> crate::RegistryOptions {
    crate::RegistryOptions {
        upload_max_bytes: Some(1000),
        ..crate::RegistryOptions::default()
    }
}

fn assert_too_large<T: std::fmt::Debug>(outcome: crate::Result<T>) {
    let is_refused = matches!(
        outcome,
        Err(RegistryError::BlobTooLarge { limit_bytes: 1000 })
    );
    assert!(is_refused, "{outcome:?}");
}

/// A chunk whose headers do not say how long it is.
fn streamed(bytes: &Bytes) -> Chunk {
    Chunk {
        length_bytes: None,
        ..chunk(bytes)
    }
}

#[tokio::test]
async fn a_blob_may_not_outgrow_the_limit() {
    let cluster = Cluster::with_options(1, 1, 1, at_most_1000_bytes());
    let registry = cluster.registry(1);
    let blob = pattern(1001, 1);
    assert_too_large(push(registry, &repository(), &blob).await);
    let digest = sha256(&blob);
    let pushed = registry
        .push_blob(&caller(), &repository(), &digest, streamed(&blob))
        .await;
    assert_too_large(pushed);
    push(registry, &repository(), &blob.slice(..1000))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_upload_that_outgrows_the_limit_is_over_whoever_passes_it_on() {
    let cluster = Cluster::with_options(2, 2, 2, at_most_1000_bytes());
    let blob = pattern(1001, 1);
    for (node, is_announced) in [(1, false), (1, true), (2, false), (2, true)] {
        let registry = cluster.registry(node);
        let id = start(&cluster).await;
        let first = registry
            .append_upload(&caller(), &repository(), &id, chunk(&blob.slice(..600)))
            .await
            .unwrap();
        assert_eq!(first.offset_bytes, 600);
        let rest = blob.slice(600..);
        let rest = if is_announced {
            ranged(600, &rest)
        } else {
            streamed(&rest)
        };
        let outcome = registry
            .append_upload(&caller(), &repository(), &id, rest)
            .await;
        assert_too_large(outcome);
        let status = registry.upload_status(&caller(), &repository(), &id).await;
        assert!(matches!(status, Err(RegistryError::UploadUnknown)));
        assert!(
            cluster.nodes[0]
                .blobs
                .staged_names()
                .await
                .unwrap()
                .is_empty()
        );
    }
}
