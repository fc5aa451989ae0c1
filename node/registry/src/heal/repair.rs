//! Making the copies that this node should have and has not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use metadata::command::{AddPlacement, CloseTickets, Command, NodeState};
use metadata::ids::{NodeId, TicketId};
use metadata::query;
use metadata::view::{MetadataView, ViewError};
use oci::Digest;
use tokio::sync::Semaphore;

use super::planner::{Missing, Situation};
use crate::error::{RegistryError, not_copied, not_stored};
use crate::failpoints::hit;
use crate::{Registry, Result};

/// Blobs, and placements of each node that does not count, looked at in one round.
const ROUND_BLOBS: usize = 4_096;

/// After this time a round starts nothing new: what was lost meanwhile may be more urgent.
const ROUND_TIME: Duration = Duration::from_secs(30);

/// Copies made at once in the whole cluster, large and small: each node makes its share of them.
const CLUSTER_MAX: usize = 64;

/// A copy of at most so many bytes waits for the log longer than for its bytes: this many of them are made in the
/// place of one large copy.
const SMALL_BYTES: u64 = 256 << 10;
const SMALL_AT_ONCE: u32 = 8;

/// Small copies made at once, whatever `repair_parallel`: fetches for clients must find turns, too.
const SMALL_MAX: usize = 32;

impl Registry {
    /// One look at what is missing, and the copies that are this node's to make.
    pub(crate) async fn repair_round(self: &Arc<Self>) {
        if !self.is_writable().await {
            return;
        }
        self.look_again_at_unrecoverable();
        let found = match self.look(|view| missing(view, self.log.node_id())) {
            Ok(found) => found.value,
            Err(error) => {
                tracing::warn!(error = %error, "missing copies cannot be told");
                return;
            }
        };
        let (blobs, situation) = found;
        let situation = Situation {
            reachable: self.peers.reachable().into_iter().collect(),
            ..situation
        };
        let width = Width::of(self.options.heal.repair_parallel, situation.up.len());
        let places = Semaphore::new(width.places);
        let plan = self
            .heal
            .memory()
            .planner
            .plan(blobs, &situation, self.heal_clock());
        let (until, full) = (Instant::now() + ROUND_TIME, AtomicBool::new(false));
        futures::stream::iter(plan)
            .take_while(|_| {
                futures::future::ready(Instant::now() < until && !full.load(Ordering::Relaxed))
            })
            .for_each_concurrent(width.copies, |blob| {
                let (full, places) = (&full, &places);
                async move {
                    let is_small = blob.size_bytes <= SMALL_BYTES;
                    let taken = if is_small { 1 } else { SMALL_AT_ONCE };
                    // Never closed.
                    let _place = places.acquire_many(taken).await;
                    if self.repair(&blob).await == Repaired::NotHere {
                        full.store(true, Ordering::Relaxed);
                    }
                }
            })
            .await;
    }

    async fn repair(self: &Arc<Self>, blob: &Missing) -> Repaired {
        self.heal.memory().running.insert(blob.digest);
        let made = self.make_copy(blob).await;
        let now = self.heal_clock();
        let mut memory = self.heal.memory();
        memory.running.remove(&blob.digest);
        match made {
            Ok(Made::Nothing) => memory.planner.succeeded(&blob.digest),
            Ok(Made::Copied) => {
                memory.planner.succeeded(&blob.digest);
                memory.counts.repaired += 1;
                memory.counts.repaired_bytes += blob.size_bytes;
            }
            Ok(Made::Adopted) => {
                memory.planner.succeeded(&blob.digest);
                memory.counts.adopted += 1;
            }
            Err(error) => {
                memory.planner.failed(&blob.digest, now);
                memory.counts.failed += 1;
                tracing::info!(digest = %blob.digest, error = %error, "a missing copy was not made");
                if matches!(error, RegistryError::NoSpace) {
                    return Repaired::NotHere;
                }
            }
        }
        Repaired::Done
    }

    async fn make_copy(self: &Arc<Self>, blob: &Missing) -> Result<Made> {
        let (digest, me) = (&blob.digest, self.log.node_id());
        let seen = self.look(|view| missing_of(view, digest))?.value;
        let Some(now) = seen.filter(|now| !now.holders.contains(&me)) else {
            return Ok(Made::Nothing);
        };
        let is_here = self.blobs.stat(digest).await.map_err(not_stored)?.is_some();
        if is_here && self.adopt(digest).await? {
            return Ok(Made::Adopted);
        }
        hit("repair_before_copy")?;
        let copy = || {
            let holders = now.holders.clone();
            self.replication.copy_here(digest, now.size_bytes, holders)
        };
        // Sources whose bytes turned out wrong are asked last the second time.
        let copied = match copy().await {
            Err(error) if now.holders.len() > 1 => {
                tracing::info!(%digest, error = %error, "a copy is tried again");
                copy().await
            }
            copied => copied,
        };
        copied.map_err(not_copied)?;
        Ok(Made::Copied)
    }

    /// A file that no local record knows is counted when its blob lacks copies, which is cheaper than a transfer. Otherwise
    /// it goes to the trash. While this node is down or drains none can be counted, and whether the file will be wanted is
    /// not known: it waits for a later walk.
    pub(crate) async fn adopt_or_discard(&self, digest: &Digest) -> Result<()> {
        let me = self.log.node_id();
        let seen = self.look(|view| {
            let is_up = query::node(view, me)?.is_some_and(|me| me.state == NodeState::Up);
            Ok((is_up, missing_of(view, digest)?.is_some()))
        });
        let (is_up, lacks) = seen?.value;
        if !is_up {
            return Ok(());
        }
        if lacks && self.adopt(digest).await? {
            self.heal.memory().counts.adopted += 1;
            return Ok(());
        }
        let discarded = self.blobs.discard_orphan(digest).await;
        discarded.map(drop).map_err(not_stored)
    }

