//! From a configuration to a running node: the only place where the floors meet.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use consensus::{Formation, Member, RaftNode, RaftOptions, StartError};
use metadata::ids::NodeId;
use metadata::log::{self, LogError};
use metadata::query;
use registry::Registry;
use runtime::{Clients, Shutdown};
use storage::blob::{BlobOptions, DirectoryBlobs};
use storage::error::{BlobError, StorageError};
use storage::layout::DataDir;
use storage::reserve::Reserve;
use storage::rocks::{RocksLog, RocksState, StorageOptions};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::grpc::{self, AdminFront, AdminParts, GcFront, HealFront, Services};
use crate::http::{self, Front, FrontOptions, Metrics, Readiness, ServeOptions};
use crate::{descriptors, floors, metrics, readiness};

/// Time for tasks, consensus and the gRPC front to end, each.
const STOP_TIME: Duration = Duration::from_secs(10);

/// How often a new node looks whether its cluster has been given a name.
const BIND_INTERVAL: Duration = Duration::from_millis(500);
/// How often a disk that did not take the cluster's name is asked again.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// How often the reserve of the Raft directory is looked at.
const RESERVE_INTERVAL: Duration = Duration::from_secs(1);

/// Why a node does not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// The disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The blobs.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// Consensus.
    #[error(transparent)]
    Consensus(#[from] StartError),
    /// An address cannot be listened on.
    #[error("{section}.listen = {address:?}: {source}")]
    Listen {
        /// Section of the configuration.
        section: &'static str,
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The node stopped by itself, because going on could lose data.
    #[error("stopped: {0}")]
    Failed(LogError),
    /// A thread of the runtime broke.
    #[error("opening the stores was interrupted")]
    Interrupted,
    /// Signals cannot be waited for.
    #[error("waiting for signals: {0}")]
    Signals(std::io::Error),
}

impl StartupError {
    /// Whether the data directory is to blame, so that looking at it helps.
    pub fn is_about_data(&self) -> bool {
        match self {
            StartupError::Storage(_) | StartupError::Blobs(_) | StartupError::Failed(_) => true,
            StartupError::Consensus(error) => match error {
                StartError::DiskReplaced { .. }
                | StartError::StateTooOld { .. }
                | StartError::LogLost { .. }
                | StartError::Storage(_)
                | StartError::View(_)
                | StartError::Raft(_) => true,
                StartError::Options(_)
                | StartError::Removed { .. }
                | StartError::MembersDiffer { .. } => false,
            },
            StartupError::Listen { .. } | StartupError::Interrupted | StartupError::Signals(_) => {
                false
            }
        }
    }
}

/// What is open on disk.
pub(crate) struct Stores {
    pub(crate) directory: DataDir,
    reserve: Reserve,
    pub(crate) log: Arc<RocksLog>,
    pub(crate) state: Arc<RocksState>,
    blobs: Arc<DirectoryBlobs>,
}

/// A running node.
pub struct Node {
    raft: Arc<RaftNode>,
    state: Arc<RocksState>,
    blobs: Arc<DirectoryBlobs>,
    stopping: Arc<AtomicBool>,
    work: Shutdown,
    http: (CancellationToken, JoinHandle<()>),
    grpc: (
        CancellationToken,
        JoinHandle<Result<(), tonic::transport::Error>>,
    ),
    stop_notice: Duration,
    /// Holds the lock of the data directory.
    directory: Arc<DataDir>,
}

pub(crate) fn open_stores(config: &Config) -> Result<Stores, StartupError> {
    // First: the databases may open more files than the usual soft limit allows.
    descriptors::raise();
    let raw = &config.raw;
    let directory = DataDir::open(&raw.node.data_dir, NodeId(raw.node.id))?;
    let options = StorageOptions {
        block_cache_bytes: usize::try_from(raw.storage.state_cache_bytes).unwrap_or(usize::MAX),
        ..StorageOptions::default()
    };
    let reserve = Reserve::open(&directory.raft_dir(), raw.storage.reserve_bytes)?;
    let log = Arc::new(RocksLog::open(&directory.raft_dir(), &options)?);
    let state = Arc::new(RocksState::open(&directory.state_dir(), &options)?);
    let options = BlobOptions {
        inline_limit_bytes: usize::try_from(raw.storage.inline_max_bytes).unwrap_or(usize::MAX),
        inline_memory_bytes: raw.storage.inline_memory_bytes,
        min_free_bytes: Some(raw.storage.min_free_bytes).filter(|bytes| *bytes > 0),
        trash_ttl: Duration::from_millis(raw.storage.trash_ttl_ms),
        trash_max_bytes: raw.storage.trash_max_bytes,
        quarantine_max_bytes: raw.storage.quarantine_max_bytes,
        ..BlobOptions::default()
    };
    let blobs = Arc::new(DirectoryBlobs::open(&raw.node.data_dir, options)?);
    Ok(Stores {
        directory,
        reserve,
        log,
        state,
        blobs,
    })
}

pub(crate) fn raft_options(config: &Config, directory: &DataDir) -> RaftOptions {
    let raw = &config.raw;
    let snapshots = snapshot_directory(&raw.node.data_dir);
    let mut options = RaftOptions::new(NodeId(raw.node.id), directory.disk_id(), snapshots);
    options.http_address.clone_from(&config.http_advertise);
    options.grpc_address.clone_from(&config.grpc_advertise);
    let members = raw.cluster.members.iter();
    options.members = members
        .map(|member| Member {
            node: NodeId(member.id),
            grpc_address: member.grpc.clone(),
        })
        .collect();
    options.formation = if raw.cluster.wait_for_init {
        Formation::Manual
    } else {
        Formation::Static
    };
    options.copies = raw.replication.copies;
    options.write_copies = raw.replication.write_copies;
    options.heartbeat = Duration::from_millis(raw.raft.heartbeat_ms);
    options.election_timeout_min = Duration::from_millis(raw.raft.election_min_ms);
    options.election_timeout_max = Duration::from_millis(raw.raft.election_max_ms);
    options.snapshot_after_entries = raw.raft.snapshot_entries;
    options.keep_entries = raw.raft.keep_entries;
    options.ready_lag_entries = raw.raft.ready_lag_entries;
    options.sync_max = Duration::from_millis(raw.raft.sync_max_ms);
    options.tick = Duration::from_millis(raw.raft.tick_ms);
    options
}

fn snapshot_directory(data: &Path) -> std::path::PathBuf {
    data.join("snapshots")
}

async fn listen(section: &'static str, address: &str) -> Result<TcpListener, StartupError> {
    TcpListener::bind(address).await.map_err(|source| {
        let address = address.to_owned();
        StartupError::Listen {
            section,
            address,
            source,
        }
    })
}

impl Node {
    /// Opens the disk, starts every floor and both fronts, and begins to take part in the cluster. Returns as soon
    /// as the fronts answer; the node is ready when `/readyz` says so. `joined` resolves when it takes part.
    ///
    /// # Errors
    /// The disk is damaged, in use or another node's; an address is taken.
    pub async fn start(config: &Config) -> Result<Node, StartupError> {
        let raw = &config.raw;
        let opening = config.clone();
        let stores = tokio::task::spawn_blocking(move || open_stores(&opening));
        let stores = stores.await.map_err(|_| StartupError::Interrupted)??;
        let http_listener = listen("http", &raw.http.listen).await?;
        let grpc_listener = listen("grpc", &raw.grpc.listen).await?;
        let options = raft_options(config, &stores.directory);
        let raft = RaftNode::open(options, stores.log, stores.state.clone()).await?;
        let work = Shutdown::new();
        tend_reserve(stores.reserve, &work);
        let clients = Clients::default();
        let upper = floors::start(config, &raft, &stores.blobs, &clients, &work);
        let grpc_stop = CancellationToken::new();
        let metrics = metrics_of(&raft, &upper.registry, &stores.blobs);
        let stopping = Arc::new(AtomicBool::new(false));
        let readiness = readiness_of(
            raft.clone(),
            stores.blobs.clone(),
            upper.registry.clone(),
            stopping.clone(),
        );
        let services = Services {
            raft: raft.clone(),
            blobs: upper.blob_server,
            admin: admin_of(config, &raft, &stores.blobs, &work),
            gc: GcFront::new(upper.registry.clone(), raft.clone()),
            heal: HealFront::new(NodeId(raw.node.id), upper.registry.clone()),
        };
        let grpc = tokio::spawn(grpc::serve(grpc_listener, services, grpc_stop.clone()));
        let http_stop = CancellationToken::new();
        let front = Front::new(
            upper.registry.clone(),
            front_options(config),
            readiness,
            metrics,
            clients,
        );
        let http = http::serve(
            http_listener,
            front.router(),
            serve_options(config),
            http_stop.clone(),
        );
        http::warn_about_open_access(&raw.http.listen);
        tracing::info!(
            node_id = raw.node.id,
            http = raw.http.listen,
            grpc = raw.grpc.listen,
            data_dir = %raw.node.data_dir.display(),
            copies = config.copies,
            write_copies = config.write_copies,
            "node started"
        );
        Ok(Node {
            raft,
            state: stores.state,
            blobs: stores.blobs.clone(),
            stopping,
            work,
            http: (http_stop, tokio::spawn(http)),
            grpc: (grpc_stop, grpc),
            stop_notice: Duration::from_millis(raw.limits.stop_notice_ms),
            directory: Arc::new(stores.directory),
        })
    }

    /// Takes part in the cluster and goes on until consensus fails. Completes only with an error.
    ///
    /// # Errors
    /// The disk of this node is not the one the cluster knows; or a store failed and going on could lose data.
    pub async fn run(&self) -> Result<std::convert::Infallible, StartupError> {
        self.raft.join().await?;
        tracing::info!("joined");
        tokio::select! {
            refused = self.bind_to_cluster() => Err(refused),
            failed = self.raft.failed() => Err(StartupError::Failed(failed)),
            damage = self.state.damaged() => Err(damage.into()),
            damage = self.blobs.damaged() => Err(damage.into()),
        }
    }

    /// Writes the name of the cluster into the data directory as soon as it is known, so that the directory can never
    /// serve another one. Completes only when the directory belongs to another cluster.
    async fn bind_to_cluster(&self) -> StartupError {
        loop {
            let raft = self.raft.clone();
            let directory = self.directory.clone();
            let bound = tokio::task::spawn_blocking(move || bind(raft.as_ref(), &directory)).await;
            match bound {
                Ok(Ok(true)) => return std::future::pending().await,
                Ok(Ok(false)) => tokio::time::sleep(BIND_INTERVAL).await,
                // A full or failing disk of the blobs: the node serves what it can, and notes the name when it can.
                Ok(Err(StartupError::Storage(error @ StorageError::Io { .. }))) => {
                    tracing::warn!(%error, "the cluster's name cannot be noted yet");
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
                Ok(Err(error)) => return error,
                Err(_) => return StartupError::Interrupted,
            }
        }
    }

    /// Stops in order: not ready, drain requests, finish tasks, hand leadership over, close.
    pub async fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        tokio::time::sleep(self.stop_notice).await;
        let (http_stop, http) = self.http;
        http_stop.cancel();
        if http.await.is_err() {
            tracing::warn!("the HTTP front broke");
        }
        if let Err(late) = self.work.close_and_wait(STOP_TIME).await {
            tracing::warn!(%late, "background work was cut off");
        }
        if let Err(error) = self.raft.shutdown(Instant::now() + STOP_TIME).await {
            tracing::warn!(%error, "consensus did not close cleanly");
        }
        let (grpc_stop, grpc) = self.grpc;
        grpc_stop.cancel();
        if tokio::time::timeout(STOP_TIME, grpc).await.is_err() {
            tracing::warn!("the gRPC front did not end in time");
        }
        drop(self.state);
        tracing::info!("node stopped");
    }
}

/// Binds the directory to the cluster; false while the cluster has no name.
fn bind(raft: &RaftNode, directory: &DataDir) -> Result<bool, StartupError> {
    let cluster = log::read(raft, query::cluster)
        .map_err(|error| StartupError::Failed(LogError::Fatal(error.to_string())))?;
    let Some(cluster) = cluster else {
        return Ok(false);
    };
    directory.bind_cluster(&cluster.cluster_id)?;
    Ok(true)
}

/// Gives the reserve up and makes it again as the disk fills and empties.
fn tend_reserve(reserve: Reserve, work: &Shutdown) {
    let reserve = Arc::new(reserve);
    let stop = work.token();
    drop(work.spawn("tend the reserve", async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(RESERVE_INTERVAL) => {}
                () = stop.cancelled() => return,
            }
            let tended = reserve.clone();
            match tokio::task::spawn_blocking(move || tended.tend()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the reserve could not be tended"),
                Err(_) => return,
            }
        }
    }));
}

