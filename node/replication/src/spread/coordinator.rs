//! The task behind one [`super::Spread`]: keeps the wanted number of copies going, replaces peers that fail, and
//! sees stragglers through.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use metadata::command::{AddPlacement, Command};
use metadata::ids::{NodeId, TicketId};
use metadata::response::{Rejection, Response};
use storage::blob::ReadMark;
use storage::failpoints::blob_hit;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::copy::{Copy, Source};
use super::lane::{Failures, Lane};
use crate::error::PeerError;
use crate::peers::PushEnd;
use crate::{Replication, placement, state};

/// How often a spread that has too few peers looks for more.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// What [`super::Spread`] sees of its coordinator.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Peers whose copy is durable and pinned.
    pub(super) durable: Vec<NodeId>,
    /// Copies on their way.
    pub(super) running: u32,
}

/// What is told after the commit.
pub(super) struct Settlement {
    /// Peers that the commit counted.
    pub(super) counted: Vec<NodeId>,
    /// Protects the copies it did not count.
    pub(super) ticket: TicketId,
    pub(super) end: watch::Sender<Option<PushEnd>>,
}

/// A copy, or the counting of one, came to an end.
enum Done {
    Copied(NodeId, Result<(), PeerError>),
    Placed(NodeId, Result<Placing, PeerError>),
}

/// What the log said about a later copy.
enum Placing {
    /// It counts.
    Counted,
    /// No copy will be counted any more: the ticket is closed or the blob is gone.
    Refused,
}

pub(super) struct Coordinator {
    replication: Arc<Replication>,
    source: Source,
    key: Vec<u8>,
    /// Copies to make, this node's not included.
    wanted: usize,
    /// So many of them before the commit.
    needed: usize,
    end: watch::Receiver<Option<PushEnd>>,
    publish: watch::Sender<Progress>,
    lanes: FuturesUnordered<BoxFuture<'static, Done>>,
    running: BTreeMap<NodeId, Lane>,
    durable: BTreeSet<NodeId>,
    failures: BTreeMap<NodeId, Failures>,
    /// Somebody has waited for copies before.
    is_awaited: bool,
    /// No further copies are made.
    is_abandoned: bool,
}

impl Coordinator {
    pub(super) fn new(
        replication: Arc<Replication>,
        source: Source,
        key: Vec<u8>,
        (wanted, needed): (usize, usize),
        end: watch::Receiver<Option<PushEnd>>,
        publish: watch::Sender<Progress>,
    ) -> Coordinator {
        Coordinator {
            replication,
            source,
            key,
            wanted,
            needed,
            end,
            publish,
            lanes: FuturesUnordered::new(),
            running: BTreeMap::new(),
            durable: BTreeSet::new(),
            failures: BTreeMap::new(),
            is_awaited: false,
            is_abandoned: false,
        }
    }

    /// Runs until the copies are counted or given up. Stopping drops the pushes, which abandons them.
    pub(super) async fn run(mut self, mut settled: oneshot::Receiver<Settlement>) {
        let stop = self.replication.shutdown.token();
        let mut look_around = ticker();
        loop {
            self.fill();
            self.publish();
            tokio::select! {
                Some(done) = self.lanes.next() => {
                    self.record(done);
                }
                settlement = &mut settled => match settlement {
                    Ok(settlement) => return self.settle(settlement).await,
                    Err(_) => return,
                },
                Ok(()) = self.end.changed() => self.serve_anew(),
                _ = look_around.tick(), if self.is_short() || self.needs_more() => self.look(),
                () = stop.cancelled() => return,
            }
        }
    }

    /// A new end means that somebody waits for copies now: everyone gets another chance.
    fn serve_anew(&mut self) {
        // A node that was removed since counts nowhere: the commit that named it was refused.
        let members = state::members(self.replication.log.as_ref());
        if !members.is_empty() {
            self.durable.retain(|node| members.contains(node));
        }
        self.failures.values_mut().for_each(Failures::forgive);
        if !std::mem::replace(&mut self.is_awaited, true) {
            self.running.values_mut().for_each(Lane::start_over);
        }
    }

