//! Clusters in one process, over real tonic on loopback, with a link that can be cut between every two nodes.

mod cluster;
mod faults;
mod forming;
mod links;
mod membership;
mod recovery;
mod removal;
mod snapshots;
mod suite;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use metadata::command::{
    Command, ManifestFacts, OpenTickets, Precondition, PutManifest, TicketKind,
};
use metadata::ids::{LogIndex, NodeId};
use metadata::log::{LogError, MetadataLog};
use metadata::query;
use metadata::response::{Outcome, Response};
use oci::{Algorithm, Digest, MediaType, RepositoryName, Tag};
use storage::rocks::{RocksLog, RocksState, StorageOptions};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use self::links::Link;
use crate::{Formation, Member, RaftNode, RaftOptions, StartError, service};

/// Long enough for a loaded machine; nothing waits for it when all is well.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Where one node lives, whether it runs or not.
pub(super) struct Seat {
    pub(super) node: NodeId,
    pub(super) directory: tempfile::TempDir,
    /// Where the node listens while it runs: another port each time.
    listening: watch::Sender<Option<SocketAddr>>,
    /// Its public address.
    front: Link,
    /// This node's links to the others.
    links: Vec<(NodeId, Link)>,
    running: Option<Running>,
}

struct Running {
    node: Arc<RaftNode>,
    server: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

/// A cluster whose nodes are numbered from 1.
pub(super) struct TestCluster {
    pub(super) seats: Vec<Seat>,
    /// Changes the options of every node before it starts.
    pub(super) adjust: fn(&mut RaftOptions),
}

impl TestCluster {
    /// Seats for `size` nodes; none runs.
    pub(super) async fn seats(size: u64) -> TestCluster {
        let mut seats = Vec::new();
        for node in 1..=size {
            let (listening, target) = watch::channel(None);
            let directory = tempfile::tempdir().unwrap();
            let front = Link::to(target).await;
            seats.push(Seat {
                node: NodeId(node),
                directory,
                listening,
                front,
                links: Vec::new(),
                running: None,
            });
        }
        let targets: Vec<_> = seats
            .iter()
            .map(|seat| (seat.node, seat.listening.subscribe()))
            .collect();
        for seat in &mut seats {
            for (node, target) in targets.iter().filter(|(node, _)| *node != seat.node) {
                seat.links.push((*node, Link::to(target.clone()).await));
            }
        }
        TestCluster {
            seats,
            adjust: |_| {},
        }
    }

    /// A formed cluster of `size` nodes, all registered.
    pub(super) async fn formed(size: u64) -> TestCluster {
        let mut cluster = TestCluster::seats(size).await;
        cluster.start_all().await;
        cluster.settled().await;
        cluster
    }

    pub(super) async fn start_all(&mut self) {
        for node in 1..=self.seats.len() as u64 {
            self.open(node).await.unwrap();
        }
        let joins = self.seats.iter().map(|seat| seat.running().join());
        for joined in futures::future::join_all(joins).await {
            joined.unwrap();
        }
    }

    /// Nodes 1 and 2 of three members: only an operator may form a cluster without the third.
    pub(super) async fn start_without_third(&mut self) {
        for node in [1, 2] {
            self.open(node).await.unwrap();
        }
        let members = self.seat(1).options().members;
        let (first, second) = (self.node(1), self.node(2));
        let (formed, first, second) =
            tokio::join!(first.initialize(&members), first.join(), second.join());
        formed.unwrap();
        first.unwrap();
        second.unwrap();
        self.settled().await;
    }

    pub(super) fn node(&self, node: u64) -> &Arc<RaftNode> {
        self.seat(node).running()
    }

    pub(super) fn seat(&self, node: u64) -> &Seat {
        &self.seats[usize::try_from(node).unwrap() - 1]
    }

    fn seat_mut(&mut self, node: u64) -> &mut Seat {
        &mut self.seats[usize::try_from(node).unwrap() - 1]
    }

    /// Opens a node over its directory and mounts its service; does not join.
    pub(super) async fn open(&mut self, node: u64) -> Result<(), StartError> {
        let mut options = self.seat(node).options();
        (self.adjust)(&mut options);
        let seat = self.seat_mut(node);
        let (log, state) = open_stores(seat.directory.path());
        let node = RaftNode::open(options, log, state).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        seat.listening
            .send_replace(Some(listener.local_addr().unwrap()));
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tonic::transport::Server::builder()
            .add_service(service(node.clone()))
            .serve_with_incoming_shutdown(
                tokio_stream::wrappers::TcpListenerStream::new(listener),
                async {
                    let _ = stopped.await;
                },
            );
        let server = tokio::spawn(async move { server.await.unwrap() });
        seat.running = Some(Running { node, server, stop });
        Ok(())
    }

    /// Stops a node in order.
    pub(super) async fn stop(&mut self, node: u64) {
        let running = self.seat_mut(node).running.take().unwrap();
        running
            .node
            .shutdown(Instant::now() + Duration::from_secs(5))
            .await
            .unwrap();
        self.seat(node).listening.send_replace(None);
        let _ = running.stop.send(());
        running.server.await.unwrap();
        wait_until_released(running.node).await;
    }

    /// Empties the directory of a stopped node.
    pub(super) fn lose_disk(&self, node: u64) {
        for store in ["log", "state"] {
            std::fs::remove_dir_all(self.seat(node).directory.path().join(store)).unwrap();
        }
    }

