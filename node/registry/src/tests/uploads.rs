//! Upload sessions of one node.

use metadata::log::LogError;

use super::fixture::*;
use crate::RegistryError;
use oci::{Algorithm, Digest};

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
        ..crate::RegistryOptions::default()
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
