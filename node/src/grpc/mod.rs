//! The gRPC front: what other nodes and `clusterctl` ask. Consensus, blobs and administration share one port; the
//! clients keep a connection of their own for each.

mod admin;
mod check;
mod explain;
mod follow;
mod gc;
pub(crate) mod heal;
mod status;

use std::sync::Arc;

use consensus::RaftNode;
use replication::server::{BlobServer, tune};
use storage::blob::DirectoryBlobs;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

pub use admin::AdminFront;
pub use gc::GcFront;
pub use heal::HealFront;

/// Everything the front serves.
pub struct Services {
    /// Consensus.
    pub raft: Arc<RaftNode>,
    /// Blobs and upload sessions.
    pub blobs: BlobServer,
    /// Administration.
    pub admin: AdminFront,
    /// Garbage collection.
    pub gc: GcFront,
    /// Self-healing.
    pub heal: HealFront,
}

/// What administration needs besides consensus.
pub struct AdminParts {
    /// Consensus.
    pub raft: Arc<RaftNode>,
    /// For the disk's size.
    pub blobs: Arc<DirectoryBlobs>,
    /// Told to whoever asks.
    pub http_address: String,
    /// Told to whoever asks.
    pub grpc_address: String,
    /// Ends long reads when the node stops.
    pub stop: CancellationToken,
}

/// Serves until `stop`.
///
/// # Errors
/// The listener broke.
pub async fn serve(
    listener: TcpListener,
    services: Services,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    // The builder's own setting is for listeners that it makes itself. Without this an answer's last frame waits for
    // the delayed acknowledgement of the one before it, 40 ms.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let router = Routes::new(consensus::service(services.raft))
        .add_service(services.blobs.into_service())
        .add_service(services.admin.into_service())
        .add_service(services.gc.into_service())
        .add_service(services.heal.into_service())
        .into_axum_router()
        .layer(axum::middleware::from_fn(follow::follow));
    tune(Server::builder())
        .add_routes(Routes::from(router))
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
}
