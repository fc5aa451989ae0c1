//! A TCP connection that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Forwards connections to a server.
pub(super) struct Link {
    pub(super) address: SocketAddr,
    counts: Arc<Counts>,
    closed: CancellationToken,
}

struct Counts {
    /// Bytes from the client to the server.
    forwarded_bytes: AtomicU64,
    /// Where the next cut comes.
    cut_at_bytes: AtomicU64,
    cuts: AtomicU64,
}

impl Link {
    pub(super) async fn to(server: SocketAddr) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts {
            forwarded_bytes: AtomicU64::new(0),
            cut_at_bytes: AtomicU64::new(u64::MAX),
            cuts: AtomicU64::new(0),
        });
        let closed = CancellationToken::new();
        let (accepted, until) = (counts.clone(), closed.clone());
        tokio::spawn(async move {
            loop {
                let client = tokio::select! {
                    client = listener.accept() => client.unwrap().0,
                    () = until.cancelled() => return,
                };
                let (counts, until) = (accepted.clone(), until.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = forward(client, server, &counts) => {}
                        () = until.cancelled() => {}
                    }
                });
            }
        });
        Link {
            address,
            counts,
            closed,
        }
    }

    /// Cuts the connection that carries the byte at this count, once.
    pub(super) fn cut_after(&self, bytes: u64) {
        self.counts.cut_at_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Cuts everything for good.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    pub(super) fn cuts(&self) -> u64 {
        self.counts.cuts.load(Ordering::Relaxed)
    }

    pub(super) fn forwarded_bytes(&self) -> u64 {
        self.counts.forwarded_bytes.load(Ordering::Relaxed)
    }
}

async fn forward(client: TcpStream, server: SocketAddr, counts: &Counts) {
    let server = TcpStream::connect(server).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            let total = counts
                .forwarded_bytes
                .fetch_add(read as u64, Ordering::Relaxed)
                + read as u64;
            if total >= counts.cut_at_bytes.load(Ordering::Relaxed) {
                counts.cut_at_bytes.store(u64::MAX, Ordering::Relaxed);
                counts.cuts.fetch_add(1, Ordering::Relaxed);
                return;
            }
            if to_server.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        _ = copy(&mut from_server, &mut to_client) => {}
    }
}
