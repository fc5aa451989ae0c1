//! The network between the nodes: every connection from one node to another passes a proxy of its own pair, so that
//! each direction can be cut, slowed or broken by itself.
//!
//! What is sent into a cut direction is held back, as TCP would hold it back and send it again, and arrives when the
//! cut is over unless the connection was given up before.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::rng::Rng;

const CHUNK_BYTES: usize = 64 << 10;
/// Chunks on their way in one direction of one connection: at most 4 MiB.
const CHUNKS_MAX: usize = 64;

/// How one direction between two nodes behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Weather {
    /// Nothing arrives.
    pub(crate) is_cut: bool,
    /// How late bytes arrive, at least and at most.
    pub(crate) delay_ms: (u64, u64),
    /// Bytes a second of one connection; 0: as fast as they come.
    pub(crate) bytes_per_second: u64,
    /// Chance in 1000 that a chunk resets its connection.
    pub(crate) reset_per_mille: u64,
}

/// From one node to another.
type Direction = (u64, u64);

/// The proxies of all pairs.
pub(crate) struct Network {
    weather: BTreeMap<Direction, watch::Sender<Weather>>,
}

/// What the two directions of a connection share.
#[derive(Clone)]
struct Link {
    weather: watch::Receiver<Weather>,
    seed: u64,
}

impl Network {
    /// Listens on `port(from, to)` for each pair and passes on to `target(to)`. Runs on the current runtime.
    pub(crate) async fn start(
        nodes: &[u64],
        port: impl Fn(u64, u64) -> SocketAddr,
        target: impl Fn(u64) -> SocketAddr,
        seed: u64,
    ) -> io::Result<Network> {
        let pairs = || {
            nodes.iter().flat_map(|from| {
                let others = nodes.iter().filter(move |to| *to != from);
                others.map(move |to| (*from, *to))
            })
        };
        let weather: BTreeMap<Direction, watch::Sender<Weather>> = pairs()
            .map(|pair| (pair, watch::channel(Weather::default()).0))
            .collect();
        for (from, to) in pairs() {
            let listener = TcpListener::bind(port(from, to)).await?;
            let there = Link {
                weather: weather[&(from, to)].subscribe(),
                seed: seed ^ (from << 8) ^ to,
            };
            let back = Link {
                weather: weather[&(to, from)].subscribe(),
                seed: seed ^ (to << 8) ^ from,
            };
            tokio::spawn(accept(listener, target(to), there, back));
        }
        Ok(Network { weather })
    }

    /// Changes one direction; connections that are open feel it too.
    pub(crate) fn set(&self, from: u64, to: u64, weather: Weather) {
        if let Some(sender) = self.weather.get(&(from, to)) {
            sender.send_replace(weather);
        }
    }

