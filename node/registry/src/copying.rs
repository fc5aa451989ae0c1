//! Making the copies that are missing: after a cluster has grown, or when a push had to leave one out.
//!
//! Each node fetches what it lacks; replication keeps and counts a fetched copy while fewer than R are counted. Rate
//! limits, priorities and the loss of disks belong to the self-healing of a later issue.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use metadata::ids::NodeId;
use metadata::query;
use oci::Digest;

use crate::error::not_copied;
use crate::{Registry, Result};

/// Between two looks. A copy that is on its way needs far less, so it is not fetched a second time.
const INTERVAL: Duration = Duration::from_secs(5);

/// Blobs looked at in one round, fewest copies first.
const ROUND_BLOBS: usize = 4_096;

/// Looks for missing copies until `registry` is dropped or its shutdown begins.
pub(crate) fn start(registry: &Arc<Registry>) {
    let stop = registry.shutdown.token();
    let copied: Weak<Registry> = Arc::downgrade(registry);
    drop(registry.shutdown.spawn("missing copies", async move {
        let mut before = BTreeSet::new();
        loop {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = stop.cancelled() => return,
            }
            let Some(registry) = copied.upgrade() else {
                return;
            };
            tokio::select! {
                missing = registry.copy_missing(&before) => before = missing,
                () = stop.cancelled() => return,
            }
        }
    }));
}

impl Registry {
    /// One round: fetches what was missing in the round before as well. Returns what is missing now.
    async fn copy_missing(&self, before: &BTreeSet<Digest>) -> BTreeSet<Digest> {
        let missing = match self.missing_here() {
            Ok(missing) => missing,
            Err(error) => {
                tracing::warn!(error = %error, "missing copies cannot be told");
                return BTreeSet::new();
            }
        };
        for (digest, size_bytes, holders) in &missing {
            if !before.contains(digest) {
                continue;
            }
            if let Err(error) = self.copy(digest, *size_bytes, holders.clone()).await {
                tracing::debug!(%digest, error = %error, "a missing copy was not made");
            }
        }
        missing.into_iter().map(|(digest, ..)| digest).collect()
    }

    /// Blobs with too few copies and none on this node.
    fn missing_here(&self) -> Result<Vec<(Digest, u64, Vec<NodeId>)>> {
        let me = self.log.node_id();
        let seen = self.look(|view| {
            let mut missing = Vec::new();
            for found in query::under_replicated(view, ROUND_BLOBS)? {
                let blob = query::blob(view, &found.digest)?;
                let blob =
                    blob.filter(|blob| !blob.holders.is_empty() && !blob.holders.contains(&me));
                missing.extend(blob.map(|blob| (found.digest, blob.size_bytes, blob.holders)));
            }
            Ok(missing)
        })?;
        Ok(seen.value)
    }

    async fn copy(&self, digest: &Digest, size_bytes: u64, holders: Vec<NodeId>) -> Result<()> {
        let opened = self
            .replication
            .open_remote(digest, size_bytes, holders)
            .await;
        let reader = opened.map_err(not_copied)?;
        // The last byte is released when the whole blob was verified.
        reader
            .read_at(size_bytes.saturating_sub(1), 1)
            .await
            .map(drop)
            .map_err(not_copied)
    }
}
