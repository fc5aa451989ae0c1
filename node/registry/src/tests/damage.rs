//! Damaged copies: clients never see a wrong byte, and the copy is replaced.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use metadata::ids::NodeId;
use oci::Digest;
use storage::blob::MemoryBlobs;

use super::fixture::*;
use crate::{Piece, RegistryError};

/// Two nodes that both hold a blob; its bytes are damaged on the first.
async fn damaged(copies: u64, offset: usize) -> (Cluster, Bytes, Digest, Vec<MemoryBlobs>) {
    let mut cluster = Cluster::memory(0, 1, 1);
    let ids: Vec<NodeId> = (1..=copies).map(NodeId).collect();
    let copies = u32::try_from(copies).unwrap();
    cluster.log = metadata::memory::MemoryLog::with_nodes(&ids, copies, copies).unwrap();
    let stores: Vec<MemoryBlobs> = ids.iter().map(|_| MemoryBlobs::new()).collect();
    for (id, store) in ids.iter().zip(&stores) {
        cluster.start(*id, Arc::new(store.clone()));
    }
    let blob = pattern(6 * 256 * 1024, 1);
    let digest = sha256(&blob);
    push(cluster.registry(1), &repository(), &blob)
        .await
        .unwrap();
    assert!(stores[0].damage(&digest, offset));
    (cluster, blob, digest, stores)
}

#[tokio::test]
async fn a_damaged_copy_is_replaced_while_its_reader_goes_on() {
    // In the first read, and in a later one.
    for offset in [1000, 5 * 256 * 1024 + 3] {
        let (cluster, blob, digest, _) = damaged(2, offset).await;
        assert_eq!(
            read(cluster.registry(1), &repository(), &digest)
                .await
                .unwrap(),
            blob
        );
        let store = &cluster.nodes[0].blobs;
        eventually("a good copy is counted again", || async {
            let reader = store.open(&digest).await.unwrap();
            let is_good = match reader {
                Some(reader) => reader.verify(0..u64::MAX).await.is_ok(),
                None => false,
            };
            is_good && cluster.holders(&digest) == [1, 2]
        })
        .await;
        let fetches = cluster.network.fetches(NodeId(2));
        assert_eq!(
            read(cluster.registry(1), &repository(), &digest)
                .await
                .unwrap(),
            blob
        );
        assert_eq!(
            cluster.network.fetches(NodeId(2)),
            fetches,
            "it is good again"
        );
    }
}

#[tokio::test]
async fn without_another_copy_the_stream_ends_before_the_damage() {
    let (cluster, blob, digest, stores) = damaged(1, 5 * 256 * 1024 + 3).await;
    let registry = cluster.registry(1);
    let open = registry
        .open_blob(&caller(), &repository(), &digest)
        .await
        .unwrap();
    let pieces: Vec<Result<Bytes, RegistryError>> = open.value.stream(0, u64::MAX).collect().await;
    let (last, good) = pieces.split_last().unwrap();
    assert!(matches!(last, Err(RegistryError::ContentUnavailable(_))));
    let got: Vec<Bytes> = good
        .iter()
        .map(|piece| piece.as_ref().unwrap().clone())
        .collect();
    assert_eq!(got.concat(), blob.slice(..4 * 256 * 1024));
    // The only copy stays, and stays counted.
    assert_eq!(cluster.holders(&digest), [1]);
    assert!(
        storage::blob::BlobStore::stat(&stores[0], &digest)
            .await
            .unwrap()
            .is_some()
    );
    let start = read_range(registry, &repository(), &digest, 0, 1000)
        .await
        .unwrap();
    assert_eq!(start, blob.slice(..1000));
}

#[tokio::test]
async fn an_unreachable_good_copy_ends_the_stream_too() {
    let (cluster, _, digest, _) = damaged(2, 1000).await;
    cluster.network.cut(NodeId(1), NodeId(2));
    let answer = read(cluster.registry(1), &repository(), &digest).await;
    assert!(matches!(answer, Err(RegistryError::ContentUnavailable(_))));
    cluster.network.heal(NodeId(1), NodeId(2));
    assert!(
        read(cluster.registry(1), &repository(), &digest)
            .await
            .is_ok()
    );
}

/// What a front that sends parts of files would put on the wire.
async fn sent(registry: &Arc<crate::Registry>, digest: &Digest) -> (Bytes, bool) {
    let open = registry
        .open_blob(&caller(), &repository(), digest)
        .await
        .unwrap();
    let mut pieces = Box::pin(open.value.pieces(0, u64::MAX));
    let (mut bytes, mut has_files) = (Vec::new(), false);
    while let Some(piece) = pieces.next().await {
        match piece.unwrap() {
            Piece::Bytes(read) => bytes.extend_from_slice(&read),
            Piece::File {
                file,
                offset,
                length_bytes,
            } => {
                let start = bytes.len();
                bytes.resize(start + length_bytes, 0);
                std::os::unix::fs::FileExt::read_exact_at(&*file, &mut bytes[start..], offset)
                    .unwrap();
                has_files = true;
            }
        }
    }
    (bytes.into(), has_files)
}

#[tokio::test]
async fn pieces_of_a_file_are_whole_and_verified() {
    let cluster = Cluster::on_disk(2, 2, 2);
    let blob = pattern(6 * 256 * 1024 + 5, 1);
    let digest = sha256(&blob);
    push(cluster.registry(1), &repository(), &blob)
        .await
        .unwrap();
    assert_eq!(
        sent(cluster.registry(1), &digest).await,
        (blob.clone(), true)
    );
    cluster.damage_files(NodeId(1));
    let (bytes, _) = sent(cluster.registry(1), &digest).await;
    assert!(bytes == blob, "another holder stepped in");
    assert!(cluster.network.fetches(NodeId(2)) > 0);
}
