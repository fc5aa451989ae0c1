//! Copies that are lost, damaged, misplaced or too many.

use std::time::Duration;

use bytes::Bytes;
use metadata::command::{Command, NodeState, ReportLost, SetNodeState};
use metadata::ids::NodeId;
use metadata::key::{self, Table};
use oci::Digest;

use super::fixture::*;
use crate::{HealOptions, RegistryOptions};

fn quick() -> RegistryOptions {
    RegistryOptions {
        heal: HealOptions {
            repair_interval: Duration::from_millis(50),
            check_interval: Duration::from_secs(3600),
            ..HealOptions::default()
        },
        ..RegistryOptions::default()
    }
}

fn blob_of(size: usize) -> (Bytes, Digest) {
    let blob = pattern(size, 1);
    let digest = sha256(&blob);
    (blob, digest)
}

fn files_of(cluster: &Cluster, node: u64) -> Vec<std::path::PathBuf> {
    cluster.blob_files(NodeId(node))
}

#[tokio::test]
async fn a_lost_copy_is_made_again() {
    let cluster = Cluster::on_disk_with(3, 3, 2, quick());
    let (blob, digest) = blob_of(5 * SMALL_BYTES);
    push(cluster.registry(1), &repository(), &blob)
        .await
        .unwrap();
    eventually("three copies", || async {
        cluster.holders(&digest) == [1, 2, 3]
    })
    .await;
    for path in files_of(&cluster, 2) {
        std::fs::remove_file(path).unwrap();
    }
    let got = read(cluster.registry(2), &repository(), &digest)
        .await
        .unwrap();
    assert_eq!(got, blob, "the reader gets it from another node");
    eventually("the copy is back", || async {
        cluster.holders(&digest) == [1, 2, 3] && files_of(&cluster, 2).len() == 1
    })
    .await;
    let status = cluster.registry(2).repair_status().await.unwrap();
    assert_eq!((status.counts.reported_lost, status.counts.failed), (1, 0));
}

#[tokio::test]
async fn the_check_finds_what_nobody_reads() {
    let cluster = Cluster::on_disk_with(3, 3, 2, quick());
    let (blob, digest) = blob_of(5 * SMALL_BYTES);
    push(cluster.registry(1), &repository(), &blob)
        .await
        .unwrap();
    eventually("three copies", || async {
        cluster.holders(&digest) == [1, 2, 3]
    })
    .await;
    let path = files_of(&cluster, 3).remove(0);
    std::fs::write(&path, &blob[..100]).unwrap();
    cluster.registry(3).check_copies().await;
    eventually("the copy is whole", || async {
        std::fs::read(&path).is_ok_and(|bytes| bytes == blob)
            && cluster.holders(&digest) == [1, 2, 3]
    })
    .await;
    let scrub = cluster.registry(3).scrub_status().await.unwrap();
    assert_eq!(scrub.quarantine.files, 1, "the damaged bytes are kept");
}

#[tokio::test]
async fn the_scrub_finds_flipped_bits_and_the_last_copy_stays() {
    let cluster = Cluster::on_disk_with(2, 2, 2, quick());
    let (blob, digest) = blob_of(6 * 256 * 1024);
    push(cluster.registry(1), &repository(), &blob)
        .await
        .unwrap();
    cluster.damage_files(NodeId(1));
    cluster.registry(1).start_scrub();
    eventually("the damage is found and repaired", || async {
        let status = cluster.registry(1).scrub_status().await.unwrap();
        let path = files_of(&cluster, 1).into_iter().find(|path| {
            !path
                .components()
                .any(|part| part.as_os_str() == "quarantine")
        });
        status.counts.quarantined == 1
            && cluster.holders(&digest) == [1, 2]
            && path.is_some_and(|path| std::fs::read(path).is_ok_and(|bytes| bytes == blob))
    })
    .await;

    // All copies, while no good bytes can be had: the last one stays where it is, counted, and an operator is told.
    cluster.network.cut(NodeId(1), NodeId(2));
    cluster.damage_files(NodeId(1));
    cluster.registry(1).start_scrub();
    eventually("the first is reported lost", || async {
        cluster.holders(&digest) == [2]
    })
    .await;
    cluster.damage_files(NodeId(2));
    cluster.registry(2).start_scrub();
    eventually("the last is listed", || async {
        let status = cluster.registry(2).scrub_status().await.unwrap();
        status.unrecoverable == [digest]
    })
    .await;
    assert_eq!(cluster.holders(&digest), [2]);
    assert_eq!(files_of(&cluster, 2).len(), 1);
    let start = read_range(cluster.registry(2), &repository(), &digest, 0, 1000).await;
    assert_eq!(start.unwrap(), blob.slice(..1000), "good chunks are served");
}