    fn look(&mut self) {
        self.running.values_mut().for_each(Lane::look);
    }

    /// Somebody waits for copies that are not there yet.
    fn needs_more(&self) -> bool {
        self.is_awaited && self.durable.len() < self.needed
    }

    /// Copies that the commit did not count are pinned under the repair ticket and counted one by one.
    async fn settle(mut self, settlement: Settlement) {
        let ticket = settlement.ticket;
        // From here on peers pin the ticket that is still open.
        settlement.end.send_modify(|end| {
            if let Some(end) = end {
                end.ticket = ticket;
            }
        });
        let Some(end) = *settlement.end.borrow() else {
            return;
        };
        // Held until this returns. A peer that is slow for minutes must not pile up what is pushed meanwhile.
        let replication = self.replication.clone();
        let memory_bytes = self.source.memory_bytes();
        let memory = replication.straggler_memory.try_acquire_many(memory_bytes);
        if memory.is_err() {
            self.abandon_copies();
        }
        let mut counted: BTreeSet<NodeId> = settlement.counted.into_iter().collect();
        let early: Vec<NodeId> = self.durable.difference(&counted).copied().collect();
        for node in early {
            self.start_placing(node, end);
        }
        let stop = self.replication.shutdown.token();
        let timeout = tokio::time::sleep(self.replication.options.straggler_timeout);
        tokio::pin!(timeout);
        let mut look_around = ticker();
        while counted.len() < self.wanted {
            self.fill();
            if self.lanes.is_empty() && (self.is_abandoned || !self.has_hope()) {
                break;
            }
            tokio::select! {
                Some(done) = self.lanes.next() => match done {
                    Done::Placed(_, Ok(Placing::Refused)) => break,
                    Done::Placed(node, Ok(Placing::Counted)) => {
                        self.running.remove(&node);
                        counted.insert(node);
                    }
                    done => {
                        if let Some(node) = self.record(done) {
                            self.start_placing(node, end);
                        }
                    }
                },
                _ = look_around.tick(), if self.is_short() => {}
                () = &mut timeout => break,
                () = stop.cancelled() => return,
            }
        }
        if counted.len() < self.wanted {
            let missing = self.wanted - counted.len();
            tracing::warn!(digest = %end.digest, missing, "gave up on further copies");
        }
        self.replication.close_ticket(ticket).await;
    }

    /// Gives up the copies that are on their way, and their memory; what is durable is still counted.
    fn abandon_copies(&mut self) {
        let copies = self.running.len();
        tracing::info!(
            copies,
            "many copies are late already: these are left to repair"
        );
        self.lanes.clear();
        self.running.clear();
        self.wanted = self.durable.len();
        self.is_abandoned = true;
    }

    /// Starts as many copies as are missing and possible.
    fn fill(&mut self) {
        if self.is_abandoned || !self.is_short() {
            return;
        }
        for node in self.candidates() {
            if !self.is_short() {
                break;
            }
            let (source, mark) = self.source.marked();
            let copy = Copy {
                peers: self.replication.peers.clone(),
                node,
                source,
                end: self.end.clone(),
                small_max_bytes: self.replication.options.small_max_bytes,
                again: self.failures.contains_key(&node),
            };
            self.running.insert(node, Lane::new(mark));
            self.lanes.push(Box::pin(
                async move { Done::Copied(node, copy.run().await) },
            ));
        }
    }

    /// Peers worth trying now: the untried first, then by rendezvous.
    fn candidates(&self) -> Vec<NodeId> {
        let nodes = self.eligible();
        let now = Instant::now();
        let ready = |node: &NodeId| {
            self.failures
                .get(node)
                .is_none_or(|failures| failures.is_over(now))
        };
        let mut nodes: Vec<NodeId> = nodes.into_iter().filter(ready).collect();
        nodes.sort_by_key(|node| self.failures.get(node).map_or(0, |failures| failures.count));
        nodes
    }

