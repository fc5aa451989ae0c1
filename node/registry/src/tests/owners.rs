//! Upload sessions seen from nodes that do not own them.

use metadata::ids::NodeId;
use oci::UploadId;
use replication::peers::{UploadAction, UploadAnswer, UploadRequest};

use super::fixture::*;
use crate::RegistryError;

async fn start_on(cluster: &Cluster, node: u64) -> String {
    begin(cluster.registry(node)).await
}

#[tokio::test]
async fn every_request_may_go_to_another_node() {
    for cluster in [Cluster::memory(3, 3, 2), Cluster::on_disk(3, 3, 2)] {
        let blob = pattern(3 * SMALL_BYTES, 1);
        let digest = sha256(&blob);
        let id = start_on(&cluster, 1).await;
        let (first, second) = (blob.slice(..6000), blob.slice(6000..));
        let state = cluster
            .registry(2)
            .append_upload(&caller(), &repository(), &id, ranged(0, &first))
            .await;
        assert_eq!(state.unwrap().offset_bytes, 6000);
        for node in 1..=3 {
            let status = cluster
                .registry(node)
                .upload_status(&caller(), &repository(), &id)
                .await
                .unwrap();
            assert_eq!((status.offset_bytes, status.id), (6000, id.clone()));
        }
        let last = ranged(6000, &second);
        let done = cluster
            .registry(3)
            .finish_upload(&caller(), &repository(), &id, &digest, last)
            .await
            .unwrap();
        assert_eq!(done.value.size_bytes, blob.len() as u64);
        for node in 1..=3 {
            assert_eq!(
                read(cluster.registry(node), &repository(), &digest)
                    .await
                    .unwrap(),
                blob
            );
            let status = cluster
                .registry(node)
                .upload_status(&caller(), &repository(), &id)
                .await;
            assert!(matches!(status, Err(RegistryError::UploadUnknown)));
        }
    }
}

#[tokio::test]
async fn the_owners_errors_reach_the_client_as_they_are() {
    let cluster = Cluster::memory(2, 2, 1);
    let (owner, other) = (cluster.registry(1), cluster.registry(2));
    let id = start_on(&cluster, 1).await;
    let blob = pattern(1000, 1);
    let digest = sha256(&blob);
    owner
        .append_upload(&caller(), &repository(), &id, chunk(&blob.slice(..500)))
        .await
        .unwrap();

    let early = other
        .append_upload(&caller(), &repository(), &id, ranged(1, &blob))
        .await;
    assert!(matches!(
        early,
        Err(RegistryError::RangeInvalid { offset_bytes: 500 })
    ));
    let mut disagreeing = ranged(500, &blob.slice(500..));
    disagreeing.length_bytes = Some(499);
    let size = other
        .append_upload(&caller(), &repository(), &id, disagreeing)
        .await;
    assert!(matches!(
        size,
        Err(RegistryError::SizeInvalid { offset_bytes: 500 })
    ));
    let broken = torn(&blob.slice(500..600), Some(500));
    let broken = other
        .append_upload(&caller(), &repository(), &id, broken)
        .await;
    assert!(matches!(broken, Err(RegistryError::BodyInterrupted)));
    let status = other
        .upload_status(&caller(), &repository(), &id)
        .await
        .unwrap();
    assert_eq!(status.offset_bytes, 600);
    let wrong = other
        .finish_upload(&caller(), &repository(), &id, &digest, empty())
        .await;
    assert!(matches!(wrong, Err(RegistryError::DigestInvalid)));
    let gone = other
        .finish_upload(&caller(), &repository(), &id, &digest, empty())
        .await;
    assert!(matches!(gone, Err(RegistryError::UploadUnknown)));
}

#[tokio::test]
async fn any_node_can_cancel() {
    let cluster = Cluster::memory(2, 2, 1);
    let id = start_on(&cluster, 1).await;
    let bytes = pattern(10, 1);
    cluster
        .registry(1)
        .append_upload(&caller(), &repository(), &id, chunk(&bytes))
        .await
        .unwrap();
    cluster
        .registry(2)
        .cancel_upload(&caller(), &repository(), &id)
        .await
        .unwrap();
    assert!(cluster.registry(1).sessions.all().is_empty());
    for node in 1..=2 {
        let status = cluster
            .registry(node)
            .upload_status(&caller(), &repository(), &id)
            .await;
        assert!(matches!(status, Err(RegistryError::UploadUnknown)));
    }
}

#[tokio::test]
async fn an_unreachable_owner_is_not_an_unknown_upload() {
    let cluster = Cluster::memory(2, 2, 1);
    let id = start_on(&cluster, 1).await;
    cluster.network.cut(NodeId(1), NodeId(2));
    let other = cluster.registry(2);
    let append = other
        .append_upload(&caller(), &repository(), &id, chunk(&pattern(10, 1)))
        .await;
    assert!(matches!(append, Err(RegistryError::OwnerUnreachable)));
    let status = other.upload_status(&caller(), &repository(), &id).await;
    assert!(matches!(status, Err(RegistryError::OwnerUnreachable)));
    cluster.network.heal(NodeId(1), NodeId(2));
    assert_eq!(
        other
            .upload_status(&caller(), &repository(), &id)
            .await
            .unwrap()
            .offset_bytes,
        0
    );
}

#[tokio::test]
async fn a_node_that_is_not_in_the_cluster_owns_nothing() {
    let cluster = Cluster::memory(1, 1, 1);
    let registry = cluster.registry(1);
    let id = start_on(&cluster, 1).await;
    let key = registry.upload_key().unwrap();
    let mut upload = UploadId::decode(&id, &key, &repository()).unwrap();
    upload.owner = 9;
    let id = upload.encode(&key, &repository());
    let status = registry.upload_status(&caller(), &repository(), &id).await;
    assert!(matches!(status, Err(RegistryError::UploadUnknown)));
}

#[tokio::test]
async fn a_node_answers_only_for_its_own_sessions() {
    let cluster = Cluster::memory(2, 2, 1);
    let id = start_on(&cluster, 1).await;
    let request = |upload: &str| UploadRequest {
        upload: upload.to_owned(),
        repository: repository(),
        subject: String::new(),
        deadline: caller().deadline,
        action: UploadAction::Status,
    };
    assert_eq!(
        cluster.registry(1).serve_upload(request(&id)).await,
        UploadAnswer::Open { offset_bytes: 0 }
    );
    // Not passed on: two nodes that take each other for the owner would never stop.
    assert_eq!(
        cluster.registry(2).serve_upload(request(&id)).await,
        UploadAnswer::Unknown
    );
    assert_eq!(
        cluster.registry(1).serve_upload(request("nonsense")).await,
        UploadAnswer::Unknown
    );
}

#[tokio::test]
async fn a_closed_ticket_needs_no_question_to_the_owner() {
    let cluster = Cluster::memory(2, 2, 1);
    let id = start_on(&cluster, 1).await;
    cluster
        .registry(1)
        .cancel_upload(&caller(), &repository(), &id)
        .await
        .unwrap();
    cluster.network.cut(NodeId(1), NodeId(2));
    let status = cluster
        .registry(2)
        .upload_status(&caller(), &repository(), &id)
        .await;
    assert!(matches!(status, Err(RegistryError::UploadUnknown)));
}
