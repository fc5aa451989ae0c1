//! What other nodes ask of this one, over gRPC.

mod fetch;
mod push;
#[cfg(test)]
mod tests;
mod upload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use metadata::ids::TicketId;
use oci::Digest;
use proto::blob as wire;
use proto::blob::blob_service_server::{BlobService, BlobServiceServer};
use proto::blob::push_blob_request::Part;
use runtime::{Clients, Shutdown};
use storage::blob::BlobStore;
use storage::error::BlobError;
use storage::failpoints::blob_hit;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use self::push::Push;
use crate::convert::{self, malformed};
use crate::peers::{UploadAnswer, UploadRequest};
use crate::transport::MESSAGE_MAX_BYTES;
pub use crate::transport::tune;

/// Serves upload sessions that this node owns. The caller may go away while it runs: whatever must not stop half-way
/// runs in a task of its own.
pub type UploadHandler =
    Arc<dyn Fn(UploadRequest) -> BoxFuture<'static, UploadAnswer> + Send + Sync>;

/// Told of blobs that another node asked for and that are missing or damaged here.
pub type DamageHandler = Arc<dyn Fn(Digest) + Send + Sync>;

/// Bounds of what other nodes may ask for at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Pushes into this node that bring bytes; idle ones wait for their turn again. Default 2,048.
    pub pushes_max: usize,
    /// A push that brought nothing for this long is idle. Default 5 s.
    pub idle_after: Duration,
    /// Small blobs being stored. Default 256.
    pub small_pushes_max: usize,
    /// Fetches from this node. Default 256.
    pub fetches_max: usize,
    /// How long the bytes of a broken push wait to be resumed. Default 60 s.
    pub resume_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            pushes_max: 2_048,
            idle_after: Duration::from_secs(5),
            small_pushes_max: 256,
            fetches_max: 256,
            resume_timeout: Duration::from_secs(60),
        }
    }
}

/// The blob service of this node.
#[derive(Clone)]
pub struct BlobServer(Arc<Shared>);

struct Shared {
    blobs: Arc<dyn BlobStore>,
    uploads: UploadHandler,
    damage: OnceLock<DamageHandler>,
    options: ServerOptions,
    clients: Clients,
    shutdown: Shutdown,
    pushes: Mutex<HashMap<String, push::Running>>,
    push_turns: Arc<Semaphore>,
    small_turns: Arc<Semaphore>,
    fetch_turns: Arc<Semaphore>,
}

impl BlobServer {
    /// `clients` are those of this node. Must be called within a tokio runtime: pushes that were cut by a restart and are not resumed are discarded
    /// in the background.
    pub fn new(
        blobs: Arc<dyn BlobStore>,
        uploads: UploadHandler,
        options: ServerOptions,
        clients: Clients,
        shutdown: Shutdown,
    ) -> BlobServer {
        let turns = |limit| Arc::new(Semaphore::new(limit));
        let server = BlobServer(Arc::new(Shared {
            push_turns: turns(options.pushes_max),
            small_turns: turns(options.small_pushes_max),
            fetch_turns: turns(options.fetches_max),
            pushes: Mutex::default(),
            blobs,
            uploads,
            damage: OnceLock::new(),
            options,
            clients,
            shutdown,
        }));
        let shared = server.0.clone();
        server
            .0
            .shutdown
            .spawn("push leftovers", push::discard_leftovers(shared));
        server
    }

    /// From now on `handler` is told of every blob that another node asked for in vain. The first handler stays.
    pub fn report_damage_to(&self, handler: DamageHandler) {
        let _ = self.0.damage.set(handler);
    }

    /// For a router tuned by [`tune`].
    pub fn into_service(self) -> BlobServiceServer<BlobServer> {
        BlobServiceServer::new(self)
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES)
    }
}

impl Shared {
    /// A blob could not be read. Whether this node should have it is for the handler to find out.
    fn unreadable(&self, digest: &Digest) {
        if let Some(handler) = self.damage.get() {
            handler(*digest);
        }
    }
}

