//! Nodes that share a log and see each other's blobs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use metadata::command::{Command, Precondition};
use metadata::ids::{LogIndex, NodeId};
use metadata::log::{LogError, MetadataLog};
use metadata::memory::{MemoryLog, MemoryView};
use metadata::response::Outcome;
use metadata::view::{MetadataView, ViewError};
use oci::{Algorithm, ContentRange, Digest, MediaType, Reference, RepositoryName, Tag, media_type};
use replication::memory::MemoryNetwork;
use replication::peers::UploadAnswer;
use replication::{Replication, ReplicationOptions};
use runtime::Shutdown;
use storage::blob::{BlobOptions, BlobStore, DirectoryBlobs, MemoryBlobs};
use tempfile::TempDir;

use crate::{
    BlobInfo, BodyError, BodyStream, Caller, Chunk, ManifestPut, Registry, RegistryOptions, Result,
    Seen,
};

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

pub(super) fn quick_options() -> RegistryOptions {
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
        Cluster::with_options(count, copies, write_copies, quick_options())
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
        let directory = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::empty(
            count,
            copies,
            write_copies,
            quick_options(),
            Some(directory),
        );
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
            directory: directory,
        }
    }

    pub(super) fn open_directory(&self, node: NodeId) -> Arc<dyn BlobStore> {
        let directory = self
            .directory
            .as_ref()
            .unwrap()
            .path()
            .join(node.to_string());
        std::fs::create_dir_all(&directory).unwrap();
        let options = BlobOptions {
            inline_limit_bytes: SMALL_BYTES,
            batch_bytes: 1024,
            ..BlobOptions::default()
        };
        Arc::new(DirectoryBlobs::open(&directory, options).unwrap())
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
            fetch_stall_timeout: Duration::from_millis(500),
            ..ReplicationOptions::default()
        };
        let replication = Replication::new(
            log.clone(),
            blobs.clone(),
            peers.clone(),
            options,
            shutdown.clone(),
        );
        let registry = Registry::new(
            log,
            blobs.clone(),
            replication,
            peers,
            self.options.clone(),
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

    pub(super) fn registry(&self, node: usize) -> &Arc<Registry> {
        &self.nodes[node - 1].registry
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

/// A log whose node has stopped applying; it catches up when something waits for it.
pub(super) struct LaggingLog {
    inner: MemoryLog,
    frozen: Mutex<Option<MemoryView>>,
    pub(super) barriers: AtomicU64,
}

impl LaggingLog {
    pub(super) fn new(inner: MemoryLog) -> Arc<LaggingLog> {
        Arc::new(LaggingLog {
            inner,
            frozen: Mutex::default(),
            barriers: AtomicU64::new(0),
        })
    }

    pub(super) fn freeze(&self) {
        *self.frozen.lock().unwrap() = Some(self.inner.snapshot());
    }

    fn catch_up(&self) {
        *self.frozen.lock().unwrap() = None;
    }
}

#[async_trait]
impl MetadataLog for LaggingLog {
    async fn propose(
        &self,
        command: Command,
        subject: &str,
        deadline: Instant,
    ) -> std::result::Result<Outcome, LogError> {
        self.catch_up();
        self.inner.propose(command, subject, deadline).await
    }

    async fn barrier(&self, deadline: Instant) -> std::result::Result<LogIndex, LogError> {
        self.barriers.fetch_add(1, Ordering::Relaxed);
        let index = self.inner.barrier(deadline).await?;
        self.catch_up();
        Ok(index)
    }

    async fn wait_applied(
        &self,
        index: LogIndex,
        deadline: Instant,
    ) -> std::result::Result<(), LogError> {
        self.inner.wait_applied(index, deadline).await?;
        self.catch_up();
        Ok(())
    }

    fn read(
        &self,
        reader: &mut dyn FnMut(&dyn MetadataView) -> std::result::Result<(), ViewError>,
    ) -> std::result::Result<(), ViewError> {
        match &*self.frozen.lock().unwrap() {
            Some(view) => reader(view),
            None => self.inner.read(reader),
        }
    }

    fn node_id(&self) -> NodeId {
        self.inner.node_id()
    }

    fn is_leader(&self) -> bool {
        self.inner.is_leader()
    }
}

pub(super) fn caller() -> Caller {
    Caller {
        subject: "alice".into(),
        min_revision: None,
        deadline: Instant::now() + Duration::from_secs(20),
    }
}

pub(super) fn repository() -> RepositoryName {
    RepositoryName::parse("team/app").unwrap()
}

pub(super) fn other_repository() -> RepositoryName {
    RepositoryName::parse("team/other").unwrap()
}

pub(super) fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

pub(super) fn by_tag(text: &str) -> Reference {
    Reference::Tag(tag(text))
}

pub(super) fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// Bytes that do not repeat within a chunk.
pub(super) fn pattern(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A chunk with `Content-Length` whose body comes in pieces.
pub(super) fn chunk(bytes: &Bytes) -> Chunk {
    let pieces: Vec<std::result::Result<Bytes, BodyError>> = bytes
        .chunks(1000)
        .map(|piece| Ok(bytes.slice_ref(piece)))
        .collect();
    Chunk {
        range: None,
        length_bytes: Some(bytes.len() as u64),
        body: Box::pin(stream::iter(pieces)),
    }
}

pub(super) fn empty() -> Chunk {
    chunk(&Bytes::new())
}

pub(super) fn ranged(start: u64, bytes: &Bytes) -> Chunk {
    let range = ContentRange {
        start,
        end_inclusive: start + bytes.len() as u64 - 1,
    };
    Chunk {
        range: Some(range),
        ..chunk(bytes)
    }
}

/// A chunk of which only `bytes` arrive.
pub(super) fn torn(bytes: &Bytes, length_bytes: Option<u64>) -> Chunk {
    let lost: BodyError = "the connection broke".into();
    let body: BodyStream = Box::pin(stream::iter([Ok(bytes.clone()), Err(lost)]));
    Chunk {
        range: None,
        length_bytes,
        body,
    }
}

pub(super) async fn push(
    registry: &Arc<Registry>,
    repository: &RepositoryName,
    bytes: &Bytes,
) -> Result<Seen<BlobInfo>> {
    registry
        .push_blob(&caller(), repository, &sha256(bytes), chunk(bytes))
        .await
}

/// The whole blob as a client would read it.
pub(super) async fn read(
    registry: &Arc<Registry>,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Bytes> {
    read_range(registry, repository, digest, 0, u64::MAX).await
}

pub(super) async fn read_range(
    registry: &Arc<Registry>,
    repository: &RepositoryName,
    digest: &Digest,
    start: u64,
    end: u64,
) -> Result<Bytes> {
    let open = registry.open_blob(&caller(), repository, digest).await?;
    let pieces: Vec<Bytes> =
        futures::TryStreamExt::try_collect(open.value.stream(start, end)).await?;
    Ok(pieces.concat().into())
}

/// An image manifest over blobs.
pub(super) fn image(config: &Bytes, layers: &[&Bytes], extra: &str) -> Bytes {
    let layers: Vec<String> = layers
        .iter()
        .map(|layer| descriptor("application/x-layer", layer))
        .collect();
    let body = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]{extra}}}"#,
        media_type::OCI_MANIFEST,
        descriptor(media_type::OCI_CONFIG, config),
        layers.join(","),
    );
    body.into()
}

