//! The task behind a fetch: one transfer of one blob, whoever reads it.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use metadata::command::{AddPlacement, Command};
use metadata::ids::{NodeId, TicketId};
use metadata::log::LogError;
use metadata::response::Response;
use oci::Digest;
use runtime::Backoff;
use storage::blob::{CHUNK_BYTES, StagedBlob};
use storage::error::BlobError;
use storage::failpoints::blob_hit;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::pace::START_BYTES;
use super::{Failure, State};
use crate::error::PeerError;
use crate::{Replication, state};

/// Bytes that readers do not get before the digest of the whole is verified.
const HELD_BACK_BYTES: u64 = CHUNK_BYTES as u64;

/// Delays between rounds over all holders.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// How often a transfer that nobody reads, but whose copy is wanted, looks whether it still is.
const LOOK_AROUND: Duration = Duration::from_secs(5);

/// For whom a transfer was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// For a client that reads it.
    Read,
    /// For a copy that is missing. It keeps to a pace while nobody else reads it.
    Repair,
}

pub(super) struct Transfer {
    replication: Arc<Replication>,
    digest: Digest,
    size_bytes: u64,
    holders: Vec<NodeId>,
    state: Arc<watch::Sender<State>>,
    purpose: Purpose,
    /// Nodes that answered; the bytes are theirs.
    sources: Vec<NodeId>,
    connected: bool,
    received_bytes: u64,
}