#[tokio::test]
async fn a_corrupt_or_dying_source_is_replaced_by_another() {
    let cluster = Cluster::on_disk_with(3, 3, 3, quick());
    let (blob, digest) = blob_of(6 * 256 * 1024);
    push(cluster.registry(1), &repository(), &blob)
        .await
        .unwrap();
    for fault in [true, false] {
        cluster.network.set_round_trip_us(NodeId(3), NodeId(1), 10);
        cluster
            .network
            .set_round_trip_us(NodeId(3), NodeId(2), 5_000);
        match fault {
            true => cluster.network.falsify_fetches(NodeId(1), true),
            false => cluster
                .network
                .break_fetches_after(NodeId(1), Some(100_000)),
        }
        for path in files_of(&cluster, 3) {
            std::fs::remove_file(path).unwrap();
        }
        cluster.registry(3).check_copies().await;
        eventually("a whole copy is counted", || async {
            cluster.holders(&digest) == [1, 2, 3]
                && files_of(&cluster, 3)
                    .iter()
                    .any(|path| std::fs::read(path).is_ok_and(|bytes| bytes == blob))
        })
        .await;
        cluster.network.falsify_fetches(NodeId(1), false);
        cluster.network.break_fetches_after(NodeId(1), None);
    }
}

#[tokio::test]
async fn copies_of_a_down_node_are_made_elsewhere_and_trimmed_when_it_returns() {
    let mut options = quick();
    options.heal.trim_delay_ms = 60_000;
    let cluster = Cluster::with_options(4, 3, 2, options);
    let (blob, digest) = blob_of(5 * SMALL_BYTES);
    push(cluster.registry(1), &repository(), &blob)
        .await
        .unwrap();
    eventually("three copies", || async {
        cluster.holders(&digest).len() == 3
    })
    .await;
    let lost = NodeId(*cluster.holders(&digest).last().unwrap());
    let set = |state| {
        let change = SetNodeState { node: lost, state };
        cluster.log.apply(Command::SetNodeState(change)).unwrap();
    };
    // A short absence changes nothing: no node fetches anything.
    let fetches = || {
        (1..=4)
            .map(|node| cluster.network.fetches(NodeId(node)))
            .sum::<u64>()
    };
    let before = fetches();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(fetches(), before);
    set(NodeState::Down);
    eventually("a fourth copy", || async {
        cluster.holders(&digest).len() == 4
    })
    .await;
    set(NodeState::Up);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(cluster.holders(&digest).len(), 4, "not before the delay");
    cluster.log.advance_ms(60_001).unwrap();
    eventually("the surplus copy is dropped", || async {
        cluster.holders(&digest).len() == 3
    })
    .await;
}

#[tokio::test]
async fn a_copy_that_is_here_is_counted_without_a_transfer() {
    let cluster = Cluster::on_disk_with(3, 3, 2, quick());
    let (blob, digest) = blob_of(5 * SMALL_BYTES);
    push(cluster.registry(1), &repository(), &blob)
        .await
        .unwrap();
    eventually("three copies", || async {
        cluster.holders(&digest) == [1, 2, 3]
    })
    .await;
    let lost = ReportLost {
        node: NodeId(2),
        digest,
        is_gone: false,
    };
    cluster.log.apply(Command::ReportLost(lost)).unwrap();
    eventually("it counts again", || async {
        cluster.holders(&digest) == [1, 2, 3]
    })
    .await;
    let fetches: u64 = (1..=3)
        .map(|node| cluster.network.fetches(NodeId(node)))
        .sum();
    assert_eq!(fetches, 0);
}

