//! Other nodes over gRPC.

mod connection;
mod push;
mod upload;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use metadata::ids::{NodeId, TicketId};
use metadata::log::MetadataLog;
use oci::{Algorithm, Digest};
use proto::blob as wire;
use runtime::{Clients, Shutdown};
use storage::blob::StagedReader;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tonic::{Code, Status};

use self::connection::Connection;
use crate::error::PeerError;
use crate::peers::{BlobPeers, Fetched, PushEnd, UploadAnswer, UploadRequest};
use crate::{convert, state};

/// How often round trips are measured.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// A ping that takes longer has failed.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a peer may take to store, sync and pin a small blob.
const UNARY_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the other nodes are; asked anew for every connection, because nodes may move.
#[derive(Clone)]
pub struct Directory {
    /// The gRPC address (`host:port`) of a node.
    pub address: Arc<dyn Fn(NodeId) -> Option<String> + Send + Sync>,
    /// Every registered node; this one may be among them.
    pub members: Arc<dyn Fn() -> Vec<NodeId> + Send + Sync>,
}

impl Directory {
    /// The addresses of the replicated state.
    pub fn of(log: Arc<dyn MetadataLog>) -> Directory {
        let members = log.clone();
        Directory {
            address: Arc::new(move |node| state::grpc_address(log.as_ref(), node)),
            members: Arc::new(move || state::members(members.as_ref())),
        }
    }

    /// The same, but `configured` addresses win over those the nodes told the cluster: this node may reach another
    /// one by a way of its own (a translated address, a forwarded port).
    #[must_use]
    pub fn with_configured(self, configured: BTreeMap<NodeId, String>) -> Directory {
        let told = self.address;
        Directory {
            address: Arc::new(move |node| configured.get(&node).cloned().or_else(|| told(node))),
            members: self.members,
        }
    }
}

/// The other nodes over gRPC. Connections are made when they are first used, two per peer: one for bulk data and one
/// for small calls, so that these need not wait behind megabytes. Neither is the connection of consensus.
pub struct GrpcPeers {
    this: NodeId,
    directory: Directory,
    clients: Clients,
    connections: Mutex<BTreeMap<NodeId, Arc<Connection>>>,
}

impl GrpcPeers {
    /// Connects nothing yet, but starts measuring round trips, until `shutdown`. `clients` are those of this node. Must
    /// be called within a tokio runtime.
    pub fn new(
        this: NodeId,
        directory: Directory,
        clients: Clients,
        shutdown: &Shutdown,
    ) -> Arc<GrpcPeers> {
        let peers = Arc::new(GrpcPeers {
            this,
            directory,
            clients,
            connections: Mutex::default(),
        });
        let (pinger, stop) = (peers.clone(), shutdown.token());
        shutdown.spawn("peer pings", async move {
            tokio::select! {
                () = pinger.ping_forever() => {}
                () = stop.cancelled() => {}
            }
        });
        peers
    }

    /// The connection to a node, made anew when its address has changed.
    fn connection(&self, node: NodeId) -> Result<Arc<Connection>, PeerError> {
        let address = (self.directory.address)(node).ok_or(PeerError::UnknownNode(node))?;
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = connections.get(&node)
            && known.address == address
        {
            return Ok(known.clone());
        }
        let connection = Connection::new(node, address)
            .map(Arc::new)
            .map_err(|error| PeerError::Unreachable {
                node,
                reason: format!("its address is unusable: {error}"),
            })?;
        connections.insert(node, connection.clone());
        Ok(connection)
    }

    fn known(&self, node: NodeId) -> Option<Arc<Connection>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&node)
            .cloned()
    }

    async fn ping_forever(&self) {
        let mut interval = interval(PING_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let members = (self.directory.members)();
            let pings = members
                .iter()
                .filter(|&&node| node != self.this)
                .map(|&node| self.ping(node));
            join_all(pings).await;
            let mut connections = self
                .connections
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            connections.retain(|node, _| members.contains(node));
        }
    }

    async fn ping(&self, node: NodeId) {
        let Ok(connection) = self.connection(node) else {
            return;
        };
        let started = Instant::now();
        let mut client = connection.control();
        match timeout(PING_TIMEOUT, client.ping(wire::PingRequest {})).await {
            Ok(Ok(reply)) => {
                connection.answered(started.elapsed());
                connection.set_serves_clients(reply.into_inner().serves_clients);
            }
            Ok(Err(_)) | Err(_) => connection.failed(),
        }
    }
}