/// A turn, or the reason why there is none. Nobody waits: the peer has other nodes to turn to.
fn turn(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Status> {
    turns
        .clone()
        .try_acquire_owned()
        .map_err(|_| Status::resource_exhausted("too many transfers"))
}

/// What a peer is told about a failure of the store here.
fn blob_status(error: &BlobError) -> Status {
    match error {
        BlobError::NoSpace => Status::resource_exhausted(error.to_string()),
        BlobError::DigestMismatch { .. } => Status::data_loss(error.to_string()),
        BlobError::Corrupt { .. } => {
            tracing::error!(%error, "a stored blob is damaged");
            Status::data_loss(error.to_string())
        }
        _ => {
            tracing::warn!(%error, "the blob store failed a peer");
            Status::aborted("the blob store failed")
        }
    }
}

#[tonic::async_trait]
impl BlobService for BlobServer {
    type PushBlobStream = ReceiverStream<Result<wire::PushBlobReply, Status>>;
    type FetchBlobStream = BoxStream<'static, Result<wire::FetchBlobReply, Status>>;

    async fn push_blob(
        &self,
        request: Request<Streaming<wire::PushBlobRequest>>,
    ) -> Result<Response<Self::PushBlobStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.part);
        let Some(Part::Start(start)) = first else {
            return Err(malformed("a push begins with its start"));
        };
        let replies = Push::start(self.0.clone(), &start, requests)?;
        Ok(Response::new(ReceiverStream::new(replies)))
    }

    async fn push_small(
        &self,
        request: Request<wire::PushSmallRequest>,
    ) -> Result<Response<wire::PushSmallReply>, Status> {
        let turn = turn(&self.0.small_turns)?;
        let request = request.into_inner();
        let end = convert::push_end(&request.end.ok_or_else(|| malformed("end"))?)?;
        // A task of its own, because the caller may go away in the middle of the commit.
        let shared = self.0.clone();
        let store = async move {
            let _turn = turn;
            push::store_small(&shared, end, request.body).await
        };
        match self.0.shutdown.spawn("small push", store).await {
            Ok(stored) => stored.map(|()| Response::new(wire::PushSmallReply {})),
            Err(_) => Err(Status::aborted("the blob store failed")),
        }
    }

    async fn pin(
        &self,
        request: Request<wire::PinRequest>,
    ) -> Result<Response<wire::PinReply>, Status> {
        let request = request.into_inner();
        let digest = convert::digest(&request.digest)?;
        let pinned = self
            .0
            .blobs
            .pin(&digest, TicketId::from_u64(request.ticket))
            .await;
        let present = pinned.map_err(|error| blob_status(&error))?.is_some();
        blob_hit("pin_before_reply").map_err(|error| blob_status(&error))?;
        Ok(Response::new(wire::PinReply { present }))
    }

    async fn fetch_blob(
        &self,
        request: Request<wire::FetchBlobRequest>,
    ) -> Result<Response<Self::FetchBlobStream>, Status> {
        let turn = turn(&self.0.fetch_turns)?;
        let request = request.into_inner();
        let digest = convert::digest(&request.digest)?;
        let reader = self
            .0
            .blobs
            .open(&digest)
            .await
            .inspect_err(|_| self.0.unreadable(&digest))
            .map_err(|error| blob_status(&error))?;
        let reader = reader.ok_or_else(|| {
            self.0.unreadable(&digest);
            Status::not_found("no such blob")
        })?;
        let shared = self.0.clone();
        Ok(Response::new(fetch::stream(
            shared,
            reader,
            request.offset_bytes,
            turn,
        )?))
    }

    async fn upload(
        &self,
        request: Request<Streaming<wire::UploadRequest>>,
    ) -> Result<Response<wire::UploadReply>, Status> {
        let request = upload::receive(request.into_inner()).await?;
        let answer = (self.0.uploads)(request).await;
        Ok(Response::new(convert::answer_to_wire(answer)))
    }

    async fn ping(
        &self,
        _request: Request<wire::PingRequest>,
    ) -> Result<Response<wire::PingReply>, Status> {
        Ok(Response::new(wire::PingReply {
            serves_clients: self.0.clients.are_here(),
        }))
    }
}
