//! Both ends of the wire, over real connections on loopback and real blob directories.

mod link;
mod uploads;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use metadata::ids::{LogIndex, NodeId};
use oci::{Algorithm, Digest};
use storage::blob::{BlobOptions, DirectoryBlobs, StagedBlob};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use self::link::Link;
use super::*;
use crate::client::{Directory, GrpcPeers};
use crate::error::PeerError;
use crate::peers::{BlobPeers, PushEnd};
use crate::testing::{eventually, noise, sha256};

const MIB: usize = 1024 * 1024;
const PEER: NodeId = NodeId(2);
const TICKET: u64 = 77;

/// A node that serves its blobs, and how another one sees it.
struct Wire {
    blobs: Arc<DirectoryBlobs>,
    peers: Arc<GrpcPeers>,
    /// Those of the node that serves.
    clients: Clients,
    address: SocketAddr,
    shutdown: Shutdown,
    _data: TempDir,
}

async fn wire(options: ServerOptions, uploads: UploadHandler) -> Wire {
    let data = tempfile::tempdir().unwrap();
    let blobs = Arc::new(DirectoryBlobs::open(data.path(), BlobOptions::default()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let clients = Clients::default();
    let server = BlobServer::new(
        blobs.clone(),
        uploads,
        options,
        clients.clone(),
        shutdown.clone(),
    );
    let router = tune(Server::builder()).add_service(server.into_service());
    let stop = shutdown.token().cancelled_owned();
    let incoming = TcpListenerStream::new(listener);
    tokio::spawn(router.serve_with_incoming_shutdown(incoming, stop));
    let peers = peers_at(address, &shutdown);
    Wire {
        blobs,
        peers,
        clients,
        address,
        shutdown,
        _data: data,
    }
}

fn peers_at(address: SocketAddr, shutdown: &Shutdown) -> Arc<GrpcPeers> {
    let directory = Directory {
        address: Arc::new(move |node| (node == PEER).then(|| address.to_string())),
        members: Arc::new(|| vec![NodeId(1), PEER]),
    };
    GrpcPeers::new(NodeId(1), directory, Clients::default(), shutdown)
}

async fn default_wire() -> Wire {
    wire(ServerOptions::default(), no_uploads()).await
}

fn no_uploads() -> UploadHandler {
    Arc::new(|_| async { UploadAnswer::Unknown }.boxed())
}

/// A blob directory of the pushing side.
fn source() -> (TempDir, DirectoryBlobs) {
    let data = tempfile::tempdir().unwrap();
    let blobs = DirectoryBlobs::open(data.path(), BlobOptions::default()).unwrap();
    (data, blobs)
}

async fn stage(blobs: &DirectoryBlobs, body: &Bytes) -> StagedBlob {
    let mut staged = blobs.stage("upload").await.unwrap();
    for start in (0..body.len()).step_by(MIB / 2) {
        let piece = body.slice(start..body.len().min(start + MIB / 2));
        staged.append(piece).await.unwrap();
    }
    staged.digest(Algorithm::Sha256).await.unwrap();
    staged
}

fn end_of(body: &Bytes) -> PushEnd {
    PushEnd {
        digest: sha256(body),
        size_bytes: body.len() as u64,
        ticket: TicketId::from_u64(TICKET),
    }
}

async fn push(peers: &GrpcPeers, staged: &StagedBlob, end: PushEnd) -> Result<(), PeerError> {
    let (_sender, receiver) = watch::channel(Some(end));
    peers
        .push(PEER, staged.reader(), end.digest.algorithm(), receiver)
        .await
}

async fn fetch(peers: &GrpcPeers, digest: &Digest, offset: u64) -> Result<Vec<u8>, PeerError> {
    let mut fetched = peers.fetch(PEER, digest, offset).await?;
    let mut body = Vec::new();
    while let Some(bytes) = fetched.bytes.next().await {
        let bytes = bytes?;
        assert!(bytes.len() <= storage::blob::CHUNK_BYTES);
        body.extend_from_slice(&bytes);
    }
    assert_eq!(fetched.size_bytes, offset + body.len() as u64);
    Ok(body)
}

async fn stop(wire: Wire) {
    wire.shutdown
        .close_and_wait(Duration::from_secs(10))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_there_and_back() {
    let wire = default_wire().await;
    let (_data, blobs) = source();
    let body = noise(64 * MIB + 12_345, 1);
    let staged = stage(&blobs, &body).await;
    let end = end_of(&body);
    push(&wire.peers, &staged, end).await.unwrap();
    assert_eq!(
        wire.blobs
            .stat(&end.digest)
            .await
            .unwrap()
            .unwrap()
            .size_bytes,
        end.size_bytes
    );
    assert!(fetch(&wire.peers, &end.digest, 0).await.unwrap() == body);
    for offset in [
        1,
        262_143,
        262_144,
        262_145,
        end.size_bytes - 1,
        end.size_bytes,
    ] {
        let rest = fetch(&wire.peers, &end.digest, offset).await.unwrap();
        assert!(rest == body[usize::try_from(offset).unwrap()..]);
    }
    let error = fetch(&wire.peers, &end.digest, end.size_bytes + 1)
        .await
        .unwrap_err();
    assert!(matches!(error, PeerError::Refused { .. }), "{error}");
    stop(wire).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_follows_a_slow_client_and_ends_when_it_is_told() {
    let wire = default_wire().await;
    let (_data, blobs) = source();
    let body = noise(6 * MIB, 2);
    let mut staged = blobs.stage("upload").await.unwrap();
    let (sender, receiver) = watch::channel(None);
    let (peers, reader) = (wire.peers.clone(), staged.reader());
    let pushing =
        tokio::spawn(async move { peers.push(PEER, reader, Algorithm::Sha256, receiver).await });
    for start in (0..body.len()).step_by(MIB) {
        staged.append(body.slice(start..start + MIB)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let end = end_of(&body);
    assert!(wire.blobs.stat(&end.digest).await.unwrap().is_none());
    // As the owner of the upload does: its own commit runs at the same time.
    assert_eq!(staged.digest(Algorithm::Sha256).await.unwrap(), end.digest);
    sender.send_replace(Some(end));
    assert!(blobs.commit(staged, &end.digest, end.ticket).await.is_ok());
    pushing.await.unwrap().unwrap();
    assert!(fetch(&wire.peers, &end.digest, 0).await.unwrap() == body);
    stop(wire).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sha512_blobs_are_pushed_and_fetched_too() {
    let wire = default_wire().await;
    let (_data, blobs) = source();
    let body = noise(2 * MIB, 3);
    let staged = stage(&blobs, &body).await;
    let end = PushEnd {
        digest: Digest::of(Algorithm::Sha512, &body),
        ..end_of(&body)
    };
    push(&wire.peers, &staged, end).await.unwrap();
    assert!(fetch(&wire.peers, &end.digest, 0).await.unwrap() == body);
    stop(wire).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_push_resumes_where_the_peer_stands() {
    let wire = default_wire().await;
    let link = Link::to(wire.address).await;
    let peers = peers_at(link.address, &wire.shutdown);
    let (_data, blobs) = source();
    let body = noise(32 * MIB, 4);
    let staged = stage(&blobs, &body).await;
    link.cut_after(10 * MIB as u64);
    let end = end_of(&body);
    push(&peers, &staged, end).await.unwrap();
    assert!(link.cuts() >= 1, "the link was never cut");
    assert!(fetch(&wire.peers, &end.digest, 0).await.unwrap() == body);
    // What was in the windows when the link broke is sent again, and nothing else.
    let forwarded = link.forwarded_bytes();
    assert!(forwarded < 44 * MIB as u64, "{forwarded} bytes were sent");
    stop(wire).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_of_a_broken_push_are_discarded_when_nobody_resumes() {
    let resume_timeout = Duration::from_millis(100);
    let options = ServerOptions {
        resume_timeout,
        ..ServerOptions::default()
    };
    let wire = wire(options, no_uploads()).await;
    let link = Link::to(wire.address).await;
    let peers = peers_at(link.address, &wire.shutdown);
    let (_data, blobs) = source();
    let body = noise(8 * MIB, 5);
    let staged = stage(&blobs, &body).await;
    let (_sender, receiver) = watch::channel(None);
    let reader = staged.reader();
    let pushing =
        tokio::spawn(async move { peers.push(PEER, reader, Algorithm::Sha256, receiver).await });
    eventually("bytes arrive", async || {
        !wire.blobs.staged_names().await.unwrap().is_empty()
    })
    .await;
    link.close();
    let error = timeout(Duration::from_secs(20), pushing)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, PeerError::Unreachable { .. }), "{error}");
    eventually("they are discarded", async || {
        wire.blobs.staged_names().await.unwrap().is_empty()
    })
    .await;
    stop(wire).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_push_leaves_nothing() {
    let wire = default_wire().await;
    let (_data, blobs) = source();
    let body = noise(8 * MIB, 6);
    let staged = stage(&blobs, &body).await;
    let (sender, receiver) = watch::channel(None);
    let (peers, reader) = (wire.peers.clone(), staged.reader());
    let pushing =
        tokio::spawn(async move { peers.push(PEER, reader, Algorithm::Sha256, receiver).await });
    eventually("bytes arrive", async || {
        !wire.blobs.staged_names().await.unwrap().is_empty()
    })
    .await;
    drop(sender);
    let error = pushing.await.unwrap().unwrap_err();
    assert!(matches!(error, PeerError::Abandoned), "{error}");
    let gone = async || wire.blobs.staged_names().await.unwrap().is_empty();
    timeout(Duration::from_secs(10), eventually("nothing is left", gone))
        .await
        .unwrap();
    stop(wire).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_are_refused_and_discarded() {
    let wire = default_wire().await;
    let (_data, blobs) = source();
    let body = noise(2 * MIB, 7);
    let staged = stage(&blobs, &body).await;
    let wrong = PushEnd {
        digest: sha256(b"something else"),
        ..end_of(&body)
    };
    let error = push(&wire.peers, &staged, wrong).await.unwrap_err();
    assert!(matches!(error, PeerError::Refused { .. }), "{error}");
    let small = wire.peers.push_small(PEER, wrong, body.clone()).await;
    assert!(matches!(small, Err(PeerError::Refused { .. })));
    let short = wire
        .peers
        .push_small(PEER, end_of(&body), Bytes::from_static(b"short"))
        .await;
    assert!(matches!(short, Err(PeerError::Refused { .. })));
    assert!(wire.blobs.stat(&wrong.digest).await.unwrap().is_none());
    eventually("nothing is left", async || {
        wire.blobs.staged_names().await.unwrap().is_empty()
    })
    .await;
    stop(wire).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_pushes_pins_and_absent_blobs() {
    let wire = default_wire().await;
    let body = noise(1_000, 8);
    let end = end_of(&body);
    let error = fetch(&wire.peers, &end.digest, 0).await.unwrap_err();
    assert!(matches!(error, PeerError::Absent { .. }), "{error}");
    let ticket = TicketId::new(LogIndex(9), 3);
    assert!(!wire.peers.pin(PEER, &end.digest, ticket).await.unwrap());
    wire.peers
        .push_small(PEER, end, body.clone())
        .await
        .unwrap();
    assert!(fetch(&wire.peers, &end.digest, 0).await.unwrap() == body);
    assert!(wire.peers.pin(PEER, &end.digest, ticket).await.unwrap());
    let nobody = wire
        .peers
        .pin(NodeId(3), &end.digest, ticket)
        .await
        .unwrap_err();
    assert!(matches!(nobody, PeerError::UnknownNode(NodeId(3))));
    stop(wire).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_transfers_than_allowed_are_refused_at_once() {
    let options = ServerOptions {
        pushes_max: 1,
        fetches_max: 0,
        ..ServerOptions::default()
    };
    let wire = wire(options, no_uploads()).await;
    let (_data, blobs) = source();
    let body = noise(2 * MIB, 9);
    let staged = stage(&blobs, &body).await;
    let (_sender, receiver) = watch::channel(None);
    let (peers, reader) = (wire.peers.clone(), staged.reader());
    let first =
        tokio::spawn(async move { peers.push(PEER, reader, Algorithm::Sha256, receiver).await });
    eventually("bytes arrive", async || {
        !wire.blobs.staged_names().await.unwrap().is_empty()
    })
    .await;
    let second = push(&wire.peers, &staged, end_of(&body)).await.unwrap_err();
    assert!(matches!(second, PeerError::Refused { .. }), "{second}");
    let error = fetch(&wire.peers, &sha256(&body), 0).await.unwrap_err();
    assert!(
        matches!(error, PeerError::Refused { .. } | PeerError::Absent { .. }),
        "{error}"
    );
    first.abort();
    stop(wire).await;
}

/// Uploads whose clients send nothing keep nobody else's blobs away, and go on when their clients do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_pushes_leave_their_turns_to_others() {
    let options = ServerOptions {
        pushes_max: 1,
        idle_after: Duration::from_millis(200),
        ..ServerOptions::default()
    };
    let wire = wire(options, no_uploads()).await;
    let (_data, blobs) = source();
    let body = noise(2 * MIB, 9);
    let mut idle = blobs.stage("idle").await.unwrap();
    idle.append(body.slice(..MIB)).await.unwrap();
    idle.settle().await.unwrap();
    let (sender, receiver) = watch::channel(None);
    let (peers, reader) = (wire.peers.clone(), idle.reader());
    let pushing =
        tokio::spawn(async move { peers.push(PEER, reader, Algorithm::Sha256, receiver).await });
    eventually("bytes arrive", async || {
        !wire.blobs.staged_names().await.unwrap().is_empty()
    })
    .await;
    let other = noise(2 * MIB, 10);
    let staged = stage(&blobs, &other).await;
    let pushed = eventually("another push gets its turn", async || {
        push(&wire.peers, &staged, end_of(&other)).await.is_ok()
    });
    timeout(Duration::from_secs(20), pushed).await.unwrap();
    idle.append(body.slice(MIB..)).await.unwrap();
    idle.settle().await.unwrap();
    sender.send_replace(Some(end_of(&body)));
    let resumed = timeout(Duration::from_secs(20), pushing).await.unwrap();
    resumed.unwrap().unwrap();
    assert!(fetch(&wire.peers, &sha256(&body), 0).await.unwrap() == body);
    stop(wire).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn round_trips_are_measured_and_a_dead_peer_is_noticed() {
    let wire = default_wire().await;
    let link = Link::to(wire.address).await;
    let peers = peers_at(link.address, &wire.shutdown);
    assert_eq!(peers.reachable(), [PEER]);
    let soon = Duration::from_secs(20);
    let measured = eventually("a round trip", async || peers.round_trip_us(PEER).is_some());
    timeout(soon, measured).await.unwrap();
    link.close();
    let noticed = eventually("it is noticed", async || peers.reachable().is_empty());
    timeout(soon, noticed).await.unwrap();
    assert_eq!(peers.round_trip_us(PEER), None);
    stop(wire).await;
}

#[tokio::test]
async fn a_peer_says_whether_it_serves_clients() {
    let wire = default_wire().await;
    assert!(!wire.peers.serves_clients(PEER));
    let visit = wire.clients.enter();
    eventually("its clients are known", async || {
        wire.peers.serves_clients(PEER)
    })
    .await;
    assert!(
        !wire.peers.serves_clients(NodeId(1)),
        "they are not of this node"
    );
    drop(visit);
    eventually("they have left", async || !wire.peers.serves_clients(PEER)).await;
}