impl Transfer {
    pub(super) fn new(
        replication: Arc<Replication>,
        digest: Digest,
        size_bytes: u64,
        holders: Vec<NodeId>,
        state: Arc<watch::Sender<State>>,
        purpose: Purpose,
    ) -> Transfer {
        Transfer {
            replication,
            digest,
            size_bytes,
            holders,
            state,
            purpose,
            sources: Vec::new(),
            connected: false,
            received_bytes: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let mut staged = match self.stage().await {
            Ok(staged) => staged,
            Err(failure) => return self.fail(failure),
        };
        match self.receive(&mut staged).await {
            Ok(()) if self.is_wanted() => self.keep(staged).await,
            Ok(()) => self.serve_unkept(staged).await,
            Err(failure) => {
                self.fail(failure);
                self.discard(staged).await;
            }
        }
    }

    async fn stage(&self) -> Result<StagedBlob, Failure> {
        let name = self.replication.fetches.staged_name();
        let mut staged = self
            .replication
            .blobs
            .stage(&name)
            .await
            .map_err(|error| self.local_failure(&error))?;
        staged.set_algorithm(self.digest.algorithm());
        self.state
            .send_modify(|state| state.staged = Some(staged.reader()));
        Ok(staged)
    }

    /// Receives and verifies the whole blob, unless nobody needs it any more.
    async fn receive(&mut self, staged: &mut StagedBlob) -> Result<(), Failure> {
        let stop = self.replication.shutdown.token();
        let unread = unread(self.replication.clone(), self.digest, self.state.clone());
        tokio::select! {
            result = self.receive_all(staged) => result,
            () = unread => Err(Failure::Unread),
            () = stop.cancelled() => Err(Failure::ShuttingDown),
        }
    }

    async fn receive_all(&mut self, staged: &mut StagedBlob) -> Result<(), Failure> {
        let options = self.replication.options.clone();
        let turn = self.replication.fetches.turns.clone().acquire_owned();
        // A turn that does not come is like a source that does not answer.
        let _turn = match timeout(options.fetch_stall_timeout, turn).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_)) | Err(_) => return Err(Failure::NoSource),
        };
        let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY);
        let mut rounds = 0;
        while !self.is_complete() {
            if rounds == options.fetch_rounds {
                return Err(Failure::NoSource);
            }
            let before = self.received_bytes;
            self.receive_round(staged).await?;
            if self.received_bytes > before {
                rounds = 0;
                backoff.reset();
            } else {
                rounds += 1;
            }
            if !self.is_complete() && rounds < options.fetch_rounds {
                sleep(backoff.next_delay()).await;
            }
        }
        self.verify(staged).await
    }

    /// Asks every holder once, until the blob is complete.
    async fn receive_round(&mut self, staged: &mut StagedBlob) -> Result<(), Failure> {
        for node in self.replication.nearest_first(&self.digest, &self.holders) {
            match self.receive_from(node, staged).await {
                Ok(()) => {}
                Err(Interruption::Peer(error)) => {
                    let offset_bytes = self.received_bytes;
                    tracing::warn!(peer = %node, digest = %self.digest, offset_bytes, %error, "a source failed");
                }
                Err(Interruption::Local(error)) => return Err(self.local_failure(&error)),
            }
            if self.is_complete() {
                break;
            }
        }
        Ok(())
    }

    /// Continues the transfer from one source.
    async fn receive_from(
        &mut self,
        node: NodeId,
        staged: &mut StagedBlob,
    ) -> Result<(), Interruption> {
        let replication = self.replication.clone();
        let fetched =
            replication.fetch_from(node, &self.digest, self.size_bytes, self.received_bytes);
        let mut bytes = fetched.await?;
        self.keep_pace(node, START_BYTES).await;
        self.sources.push(node);
        self.connected = true;
        self.state.send_modify(|state| state.connected = true);
        while self.received_bytes < self.size_bytes {
            let patience = replication.options.fetch_stall_timeout;
            let next = timeout(patience, bytes.next())
                .await
                .map_err(|_| PeerError::Timeout(node))?;
            let Some(piece) = next.transpose()? else {
                return Err(refused(node, "its bytes ended early".into()));
            };
            if piece.len() as u64 > self.size_bytes - self.received_bytes {
                return Err(refused(node, "it sent too many bytes".into()));
            }
            self.keep_pace(node, piece.len() as u64).await;
            self.received_bytes += piece.len() as u64;
            blob_hit("fetch_before_write").map_err(Interruption::Local)?;
            staged.append(piece).await.map_err(Interruption::Local)?;
            let released_bytes = self
                .received_bytes
                .min(self.size_bytes.saturating_sub(HELD_BACK_BYTES));
            self.release(released_bytes);
        }
        Ok(())
    }

    async fn keep_pace(&self, source: NodeId, bytes: u64) {
        if self.purpose == Purpose::Repair && self.state.receiver_count() <= 1 {
            self.replication.keep_pace(source, bytes).await;
        }
    }

    async fn verify(&mut self, staged: &mut StagedBlob) -> Result<(), Failure> {
        let actual = staged
            .digest(self.digest.algorithm())
            .await
            .map_err(|error| self.local_failure(&error))?;
        if actual == self.digest {
            self.release(self.size_bytes);
            return Ok(());
        }
        // Which of several sources was wrong cannot be told, and one of them may be a good one. All are asked last.
        for &node in &self.sources {
            self.replication.fetches.suspects.add(node, self.digest);
        }
        tracing::error!(digest = %self.digest, %actual, sources = ?self.sources, "fetched bytes are damaged");
        Err(Failure::NoSource)
    }

    /// Commits the copy and has it counted. Readers may have all of it meanwhile.
    async fn keep(self, staged: StagedBlob) {
        let Some(ticket) = self.replication.repair_ticket().await else {
            return self.serve_unkept(staged).await;
        };
        let blobs = &self.replication.blobs;
        let committed = match blob_hit("fetch_before_commit") {
            Ok(()) => blobs.commit(staged, &self.digest, ticket).await,
            Err(error) => Err((error, Some(staged))),
        };
        match committed {
            Ok(_) => {
                let is_counted = self.place(ticket).await;
                self.replication.fetches.forget(&self.digest, &self.state);
                self.settle(is_counted);
            }
            Err((error, staged)) => {
                tracing::warn!(digest = %self.digest, %error, "a fetched blob could not be kept");
                self.replication.close_ticket(ticket).await;
                match staged {
                    Some(staged) => self.serve_unkept(staged).await,
                    None => {
                        self.replication.fetches.forget(&self.digest, &self.state);
                        self.settle(false);
                    }
                }
            }
        }
    }

    /// Whether the copy counts now.
    async fn place(&self, ticket: TicketId) -> bool {
        let replication = &self.replication;
        let node = replication.log.node_id();
        let placement = AddPlacement {
            ticket,
            node,
            digest: self.digest,
        };
        let counted = match blob_hit("fetch_before_place") {
            Ok(()) => replication.propose(Command::AddPlacement(placement)).await,
            Err(error) => Err(LogError::Fatal(error.to_string())),
        };
        match counted {
            Ok(Response::Rejected(rejection)) => {
                tracing::info!(digest = %self.digest, %rejection, "a fetched copy is not counted");
            }
            Ok(_) => return true,
            Err(error) => {
                tracing::info!(digest = %self.digest, %error, "a fetched copy is not counted")
            }
        }
        // Counted or not is decided by the order in the log; the unlink rule looks at nothing else.
        replication.close_ticket(ticket).await;
        let log = replication.log.as_ref();
        if let Err(error) = replication
            .blobs
            .unlink_if_unneeded(&self.digest, log)
            .await
        {
            tracing::warn!(digest = %self.digest, %error, "an uncounted copy is left to the sweeper");
        }
        false
    }

    /// Serves readers that come while there are some, then throws the bytes away.
    async fn serve_unkept(self, staged: StagedBlob) {
        self.settle(false);
        let replication = &self.replication;
        let stop = replication.shutdown.token();
        let until_unread = async {
            loop {
                self.state.closed().await;
                sleep(replication.options.unkept_ttl).await;
                if replication.fetches.forget_unread(&self.digest, &self.state) {
                    break;
                }
            }
        };
        tokio::select! {
            () = until_unread => {}
            () = stop.cancelled() => replication.fetches.forget(&self.digest, &self.state),
        }
        self.discard(staged).await;
    }

    async fn discard(&self, staged: StagedBlob) {
        if let Err(error) = self.replication.blobs.discard(staged).await {
            tracing::warn!(digest = %self.digest, %error, "fetched bytes could not be discarded");
        }
    }

    /// Forgotten first: whoever sees the failure and comes back starts anew.
    fn fail(&self, failure: Failure) {
        self.replication.fetches.forget(&self.digest, &self.state);
        self.state
            .send_modify(|state| state.failure = Some(failure));
    }

    fn local_failure(&self, error: &BlobError) -> Failure {
        tracing::warn!(digest = %self.digest, %error, "fetched bytes could not be written");
        match error {
            BlobError::NoSpace => Failure::NoSpace,
            error if error.is_failing_disk() => Failure::NoSpace,
            _ => Failure::Local,
        }
    }

    fn settle(&self, is_kept: bool) {
        self.state
            .send_modify(|state| state.is_kept = Some(is_kept));
    }

    fn release(&self, released_bytes: u64) {
        self.state
            .send_modify(|state| state.released_bytes = released_bytes);
    }

    /// An empty blob is complete once a holder has said so.
    fn is_complete(&self) -> bool {
        self.connected && self.received_bytes == self.size_bytes
    }

    fn is_wanted(&self) -> bool {
        is_wanted(&self.replication, &self.digest)
    }
}

fn is_wanted(replication: &Replication, digest: &Digest) -> bool {
    state::misses_copy(replication.log.as_ref(), digest).unwrap_or_else(|error| {
        tracing::error!(%digest, %error, "cannot read the holders of a blob");
        false
    })
}

/// Completes when nobody reads a transfer whose copy is not wanted either; it is forgotten by then.
async fn unread(replication: Arc<Replication>, digest: Digest, state: Arc<watch::Sender<State>>) {
    loop {
        state.closed().await;
        if !is_wanted(&replication, &digest) && replication.fetches.forget_unread(&digest, &state) {
            return;
        }
        sleep(LOOK_AROUND).await;
    }
}

/// A source failed, or this node did.
enum Interruption {
    Peer(PeerError),
    Local(BlobError),
}

impl From<PeerError> for Interruption {
    fn from(error: PeerError) -> Self {
        Interruption::Peer(error)
    }
}

fn refused(node: NodeId, reason: String) -> Interruption {
    Interruption::Peer(PeerError::Refused { node, reason })
}