/// The outcome of one call, noted in what is known about the peer's health.
fn outcome<T>(connection: &Connection, result: Result<T, Status>) -> Result<T, PeerError> {
    result.map_err(|status| {
        let error = convert::peer_error(connection.node, &status);
        if matches!(error, PeerError::Unreachable { .. }) {
            connection.failed();
        }
        error
    })
}

async fn unary<T>(
    connection: &Connection,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, PeerError> {
    let answer = timeout(UNARY_TIMEOUT, call)
        .await
        .map_err(|_| PeerError::Timeout(connection.node))?;
    outcome(connection, answer).map(tonic::Response::into_inner)
}

#[async_trait]
impl BlobPeers for GrpcPeers {
    async fn push(
        &self,
        node: NodeId,
        source: StagedReader,
        algorithm: Algorithm,
        end: watch::Receiver<Option<PushEnd>>,
    ) -> Result<(), PeerError> {
        push::Push::new(self, node, source, algorithm, end)
            .run()
            .await
    }

    async fn push_small(&self, node: NodeId, end: PushEnd, body: Bytes) -> Result<(), PeerError> {
        let connection = self.connection(node)?;
        let request = wire::PushSmallRequest {
            end: Some(convert::push_end_to_wire(&end)),
            body,
        };
        let mut client = connection.control();
        unary(&connection, client.push_small(request))
            .await
            .map(|_| ())
    }

    async fn pin(
        &self,
        node: NodeId,
        digest: &Digest,
        ticket: TicketId,
    ) -> Result<bool, PeerError> {
        let connection = self.connection(node)?;
        let request = wire::PinRequest {
            digest: convert::digest_to_wire(digest),
            ticket: ticket.as_u64(),
        };
        let mut client = connection.control();
        unary(&connection, client.pin(request))
            .await
            .map(|reply| reply.present)
    }

    async fn fetch(
        &self,
        node: NodeId,
        digest: &Digest,
        offset_bytes: u64,
    ) -> Result<Fetched, PeerError> {
        let connection = self.connection(node)?;
        let request = wire::FetchBlobRequest {
            digest: convert::digest_to_wire(digest),
            offset_bytes,
        };
        let reply = connection.bulk().fetch_blob(request).await;
        let failure = |status: Status| match status.code() {
            Code::NotFound => PeerError::Absent {
                node,
                digest: *digest,
            },
            _ => convert::peer_error(node, &status),
        };
        if reply
            .as_ref()
            .is_err_and(|status| status.code() == Code::NotFound)
        {
            return Err(PeerError::Absent {
                node,
                digest: *digest,
            });
        }
        let mut replies = outcome(&connection, reply)?.into_inner();
        use wire::fetch_blob_reply::Part;
        let first = replies
            .message()
            .await
            .map_err(failure)?
            .and_then(|reply| reply.part);
        let Some(Part::SizeBytes(size_bytes)) = first else {
            return Err(unexpected(node));
        };
        let bytes = replies.map_err(move |status| convert::peer_error(node, &status));
        let bytes = bytes.and_then(move |reply| async move {
            match reply.part {
                Some(Part::Data(data)) => Ok(data),
                Some(Part::SizeBytes(_)) | None => Err(unexpected(node)),
            }
        });
        Ok(Fetched {
            size_bytes,
            bytes: bytes.boxed(),
        })
    }

    async fn upload(
        &self,
        node: NodeId,
        request: UploadRequest,
    ) -> Result<UploadAnswer, PeerError> {
        let connection = self.connection(node)?;
        upload::ask(&connection, request).await
    }

    fn round_trip_us(&self, node: NodeId) -> Option<u64> {
        self.known(node)?.round_trip_us()
    }

    fn serves_clients(&self, node: NodeId) -> bool {
        if node == self.this {
            return self.clients.are_here();
        }
        self.known(node).is_some_and(|known| known.serves_clients())
    }

    fn reachable(&self) -> Vec<NodeId> {
        let mut members = (self.directory.members)();
        members.retain(|&node| {
            node != self.this && self.known(node).is_none_or(|known| known.is_reachable())
        });
        members
    }
}

/// A reply that makes no sense where it came.
fn unexpected(node: NodeId) -> PeerError {
    PeerError::Refused {
        node,
        reason: "an unexpected reply".into(),
    }
}
