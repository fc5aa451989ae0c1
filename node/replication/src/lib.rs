//! Movement of blobs between nodes.
//!
//! **Promises**: a push that says "durable" was verified, synced and pinned by the peer (invariant I2); bytes flow to
//! the peers while they arrive; a copy is counted only under an open ticket its node pinned first (protocols.md 6.3);
//! nobody receives a complete blob whose digest is wrong (I6); a blob is fetched once per node however many clients
//! wait for it; one push or fetch holds about 1 MiB of memory besides the windows of its transport.
//!
//! **Must not know** HTTP, repositories' contents, who may do what, or how the log is replicated.
//!
//! [`Replication`] is what services use; [`client::GrpcPeers`] and [`server::BlobServer`] are the two ends of the
//! wire; [`memory::MemoryPeers`] replaces both in tests of services.

pub mod client;
mod convert;
pub mod error;
mod fetch;
mod follow;
pub mod memory;
mod options;
pub mod peers;
pub mod placement;
pub mod server;
mod spread;
mod state;
#[cfg(test)]
mod testing;
mod tickets;
mod transport;

use std::sync::Arc;
use std::time::Instant;

use metadata::command::{CloseTickets, Command};
use metadata::ids::TicketId;
use metadata::log::{LogError, MetadataLog};
use metadata::response::Response;
use runtime::{Pacer, Shutdown};
use storage::blob::BlobStore;
use tokio::sync::Semaphore;

pub use fetch::FetchReader;
pub use options::ReplicationOptions;
pub use spread::{Copies, Spread};

use crate::fetch::Fetches;
use crate::peers::BlobPeers;
use crate::tickets::RepairTickets;

/// Copies blobs to other nodes and reads them from there.
pub struct Replication {
    log: Arc<dyn MetadataLog>,
    blobs: Arc<dyn BlobStore>,
    peers: Arc<dyn BlobPeers>,
    options: ReplicationOptions,
    shutdown: Shutdown,
    fetches: Fetches,
    repair_tickets: RepairTickets,
    /// Of all copies that nobody reads, together.
    repair_pacer: Pacer,
    /// Bytes of memory left for copies that go on after their commit.
    straggler_memory: Semaphore,
}

impl Replication {
    /// Replication of one node. Must be called within a tokio runtime: what fetches left behind before a restart is
    /// discarded in the background.
    pub fn new(
        log: Arc<dyn MetadataLog>,
        blobs: Arc<dyn BlobStore>,
        peers: Arc<dyn BlobPeers>,
        options: ReplicationOptions,
        shutdown: Shutdown,
    ) -> Arc<Replication> {
        let fetches = Fetches::new(options.fetches_max);
        let repair_pacer = Pacer::new(options.repair_bytes_per_second);
        let straggler_memory = Semaphore::new(options.straggler_memory_bytes);
        let replication = Arc::new(Replication {
            log,
            blobs,
            peers,
            options,
            shutdown,
            fetches,
            repair_tickets: RepairTickets::default(),
            repair_pacer,
            straggler_memory,
        });
        let cleaner = replication.clone();
        replication.shutdown.spawn("fetch leftovers", async move {
            let leftovers = |name: &str| cleaner.fetches.is_leftover(name);
            discard_staged(cleaner.blobs.as_ref(), leftovers).await;
        });
        replication
    }

    /// Proposes on behalf of the cluster itself.
    async fn propose(&self, command: Command) -> Result<Response, LogError> {
        let deadline = Instant::now() + self.options.propose_timeout;
        Ok(self.log.propose(command, "", deadline).await?.response)
    }

    /// Closes a repair ticket, unless its last use has closed it.
    async fn close_ticket(&self, ticket: TicketId) {
        if state::is_closed(self.log.as_ref(), ticket).unwrap_or(false) {
            return;
        }
        let command = Command::CloseTickets(CloseTickets {
            tickets: vec![ticket],
        });
        if let Err(error) = self.propose(command).await {
            tracing::debug!(%ticket, %error, "a repair ticket is left to expire");
        }
    }
}

/// Discards what was staged under the names that `unwanted` picks.
async fn discard_staged(blobs: &dyn BlobStore, unwanted: impl Fn(&str) -> bool) {
    let names = match blobs.staged_names().await {
        Ok(names) => names,
        Err(error) => {
            tracing::warn!(%error, "cannot list what is staged");
            return;
        }
    };
    for name in names.iter().filter(|name| unwanted(name)) {
        if let Err(error) = blobs.discard_name(name).await {
            tracing::warn!(name, %error, "cannot discard what an earlier boot staged");
        }
    }
}
