//! The floors above consensus: replication and the registry.

use std::sync::Arc;
use std::time::Duration;

use consensus::RaftNode;
use metadata::ids::NodeId;
use metadata::log::MetadataLog;
use registry::{Registry, RegistryOptions};
use replication::client::{Directory, GrpcPeers};
use replication::peers::BlobPeers;
use replication::server::{BlobServer, ServerOptions, UploadHandler};
use replication::{Replication, ReplicationOptions};
use runtime::{Clients, Shutdown};
use storage::blob::{BlobStore, DirectoryBlobs};

use crate::config::Config;

/// The services above consensus.
pub(crate) struct Upper {
    pub(crate) registry: Arc<Registry>,
    pub(crate) blob_server: BlobServer,
}

/// Starts both on top of `raft`. `clients` are those the front will serve.
pub(crate) fn start(
    config: &Config,
    raft: &Arc<RaftNode>,
    blobs: &Arc<DirectoryBlobs>,
    clients: &Clients,
    work: &Shutdown,
) -> Upper {
    let log: Arc<dyn MetadataLog> = raft.clone();
    let blobs: Arc<dyn BlobStore> = blobs.clone();
    let node = NodeId(config.raw.node.id);
    // As consensus has it: what is configured here wins over what the nodes told the cluster.
    let configured = config.raw.cluster.members.iter();
    let configured = configured.map(|member| (NodeId(member.id), member.grpc.clone()));
    let directory = Directory::of(log.clone()).with_configured(configured.collect());
    let peers: Arc<dyn BlobPeers> = GrpcPeers::new(node, directory, clients.clone(), work);
    let replication = Replication::new(
        log.clone(),
        blobs.clone(),
        peers.clone(),
        replication_options(config),
        work.clone(),
    );
    let registry = Registry::new(
        log,
        blobs.clone(),
        replication,
        peers,
        registry_options(config),
        work.clone(),
    );
    let blob_server = blob_server(&registry, blobs, clients, work);
    Upper {
        registry,
        blob_server,
    }
}

/// What other nodes ask of this one.
fn blob_server(
    registry: &Arc<Registry>,
    blobs: Arc<dyn BlobStore>,
    clients: &Clients,
    work: &Shutdown,
) -> BlobServer {
    let owner = registry.clone();
    let uploads: UploadHandler = Arc::new(move |request| {
        let owner = owner.clone();
        Box::pin(async move { owner.serve_upload(request).await })
    });
    let options = ServerOptions::default();
    let server = BlobServer::new(blobs, uploads, options, clients.clone(), work.clone());
    let suspected = Arc::downgrade(registry);
    server.report_damage_to(Arc::new(move |digest| {
        if let Some(registry) = suspected.upgrade() {
            drop(registry.suspect_copy(digest));
        }
    }));
    server
}

fn replication_options(config: &Config) -> ReplicationOptions {
    let raw = &config.raw;
    ReplicationOptions {
        copies_timeout: Duration::from_millis(raw.replication.copies_timeout_ms),
        repair_bytes_per_second: raw.repair.bytes_per_second,
        repair_busy_bytes_per_second: raw.repair.busy_bytes_per_second,
        ..ReplicationOptions::default()
    }
}

fn registry_options(config: &Config) -> RegistryOptions {
    let raw = &config.raw;
    RegistryOptions {
        manifest_max_bytes: raw.limits.manifest_max_bytes,
        page_max: raw.limits.page_max,
        list_cache_bytes: raw.limits.list_cache_bytes,
        upload_ttl_ms: raw.registry.upload_ttl_ms,
        copies_timeout: Duration::from_millis(raw.replication.copies_timeout_ms),
        deletes_enabled: raw.registry.deletes_enabled,
        read_only: raw.registry.read_only,
        sparse_indexes: raw.registry.sparse_indexes,
        linearizable_tags: raw.registry.linearizable_tags,
        offline_reads: Duration::from_millis(raw.registry.offline_reads_ms),
        uploads_max: raw.limits.uploads_max,
        upload_max_bytes: Some(raw.limits.blob_max_bytes).filter(|bytes| *bytes > 0),
        gc: config.gc.clone(),
        heal: config.heal.clone(),
    }
}
