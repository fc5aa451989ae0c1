//! Nodes that share a log and see each other's blobs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use metadata::ids::{LogIndex, NodeId};
use metadata::log::MetadataLog;
use metadata::memory::MemoryLog;
use metadata::view::MetadataView as _;
use oci::Digest;
use replication::memory::MemoryNetwork;
use replication::peers::UploadAnswer;
use replication::{Replication, ReplicationOptions};
use runtime::Shutdown;
use storage::blob::{BlobOptions, BlobStore, DirectoryBlobs, MemoryBlobs};
use tempfile::TempDir;

pub(super) use super::content::*;
pub(super) use super::lagging::LaggingLog;
use crate::{Registry, RegistryOptions};

/// Blobs beyond this many bytes become files, and are copied while they arrive.
pub(super) const SMALL_BYTES: usize = 4096;

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) registry: Arc<Registry>,
    pub(super) blobs: Arc<dyn BlobStore>,
    pub(super) shutdown: Shutdown,
}

pub(super) struct Cluster {
    pub(super) log: MemoryLog,
    pub(super) network: Arc<MemoryNetwork>,
    pub(super) nodes: Vec<Node>,
    pub(super) options: RegistryOptions,
    directory: Option<TempDir>,
}

/// For tests in which copies cannot be made. All others wait long, so that a slow machine does not fail them.
pub(super) fn impatient() -> RegistryOptions {
    RegistryOptions {
        copies_timeout: Duration::from_millis(400),
        ..RegistryOptions::default()
    }
}

impl Cluster {
    /// One node, one copy, blobs in memory.
    pub(super) fn single() -> Cluster {
        Cluster::memory(1, 1, 1)
    }

    /// `count` nodes with R = `copies` and W = `write_copies`, blobs in memory.
    pub(super) fn memory(count: u64, copies: u32, write_copies: u32) -> Cluster {
        Cluster::with_options(count, copies, write_copies, RegistryOptions::default())
    }

    pub(super) fn with_options(
        count: u64,
        copies: u32,
        write_copies: u32,
        options: RegistryOptions,
    ) -> Cluster {
        let mut cluster = Cluster::empty(count, copies, write_copies, options, None);
        for id in 1..=count {
            cluster.start(NodeId(id), Arc::new(MemoryBlobs::new()));
        }
        cluster
    }

    /// The same with blobs in directories.
    pub(super) fn on_disk(count: u64, copies: u32, write_copies: u32) -> Cluster {
        Cluster::on_disk_with(count, copies, write_copies, RegistryOptions::default())
    }

    pub(super) fn on_disk_with(
        count: u64,
        copies: u32,
        write_copies: u32,
        options: RegistryOptions,
    ) -> Cluster {
        let directory = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::empty(count, copies, write_copies, options, Some(directory));
        for id in 1..=count {
            let blobs = cluster.open_directory(NodeId(id));
            cluster.start(NodeId(id), blobs);
        }
        cluster
    }

    fn empty(
        count: u64,
        copies: u32,
        write: u32,
        options: RegistryOptions,
        directory: Option<TempDir>,
    ) -> Cluster {
        let ids: Vec<NodeId> = (1..=count).map(NodeId).collect();
        let log = MemoryLog::with_nodes(&ids, copies, write).unwrap();
        Cluster {
            log,
            network: MemoryNetwork::new(),
            nodes: Vec::new(),
            options,
            directory,
        }
    }

    pub(super) fn open_directory(&self, node: NodeId) -> Arc<dyn BlobStore> {
        self.open_directory_with(node, BlobOptions::default())
    }

    pub(super) fn open_directory_with(
        &self,
        node: NodeId,
        options: BlobOptions,
    ) -> Arc<dyn BlobStore> {
        let directory = self.root().join(node.to_string());
        std::fs::create_dir_all(&directory).unwrap();
        let options = BlobOptions {
            inline_limit_bytes: SMALL_BYTES,
            batch_bytes: 1024,
            ..options
        };
        Arc::new(DirectoryBlobs::open(&directory, options).unwrap())
    }

    pub(super) fn root(&self) -> &Path {
        self.directory.as_ref().unwrap().path()
    }

