mod full_disk;

use super::*;
use crate::ReplicationOptions;
use crate::testing::{Cluster, ONE, THREE, TWO, eventually, noise, stop};
use bytes::Bytes;
use metadata::log::LogError;
use storage::blob::{BlobStore, CHUNK_BYTES};
use storage::error::BlobError;
use tokio::time::sleep;

const MIB: usize = 1024 * 1024;

async fn open(
    cluster: &Cluster,
    digest: &Digest,
    size_bytes: usize,
) -> Result<FetchReader, ReplicationError> {
    let holders = cluster.holders(digest);
    cluster
        .replication
        .open_remote(digest, size_bytes as u64, holders)
        .await
}

async fn read_all(reader: &FetchReader) -> Result<Vec<u8>, (Vec<u8>, ReplicationError)> {
    let mut body = Vec::new();
    loop {
        match reader.read_at(body.len() as u64, 100_000).await {
            Ok(bytes) if bytes.is_empty() => return Ok(body),
            Ok(bytes) => body.extend_from_slice(&bytes),
            Err(error) => return Err((body, error)),
        }
    }
}

fn running(cluster: &Cluster) -> usize {
    cluster
        .replication
        .fetches
        .with_running(|running| running.len())
}

#[tokio::test(start_paused = true)]
async fn fifty_readers_share_one_transfer_and_the_copy_is_counted() {
    let cluster = Cluster::new(3, 3, 2);
    let body = noise(3 * MIB + 17, 1);
    let digest = cluster.put(&body, &[TWO, THREE]).await;
    cluster.network.set_round_trip_us(ONE, TWO, 1_000);
    cluster.network.set_round_trip_us(ONE, THREE, 1_000);
    let readers = (0..50).map(|_| async {
        let reader = open(&cluster, &digest, body.len()).await.unwrap();
        assert_eq!(reader.size_bytes(), body.len() as u64);
        read_all(&reader).await.unwrap() == body
    });
    assert!(
        futures::future::join_all(readers)
            .await
            .into_iter()
            .all(|same| same)
    );
    assert_eq!(
        cluster.network.fetches(TWO) + cluster.network.fetches(THREE),
        1
    );
    eventually("the copy counts", async || {
        cluster.holders(&digest).contains(&ONE)
    })
    .await;
    assert!(cluster.has(ONE, &digest).await);
    eventually("the transfer is forgotten", async || running(&cluster) == 0).await;
    // It is protected by its placement now, and by nothing else.
    let kept = cluster
        .blobs_of(ONE)
        .unlink_if_unneeded(&digest, &cluster.log)
        .await
        .unwrap();
    assert_eq!(kept, storage::blob::Unlink::Needed);
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_dies_is_continued_by_another() {
    let cluster = Cluster::new(3, 3, 2);
    let body = noise(2 * MIB, 2);
    let digest = cluster.put(&body, &[TWO, THREE]).await;
    cluster.network.set_round_trip_us(ONE, TWO, 100);
    cluster.network.set_round_trip_us(ONE, THREE, 9_000);
    cluster.network.break_fetches_after(TWO, Some(700_000));
    let reader = open(&cluster, &digest, body.len()).await.unwrap();
    assert_eq!(read_all(&reader).await.unwrap(), body);
    // Nearest first, then the rest from the other.
    assert_eq!(
        (cluster.network.fetches(TWO), cluster.network.fetches(THREE)),
        (1, 1)
    );
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_breaks_again_and_again_still_delivers() {
    let cluster = Cluster::new(2, 2, 1);
    let body = noise(2 * MIB, 3);
    let digest = cluster.put(&body, &[TWO]).await;
    cluster.network.break_fetches_after(TWO, Some(300_000));
    let reader = open(&cluster, &digest, body.len()).await.unwrap();
    assert_eq!(read_all(&reader).await.unwrap(), body);
    assert_eq!(cluster.network.fetches(TWO), 7);
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn a_falsified_blob_is_never_complete_and_its_source_is_asked_last() {
    let cluster = Cluster::new(3, 3, 2);
    let body = noise(MIB, 4);
    let digest = cluster.put(&body, &[TWO, THREE]).await;
    cluster.network.set_round_trip_us(ONE, TWO, 100);
    cluster.network.set_round_trip_us(ONE, THREE, 9_000);
    cluster.network.falsify_fetches(TWO, true);
    let reader = open(&cluster, &digest, body.len()).await.unwrap();
    let (received, error) = read_all(&reader).await.unwrap_err();
    assert!(matches!(error, ReplicationError::NoSource(_)), "{error}");
    assert!(received.len() <= body.len() - CHUNK_BYTES);
    assert!(!cluster.has(ONE, &digest).await);
    assert_eq!(cluster.holders(&digest), [TWO, THREE]);

    let again = open(&cluster, &digest, body.len()).await.unwrap();
    assert_eq!(read_all(&again).await.unwrap(), body);
    assert_eq!(
        (cluster.network.fetches(TWO), cluster.network.fetches(THREE)),
        (1, 1)
    );
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn a_small_falsified_blob_yields_no_byte() {
    let cluster = Cluster::new(2, 2, 1);
    let body = noise(1_000, 5);
    let digest = cluster.put(&body, &[TWO]).await;
    cluster.network.falsify_fetches(TWO, true);
    let reader = open(&cluster, &digest, body.len()).await.unwrap();
    let (received, _) = read_all(&reader).await.unwrap_err();
    assert!(received.is_empty());
    stop(cluster).await;
}

/// The store of the source notices the damage itself and refuses.
#[tokio::test(start_paused = true)]
async fn a_damaged_copy_is_skipped() {
    let cluster = Cluster::new(3, 3, 2);
    let body = noise(MIB, 6);
    let digest = cluster.put(&body, &[TWO, THREE]).await;
    cluster.network.set_round_trip_us(ONE, THREE, 9_000);
    assert!(cluster.blobs_of(TWO).damage(&digest, 600_000));
    let reader = open(&cluster, &digest, body.len()).await.unwrap();
    assert_eq!(read_all(&reader).await.unwrap(), body);
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_source_there_is_an_error_and_the_next_reader_tries_again() {
    let cluster = Cluster::new(3, 3, 2);
    let body = noise(MIB, 7);
    let digest = cluster.put(&body, &[TWO, THREE]).await;
    cluster.network.cut(ONE, TWO);
    cluster.network.cut(ONE, THREE);
    let error = open(&cluster, &digest, body.len()).await.err().unwrap();
    assert!(matches!(error, ReplicationError::NoSource(_)), "{error}");
    cluster.network.heal(ONE, THREE);
    let reader = open(&cluster, &digest, body.len()).await.unwrap();
    assert_eq!(read_all(&reader).await.unwrap(), body);
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn all_sources_dead_in_mid_blob_fail_the_readers() {
    let cluster = Cluster::new(3, 3, 2);
    let body = noise(2 * MIB, 8);
    let digest = cluster.put(&body, &[TWO, THREE]).await;
    cluster.network.break_fetches_after(TWO, Some(800_000));
    cluster.network.hold(THREE);
    let reader = open(&cluster, &digest, body.len()).await.unwrap();
    let first = reader.read_at(0, 1_000).await.unwrap();
    assert_eq!(first, body[..1_000]);
    cluster.network.cut(ONE, TWO);
    let (received, error) = read_all(&reader).await.unwrap_err();
    assert!(matches!(error, ReplicationError::NoSource(_)), "{error}");
    assert_eq!(received, body[..received.len()]);
    stop(cluster).await;
}

/// A holder that accepts and says nothing must not hold readers for ever.
#[tokio::test(start_paused = true)]
async fn a_silent_source_is_left_for_another() {
    let cluster = Cluster::new(3, 3, 2);
    let body = noise(MIB, 9);
    let digest = cluster.put(&body, &[TWO, THREE]).await;
    cluster.network.set_round_trip_us(ONE, THREE, 9_000);
    cluster.network.hold(TWO);
    let reader = open(&cluster, &digest, body.len()).await.unwrap();
    assert_eq!(read_all(&reader).await.unwrap(), body);
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn a_surplus_copy_is_served_for_a_while_and_not_kept() {
    let cluster = Cluster::new(3, 2, 2);
    let body = noise(MIB, 10);
    let digest = cluster.put(&body, &[TWO, THREE]).await;
    let reader = open(&cluster, &digest, body.len()).await.unwrap();
    assert_eq!(read_all(&reader).await.unwrap(), body);
    drop(reader);
    let ttl = cluster.replication.options.unkept_ttl;
    sleep(ttl / 2).await;
    let reader = open(&cluster, &digest, body.len()).await.unwrap();
    assert_eq!(read_all(&reader).await.unwrap(), body);
    let fetches = || cluster.network.fetches(TWO) + cluster.network.fetches(THREE);
    assert_eq!(fetches(), 1);
    drop(reader);
    sleep(ttl * 3).await;
    assert_eq!(running(&cluster), 0);
    assert!(!cluster.has(ONE, &digest).await);
    assert_eq!(cluster.holders(&digest), [TWO, THREE]);
    open(&cluster, &digest, body.len()).await.unwrap();
    assert_eq!(fetches(), 2);
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn a_transfer_nobody_reads_stops_unless_its_copy_is_missing() {
    for copies in [2, 3] {
        let cluster = Cluster::new(3, copies, 2);
        let body = noise(4 * MIB, 11);
        let digest = cluster.put(&body, &[TWO, THREE]).await;
        for peer in [TWO, THREE] {
            cluster.network.set_round_trip_us(ONE, peer, 4_000_000);
        }
        let reader = open(&cluster, &digest, body.len()).await.unwrap();
        assert_eq!(running(&cluster), 1);
        drop(reader);
        eventually("the transfer ends", async || running(&cluster) == 0).await;
        assert_eq!(cluster.has(ONE, &digest).await, copies == 3);
        stop(cluster).await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_blobs_are_served_but_not_kept() {
    let cluster = Cluster::new(3, 3, 2);
    let body = noise(MIB, 12);
    let digest = cluster.put(&body, &[TWO, THREE]).await;
    cluster.log.set_failure(Some(LogError::QuorumLost));
    let reader = open(&cluster, &digest, body.len()).await.unwrap();
    assert_eq!(read_all(&reader).await.unwrap(), body);
    drop(reader);
    eventually("the bytes are discarded", async || running(&cluster) == 0).await;
    assert!(!cluster.has(ONE, &digest).await);
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_drains_serves_what_it_has_not_and_keeps_no_new_copy() {
    let cluster = Cluster::new(3, 3, 2);
    let body = noise(MIB, 16);
    let digest = cluster.put(&body, &[TWO, THREE]).await;
    let drain = metadata::command::SetNodeState {
        node: ONE,
        state: metadata::command::NodeState::Draining,
    };
    let drain = metadata::command::Command::SetNodeState(drain);
    cluster.log.apply(drain).unwrap();
    let reader = open(&cluster, &digest, body.len()).await.unwrap();
    assert_eq!(read_all(&reader).await.unwrap(), body);
    drop(reader);
    eventually("the bytes are discarded", async || running(&cluster) == 0).await;
    assert!(!cluster.has(ONE, &digest).await);
    assert_eq!(cluster.holders(&digest), [TWO, THREE]);
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn a_counted_copy_that_is_gone_is_replaced() {
    let cluster = Cluster::new(3, 2, 1);
    let body = noise(MIB, 13);
    // Node 1 is named as a holder and has nothing.
    let digest = cluster.put(&body, &[TWO]).await;
    add_holder(&cluster, &digest, ONE);
    assert!(!cluster.has(ONE, &digest).await);
    let reader = open(&cluster, &digest, body.len()).await.unwrap();
    assert_eq!(read_all(&reader).await.unwrap(), body);
    eventually("the copy is back", async || cluster.has(ONE, &digest).await).await;
    stop(cluster).await;
}

fn add_holder(cluster: &Cluster, digest: &Digest, node: NodeId) {
    use metadata::command::{AddPlacement, Command, OpenTickets, TicketKind};
    let open = OpenTickets {
        kind: TicketKind::Repair,
        node,
        count: 1,
        ttl_ms: 1_000,
    };
    let opened = cluster.log.apply(Command::OpenTickets(open)).unwrap();
    let ticket = metadata::ids::TicketId::new(opened.index, 0);
    let placement = AddPlacement {
        ticket,
        node,
        digest: *digest,
    };
    cluster.log.apply(Command::AddPlacement(placement)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_empty_blob_is_fetched_like_any_other() {
    let cluster = Cluster::new(2, 2, 1);
    let digest = cluster.put(&Bytes::new(), &[TWO]).await;
    let reader = open(&cluster, &digest, 0).await.unwrap();
    assert_eq!(read_all(&reader).await.unwrap(), b"");
    eventually("the copy counts", async || cluster.has(ONE, &digest).await).await;
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn a_holder_with_another_size_is_no_source() {
    let cluster = Cluster::new(2, 2, 1);
    let body = noise(1_000, 14);
    let digest = cluster.put(&body, &[TWO]).await;
    let error = open(&cluster, &digest, 999).await.err().unwrap();
    assert!(matches!(error, ReplicationError::NoSource(_)), "{error}");
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_transfers_and_tells_their_readers() {
    let cluster = Cluster::new(3, 3, 1);
    let body = noise(2 * MIB, 15);
    let digest = cluster.put(&body, &[TWO]).await;
    cluster.network.set_round_trip_us(ONE, TWO, 2_000_000);
    let reader = open(&cluster, &digest, body.len()).await.unwrap();
    stop(cluster).await;
    let (_, error) = read_all(&reader).await.unwrap_err();
    assert!(matches!(error, ReplicationError::ShuttingDown), "{error}");
}

#[test]
fn only_names_of_earlier_boots_are_leftovers() {
    let fetches = Fetches::new(1);
    assert!(!fetches.is_leftover(&fetches.staged_name()));
    assert!(fetches.is_leftover(&Fetches::new(1).staged_name()));
    assert!(!fetches.is_leftover("push-00"));
}

#[test]
fn a_full_disk_is_told_apart() {
    let digest = crate::testing::sha256(b"");
    let error = Failure::NoSpace.into_error(digest);
    assert!(matches!(error, ReplicationError::Local(BlobError::NoSpace)));
}

#[tokio::test(start_paused = true)]
async fn a_missing_copy_is_counted_when_it_is_said_to_be_made() {
    let options = ReplicationOptions {
        repair_bytes_per_second: MIB as u64 / 4,
        ..ReplicationOptions::default()
    };
    let cluster = Cluster::with_options(3, 3, 2, options);
    let body = noise(MIB, 9);
    let digest = cluster.put(&body, &[TWO, THREE]).await;
    let start = tokio::time::Instant::now();
    copy_here(&cluster, &digest, body.len()).await;
    assert!(cluster.holders(&digest).contains(&ONE));
    assert!(
        start.elapsed() >= std::time::Duration::from_secs(3),
        "in simulated time, it kept to its pace"
    );
    stop(cluster).await;
}

async fn copy_here(cluster: &Cluster, digest: &Digest, size_bytes: usize) {
    let holders = cluster.holders(digest);
    let copied = cluster
        .replication
        .copy_here(digest, size_bytes as u64, holders)
        .await;
    copied.unwrap();
}

#[tokio::test(start_paused = true)]
async fn copies_stand_back_for_clients_of_either_end() {
    const SIZE: usize = 960 * 1024;
    let options = ReplicationOptions {
        repair_busy_bytes_per_second: MIB as u64 / 4,
        ..ReplicationOptions::default()
    };
    let cluster = Cluster::with_options(3, 3, 1, options);
    let mut seed = 90;
    let mut seconds_to_copy = async |holder| {
        seed += 1;
        let digest = cluster.put(&noise(SIZE, seed), &[holder]).await;
        let start = tokio::time::Instant::now();
        copy_here(&cluster, &digest, SIZE).await;
        start.elapsed().as_secs()
    };
    assert_eq!(seconds_to_copy(TWO).await, 0, "nobody is in its way");
    cluster.network.serve_clients(THREE, true);
    assert_eq!(seconds_to_copy(TWO).await, 0, "not its clients");
    // 64 KiB for the start come on top; the turn of the last piece is not waited for.
    assert!(seconds_to_copy(THREE).await >= 2, "those of the source");
    cluster.network.serve_clients(THREE, false);
    cluster.network.serve_clients(ONE, true);
    assert!(seconds_to_copy(TWO).await >= 2, "those of this node");
    stop(cluster).await;
}
