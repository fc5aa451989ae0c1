//! The unlink rule (protocols.md 6.2) over the real state machine.

use std::time::Instant;

use async_trait::async_trait;
use metadata::command::{Command, TicketKind};
use metadata::ids::{LogIndex, NodeId};
use metadata::log::{LogError, MetadataLog};
use metadata::memory::MemoryView;
use metadata::response::{Outcome, Response};
use metadata::view::{MetadataView, ViewError};

use super::fixture::{HERE, THERE};
use super::{Cluster, bytes, digest, put, read_all};
use crate::blob::{BlobStore, Unlink};

/// What a node that lags behind has applied.
pub(crate) struct LaggingLog(pub(crate) MemoryView);

#[async_trait]
impl MetadataLog for LaggingLog {
    async fn propose(&self, _: Command, _: &str, _: Instant) -> Result<Outcome, LogError> {
        Err(LogError::NoLeader)
    }

    async fn barrier(&self, _: Instant) -> Result<LogIndex, LogError> {
        Err(LogError::NoLeader)
    }

    async fn wait_applied(&self, _: LogIndex, _: Instant) -> Result<(), LogError> {
        Err(LogError::Lagging)
    }

    fn read(
        &self,
        reader: &mut dyn FnMut(&dyn MetadataView) -> Result<(), ViewError>,
    ) -> Result<(), ViewError> {
        reader(&self.0)
    }

    fn node_id(&self) -> NodeId {
        HERE
    }

    fn is_leader(&self) -> bool {
        false
    }
}

async fn unlink(store: &dyn BlobStore, cluster: &Cluster, bytes: &[u8]) -> Unlink {
    store
        .unlink_if_unneeded(&digest(bytes), &cluster.log)
        .await
        .expect("decided")
}

pub(super) async fn an_open_ticket_protects(store: &dyn BlobStore) {
    for size in [100, 700_000] {
        let cluster = Cluster::new();
        let blob = bytes(size, 1);
        assert_eq!(unlink(store, &cluster, &blob).await, Unlink::Absent);
        let ticket = cluster.open(TicketKind::Upload);
        put(store, &blob, ticket).await;
        assert_eq!(unlink(store, &cluster, &blob).await, Unlink::Needed);
        assert_eq!(store.pins(&digest(&blob)).await.expect("pins"), [ticket]);
        cluster.close(ticket);
        assert_eq!(unlink(store, &cluster, &blob).await, Unlink::Removed);
        assert_eq!(store.pins(&digest(&blob)).await.expect("pins"), []);
        assert_eq!(store.stat(&digest(&blob)).await.expect("stat"), None);
        assert!(store.open(&digest(&blob)).await.expect("opens").is_none());
        assert_eq!(store.list(None, 10).await.expect("listed"), []);
        assert_eq!(unlink(store, &cluster, &blob).await, Unlink::Absent);
    }
}

pub(super) async fn a_counted_copy_is_kept(store: &dyn BlobStore) {
    for size in [100, 700_000] {
        let cluster = Cluster::new();
        let blob = bytes(size, 2);
        let ticket = cluster.open(TicketKind::Upload);
        let stat = put(store, &blob, ticket).await;
        assert!(matches!(
            cluster.count(stat, ticket, &[HERE, THERE]),
            Response::BlobCommitted { .. }
        ));
        // The commit closed the ticket: only the placement speaks for the copy, and its pin may be pruned.
        for _ in 0..2 {
            assert_eq!(unlink(store, &cluster, &blob).await, Unlink::Needed);
        }
        cluster.uncount(stat.digest);
        assert_eq!(unlink(store, &cluster, &blob).await, Unlink::Removed);
    }
}

pub(super) async fn a_ticket_newer_than_the_view_protects(store: &dyn BlobStore) {
    for size in [100, 700_000] {
        let cluster = Cluster::new();
        let blob = bytes(size, 3);
        let behind = LaggingLog(cluster.log.snapshot());
        let ticket = cluster.open(TicketKind::Upload);
        put(store, &blob, ticket).await;
        cluster.close(ticket);
        let decided = store
            .unlink_if_unneeded(&digest(&blob), &behind)
            .await
            .expect("decided");
        assert_eq!(
            decided,
            Unlink::Needed,
            "mutant M3 of protocols.md section 8"
        );
        assert_eq!(unlink(store, &cluster, &blob).await, Unlink::Removed);
    }
}

pub(super) async fn every_pin_counts_not_only_the_last(store: &dyn BlobStore) {
    for size in [100, 700_000] {
        let cluster = Cluster::new();
        let blob = bytes(size, 4);
        let [first, second, third] = [(); 3].map(|()| cluster.open(TicketKind::Upload));
        for ticket in [first, third, second] {
            put(store, &blob, ticket).await;
        }
        for (ticket, then) in [
            (third, Unlink::Needed),
            (second, Unlink::Needed),
            (first, Unlink::Removed),
        ] {
            cluster.close(ticket);
            assert_eq!(
                unlink(store, &cluster, &blob).await,
                then,
                "mutant M2 of protocols.md section 8"
            );
        }
    }
}

pub(super) async fn pinning_again_protects(store: &dyn BlobStore) {
    for size in [100, 700_000] {
        let cluster = Cluster::new();
        let blob = bytes(size, 5);
        let [first, second] = [(); 2].map(|()| cluster.open(TicketKind::Upload));
        let stat = put(store, &blob, first).await;
        assert_eq!(
            store.pin(&stat.digest, second).await.expect("pinned"),
            Some(stat)
        );
        cluster.close(first);
        assert_eq!(unlink(store, &cluster, &blob).await, Unlink::Needed);
        cluster.close(second);
        assert_eq!(unlink(store, &cluster, &blob).await, Unlink::Removed);
        assert_eq!(
            store.pin(&stat.digest, second).await.expect("asked"),
            None,
            "too late"
        );
    }
}

pub(super) async fn a_blob_comes_back_after_it_was_unlinked(store: &dyn BlobStore) {
    let cluster = Cluster::new();
    let blob = bytes(700_000, 6);
    for _ in 0..3 {
        let ticket = cluster.open(TicketKind::Upload);
        put(store, &blob, ticket).await;
        assert!(
            read_all(
                &store
                    .open(&digest(&blob))
                    .await
                    .expect("opens")
                    .expect("is there")
            )
            .await
                == blob
        );
        cluster.close(ticket);
        assert_eq!(unlink(store, &cluster, &blob).await, Unlink::Removed);
    }
}

pub(super) async fn readers_outlive_the_blob(store: &dyn BlobStore) {
    for size in [100, 700_000] {
        let cluster = Cluster::new();
        let blob = bytes(size, 7);
        let ticket = cluster.open(TicketKind::Upload);
        put(store, &blob, ticket).await;
        let reader = store
            .open(&digest(&blob))
            .await
            .expect("opens")
            .expect("is there");
        cluster.close(ticket);
        assert_eq!(unlink(store, &cluster, &blob).await, Unlink::Removed);
        assert!(read_all(&reader).await == blob);
    }
}