#[tokio::test]
async fn a_scrub_goes_on_where_a_restart_cut_it_off() {
    let mut cluster = Cluster::on_disk_with(1, 1, 1, quick());
    let mut digests = Vec::new();
    for seed in 1..=40 {
        let blob = pattern(2 * SMALL_BYTES, seed);
        push(cluster.registry(1), &repository(), &blob)
            .await
            .unwrap();
        digests.push(sha256(&blob));
    }
    digests.sort();
    let half = storage::blob::ScrubProgress {
        pass: 3,
        started_at_ms: 1,
        after: Some(digests[29]),
        blobs: 30,
        ..storage::blob::ScrubProgress::default()
    };
    cluster.nodes[0]
        .blobs
        .save_scrub_progress(&half)
        .await
        .unwrap();
    let stopped = cluster.nodes.remove(0);
    let waited = stopped
        .shutdown
        .close_and_wait(Duration::from_secs(5))
        .await;
    waited.unwrap();
    drop((stopped.registry, stopped.blobs));
    cluster.network = replication::memory::MemoryNetwork::new();
    let blobs = cluster.open_directory(NodeId(1));
    cluster.start(NodeId(1), blobs);
    eventually("the pass ends with what was left", || async {
        let progress = cluster.registry(1).scrub_status().await.unwrap().progress;
        progress.is_some_and(|progress| {
            (progress.pass, progress.blobs) == (3, 40) && progress.ended_at_ms > 0
        })
    })
    .await;
}

