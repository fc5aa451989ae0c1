//! A node whose disk is full still serves what others hold.

use std::sync::Arc;

use runtime::Shutdown;
use storage::blob::{BlobOptions, BlobStore, DirectoryBlobs};
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;
use crate::ReplicationOptions;

/// Node 1 with a disk that takes nothing.
fn full(cluster: &Cluster) -> (TempDir, Arc<Replication>) {
    let data = tempfile::tempdir().unwrap();
    let options = BlobOptions {
        min_free_bytes: Some(u64::MAX),
        ..BlobOptions::default()
    };
    let blobs = Arc::new(DirectoryBlobs::open(data.path(), options).unwrap());
    let peers = cluster.network.join(ONE, blobs.clone());
    let log = Arc::new(cluster.log.clone());
    let options = ReplicationOptions::default();
    (
        data,
        Replication::new(log, blobs, peers, options, Shutdown::new()),
    )
}

#[tokio::test]
async fn reads_pass_through() {
    let cluster = Cluster::new(3, 3, 2);
    let (_data, replication) = full(&cluster);
    let body = noise(2 * MIB + 5, 1);
    let digest = cluster.put(&body, &[TWO, THREE]).await;
    cluster.network.set_round_trip_us(ONE, THREE, 2_000);
    cluster.network.break_fetches_after(TWO, Some(700_000));
    let holders = vec![TWO, THREE];
    let reader = replication
        .open_remote(&digest, body.len() as u64, holders)
        .await
        .unwrap();
    assert_eq!(read_all(&reader).await.unwrap(), body);
    // One after the other, each where the one before broke off.
    assert_eq!(
        (cluster.network.fetches(TWO), cluster.network.fetches(THREE)),
        (1, 1)
    );
    let other = reader.clone();
    let rest = other.read_at(1_000_000, 50).await.unwrap();
    assert_eq!(rest, body[1_000_000..1_000_050]);
    assert_eq!(
        other.read_at(1_000_050, 50).await.unwrap(),
        body[1_000_050..1_000_100]
    );
    assert_eq!(reader.read_at(body.len() as u64, 1).await.unwrap(), "");
}

#[tokio::test]
async fn wrong_bytes_are_never_complete() {
    let cluster = Cluster::new(2, 2, 1);
    let (_data, replication) = full(&cluster);
    let body = noise(MIB, 2);
    let digest = cluster.put(&body, &[TWO]).await;
    cluster.network.falsify_fetches(TWO, true);
    let reader = replication
        .open_remote(&digest, body.len() as u64, vec![TWO])
        .await
        .unwrap();
    let (received, error) = read_all(&reader).await.unwrap_err();
    assert!(matches!(error, ReplicationError::NoSource(_)), "{error}");
    assert!(received.len() < body.len());
}

#[tokio::test]
async fn without_a_source_opening_fails() {
    let cluster = Cluster::new(2, 2, 1);
    let (_data, replication) = full(&cluster);
    let body = noise(MIB, 3);
    let digest = cluster.put(&body, &[TWO]).await;
    cluster.network.cut(ONE, TWO);
    let opened = replication
        .open_remote(&digest, body.len() as u64, vec![TWO])
        .await;
    assert!(matches!(opened.err(), Some(ReplicationError::NoSource(_))));
}

/// The disk fills up in the middle of a transfer.
#[tokio::test]
async fn a_reader_goes_on_without_the_disk() {
    let cluster = Cluster::new(2, 2, 1);
    let body = noise(MIB, 4);
    let digest = cluster.put(&body, &[TWO]).await;
    let blobs = cluster.blobs_of(ONE);
    let mut staged = blobs.stage("fetch").await.unwrap();
    staged.append(body.slice(..300_000)).await.unwrap();
    let state = State {
        is_kept: None,
        staged: Some(staged.reader()),
        connected: true,
        released_bytes: 300_000,
        failure: None,
    };
    let (sender, receiver) = watch::channel(state);
    let wanted = Wanted {
        replication: cluster.replication.clone(),
        digest,
        size_bytes: body.len() as u64,
        holders: vec![TWO],
    };
    let reader = FetchReader::new(wanted, receiver);
    assert_eq!(reader.read_at(0, 100_000).await.unwrap(), body[..100_000]);
    sender.send_modify(|state| state.failure = Some(Failure::NoSpace));
    blobs.discard(staged).await.unwrap();
    let rest = reader.read_at(100_000, MIB).await.unwrap();
    assert_eq!(rest, body[100_000..100_000 + rest.len()]);
    assert!(!rest.is_empty());
}
