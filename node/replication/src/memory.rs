//! Other nodes in the same process, with faults: for tests of whatever uses [`BlobPeers`].
//!
//! A [`MemoryNetwork`] connects blob stores of any kind. Links can be cut, slowed down and held; a node can break off
//! or falsify what is fetched from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use metadata::ids::{NodeId, TicketId};
use oci::{Algorithm, Digest};
use storage::blob::{BlobReader, BlobStore, CHUNK_BYTES, StagedBlob, StagedReader};
use storage::error::BlobError;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::error::PeerError;
use crate::follow::{Follower, Step};
use crate::peers::{BlobPeers, Fetched, PushEnd, UploadAnswer, UploadRequest};
use crate::server::UploadHandler;

/// Nodes of one process and the links between them.
#[derive(Default)]
pub struct MemoryNetwork {
    state: Mutex<State>,
    /// Counts changes of faults, so that what is held looks again.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    members: BTreeMap<NodeId, Member>,
    /// Cut links, in both directions.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Nodes that answer nothing for now.
    held: BTreeSet<NodeId>,
    round_trips_us: BTreeMap<(NodeId, NodeId), u64>,
    fetch_limits_bytes: BTreeMap<NodeId, u64>,
    falsifying: BTreeSet<NodeId>,
    refusing: BTreeSet<NodeId>,
    serving: BTreeSet<NodeId>,
    fetches: BTreeMap<NodeId, u64>,
    pushes: BTreeMap<NodeId, u64>,
}

struct Member {
    blobs: Arc<dyn BlobStore>,
    uploads: Option<UploadHandler>,
}

impl MemoryNetwork {
    /// A network without nodes.
    pub fn new() -> Arc<MemoryNetwork> {
        Arc::new(MemoryNetwork::default())
    }

    /// Adds a node; the result is how it sees the others.
    pub fn join(self: &Arc<Self>, node: NodeId, blobs: Arc<dyn BlobStore>) -> Arc<MemoryPeers> {
        self.lock().members.insert(
            node,
            Member {
                blobs,
                uploads: None,
            },
        );
        Arc::new(MemoryPeers {
            network: self.clone(),
            this: node,
        })
    }

    /// What answers requests to upload sessions of a node.
    pub fn serve_uploads(&self, node: NodeId, uploads: UploadHandler) {
        if let Some(member) = self.lock().members.get_mut(&node) {
            member.uploads = Some(uploads);
        }
    }

    /// Cuts the link between two nodes; what is on its way breaks.
    pub fn cut(&self, one: NodeId, other: NodeId) {
        self.change(|state| state.cut.extend([(one, other), (other, one)]));
    }

    /// Restores the link between two nodes.
    pub fn heal(&self, one: NodeId, other: NodeId) {
        self.change(|state| {
            state
                .cut
                .retain(|link| *link != (one, other) && *link != (other, one))
        });
    }

    /// A node stops answering, without breaking any connection, until [`MemoryNetwork::release`].
    pub fn hold(&self, node: NodeId) {
        self.change(|state| state.held.insert(node));
    }

    /// A held node goes on.
    pub fn release(&self, node: NodeId) {
        self.change(|state| state.held.remove(&node));
    }

    /// How far two nodes are from each other; every message takes half of it.
    pub fn set_round_trip_us(&self, one: NodeId, other: NodeId, round_trip_us: u64) {
        self.change(|state| {
            state.round_trips_us.insert((one, other), round_trip_us);
            state.round_trips_us.insert((other, one), round_trip_us);
        });
    }

    /// Every fetch from `node` breaks off after so many bytes; `None` repairs it.
    pub fn break_fetches_after(&self, node: NodeId, limit_bytes: Option<u64>) {
        self.change(|state| match limit_bytes {
            Some(limit_bytes) => state.fetch_limits_bytes.insert(node, limit_bytes),
            None => state.fetch_limits_bytes.remove(&node),
        });
    }

    /// One bit of everything fetched from `node` is wrong, as if its own checks had failed.
    pub fn falsify_fetches(&self, node: NodeId, falsify: bool) {
        self.change(|state| match falsify {
            true => state.falsifying.insert(node),
            false => state.falsifying.remove(&node),
        });
    }

    /// A node refuses to store anything, as one with a full disk does.
    pub fn refuse_pushes(&self, node: NodeId, refuse: bool) {
        self.change(|state| match refuse {
            true => state.refusing.insert(node),
            false => state.refusing.remove(&node),
        });
    }

