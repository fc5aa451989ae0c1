//! Dropping copies that are too many, for example because a node came back after its copies were made elsewhere, and
//! those of a node that drains, once they are elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use metadata::command::{Command, DropPlacement, NodeState};
use metadata::ids::NodeId;
use metadata::query;
use metadata::view::{MetadataView, ViewError};
use oci::Digest;
use replication::placement;

use crate::Registry;
use crate::failpoints::hit;

/// Blobs looked at in one round, and remembered.
const ROUND_BLOBS: usize = 4_096;

/// Copies dropped at the same time, so that their entries share a sync of the log.
const AT_ONCE: usize = 16;

impl Registry {
    /// Drops the copies of this node that were too many for long enough.
    pub(crate) async fn trim_surplus(self: &Arc<Self>) {
        let me = self.log.node_id();
        let seen = self.look(|view| Ok((surplus_of(view, me)?, query::time(view)?.0.0)));
        let (surplus, now_ms) = match seen {
            Ok(seen) => seen.value,
            Err(error) => {
                tracing::warn!(error = %error, "surplus copies cannot be told");
                return;
            }
        };
        let due: Vec<Digest> = {
            let since = &mut self.heal.memory().surplus_since;
            let known: BTreeMap<Digest, u64> = surplus
                .iter()
                .map(|digest| (*digest, since.get(digest).copied().unwrap_or(now_ms)))
                .collect();
            *since = known;
            let delay_ms = self.options.heal.trim_delay_ms;
            let is_due = |(_, since): &(&Digest, &u64)| now_ms.saturating_sub(**since) >= delay_ms;
            since
                .iter()
                .filter(is_due)
                .map(|(digest, _)| *digest)
                .collect()
        };
        self.drop_copies(due).await;
        self.give_up_drained().await;
    }

    async fn drop_copies(&self, digests: Vec<Digest>) {
        let node = self.log.node_id();
        let drop_one = |digest: Digest| async move {
            let command = Command::DropPlacement(DropPlacement { node, digest });
            // The floor is checked in the order of the log: what is refused was not too many after all.
            let dropped = match hit("trim_before_propose") {
                Ok(()) => self.upkeep(command).await,
                Err(error) => Err(error),
            };
            match dropped {
                Ok(_) => {
                    self.unlink(&digest).await;
                    self.heal.memory().counts.trimmed += 1;
                }
                Err(error) => tracing::debug!(%digest, error = %error, "a copy was not dropped"),
            }
        };
        futures::stream::iter(digests)
            .for_each_concurrent(AT_ONCE, drop_one)
            .await;
    }

    /// While this node drains: drops the copies that others have by now. There is no delay, because a node that flaps
    /// does not drain.
    async fn give_up_drained(&self) {
        let me = self.log.node_id();
        let after = self.heal.memory().drained;
        match self.look(|view| moved_of(view, me, after.as_ref())) {
            Ok(page) => {
                let (moved, next) = page.value;
                self.heal.memory().drained = next;
                self.drop_copies(moved).await;
            }
            Err(error) => tracing::warn!(error = %error, "drained copies cannot be told"),
        }
    }
}

/// A page of the blobs of which `me` has a copy that only waits for the node to leave, and where the next page starts.
/// Nothing unless `me` drains.
fn moved_of(
    view: &dyn MetadataView,
    me: NodeId,
    after: Option<&Digest>,
) -> Result<(Vec<Digest>, Option<Digest>), ViewError> {
    let state = query::node(view, me)?.map(|node| node.state);
    if state != Some(NodeState::Draining) {
        return Ok((Vec::new(), None));
    }
    let held = query::blobs_of_node(view, me, after, ROUND_BLOBS)?;
    let next = held.last().copied().filter(|_| held.len() == ROUND_BLOBS);
    let mut moved = Vec::new();
    for digest in held {
        if let Some(blob) = query::blob(view, &digest)? {
            let (lasting, wanted) = query::lasting_copies(view, &blob)?;
            // Where every node drains, none has anywhere to move to.
            if lasting >= wanted.max(1) {
                moved.push(digest);
            }
        }
    }
    Ok((moved, next))
}

/// Blobs of which `me` has a copy too many: each node can tell by itself whose copies are the surplus ones.
fn surplus_of(view: &dyn MetadataView, me: NodeId) -> Result<Vec<Digest>, ViewError> {
    let Some(cluster) = query::cluster(view)? else {
        return Ok(Vec::new());
    };
    let copies = usize::try_from(cluster.copies).unwrap_or(usize::MAX);
    let up: Vec<NodeId> = query::nodes(view)?
        .into_iter()
        .filter(|node| node.state == NodeState::Up)
        .map(|node| node.node)
        .collect();
    let page = query::surplus_blobs(view, None, ROUND_BLOBS)?;
    let is_mine = |digest: &Digest, holders: &[NodeId]| {
        let live: Vec<NodeId> = holders
            .iter()
            .copied()
            .filter(|node| up.contains(node))
            .collect();
        let order = placement::order(&digest.to_key(), &live);
        order.iter().skip(copies).any(|node| *node == me)
    };
    let mine = page.blobs.into_iter();
    Ok(mine
        .filter(|(digest, blob)| is_mine(digest, &blob.holders))
        .map(|(digest, _)| digest)
        .collect())
}