    /// Opens a stopped node again and joins.
    pub(super) async fn start(&mut self, node: u64) -> Result<(), StartError> {
        self.open(node).await?;
        self.node(node).join().await
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &Arc<RaftNode>> {
        self.seats
            .iter()
            .filter_map(|seat| seat.running.as_ref())
            .map(|running| &running.node)
    }

    /// Cuts or mends all links from and to a node.
    pub(super) fn set_isolated(&self, node: u64, is_isolated: bool) {
        for seat in &self.seats {
            for (to, link) in &seat.links {
                if seat.node.0 == node || to.0 == node {
                    link.set_cut(is_isolated);
                }
            }
        }
    }

    /// Cuts or mends the links from a node to the others; they still reach it.
    pub(super) fn set_link_cut(&self, node: u64, is_cut: bool) {
        for (_, link) in &self.seat(node).links {
            link.set_cut(is_cut);
        }
    }

    /// Waits until the cluster is named and every running node is registered and ready.
    pub(super) async fn settled(&self) {
        for node in self.running() {
            eventually("settled", || {
                let is_registered = metadata::log::read(&**node, |view| {
                    Ok(query::cluster(view)?.is_some()
                        && query::node(view, node.node_id())?.is_some())
                });
                is_registered.unwrap() && node.is_ready()
            })
            .await;
        }
    }

    /// The id of the leader that a majority of the running nodes knows.
    pub(super) async fn leader(&self) -> u64 {
        let mut leader = None;
        eventually("a leader", || {
            leader = self
                .running()
                .find(|node| node.is_leader())
                .map(|node| node.node_id().0);
            let agreed = self
                .running()
                .filter(|node| node.leader().map(|leader| leader.0) == leader)
                .count();
            leader.is_some() && agreed > self.seats.len() / 2
        })
        .await;
        leader.unwrap()
    }

    /// Some running node that does not lead.
    pub(super) async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        self.running()
            .map(|node| node.node_id().0)
            .find(|node| *node != leader)
            .unwrap()
    }
}

impl Seat {
    /// Cuts or mends the address that this node tells the others.
    pub(super) fn set_front_cut(&self, is_cut: bool) {
        self.front.set_cut(is_cut);
    }

    fn running(&self) -> &Arc<RaftNode> {
        &self.running.as_ref().unwrap().node
    }

    pub(super) fn options(&self) -> RaftOptions {
        let disk = format!("disk-{}", self.node);
        let mut options = RaftOptions::new(self.node, disk, self.directory.path().join("received"));
        options.http_address = format!("http-{}:80", self.node);
        options.grpc_address = self.front.address.to_string();
        options.members = vec![Member {
            node: self.node,
            grpc_address: self.front.address.to_string(),
        }];
        for (node, link) in &self.links {
            options.members.push(Member {
                node: *node,
                grpc_address: link.address.to_string(),
            });
        }
        options.formation = Formation::Static;
        options.heartbeat = Duration::from_millis(100);
        options.election_timeout_min = Duration::from_millis(400);
        options.election_timeout_max = Duration::from_millis(800);
        options
    }
}

fn open_stores(directory: &Path) -> (Arc<RocksLog>, Arc<RocksState>) {
    let options = StorageOptions::default();
    for store in ["log", "state"] {
        std::fs::create_dir_all(directory.join(store)).unwrap();
    }
    let log = RocksLog::open(&directory.join("log"), &options).unwrap();
    let state = RocksState::open(&directory.join("state"), &options).unwrap();
    (Arc::new(log), Arc::new(state))
}

/// Raft's tasks let go of the stores shortly after the node stopped; only then can they be opened again.
async fn wait_until_released(node: Arc<RaftNode>) {
    let state = Arc::downgrade(&node.state);
    drop(node);
    eventually("the stores are released", || state.strong_count() == 0).await;
}

/// Looks every few milliseconds until `condition` holds.
pub(super) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = soon();
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) fn repository() -> RepositoryName {
    RepositoryName::parse("library/test").unwrap()
}

pub(super) fn tag(name: &str) -> Tag {
    Tag::parse(name).unwrap()
}

/// A manifest of `body` under one tag.
pub(super) fn put_manifest(name: &str, body: Bytes) -> Command {
    Command::PutManifest(PutManifest {
        repository: repository(),
        digest: Digest::of(Algorithm::Sha256, &body),
        media_type: MediaType::parse("application/vnd.oci.image.index.v1+json").unwrap(),
        body,
        facts: ManifestFacts {
            is_index: true,
            ..ManifestFacts::default()
        },
        tags: vec![tag(name)],
        precondition: Precondition::None,
        allows_missing_manifests: false,
    })
}

/// Each applied one opens another ticket, so applying it twice shows.
pub(super) fn open_ticket(node: u64) -> Command {
    Command::OpenTickets(OpenTickets {
        kind: TicketKind::Upload,
        node: NodeId(node),
        count: 1,
        ttl_ms: 60_000,
    })
}

pub(super) async fn put(node: &RaftNode, name: &str) -> Result<LogIndex, LogError> {
    let body = Bytes::from(format!("manifest {name}"));
    let outcome: Outcome = node
        .propose(put_manifest(name, body), "tester", soon())
        .await?;
    assert_eq!(outcome.response, Response::ManifestPut);
    Ok(outcome.index)
}

pub(super) fn has_tag(node: &RaftNode, name: &str) -> bool {
    metadata::log::read(node, |view| query::tag(view, &repository(), &tag(name)))
        .unwrap()
        .is_some()
}