#[tokio::test]
async fn of_the_last_two_copies_damaged_at_once_one_stays_until_there_is_a_good_one() {
    let mut cluster = Cluster::on_disk_with(0, 2, 2, quick());
    cluster.log = metadata::memory::MemoryLog::with_nodes(&[1, 2].map(NodeId), 2, 2).unwrap();
    let blobs = cluster.open_directory(NodeId(1));
    cluster.start(NodeId(1), blobs);
    let lagging = LaggingLog::new(cluster.log.on_node(NodeId(2)));
    let blobs = cluster.open_directory(NodeId(2));
    let node = cluster.assemble(NodeId(2), lagging.clone(), blobs);
    cluster.nodes.push(node);
    let (blob, digest) = blob_of(6 * 256 * 1024);
    push(cluster.registry(1), &repository(), &blob)
        .await
        .unwrap();
    for node in [1, 2] {
        cluster.damage_files(NodeId(node));
    }
    // The second does not know yet what the first has reported: as far as either can see, the other copy is good.
    lagging.freeze();
    for node in [1, 2] {
        cluster
            .registry(node)
            .suspect_copy(digest)
            .unwrap()
            .await
            .unwrap();
    }
    assert_eq!(cluster.holders(&digest), [2]);
    let status = cluster.registry(2).scrub_status().await.unwrap();
    assert_eq!(status.unrecoverable, [digest]);
    assert_eq!(
        (status.quarantine.files, status.counts.reported_lost),
        (0, 0)
    );
    assert_eq!(files_of(&cluster, 2).len(), 1);
    for node in [1, 2] {
        let start = read_range(cluster.registry(node), &repository(), &digest, 0, 1000).await;
        assert_eq!(start.unwrap(), blob.slice(..1000), "good chunks are served");
    }
    push(cluster.registry(1), &repository(), &blob)
        .await
        .unwrap();
    eventually("both copies are good and nothing is listed", || async {
        let is_whole = |node| {
            files_of(&cluster, node)
                .iter()
                .any(|path| std::fs::read(path).is_ok_and(|bytes| bytes == blob))
        };
        let status = cluster.registry(2).scrub_status().await.unwrap();
        cluster.holders(&digest) == [1, 2]
            && is_whole(1)
            && is_whole(2)
            && status.unrecoverable.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_push_mends_the_only_copy_where_it_lies() {
    let cluster = Cluster::on_disk_with(1, 1, 1, quick());
    let (blob, digest) = blob_of(6 * 256 * 1024);
    let registry = cluster.registry(1);
    push(registry, &repository(), &blob).await.unwrap();
    cluster.damage_files(NodeId(1));
    registry.suspect_copy(digest).unwrap().await.unwrap();
    let listed = || async { registry.scrub_status().await.unwrap().unrecoverable };
    assert_eq!(listed().await, [digest]);
    push(registry, &repository(), &blob).await.unwrap();
    assert_eq!(
        read(registry, &repository(), &digest).await.unwrap(),
        blob,
        "the bytes are good again"
    );
    assert!(listed().await.is_empty());
    assert_eq!(cluster.holders(&digest), [1]);
}

#[tokio::test]
async fn a_node_that_drains_drops_what_has_moved_and_nothing_else() {
    let cluster = Cluster::on_disk_with(4, 3, 2, quick());
    let (blob, digest) = blob_of(5 * SMALL_BYTES);
    push(cluster.registry(1), &repository(), &blob)
        .await
        .unwrap();
    eventually("three copies", || async {
        cluster.holders(&digest).len() == 3
    })
    .await;
    let holders = cluster.holders(&digest);
    let other = (1..=4).find(|node| !holders.contains(node)).unwrap();
    for held in &holders {
        cluster.network.cut(NodeId(*held), NodeId(other));
    }
    let drained = NodeId(holders[0]);
    let set = |state| {
        let node = drained;
        let change = SetNodeState { node, state };
        cluster.log.apply(Command::SetNodeState(change)).unwrap();
    };
    set(NodeState::Draining);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(cluster.holders(&digest), holders, "it has moved nowhere");
    for held in &holders {
        cluster.network.heal(NodeId(*held), NodeId(other));
    }
    eventually("it is elsewhere, and here no more", || async {
        let now = cluster.holders(&digest);
        now.len() == 3 && !now.contains(&drained.0) && files_of(&cluster, drained.0).is_empty()
    })
    .await;
    assert_eq!(
        read(cluster.registry(drained.0), &repository(), &digest)
            .await
            .unwrap(),
        blob
    );
}

#[tokio::test]
async fn a_file_that_no_record_knows_is_counted_instead_of_copied() {
    let mut options = quick();
    options.gc.interval = Duration::from_millis(10);
    options.gc.walk_interval = Duration::from_millis(50);
    let cluster = Cluster::on_disk_with(2, 2, 1, options);
    cluster.network.cut(NodeId(1), NodeId(2));
    let (blob, digest) = blob_of(5 * SMALL_BYTES);
    push(cluster.registry(1), &repository(), &blob)
        .await
        .unwrap();
    assert_eq!(cluster.holders(&digest), [1]);
    let set = |state| {
        let node = NodeId(2);
        let change = SetNodeState { node, state };
        cluster.log.apply(Command::SetNodeState(change)).unwrap();
    };
    set(NodeState::Down);
    let from = files_of(&cluster, 1).remove(0);
    let root = cluster.root();
    let to = root
        .join("2")
        .join(from.strip_prefix(root.join("1")).unwrap());
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(from, &to).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(cluster.holders(&digest), [1], "the node is down");
    assert!(to.exists(), "it waits for the node");
    set(NodeState::Up);
    eventually("it is counted", || async {
        cluster.holders(&digest) == [1, 2]
    })
    .await;
    assert_eq!(
        read(cluster.registry(2), &repository(), &digest)
            .await
            .unwrap(),
        blob
    );
}

#[tokio::test]
async fn a_damaged_manifest_is_found_named_and_alarms() {
    let cluster = Cluster::on_disk_with(1, 1, 1, quick());
    let registry = cluster.registry(1);
    let manifest = push_image(registry, &repository(), "v1", 1).await;
    let (key, mut body) = cluster.first_record(&key::table(Table::ManifestBody));
    body[0] ^= 1;
    cluster.log.damage(key, Some(body));
    assert_eq!(registry.alarm(), None, "nobody has looked yet");
    registry.start_scrub();
    eventually("it is named", || async {
        let status = registry.scrub_status().await.unwrap();
        status.damaged_manifests == [sha256(&manifest)]
    })
    .await;
    let alarm = registry.alarm().unwrap();
    assert!(alarm.contains("1 manifests"), "{alarm}");
}