    /// What the blobs of a node take from the disk, in bytes: the index is not counted, it allocates ahead.
    pub(super) fn allocated_bytes(&self, node: NodeId) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        let mut folders = vec![self.root().join(node.to_string()).join("blobs")];
        let mut blocks = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                    Ok(metadata) => blocks += metadata.blocks(),
                    Err(_) => {}
                }
            }
        }
        blocks * 512
    }

    /// Starts a node, or starts it again.
    pub(super) fn start(&mut self, id: NodeId, blobs: Arc<dyn BlobStore>) {
        let node = self.assemble(id, Arc::new(self.log.on_node(id)), blobs);
        self.nodes.retain(|other| other.id != id);
        self.nodes.push(node);
        self.nodes.sort_by_key(|node| node.id);
    }

    pub(super) fn assemble(
        &self,
        id: NodeId,
        log: Arc<dyn MetadataLog>,
        blobs: Arc<dyn BlobStore>,
    ) -> Node {
        let peers = self.network.join(id, blobs.clone());
        let shutdown = Shutdown::new();
        let options = ReplicationOptions {
            copies_timeout: self.options.copies_timeout,
            small_max_bytes: SMALL_BYTES as u64,
            retry_delay: Duration::from_millis(5),
            fetch_stall_timeout: Duration::from_secs(5),
            ..ReplicationOptions::default()
        };
        let replication = Replication::new(
            log.clone(),
            blobs.clone(),
            peers.clone(),
            options,
            shutdown.clone(),
        );
        // Tests ask for the rounds they want.
        let mut options = self.options.clone();
        options.gc.is_automatic = false;
        let registry = Registry::new(
            log,
            blobs.clone(),
            replication,
            peers,
            options,
            shutdown.clone(),
        );
        // Weak: the network knows the node, and the node the network.
        let served = Arc::downgrade(&registry);
        let handler = Arc::new(move |request| {
            let registry = served.upgrade();
            let answer: BoxFuture<'static, UploadAnswer> = Box::pin(async move {
                match registry {
                    Some(registry) => registry.serve_upload(request).await,
                    None => UploadAnswer::Unavailable {
                        reason: "stopped".into(),
                    },
                }
            });
            answer
        });
        self.network.serve_uploads(id, handler);
        Node {
            id,
            registry,
            blobs,
            shutdown,
        }
    }

    pub(super) fn registry(&self, node: u64) -> &Arc<Registry> {
        let known = self.nodes.iter().find(|known| known.id.0 == node);
        &known.expect("the node was started").registry
    }

    /// The large blob files of a node, those in quarantine left out.
    pub(super) fn blob_files(&self, node: NodeId) -> Vec<std::path::PathBuf> {
        let mut folders = vec![self.root().join(node.to_string()).join("blobs")];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if !path.is_dir() {
                    files.push(path);
                } else if !path.ends_with("quarantine") && !path.ends_with("trash") {
                    folders.push(path);
                }
            }
        }
        files.retain(|path| {
            let name = path.file_name().unwrap_or_default();
            name.len() >= 64 && path.extension().is_none()
        });
        files
    }

    /// Flips a byte late in every large blob file of a node, as a failing disk would.
    pub(super) fn damage_files(&self, node: NodeId) {
        for path in self.blob_files(node) {
            let mut bytes = std::fs::read(&path).unwrap();
            if let Some(byte) = bytes.get_mut(5 * 256 * 1024) {
                *byte ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
        }
    }

    /// Waits until the first node has nothing staged: a round in the background may be clearing it away.
    pub(super) async fn nothing_is_staged(&self) {
        let blobs = &self.nodes[0].blobs;
        eventually("nothing is staged", || async {
            blobs.staged_names().await.unwrap().is_empty()
        })
        .await;
    }

    /// The first record of the state whose key begins so.
    pub(super) fn first_record(&self, prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut first = None;
        let state = self.log.snapshot();
        let scanned = state.scan(prefix, None, &mut |key, value| {
            first = Some((key.to_vec(), value.to_vec()));
            std::ops::ControlFlow::Break(())
        });
        scanned.unwrap();
        first.unwrap()
    }

    /// The log index of the latest entry.
    pub(super) fn applied(&self) -> LogIndex {
        self.log.snapshot().applied()
    }

    /// Nodes that hold a counted copy.
    pub(super) fn holders(&self, digest: &Digest) -> Vec<u64> {
        let blob = metadata::query::blob(&self.log.snapshot(), digest).unwrap();
        blob.map(|blob| blob.holders.iter().map(|node| node.0).collect())
            .unwrap_or_default()
    }
}

/// Waits for what happens in the background.
pub(super) async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(20), waited).await;
    assert!(outcome.is_ok(), "never: {what}");
}
