mod leaving;

use std::time::Duration;

use super::*;
use crate::ReplicationOptions;
use crate::testing::{Cluster, ONE, THREE, TWO, eventually, noise, sha256, staged, stop};
use bytes::Bytes;
use metadata::command::{Command, NodeState, SetNodeState};
use storage::blob::BlobStore;

const MIB: usize = 1024 * 1024;

fn end_of(cluster: &Cluster, body: &Bytes) -> PushEnd {
    PushEnd {
        digest: sha256(body),
        size_bytes: body.len() as u64,
        ticket: cluster.open_ticket(),
    }
}

fn start(cluster: &Cluster, source: StagedReader) -> Spread {
    cluster
        .replication
        .start_spread(source, Algorithm::Sha256, b"upload 1")
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_single_node_copies_to_nobody() {
    let cluster = Cluster::new(1, 1, 1);
    let body = noise(MIB, 1);
    let staged = staged(&cluster, &body).await;
    let mut spread = start(&cluster, staged.reader());
    let copies = spread.finish(end_of(&cluster, &body)).await.unwrap();
    assert_eq!((copies.holders, copies.counts_own), (vec![], true));
    spread.stragglers(None);
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn bytes_flow_while_they_arrive_and_every_peer_stores_them() {
    let cluster = Cluster::new(3, 3, 2);
    let body = noise(2 * MIB, 2);
    let mut staged = staged(&cluster, &body.slice(..MIB)).await;
    let mut spread = start(&cluster, staged.reader());
    eventually("pushes began before the end", async || {
        cluster.network.pushes(TWO) == 1 && cluster.network.pushes(THREE) == 1
    })
    .await;
    staged.append(body.slice(MIB..)).await.unwrap();
    let copies = spread.finish(end_of(&cluster, &body)).await.unwrap();
    assert_eq!(
        copies,
        Copies {
            holders: vec![TWO, THREE],
            counts_own: true,
            stragglers: 0
        }
    );
    for node in [TWO, THREE] {
        let reader = cluster
            .blobs_of(node)
            .open(&sha256(&body))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(reader.size_bytes(), body.len() as u64);
    }
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn small_blobs_wait_for_their_digest() {
    let cluster = Cluster::new(3, 3, 2);
    let body = noise(64 * 1024, 3);
    let staged = staged(&cluster, &body).await;
    let mut spread = start(&cluster, staged.reader());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.network.pushes(TWO), 0);
    let copies = spread.finish(end_of(&cluster, &body)).await.unwrap();
    assert_eq!(copies.holders, [TWO, THREE]);

    let other = noise(1_000, 4);
    let mut spread = cluster
        .replication
        .spread_small(other.clone(), b"2")
        .unwrap();
    let copies = spread.finish(end_of(&cluster, &other)).await.unwrap();
    assert_eq!(copies.holders, [TWO, THREE]);
    assert!(cluster.has(THREE, &sha256(&other)).await);
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn w_copies_are_enough_with_one_peer_dead() {
    let cluster = Cluster::new(3, 3, 2);
    cluster.network.cut(ONE, THREE);
    let body = noise(MIB, 5);
    let staged = staged(&cluster, &body).await;
    let mut spread = start(&cluster, staged.reader());
    let copies = spread.finish(end_of(&cluster, &body)).await.unwrap();
    assert_eq!(
        copies,
        Copies {
            holders: vec![TWO],
            counts_own: true,
            stragglers: 0
        }
    );
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn too_few_copies_are_an_error_that_can_be_retried() {
    let cluster = Cluster::new(3, 3, 2);
    cluster.network.cut(ONE, TWO);
    cluster.network.cut(ONE, THREE);
    let body = noise(MIB, 6);
    let staged = staged(&cluster, &body).await;
    let mut spread = start(&cluster, staged.reader());
    let end = end_of(&cluster, &body);
    let error = spread.finish(end).await.unwrap_err();
    assert!(
        matches!(
            error,
            ReplicationError::TooFewCopies {
                reached: 1,
                wanted: 2
            }
        ),
        "{error}"
    );
    cluster.network.heal(ONE, THREE);
    let copies = spread.finish(end).await.unwrap();
    assert_eq!(copies.holders, [THREE]);
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_peer_is_replaced_by_another_node() {
    let cluster = Cluster::new(5, 3, 3);
    let body = noise(2 * MIB, 7);
    let mut staged = staged(&cluster, &body.slice(..MIB)).await;
    let mut spread = start(&cluster, staged.reader());
    let others = [NodeId(2), NodeId(3), NodeId(4), NodeId(5)];
    let pushed = || {
        others
            .into_iter()
            .filter(|&node| cluster.network.pushes(node) > 0)
    };
    eventually("two peers were chosen", async || pushed().count() == 2).await;
    let failed = pushed().next().unwrap();
    cluster.network.cut(ONE, failed);
    staged.append(body.slice(MIB..)).await.unwrap();
    let copies = spread.finish(end_of(&cluster, &body)).await.unwrap();
    assert_eq!(copies.holders.len(), 2);
    assert!(!copies.holders.contains(&failed));
    assert_eq!(pushed().count(), 3);
    assert!(!cluster.has(failed, &sha256(&body)).await);
    stop(cluster).await;
}

/// A peer that hangs breaks no connection and reports no error.
#[tokio::test(start_paused = true)]
async fn a_peer_that_hangs_is_replaced_by_another_node() {
    let cluster = Cluster::new(5, 3, 3);
    let others = [NodeId(2), NodeId(3), NodeId(4), NodeId(5)];
    let hanging = placement_of(&others)[0];
    cluster.network.hold(hanging);
    let body = noise(2 * MIB, 30);
    let staged = staged(&cluster, &body).await;
    let mut spread = start(&cluster, staged.reader());
    let started = tokio::time::Instant::now();
    let copies = spread.finish(end_of(&cluster, &body)).await.unwrap();
    assert_eq!(copies.holders.len(), 2);
    assert!(!copies.holders.contains(&hanging));
    assert!(started.elapsed() < Duration::from_secs(6));

    let small = noise(1_000, 31);
    let mut spread = cluster
        .replication
        .spread_small(small.clone(), b"upload 1")
        .unwrap();
    let copies = spread.finish(end_of(&cluster, &small)).await.unwrap();
    assert!(copies.holders.len() == 2 && !copies.holders.contains(&hanging));
    stop(cluster).await;
}

/// Slow is not late: no spare copy is made while a peer takes bytes.
#[tokio::test(start_paused = true)]
async fn a_peer_that_is_slow_is_waited_for() {
    let cluster = Cluster::new(4, 3, 3);
    let order = placement_of(&[NodeId(2), NodeId(3), NodeId(4)]);
    // A chunk of 256 KiB every 0.8 s.
    cluster.network.set_round_trip_us(ONE, order[0], 1_600_000);
    let body = noise(4 * MIB, 32);
    let staged = staged(&cluster, &body).await;
    let mut spread = start(&cluster, staged.reader());
    let started = tokio::time::Instant::now();
    let copies = spread.finish(end_of(&cluster, &body)).await.unwrap();
    assert!(started.elapsed() > Duration::from_secs(10));
    assert!(copies.holders.contains(&order[0]) && copies.holders.contains(&order[1]));
    assert_eq!(cluster.network.pushes(order[2]), 0);
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn a_straggler_is_pinned_and_counted_later() {
    let cluster = Cluster::new(3, 3, 2);
    cluster.network.hold(THREE);
    let body = noise(MIB, 8);
    let staged = staged(&cluster, &body).await;
    let mut spread = start(&cluster, staged.reader());
    let end = end_of(&cluster, &body);
    let copies = spread.finish(end).await.unwrap();
    assert_eq!(
        copies,
        Copies {
            holders: vec![TWO],
            counts_own: true,
            stragglers: 1
        }
    );
    let repair = cluster.commit_blob(end, &[ONE, TWO], 1).unwrap();
    spread.stragglers(Some(repair));
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(cluster.holders(&end.digest), [ONE, TWO]);
    assert!(!cluster.is_closed(repair));
    cluster.network.release(THREE);
    eventually("the straggler counts", async || {
        cluster.holders(&end.digest).len() == 3
    })
    .await;
    assert!(cluster.has(THREE, &end.digest).await);
    assert_eq!(*cluster.pins.lock().unwrap(), [(THREE, repair)]);
    eventually("the ticket is closed", async || cluster.is_closed(repair)).await;
    stop(cluster).await;
}

/// The copy was durable before the commit, but the commit did not name it: its pin is of a closed ticket.
#[tokio::test(start_paused = true)]
async fn a_copy_that_the_commit_missed_is_pinned_again() {
    let options = ReplicationOptions {
        linger: Duration::ZERO,
        ..ReplicationOptions::default()
    };
    let cluster = Cluster::with_options(3, 3, 2, options);
    cluster.network.hold(THREE);
    let body = noise(MIB, 9);
    let staged = staged(&cluster, &body).await;
    let mut spread = start(&cluster, staged.reader());
    let end = end_of(&cluster, &body);
    let copies = spread.finish(end).await.unwrap();
    assert_eq!(copies.holders, [TWO]);
    cluster.network.release(THREE);
    eventually("the copy is durable", async || {
        cluster.has(THREE, &end.digest).await
    })
    .await;
    let repair = cluster.commit_blob(end, &[ONE, TWO], 1).unwrap();
    spread.stragglers(Some(repair));
    eventually("it counts", async || {
        cluster.holders(&end.digest).len() == 3
    })
    .await;
    assert_eq!(*cluster.pins.lock().unwrap(), [(THREE, repair)]);
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn late_copies_beyond_their_memory_are_left_to_repair() {
    let options = ReplicationOptions {
        straggler_memory_bytes: 100_000,
        ..ReplicationOptions::default()
    };
    let cluster = Cluster::with_options(3, 3, 2, options);
    cluster.network.hold(THREE);
    let push = async |body: Bytes| {
        let end = end_of(&cluster, &body);
        let mut spread = cluster.replication.spread_small(body, b"key").unwrap();
        let copies = spread.finish(end).await.unwrap();
        assert_eq!((copies.holders, copies.stragglers), (vec![TWO], 1));
        let repair = cluster.commit_blob(end, &[ONE, TWO], 1).unwrap();
        spread.stragglers(Some(repair));
        tokio::time::sleep(Duration::from_secs(1)).await;
        (end.digest, repair)
    };
    let (kept, kept_ticket) = push(noise(60_000, 20)).await;
    let (left, left_ticket) = push(noise(40_001, 21)).await;
    let (last, last_ticket) = push(noise(40_000, 22)).await;
    assert!(cluster.is_closed(left_ticket));
    assert!(!cluster.is_closed(kept_ticket) && !cluster.is_closed(last_ticket));
    cluster.network.release(THREE);
    eventually("those within the memory count", async || {
        cluster.holders(&kept).len() == 3 && cluster.holders(&last).len() == 3
    })
    .await;
    assert_eq!(cluster.holders(&left), [ONE, TWO]);
    let again = push_after(&cluster).await;
    assert_eq!(cluster.holders(&again), [ONE, TWO, THREE]);
    stop(cluster).await;
}

/// What was given up for want of memory must not start again when the counting of another copy fails.
#[tokio::test(start_paused = true)]
async fn copies_that_were_left_to_repair_stay_left() {
    let options = ReplicationOptions {
        linger: Duration::ZERO,
        straggler_memory_bytes: 0,
        ..ReplicationOptions::default()
    };
    let cluster = Cluster::with_options(4, 3, 2, options);
    let order = placement_of(&[NodeId(2), NodeId(3), NodeId(4)]);
    cluster.network.hold(order[1]);
    let body = noise(MIB, 33);
    let staged = staged(&cluster, &body).await;
    let mut spread = start(&cluster, staged.reader());
    let end = end_of(&cluster, &body);
    let copies = spread.finish(end).await.unwrap();
    assert_eq!(copies.holders, order[..1]);
    cluster.network.release(order[1]);
    eventually("the copy is durable", async || {
        cluster.has(order[1], &end.digest).await
    })
    .await;
    let repair = cluster.commit_blob(end, &[ONE, order[0]], 1).unwrap();
    cluster.network.cut(ONE, order[1]);
    spread.stragglers(Some(repair));
    eventually("the ticket is closed", async || cluster.is_closed(repair)).await;
    assert_eq!(cluster.network.pushes(order[2]), 0);
    stop(cluster).await;
}

/// A blob whose third copy is late, with the memory of earlier ones given back.
async fn push_after(cluster: &Cluster) -> oci::Digest {
    cluster.network.hold(THREE);
    let body = noise(100_000, 23);
    let end = end_of(cluster, &body);
    let mut spread = cluster.replication.spread_small(body, b"key").unwrap();
    spread.finish(end).await.unwrap();
    let repair = cluster.commit_blob(end, &[ONE, TWO], 1).unwrap();
    spread.stragglers(Some(repair));
    cluster.network.release(THREE);
    eventually("the ticket is closed", async || cluster.is_closed(repair)).await;
    end.digest
}

#[tokio::test(start_paused = true)]
async fn a_straggler_that_dies_is_replaced_under_the_same_ticket() {
    let cluster = Cluster::new(4, 3, 2);
    let body = noise(MIB, 10);
    let staged = staged(&cluster, &body).await;
    let all = [NodeId(2), NodeId(3), NodeId(4)];
    let spare = *placement_of(&all).last().unwrap();
    let slow = placement_of(&all)[1];
    cluster.network.hold(slow);
    let mut spread = start(&cluster, staged.reader());
    let end = end_of(&cluster, &body);
    let copies = spread.finish(end).await.unwrap();
    assert_eq!(copies.stragglers, 1);
    let mut holders = copies.holders.clone();
    holders.push(ONE);
    let repair = cluster.commit_blob(end, &holders, 1).unwrap();
    spread.stragglers(Some(repair));
    cluster.network.cut(ONE, slow);
    eventually("the spare node counts", async || {
        cluster.holders(&end.digest).contains(&spare)
    })
    .await;
    assert_eq!(cluster.holders(&end.digest).len(), 3);
    eventually("the ticket is closed", async || cluster.is_closed(repair)).await;
    stop(cluster).await;
}

/// It was up when it was chosen, and gets no copy any more.
#[tokio::test(start_paused = true)]
async fn a_straggler_that_drains_meanwhile_is_replaced_under_the_same_ticket() {
    let cluster = Cluster::new(4, 3, 2);
    let body = noise(MIB, 34);
    let staged = staged(&cluster, &body).await;
    let order = placement_of(&[NodeId(2), NodeId(3), NodeId(4)]);
    let (slow, spare) = (order[1], order[2]);
    cluster.network.hold(slow);
    let mut spread = start(&cluster, staged.reader());
    let end = end_of(&cluster, &body);
    let copies = spread.finish(end).await.unwrap();
    assert_eq!((copies.holders, copies.stragglers), (vec![order[0]], 1));
    let repair = cluster.commit_blob(end, &[ONE, order[0]], 1).unwrap();
    let drain = SetNodeState {
        node: slow,
        state: NodeState::Draining,
    };
    cluster.log.apply(Command::SetNodeState(drain)).unwrap();
    spread.stragglers(Some(repair));
    cluster.network.release(slow);
    eventually("the ticket is closed", async || cluster.is_closed(repair)).await;
    let mut expected = vec![ONE, order[0], spare];
    expected.sort_unstable();
    assert_eq!(cluster.holders(&end.digest), expected);
    stop(cluster).await;
}

fn placement_of(nodes: &[NodeId]) -> Vec<NodeId> {
    crate::placement::order(b"upload 1", nodes)
}

#[tokio::test(start_paused = true)]
async fn a_straggler_that_never_comes_is_given_up_and_its_ticket_closed() {
    let cluster = Cluster::new(3, 3, 2);
    cluster.network.hold(THREE);
    let body = noise(MIB, 11);
    let staged = staged(&cluster, &body).await;
    let mut spread = start(&cluster, staged.reader());
    let end = end_of(&cluster, &body);
    spread.finish(end).await.unwrap();
    let repair = cluster.commit_blob(end, &[ONE, TWO], 1).unwrap();
    spread.stragglers(Some(repair));
    tokio::time::sleep(ReplicationOptions::default().straggler_timeout / 2).await;
    assert!(!cluster.is_closed(repair));
    eventually("the ticket is closed", async || cluster.is_closed(repair)).await;
    assert_eq!(cluster.holders(&end.digest), [ONE, TWO]);
    stop(cluster).await;
}

/// A node that refuses is tried a bounded number of times.
#[tokio::test(start_paused = true)]
async fn a_failing_straggler_is_tried_a_few_times_only() {
    let cluster = Cluster::new(3, 3, 2);
    cluster.network.hold(THREE);
    let body = noise(MIB, 12);
    let staged = staged(&cluster, &body).await;
    let mut spread = start(&cluster, staged.reader());
    let end = end_of(&cluster, &body);
    spread.finish(end).await.unwrap();
    let repair = cluster.commit_blob(end, &[ONE, TWO], 1).unwrap();
    cluster.network.refuse_pushes(THREE, true);
    cluster.network.release(THREE);
    spread.stragglers(Some(repair));
    eventually("the ticket is closed", async || cluster.is_closed(repair)).await;
    let attempts = u64::from(ReplicationOptions::default().peer_attempts);
    assert_eq!(cluster.network.pushes(THREE), attempts);
    stop(cluster).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_a_spread_abandons_its_copies() {
    let cluster = Cluster::new(3, 3, 2);
    let body = noise(MIB, 13);
    let staged = staged(&cluster, &body).await;
    let spread = start(&cluster, staged.reader());
    eventually("pushes began", async || cluster.network.pushes(TWO) == 1).await;
    drop(spread);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!cluster.has(TWO, &sha256(&body)).await);
    // Nothing is left that could keep the door open.
    stop(cluster).await;
}
