//! How much memory movement takes, measured over the whole process: this test is alone in its binary.

// Helpers of a test fail as the test does.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use metadata::ids::{NodeId, TicketId};
use metadata::memory::MemoryLog;
use oci::{Algorithm, Digest};
use replication::client::{Directory, GrpcPeers};
use replication::peers::{BlobPeers, PushEnd, UploadAnswer};
use replication::server::{BlobServer, ServerOptions, UploadHandler, tune};
use replication::{Replication, ReplicationOptions};
use runtime::{Clients, Shutdown};
use storage::blob::{BlobOptions, BlobStore, DirectoryBlobs, StagedBlob};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

const MIB: u64 = 1024 * 1024;
const PIECE_BYTES: usize = 1024 * 1024;
const HERE: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);

/// Blobs pushed at once, and the length of each.
const BLOBS: usize = 12;
const BLOB_BYTES: u64 = 24 * MIB;

/// Bytes a second that the link lets through, so that every push has bytes waiting.
const LINK_BYTES_PER_SECOND: u64 = 160 * MIB;

/// What one push may hold: 1 MiB of its own and 1 MiB of send buffer in the transport.
const PUSH_MAX_BYTES: u64 = 2 * MIB;

/// The window of a connection (8 MiB), two batches per staged blob at the receiver (1 MiB), and what an allocator
/// keeps.
const FIXED_MAX_BYTES: u64 = 8 * MIB + BLOBS as u64 * MIB + 32 * MIB;

fn megabyte(seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words
        .take(PIECE_BYTES / 8)
        .flatten()
        .collect::<Vec<u8>>()
        .into()
}

/// A line of `/proc/self/status`, in bytes.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

/// Runs something; by how much the resident memory rose above where it stood before.
async fn peak_of(work: impl Future<Output = ()>) -> u64 {
    let before = memory("VmRSS:");
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    work.await;
    memory("VmHWM:").saturating_sub(before)
}

async fn serve(data: &TempDir, shutdown: &Shutdown) -> SocketAddr {
    let blobs = Arc::new(DirectoryBlobs::open(data.path(), BlobOptions::default()).unwrap());
    let uploads: UploadHandler = Arc::new(|_| async { UploadAnswer::Unknown }.boxed());
    let (options, clients) = (ServerOptions::default(), Clients::default());
    let server = BlobServer::new(blobs, uploads, options, clients, shutdown.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = tune(Server::builder()).add_service(server.into_service());
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

/// A slow link to a server.
async fn slow_link(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut from_client, mut to_client) = listener.accept().await.unwrap().0.into_split();
            let (mut from_server, mut to_server) =
                TcpStream::connect(server).await.unwrap().into_split();
            tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
            tokio::spawn(async move {
                let mut buffer = vec![0; 256 * 1024];
                while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                    if to_server.write_all(&buffer[..read]).await.is_err() {
                        return;
                    }
                    let pause = read as u64 * 1_000_000 / LINK_BYTES_PER_SECOND;
                    tokio::time::sleep(Duration::from_micros(pause)).await;
                }
            });
        }
    });
    address
}

fn peers_at(address: SocketAddr, shutdown: &Shutdown) -> Arc<GrpcPeers> {
    let addresses = BTreeMap::from([(PEER, address.to_string())]);
    let directory = Directory {
        address: Arc::new(move |node| addresses.get(&node).cloned()),
        members: Arc::new(|| vec![HERE, PEER]),
    };
    GrpcPeers::new(HERE, directory, Clients::default(), shutdown)
}

async fn stage(blobs: &DirectoryBlobs, seed: usize) -> (StagedBlob, PushEnd) {
    let mut staged = blobs.stage(&format!("upload-{seed}")).await.unwrap();
    let piece = megabyte(seed as u64 + 1);
    for _ in 0..BLOB_BYTES / MIB {
        staged.append(piece.clone()).await.unwrap();
    }
    let digest = staged.digest(Algorithm::Sha256).await.unwrap();
    (
        staged,
        PushEnd {
            digest,
            size_bytes: BLOB_BYTES,
            ticket: TicketId::from_u64(7),
        },
    )
}

async fn push_all(peers: &GrpcPeers, staged: &[(StagedBlob, PushEnd)]) {
    let pushes = staged.iter().map(|(staged, end)| async move {
        let (_sender, receiver) = watch::channel(Some(*end));
        peers
            .push(PEER, staged.reader(), Algorithm::Sha256, receiver)
            .await
            .unwrap();
    });
    join_all(pushes).await;
}

/// Opens every blob and reads nothing: the bytes go to disk meanwhile.
async fn fetch_all(replication: &Arc<Replication>, digests: &[Digest]) {
    let fetches = digests.iter().map(|digest| async move {
        let reader = replication
            .open_remote(digest, BLOB_BYTES, vec![PEER])
            .await
            .unwrap();
        let last = reader.read_at(BLOB_BYTES - 1, 1).await.unwrap();
        assert_eq!(last.len(), 1);
    });
    join_all(fetches).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_and_fetches_hold_little_memory() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let shutdown = Shutdown::new();
    let address = serve(&there, &shutdown).await;
    let blobs = DirectoryBlobs::open(here.path(), BlobOptions::default()).unwrap();
    let mut staged = Vec::new();
    for seed in 0..BLOBS {
        staged.push(stage(&blobs, seed).await);
    }
    let peers = peers_at(slow_link(address).await, &shutdown);
    let pushing = peak_of(push_all(&peers, &staged)).await;
    let limit = FIXED_MAX_BYTES + BLOBS as u64 * PUSH_MAX_BYTES;
    assert!(pushing < limit, "{} MiB while pushing", pushing / MIB);

    let digests: Vec<Digest> = staged.iter().map(|(_, end)| end.digest).collect();
    drop(staged);
    let log = MemoryLog::with_nodes(&[HERE, PEER], 1, 1).unwrap();
    let (peers, options) = (peers_at(address, &shutdown), ReplicationOptions::default());
    let replication = Replication::new(
        Arc::new(log),
        Arc::new(blobs),
        peers,
        options,
        shutdown.clone(),
    );
    let fetching = peak_of(fetch_all(&replication, &digests)).await;
    assert!(fetching < limit, "{} MiB while fetching", fetching / MIB);
    println!(
        "{} MiB while pushing, {} MiB while fetching",
        pushing / MIB,
        fetching / MIB
    );
    shutdown
        .close_and_wait(Duration::from_secs(10))
        .await
        .unwrap();
}
