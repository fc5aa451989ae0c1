//! What a registry does: uploads, blobs, manifests, tags, referrers and lists, over a replicated log of metadata
//! and a replicated store of blobs.
//!
//! Promises:
//! - a blob or manifest is acknowledged only when W nodes hold it durably and the log says so (invariant I2);
//! - tag reads are linearizable unless the operator chose otherwise (I4), content by digest is never wrong (I6);
//! - an upload session is usable only under the repository it was opened for (I14);
//! - a client that goes away leaves no half-done work: whatever changes something runs in a tracked task.
//!
//! Operations and the endpoints of the distribution spec they serve: [`Registry::blob_info`] and
//! [`Registry::open_blob`] (end-2), [`Registry::manifest_info`] and [`Registry::manifest`] (end-3),
//! [`Registry::start_upload`] (end-4a, 4c), [`Registry::push_blob`] (end-4b), [`Registry::append_upload`] (end-5),
//! [`Registry::finish_upload`] (end-6), [`Registry::put_manifest`] (end-7), [`Registry::tags`] (end-8),
//! [`Registry::delete_manifest`] and [`Registry::delete_tag`] (end-9), [`Registry::delete_blob`] (end-10),
//! [`Registry::mount_blob`] (end-11), [`Registry::referrers`] (end-12), [`Registry::upload_status`] (end-13),
//! [`Registry::cancel_upload`] (end-14).
//!
//! This crate must not know: HTTP, gRPC, Raft, RocksDB, or who is allowed to do what.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use futures::Stream;
use metadata::ids::LogIndex;
use metadata::log::MetadataLog;
use replication::Replication;
use replication::peers::BlobPeers;
use runtime::Shutdown;
use storage::blob::BlobStore;
use tokio::sync::OnceCell;

use consistency::Confirmed;
use gc::Gc;
use heal::Heal;
use pages::Pages;
use sessions::Sessions;
use tickets::Tickets;

mod append;
pub mod blobs;
mod consistency;
pub mod error;
mod facts;
mod failpoints;
mod finish;
pub mod gc;
pub mod heal;
pub mod lists;
pub mod manifests;
pub mod open_blob;
pub mod options;
mod pages;
mod proxy;
pub mod referrers;
mod seen_state;
mod sessions;
mod tend;
mod tickets;
pub mod uploads;

#[cfg(test)]
mod tests;

pub use blobs::BlobInfo;
pub use error::RegistryError;
pub use lists::PageOf;
pub use manifests::{ManifestInfo, ManifestPut};
pub use open_blob::{BlobSource, OpenBlob, Piece};
pub use options::{GcOptions, HealOptions, RegistryOptions};
pub use pages::ListPage;
pub use referrers::Referrer;
pub use seen_state::SeenState;
pub use sessions::ticket_of_name;
pub use uploads::{Chunk, UploadState};

/// The outcome of a registry operation.
pub type Result<T> = std::result::Result<T, RegistryError>;

/// Why a request body broke off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A request body as it arrives.
pub type BodyStream = Pin<Box<dyn Stream<Item = std::result::Result<Bytes, BodyError>> + Send>>;

/// One request, as every operation needs to know it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who asks; written to the history of what they change. Empty for anonymous.
    pub subject: String,
    /// The answer must see at least this log index (`Argosy-Min-Revision`).
    pub min_revision: Option<LogIndex>,
    /// When the client stops waiting. Time that a body takes to arrive does not count: after it the operation
    /// has at least [`RegistryOptions::copies_timeout`].
    pub deadline: Instant,
    /// What the request has seen of the state so far.
    pub seen: SeenState,
}

/// An answer and the log index of the state it saw, or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen<T> {
    /// `Argosy-Revision`.
    pub revision: LogIndex,
    /// The answer.
    pub value: T,
}

/// The services of one node. Shared by every front.
pub struct Registry {
    log: Arc<dyn MetadataLog>,
    blobs: Arc<dyn BlobStore>,
    replication: Arc<Replication>,
    peers: Arc<dyn BlobPeers>,
    options: RegistryOptions,
    shutdown: Shutdown,
    tickets: Arc<Tickets>,
    sessions: Sessions,
    pages: Pages,
    /// Read once: it never changes.
    upload_key: OnceLock<Bytes>,
    /// Set once this process has seen a state that is not older than any it acted on before it was started.
    caught_up: OnceCell<()>,
    confirmed: Confirmed,
    gc: Gc,
    heal: Heal,
    started: Instant,
}

impl Registry {
    /// A registry over its parts. Must be called within a tokio runtime: it tends upload sessions in the background
    /// until `shutdown` closes.
    pub fn new(
        log: Arc<dyn MetadataLog>,
        blobs: Arc<dyn BlobStore>,
        replication: Arc<Replication>,
        peers: Arc<dyn BlobPeers>,
        options: RegistryOptions,
        shutdown: Shutdown,
    ) -> Arc<Registry> {
        let tickets = Tickets::new(log.clone(), shutdown.clone(), options.upload_ttl_ms);
        let sessions = Sessions::new(options.uploads_max);
        let (gc, rounds) = Gc::new();
        let pages = Pages::new(options.list_cache_bytes);
        let heal = Heal::new(&options.heal);
        let registry = Arc::new(Registry {
            log,
            blobs,
            replication,
            peers,
            options,
            shutdown,
            tickets,
            sessions,
            pages,
            upload_key: OnceLock::new(),
            caught_up: OnceCell::new(),
            confirmed: Confirmed::default(),
            gc,
            heal,
            started: Instant::now(),
        });
        tend::start(&registry);
        heal::start(&registry);
        gc::start(&registry, rounds);
        registry
    }
}
