//! When the directory is compared with the state, and what is told of it.

use std::time::Duration;

use metadata::ids::NodeId;
use metadata::log::LogError;
use metadata::memory::MemoryLog;

use super::fixture::*;
use crate::{HealOptions, RegistryOptions};

fn options(check_first: Duration) -> RegistryOptions {
    RegistryOptions {
        heal: HealOptions {
            repair_interval: Duration::from_millis(20),
            check_first,
            ..HealOptions::default()
        },
        ..RegistryOptions::default()
    }
}

async fn checks(cluster: &Cluster) -> (u64, bool) {
    let status = cluster.registry(1).repair_status().await.unwrap();
    (status.counts.checks, status.checked_ago.is_some())
}

#[tokio::test]
async fn the_first_check_comes_soon_after_the_start_and_once() {
    let cluster = Cluster::on_disk_with(1, 1, 1, options(Duration::from_millis(200)));
    let status = cluster.registry(1).repair_status().await.unwrap();
    assert_eq!((status.counts.checks, status.checked_ago), (0, None));
    assert!(
        status.next_check_in <= Duration::from_millis(400),
        "{status:?}"
    );
    eventually("checked", || async { checks(&cluster).await == (1, true) }).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let status = cluster.registry(1).repair_status().await.unwrap();
    assert_eq!(status.counts.checks, 1, "the next one is an hour away");
    assert!(
        status.next_check_in > Duration::from_secs(3_500),
        "{status:?}"
    );
}

#[tokio::test]
async fn a_node_that_is_not_up_to_date_checks_when_it_is() {
    let mut cluster = Cluster::on_disk_with(0, 1, 1, options(Duration::ZERO));
    cluster.log = MemoryLog::with_nodes(&[NodeId(1)], 1, 1).unwrap();
    cluster.log.set_failure(Some(LogError::Lagging));
    let blobs = cluster.open_directory(NodeId(1));
    cluster.start(NodeId(1), blobs);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(checks(&cluster).await, (0, false), "it lags");
    cluster.log.set_failure(None);
    eventually("checked", || async { checks(&cluster).await == (1, true) }).await;
}