pub(super) fn index(manifests: &[&Bytes], extra: &str) -> Bytes {
    let manifests: Vec<String> = manifests
        .iter()
        .map(|manifest| descriptor(media_type::OCI_MANIFEST, manifest))
        .collect();
    let list = manifests.join(",");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{list}]{extra}}}"#,
        media_type::OCI_INDEX
    )
    .into()
}

pub(super) fn descriptor(media_type: &str, content: &[u8]) -> String {
    format!(
        r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#,
        sha256(content),
        content.len()
    )
}

pub(super) async fn put(
    registry: &Arc<Registry>,
    repository: &RepositoryName,
    reference: &Reference,
    body: &Bytes,
) -> Result<Seen<ManifestPut>> {
    put_if(registry, repository, reference, body, Precondition::None).await
}

pub(super) async fn put_if(
    registry: &Arc<Registry>,
    repository: &RepositoryName,
    reference: &Reference,
    body: &Bytes,
    precondition: Precondition,
) -> Result<Seen<ManifestPut>> {
    let none: Option<&MediaType> = None;
    registry
        .put_manifest(
            &caller(),
            repository,
            reference,
            Vec::new(),
            none,
            body.clone(),
            precondition,
        )
        .await
}

/// Pushes config, layer and manifest of an image and tags it; the manifest.
pub(super) async fn push_image(
    registry: &Arc<Registry>,
    repository: &RepositoryName,
    text: &str,
    seed: u64,
) -> Bytes {
    let (config, layer) = (pattern(100, seed), pattern(3000, seed + 1_000_000));
    push(registry, repository, &config).await.unwrap();
    push(registry, repository, &layer).await.unwrap();
    let body = image(&config, &[&layer], "");
    put(registry, repository, &by_tag(text), &body)
        .await
        .unwrap();
    body
}