    fn eligible(&self) -> Vec<NodeId> {
        let log = self.replication.log.as_ref();
        let registered = match state::cluster(log) {
            Ok(cluster) => cluster.nodes,
            Err(error) => {
                tracing::error!(%error, "cannot read the nodes of the cluster");
                return Vec::new();
            }
        };
        let attempts = self.replication.options.peer_attempts;
        let mut nodes = self.replication.peers.reachable();
        nodes.retain(|node| {
            *node != log.node_id()
                && registered.contains(node)
                && !self.running.contains_key(node)
                && !self.durable.contains(node)
                && self
                    .failures
                    .get(node)
                    .is_none_or(|failures| failures.attempts < attempts)
        });
        placement::order(&self.key, &nodes)
    }

    /// Whether too few copies are made or on their way. While copies are awaited, one that does not come on is not
    /// relied on: a peer that hangs without dying would hold the push up until its time is over.
    fn is_short(&self) -> bool {
        let ignore_late = self.needs_more();
        let coming = self.running.iter().filter(|(node, lane)| {
            let is_ignored = ignore_late && lane.is_late();
            !(is_ignored || self.durable.contains(node))
        });
        self.durable.len() + coming.count() < self.wanted
    }

    /// Whether a peer could still be tried, now or after its delay.
    fn has_hope(&self) -> bool {
        !self.eligible().is_empty()
    }

    /// Notes how a lane ended; the node when its copy has become durable.
    fn record(&mut self, done: Done) -> Option<NodeId> {
        let (node, result) = match done {
            Done::Copied(node, result) => (node, result),
            Done::Placed(node, result) => (node, result.map(|_| ())),
        };
        self.running.remove(&node);
        let Err(error) = result else {
            self.durable.insert(node);
            return Some(node);
        };
        self.durable.remove(&node);
        if !matches!(error, PeerError::Abandoned) {
            tracing::warn!(peer = %node, %error, "a copy to a peer failed");
        }
        let retry_delay = self.replication.options.retry_delay;
        self.failures.entry(node).or_default().add(retry_delay);
        None
    }

    fn publish(&self) {
        let running = u32::try_from(self.running.len()).unwrap_or(u32::MAX);
        let durable = self.durable.iter().copied().collect();
        self.publish.send_replace(Progress { durable, running });
    }

    fn start_placing(&mut self, node: NodeId, end: PushEnd) {
        self.running.insert(node, Lane::new(ReadMark::default()));
        let replication = self.replication.clone();
        self.lanes.push(Box::pin(async move {
            Done::Placed(node, place(&replication, node, end).await)
        }));
    }
}

/// The pin under the open ticket comes first: the ticket of the upload closed with the commit and protects nothing
/// any more (protocols.md 6.3).
async fn place(
    replication: &Replication,
    node: NodeId,
    end: PushEnd,
) -> Result<Placing, PeerError> {
    if !replication.peers.pin(node, &end.digest, end.ticket).await? {
        return Err(PeerError::Absent {
            node,
            digest: end.digest,
        });
    }
    blob_hit("place_before_propose")?;
    let placement = AddPlacement {
        ticket: end.ticket,
        node,
        digest: end.digest,
    };
    match replication.propose(Command::AddPlacement(placement)).await {
        // It was up when it was chosen. Another node may take its place.
        Ok(Response::Rejected(rejection @ Rejection::NodeNotUp(_))) => Err(PeerError::Refused {
            node,
            reason: format!("its copy is not counted: {rejection}"),
        }),
        Ok(Response::Rejected(rejection)) => {
            tracing::info!(peer = %node, digest = %end.digest, %rejection, "a later copy is not counted");
            Ok(Placing::Refused)
        }
        Ok(_) => Ok(Placing::Counted),
        Err(error) => Err(PeerError::Refused {
            node,
            reason: format!("its copy is not counted: {error}"),
        }),
    }
}

fn ticker() -> tokio::time::Interval {
    let mut ticker = interval(LOOK_AROUND);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}