    /// Fair weather everywhere.
    pub(crate) fn heal(&self) {
        for sender in self.weather.values() {
            sender.send_replace(Weather::default());
        }
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, there: Link, back: Link) {
    let mut number = 0;
    loop {
        let Ok((near, _)) = listener.accept().await else {
            // Out of descriptors: others may close theirs.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        number += 1;
        let (there, back) = (there.clone(), back.clone());
        tokio::spawn(async move {
            // A node that is down refuses here too: the connection ends at once.
            if let Ok(far) = TcpStream::connect(target).await {
                connect(near, far, there, back, number).await;
            }
        });
    }
}

/// Copies both ways until one side ends or breaks.
async fn connect(near: TcpStream, far: TcpStream, there: Link, back: Link, number: u64) {
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let (stop, _) = watch::channel(false);
    let stop = Arc::new(stop);
    let one = pass(near_in, far_out, there, stop.clone(), number);
    let other = pass(far_in, near_out, back, stop, number);
    tokio::join!(one, other);
}

async fn pass(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    link: Link,
    stop: Arc<watch::Sender<bool>>,
    number: u64,
) {
    let mut stopped = stop.subscribe();
    let (chunks, incoming) = mpsc::channel(CHUNKS_MAX);
    let copying = async {
        tokio::join!(
            read(from, chunks, link.clone()),
            write(to, incoming, link, number)
        )
        .1
    };
    let broke = tokio::select! {
        result = copying => result.is_err(),
        _ = stopped.wait_for(|stop| *stop) => true,
    };
    if broke {
        stop.send_replace(true);
    }
}

/// Stamps each chunk with the time at which it may arrive.
async fn read(
    mut from: OwnedReadHalf,
    chunks: mpsc::Sender<(Instant, Vec<u8>)>,
    link: Link,
) -> io::Result<()> {
    let mut rng = Rng::new(link.seed, 1);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        let (least, most) = link.weather.borrow().delay_ms;
        let due = Instant::now() + Duration::from_millis(rng.range(least, most + 1));
        let sent = chunks.send((due, buffer[..read].to_vec())).await;
        if read == 0 || sent.is_err() {
            return Ok(());
        }
    }
}

/// An error breaks both directions: the peer must not wait for what will not come.
async fn write(
    mut to: OwnedWriteHalf,
    mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut link: Link,
    number: u64,
) -> io::Result<()> {
    let mut rng = Rng::new(link.seed, number);
    while let Some((due, chunk)) = chunks.recv().await {
        tokio::time::sleep_until(due).await;
        let weather = *link
            .weather
            .wait_for(|weather| !weather.is_cut)
            .await
            .map_err(io::Error::other)?;
        if chunk.is_empty() {
            // The end of the stream travels like its bytes.
            return to.shutdown().await;
        }
        if rng.range(0, 1000) < weather.reset_per_mille {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let micros = chunk.len() as u64 * 1_000_000;
        // Zero bytes per second stand for no limit.
        if let Some(micros) = micros.checked_div(weather.bytes_per_second) {
            tokio::time::sleep(Duration::from_micros(micros)).await;
        }
        to.write_all(&chunk).await?;
    }
    // The reader broke: the other side must learn it.
    Err(io::ErrorKind::ConnectionReset.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets, a network before it, and a connection through that.
    async fn echo() -> (Network, TcpStream) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = server.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = server.accept().await.unwrap();
            let (mut read, mut write) = stream.into_split();
            tokio::io::copy(&mut read, &mut write).await
        });
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ports = [free.local_addr().unwrap(), other.local_addr().unwrap()];
        drop((free, other));
        let port = |from, _| ports[usize::from(from != 1)];
        let network = Network::start(&[1, 2], port, |_| target, 7).await.unwrap();
        let stream = TcpStream::connect(ports[0]).await.unwrap();
        (network, stream)
    }

    #[tokio::test]
    async fn a_cut_holds_back_until_it_heals() {
        let (network, mut stream) = echo().await;
        let cut = Weather {
            is_cut: true,
            ..Weather::default()
        };
        for direction in [(1, 2), (2, 1)] {
            network.set(direction.0, direction.1, cut);
            stream.write_all(b"x").await.unwrap();
            let mut byte = [0];
            let early = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut byte));
            assert!(early.await.is_err(), "{direction:?} is not cut");
            network.heal();
            stream.read_exact(&mut byte).await.unwrap();
            assert_eq!(&byte, b"x");
        }
    }

    #[tokio::test]
    async fn resets_and_delays_are_felt() {
        let (network, mut stream) = echo().await;
        let slow = Weather {
            delay_ms: (150, 150),
            ..Weather::default()
        };
        network.set(1, 2, slow);
        let started = Instant::now();
        stream.write_all(b"x").await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        assert!(started.elapsed() >= Duration::from_millis(150));
        let lossy = Weather {
            reset_per_mille: 1000,
            ..Weather::default()
        };
        network.set(1, 2, lossy);
        stream.write_all(b"x").await.unwrap();
        let mut byte = [0];
        assert!(matches!(stream.read(&mut byte).await, Ok(0) | Err(_)));
    }
}