    /// Counts a copy that is on this disk already, recorded or not; false when there is none that is whole.
    async fn adopt(&self, digest: &Digest) -> Result<bool> {
        let me = self.log.node_id();
        let Some(ticket) = self.replication.repair_ticket().await else {
            return Ok(false);
        };
        let adopted = self.blobs.adopt(digest, ticket).await;
        let placed = match adopted {
            Ok(Some(_)) => self.place(digest, me, ticket).await,
            Ok(None) => Ok(false),
            Err(error) => Err(not_stored(error)),
        };
        if !matches!(placed, Ok(true)) {
            let close = CloseTickets {
                tickets: vec![ticket],
            };
            // What fails here is left to the expiry of the ticket.
            let _ = self.upkeep(Command::CloseTickets(close)).await;
        }
        placed
    }

    async fn place(&self, digest: &Digest, node: NodeId, ticket: TicketId) -> Result<bool> {
        hit("adopt_before_place")?;
        let placement = AddPlacement {
            ticket,
            node,
            digest: *digest,
        };
        self.upkeep(Command::AddPlacement(placement)).await?;
        Ok(true)
    }

    /// Whether this node can take copies. An answer that does not come counts as no.
    pub(crate) async fn is_writable(&self) -> bool {
        match self.blobs.health().await {
            Ok(health) => health.is_writable(),
            Err(error) => {
                tracing::warn!(error = %error, "the health of the blob directory cannot be told");
                false
            }
        }
    }
}

/// How much one node does at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Width {
    /// Copies of any size.
    copies: usize,
    /// A large copy takes [`SMALL_AT_ONCE`] of these, a small one takes one.
    places: usize,
}

impl Width {
    /// The width of each of `nodes` nodes that are up, of which each wants to make `parallel` large copies at once.
    fn of(parallel: usize, nodes: usize) -> Width {
        let share = (CLUSTER_MAX / nodes.max(1)).max(1);
        let large = parallel.min(share);
        Width {
            copies: large.max(SMALL_MAX).min(share),
            places: large * SMALL_AT_ONCE as usize,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repaired {
    Done,
    /// This node has no room: nothing more in this round.
    NotHere,
}

enum Made {
    /// It is not missing any more.
    Nothing,
    Copied,
    Adopted,
}

/// The blobs that lack copies, and who counts.
fn missing(
    view: &dyn MetadataView,
    me: NodeId,
) -> std::result::Result<(Vec<Missing>, Situation), ViewError> {
    let nodes = query::nodes(view)?;
    let up: Vec<NodeId> = nodes
        .iter()
        .filter(|node| node.state == NodeState::Up)
        .map(|node| node.node)
        .collect();
    let copies = query::cluster(view)?.map_or(0, |cluster| cluster.copies);
    let mut digests: BTreeSet<Digest> = BTreeSet::new();
    let is_any_missing = query::stats(view)?.missing_copies > 0;
    for found in query::under_replicated(view, ROUND_BLOBS)? {
        digests.insert(found.digest);
    }
    // Copies that do not count keep their place in the order above, so they are walked for.
    for node in nodes.iter().filter(|node| node.state != NodeState::Up) {
        let mut after = None;
        while is_any_missing && digests.len() < 2 * ROUND_BLOBS {
            let page =
                query::under_replicated_of_node(view, node.node, after.as_ref(), ROUND_BLOBS)?;
            digests.extend(page.blobs.iter().map(|found| found.digest));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    let mut blobs = Vec::new();
    for digest in digests {
        blobs.extend(missing_of(view, &digest)?);
    }
    let situation = Situation {
        me,
        copies: usize::try_from(copies).unwrap_or(usize::MAX).min(up.len()),
        up,
        reachable: BTreeSet::new(),
    };
    Ok((blobs, situation))
}

/// One blob, when it lacks copies.
fn missing_of(
    view: &dyn MetadataView,
    digest: &Digest,
) -> std::result::Result<Option<Missing>, ViewError> {
    let Some(blob) = query::blob(view, digest)? else {
        return Ok(None);
    };
    let (lasting, wanted) = query::lasting_copies(view, &blob)?;
    Ok(
        (lasting < wanted && blob.condemned_since.is_none()).then_some(Missing {
            digest: *digest,
            size_bytes: blob.size_bytes,
            live: usize::try_from(lasting).unwrap_or(usize::MAX),
            holders: blob.holders,
            is_referenced: query::is_referenced(view, digest)?,
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_makes_64_copies_at_once_however_small_and_many_its_nodes() {
        for nodes in 1..=CLUSTER_MAX {
            for parallel in [1, 4, 64] {
                let width = Width::of(parallel, nodes);
                assert!(
                    nodes * width.copies <= CLUSTER_MAX,
                    "{nodes} nodes: {width:?}"
                );
                let large = width.places / SMALL_AT_ONCE as usize;
                assert!(
                    (1..=parallel.min(width.copies)).contains(&large),
                    "{width:?}"
                );
            }
        }
        let width = |parallel, nodes| {
            (
                Width::of(parallel, nodes).copies,
                Width::of(parallel, nodes).places,
            )
        };
        assert_eq!(width(4, 1), (SMALL_MAX, 32));
        assert_eq!(width(4, 3), (21, 32));
        assert_eq!(width(4, 5), (12, 32));
        assert_eq!(width(64, 1), (64, 512));
        // More nodes than copies: each makes one, or copies of some nodes would never come.
        assert_eq!(width(4, 100), (1, 8));
    }
}
