//! A cluster in memory, for the tests of this crate.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use metadata::command::{Command, CommitBlob, OpenTickets, TicketKind};
use metadata::ids::{NodeId, TicketId};
use metadata::log;
use metadata::memory::MemoryLog;
use metadata::query;
use metadata::response::Response;
use oci::{Algorithm, Digest, RepositoryName};
use runtime::Shutdown;
use storage::blob::{BlobStore, MemoryBlobs, StagedBlob, StagedReader};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::error::PeerError;
use crate::memory::{MemoryNetwork, MemoryPeers};
use crate::peers::{BlobPeers, Fetched, PushEnd, UploadAnswer, UploadRequest};
use crate::{Replication, ReplicationOptions};

pub(crate) const ONE: NodeId = NodeId(1);
pub(crate) const TWO: NodeId = NodeId(2);
pub(crate) const THREE: NodeId = NodeId(3);

/// Bytes that repeat nowhere near.
pub(crate) fn noise(len: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// Waits until something becomes true; a test that waits in vain fails.
pub(crate) async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let waited = timeout(Duration::from_secs(600), async {
        while !condition().await {
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "never happened: {what}");
}

/// Nodes 1 to n of a cluster; replication is that of node 1.
pub(crate) struct Cluster {
    pub(crate) log: MemoryLog,
    pub(crate) network: Arc<MemoryNetwork>,
    pub(crate) blobs: Vec<MemoryBlobs>,
    pub(crate) replication: Arc<Replication>,
    /// Pins asked of peers.
    pub(crate) pins: Arc<Mutex<Vec<(NodeId, TicketId)>>>,
    pub(crate) shutdown: Shutdown,
}

impl Cluster {
    pub(crate) fn new(nodes: u64, copies: u32, write_copies: u32) -> Cluster {
        Cluster::with_options(nodes, copies, write_copies, ReplicationOptions::default())
    }

    pub(crate) fn with_options(
        nodes: u64,
        copies: u32,
        write_copies: u32,
        options: ReplicationOptions,
    ) -> Cluster {
        let ids: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
        let log = MemoryLog::with_nodes(&ids, copies, write_copies).unwrap();
        let network = MemoryNetwork::new();
        let blobs: Vec<MemoryBlobs> = ids.iter().map(|_| MemoryBlobs::new()).collect();
        let views = ids
            .iter()
            .zip(&blobs)
            .map(|(&node, blobs)| network.join(node, Arc::new(blobs.clone())));
        let inner = views.collect::<Vec<_>>().swap_remove(0);
        let pins = Arc::default();
        let (peers, shutdown) = (
            Watched {
                inner,
                pins: Arc::clone(&pins),
            },
            Shutdown::new(),
        );
        let replication = Replication::new(
            Arc::new(log.clone()),
            Arc::new(blobs[0].clone()),
            Arc::new(peers),
            options,
            shutdown.clone(),
        );
        Cluster {
            log,
            network,
            blobs,
            replication,
            pins,
            shutdown,
        }
    }

    pub(crate) fn blobs_of(&self, node: NodeId) -> &MemoryBlobs {
        &self.blobs[usize::try_from(node.0).unwrap() - 1]
    }

    pub(crate) fn open_ticket(&self) -> TicketId {
        let command = OpenTickets {
            kind: TicketKind::Upload,
            node: ONE,
            count: 1,
            ttl_ms: 3_600_000,
        };
        match self
            .log
            .apply(Command::OpenTickets(command))
            .unwrap()
            .response
        {
            Response::TicketsOpened { first, .. } => first,
            other => panic!("{other:?}"),
        }
    }

    /// Commits a blob to the log; the repair ticket.
    pub(crate) fn commit_blob(
        &self,
        end: PushEnd,
        holders: &[NodeId],
        stragglers: u32,
    ) -> Option<TicketId> {
        let command = CommitBlob {
            ticket: end.ticket,
            repository: RepositoryName::parse("library/test").unwrap(),
            digest: end.digest,
            size_bytes: end.size_bytes,
            holders: holders.to_vec(),
            stragglers,
        };
        match self
            .log
            .apply(Command::CommitBlob(command))
            .unwrap()
            .response
        {
            Response::BlobCommitted { repair_ticket } => repair_ticket,
            other => panic!("{other:?}"),
        }
    }

    /// Puts a blob on some nodes, as if it had been pushed.
    pub(crate) async fn put(&self, body: &Bytes, holders: &[NodeId]) -> Digest {
        let end = PushEnd {
            digest: sha256(body),
            size_bytes: body.len() as u64,
            ticket: self.open_ticket(),
        };
        for &node in holders {
            let blobs = self.blobs_of(node);
            let mut staged = blobs.stage("seed").await.unwrap();
            staged.append(body.clone()).await.unwrap();
            let committed = blobs.commit(staged, &end.digest, end.ticket).await;
            assert!(committed.is_ok());
        }
        self.commit_blob(end, holders, 0);
        end.digest
    }

    pub(crate) fn holders(&self, digest: &Digest) -> Vec<NodeId> {
        let record = log::read(&self.log, |view| query::blob(view, digest)).unwrap();
        record.map(|record| record.holders).unwrap_or_default()
    }

    pub(crate) fn is_closed(&self, ticket: TicketId) -> bool {
        let state = log::read(&self.log, |view| query::ticket(view, ticket)).unwrap();
        state == query::TicketState::Closed
    }

    pub(crate) async fn has(&self, node: NodeId, digest: &Digest) -> bool {
        self.blobs_of(node).stat(digest).await.unwrap().is_some()
    }
}

/// A staged blob of node 1 with its first bytes.
pub(crate) async fn staged(cluster: &Cluster, body: &Bytes) -> StagedBlob {
    let mut staged = cluster.blobs_of(ONE).stage("upload").await.unwrap();
    staged.append(body.clone()).await.unwrap();
    staged
}

/// Notes the pins it passes on.
struct Watched {
    inner: Arc<MemoryPeers>,
    pins: Arc<Mutex<Vec<(NodeId, TicketId)>>>,
}

#[async_trait]
impl BlobPeers for Watched {
    async fn push(
        &self,
        node: NodeId,
        source: StagedReader,
        algorithm: Algorithm,
        end: watch::Receiver<Option<PushEnd>>,
    ) -> Result<(), PeerError> {
        self.inner.push(node, source, algorithm, end).await
    }

    async fn push_small(&self, node: NodeId, end: PushEnd, body: Bytes) -> Result<(), PeerError> {
        self.inner.push_small(node, end, body).await
    }

    async fn pin(
        &self,
        node: NodeId,
        digest: &Digest,
        ticket: TicketId,
    ) -> Result<bool, PeerError> {
        let pinned = self.inner.pin(node, digest, ticket).await?;
        if pinned {
            self.pins.lock().unwrap().push((node, ticket));
        }
        Ok(pinned)
    }

    async fn fetch(
        &self,
        node: NodeId,
        digest: &Digest,
        offset: u64,
    ) -> Result<Fetched, PeerError> {
        self.inner.fetch(node, digest, offset).await
    }

    async fn upload(
        &self,
        node: NodeId,
        request: UploadRequest,
    ) -> Result<UploadAnswer, PeerError> {
        self.inner.upload(node, request).await
    }

    fn round_trip_us(&self, node: NodeId) -> Option<u64> {
        self.inner.round_trip_us(node)
    }

    fn serves_clients(&self, node: NodeId) -> bool {
        self.inner.serves_clients(node)
    }

    fn reachable(&self) -> Vec<NodeId> {
        self.inner.reachable()
    }
}

/// Every task ends when the node stops.
pub(crate) async fn stop(cluster: Cluster) {
    cluster
        .shutdown
        .close_and_wait(Duration::from_secs(10))
        .await
        .unwrap();
}