fn admin_of(
    config: &Config,
    raft: &Arc<RaftNode>,
    blobs: &Arc<DirectoryBlobs>,
    work: &Shutdown,
) -> AdminFront {
    AdminFront::new(AdminParts {
        raft: raft.clone(),
        blobs: blobs.clone(),
        http_address: config.http_advertise.clone(),
        grpc_address: config.grpc_advertise.clone(),
        stop: work.token(),
    })
}

fn metrics_of(
    raft: &Arc<RaftNode>,
    registry: &Arc<Registry>,
    blobs: &Arc<DirectoryBlobs>,
) -> Metrics {
    let (raft, registry, blobs) = (raft.clone(), registry.clone(), blobs.clone());
    Arc::new(move || {
        let (raft, registry, blobs) = (raft.clone(), registry.clone(), blobs.clone());
        Box::pin(async move { metrics::page(&raft, &registry, blobs.as_ref()).await })
    })
}

fn readiness_of(
    raft: Arc<RaftNode>,
    blobs: Arc<DirectoryBlobs>,
    registry: Arc<Registry>,
    stopping: Arc<AtomicBool>,
) -> Readiness {
    Arc::new(move || {
        if stopping.load(Ordering::Relaxed) {
            return Err("stopping".to_owned());
        }
        let reason = readiness::reason(&raft, &blobs).or_else(|| registry.alarm());
        reason.map_or(Ok(()), Err)
    })
}

fn front_options(config: &Config) -> FrontOptions {
    let raw = &config.raw;
    FrontOptions {
        manifest_max_bytes: raw.limits.manifest_max_bytes,
        page_max: raw.limits.page_max,
        header_max_bytes: raw.limits.header_max_bytes,
        request_deadline: Duration::from_millis(raw.limits.request_deadline_ms),
        body_idle: Duration::from_millis(raw.limits.body_idle_ms),
        chunk_min_bytes: raw.registry.chunk_min_bytes,
    }
}

fn serve_options(config: &Config) -> ServeOptions {
    let limits = &config.raw.limits;
    ServeOptions {
        connections_max: descriptors::connections_max(limits.connections_max, descriptors::limit()),
        header_max_bytes: limits.header_max_bytes,
        header_timeout: Duration::from_millis(limits.header_timeout_ms),
        drain: Duration::from_millis(limits.drain_ms),
    }
}
