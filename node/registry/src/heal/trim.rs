//! Dropping copies that are too many, for example because a node came back after its copies were made elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use metadata::command::{Command, DropPlacement, NodeState};
use metadata::ids::NodeId;
use metadata::query;
use metadata::view::{MetadataView, ViewError};
use oci::Digest;
use replication::placement;

use crate::Registry;

/// Blobs looked at in one round, and remembered.
const ROUND_BLOBS: usize = 4_096;

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
        for digest in due {
            let command = Command::DropPlacement(DropPlacement { node: me, digest });
            // The floor is checked in the order of the log: what is refused was not too many after all.
            match self.upkeep(command).await {
                Ok(_) => {
                    self.unlink(&digest).await;
                    self.heal.memory().counts.trimmed += 1;
                }
                Err(error) => tracing::debug!(%digest, error = %error, "a copy was not dropped"),
            }
        }
    }
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