    /// Whether a node has clients.
    pub fn serve_clients(&self, node: NodeId, serve: bool) {
        self.change(|state| match serve {
            true => state.serving.insert(node),
            false => state.serving.remove(&node),
        });
    }

    /// How many fetches from `node` were begun.
    pub fn fetches(&self, node: NodeId) -> u64 {
        self.lock().fetches.get(&node).copied().unwrap_or(0)
    }

    /// How many pushes to `node` were begun, small ones included.
    pub fn pushes(&self, node: NodeId) -> u64 {
        self.lock().pushes.get(&node).copied().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) {
        change(&mut self.lock());
        self.changes.send_modify(|count| *count += 1);
    }

    /// One message from one node to another.
    async fn pass(&self, from: NodeId, to: NodeId) -> Result<(), PeerError> {
        let mut changes = self.changes.subscribe();
        loop {
            let (cut, held, round_trip_us) = {
                let state = self.lock();
                let round_trip_us = state.round_trips_us.get(&(from, to)).copied();
                (
                    state.cut.contains(&(from, to)),
                    state.held.contains(&to),
                    round_trip_us,
                )
            };
            if cut {
                return Err(PeerError::Unreachable {
                    node: to,
                    reason: "the link is cut".into(),
                });
            }
            if !held {
                if let Some(round_trip_us) = round_trip_us {
                    sleep(Duration::from_micros(round_trip_us / 2)).await;
                }
                return Ok(());
            }
            // The sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }
}

/// How one node sees the others.
pub struct MemoryPeers {
    network: Arc<MemoryNetwork>,
    this: NodeId,
}

impl MemoryPeers {
    async fn reach(&self, node: NodeId) -> Result<Arc<dyn BlobStore>, PeerError> {
        self.network.pass(self.this, node).await?;
        let state = self.network.lock();
        let member = state
            .members
            .get(&node)
            .ok_or(PeerError::UnknownNode(node))?;
        Ok(member.blobs.clone())
    }

    async fn stage(&self, node: NodeId) -> Result<(Arc<dyn BlobStore>, StagedBlob), PeerError> {
        *self.network.lock().pushes.entry(node).or_default() += 1;
        let blobs = self.reach(node).await?;
        if self.network.lock().refusing.contains(&node) {
            return Err(refused(node, &BlobError::NoSpace));
        }
        let name = format!("push-{:032x}", rand::random::<u128>());
        let staged = blobs
            .stage(&name)
            .await
            .map_err(|error| refused(node, &error))?;
        Ok((blobs, staged))
    }

    async fn receive(
        &self,
        node: NodeId,
        staged: &mut StagedBlob,
        mut source: Follower,
    ) -> Result<PushEnd, PeerError> {
        loop {
            let step = source.next().await?;
            self.network.pass(self.this, node).await?;
            match step {
                Step::Data { bytes, .. } => {
                    staged
                        .append(bytes)
                        .await
                        .map_err(|error| refused(node, &error))?;
                }
                Step::End(end) => return Ok(end),
            }
        }
    }
}

#[async_trait]
impl BlobPeers for MemoryPeers {
    async fn push(
        &self,
        node: NodeId,
        source: StagedReader,
        algorithm: Algorithm,
        end: watch::Receiver<Option<PushEnd>>,
    ) -> Result<(), PeerError> {
        let (blobs, mut staged) = self.stage(node).await?;
        staged.set_algorithm(algorithm);
        match self
            .receive(node, &mut staged, Follower::new(source, end))
            .await
        {
            Ok(end) => {
                commit(node, blobs.as_ref(), staged, end).await?;
                self.network.pass(self.this, node).await
            }
            Err(error) => {
                discard(blobs.as_ref(), staged).await;
                Err(error)
            }
        }
    }

    async fn push_small(&self, node: NodeId, end: PushEnd, body: Bytes) -> Result<(), PeerError> {
        let (blobs, mut staged) = self.stage(node).await?;
        staged
            .append(body)
            .await
            .map_err(|error| refused(node, &error))?;
        commit(node, blobs.as_ref(), staged, end).await?;
        self.network.pass(self.this, node).await
    }

    async fn pin(
        &self,
        node: NodeId,
        digest: &Digest,
        ticket: TicketId,
    ) -> Result<bool, PeerError> {
        let blobs = self.reach(node).await?;
        let pinned = blobs
            .pin(digest, ticket)
            .await
            .map_err(|error| refused(node, &error))?;
        Ok(pinned.is_some())
    }

    async fn fetch(
        &self,
        node: NodeId,
        digest: &Digest,
        offset_bytes: u64,
    ) -> Result<Fetched, PeerError> {
        *self.network.lock().fetches.entry(node).or_default() += 1;
        let blobs = self.reach(node).await?;
        let reader = blobs
            .open(digest)
            .await
            .map_err(|error| refused(node, &error))?;
        let reader = reader.ok_or(PeerError::Absent {
            node,
            digest: *digest,
        })?;
        let size_bytes = reader.size_bytes();
        let (limit_bytes, falsify) = {
            let state = self.network.lock();
            (
                state.fetch_limits_bytes.get(&node).copied(),
                state.falsifying.contains(&node),
            )
        };
        let link = Link {
            network: self.network.clone(),
            from: self.this,
            to: node,
        };
        let source = Source {
            link,
            reader,
            offset_bytes,
            stop_bytes: limit_bytes.map(|limit| offset_bytes + limit),
            falsify,
        };
        let bytes = stream::unfold(Some(source), |source| async move {
            let mut source = source?;
            match source.next().await {
                Ok(bytes) if bytes.is_empty() => None,
                Ok(bytes) => Some((Ok(bytes), Some(source))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(Fetched {
            size_bytes,
            bytes: bytes.boxed(),
        })
    }

    async fn upload(
        &self,
        node: NodeId,
        request: UploadRequest,
    ) -> Result<UploadAnswer, PeerError> {
        self.network.pass(self.this, node).await?;
        let uploads = self
            .network
            .lock()
            .members
            .get(&node)
            .and_then(|member| member.uploads.clone());
        let answer = uploads.ok_or(PeerError::UnknownNode(node))?(request).await;
        self.network.pass(self.this, node).await?;
        Ok(answer)
    }

    fn round_trip_us(&self, node: NodeId) -> Option<u64> {
        let state = self.network.lock();
        let link = (self.this, node);
        let alive = state.members.contains_key(&node) && !state.cut.contains(&link);
        alive.then(|| state.round_trips_us.get(&link).copied().unwrap_or(0))
    }

    fn serves_clients(&self, node: NodeId) -> bool {
        self.network.lock().serving.contains(&node)
    }

    fn reachable(&self) -> Vec<NodeId> {
        let state = self.network.lock();
        let alive = |node: &NodeId| *node != self.this && !state.cut.contains(&(self.this, *node));
        state.members.keys().copied().filter(alive).collect()
    }
}

struct Link {
    network: Arc<MemoryNetwork>,
    from: NodeId,
    to: NodeId,
}

/// A blob being fetched.
struct Source {
    link: Link,
    reader: BlobReader,
    offset_bytes: u64,
    /// Where the fetch breaks off.
    stop_bytes: Option<u64>,
    falsify: bool,
}

impl Source {
    async fn next(&mut self) -> Result<Bytes, PeerError> {
        let node = self.link.to;
        self.link.network.pass(self.link.from, node).await?;
        let left = self
            .stop_bytes
            .map_or(u64::MAX, |stop| stop - self.offset_bytes);
        let limit_bytes = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        if limit_bytes == 0 && self.offset_bytes < self.reader.size_bytes() {
            return Err(PeerError::Unreachable {
                node,
                reason: "the fetch broke off".into(),
            });
        }
        if self.offset_bytes >= self.reader.size_bytes() {
            return Ok(Bytes::new());
        }
        let read = self.reader.read_at(self.offset_bytes, limit_bytes).await;
        let mut bytes = read.map_err(|error| refused(node, &error))?;
        self.offset_bytes += bytes.len() as u64;
        if std::mem::take(&mut self.falsify) {
            let mut wrong = BytesMut::from(bytes);
            wrong[0] ^= 1;
            bytes = wrong.freeze();
        }
        Ok(bytes)
    }
}

fn refused(node: NodeId, error: &BlobError) -> PeerError {
    PeerError::Refused {
        node,
        reason: error.to_string(),
    }
}

async fn commit(
    node: NodeId,
    blobs: &dyn BlobStore,
    staged: StagedBlob,
    end: PushEnd,
) -> Result<(), PeerError> {
    match blobs.commit(staged, &end.digest, end.ticket).await {
        Ok(_) => Ok(()),
        Err((error, staged)) => {
            if let Some(staged) = staged {
                discard(blobs, staged).await;
            }
            Err(refused(node, &error))
        }
    }
}

/// What cannot be discarded is left to the store's own start.
async fn discard(blobs: &dyn BlobStore, staged: StagedBlob) {
    let _ = blobs.discard(staged).await;
}
