//! How fast copies are made that nobody reads. Clients go first: of this node, and of the node the bytes come from.

use metadata::ids::NodeId;

use crate::Replication;

/// What a copy costs besides its bytes: log entries, a staged file, syncs. Small copies are no free ride.
pub(super) const START_BYTES: u64 = 64 * 1024;

impl Replication {
    /// Waits until it is the turn of the next `bytes` from `source`.
    pub(super) async fn keep_pace(&self, source: NodeId, bytes: u64) {
        let nodes = [self.log.node_id(), source];
        let is_busy = nodes.iter().any(|&node| self.peers.serves_clients(node));
        let options = &self.options;
        let limits = [
            Some(options.repair_bytes_per_second),
            is_busy.then_some(options.repair_busy_bytes_per_second),
        ];
        let set = limits.into_iter().flatten().filter(|limit| *limit > 0);
        let rate = set.min().unwrap_or(0);
        self.repair_pacer.take_at(bytes, rate).await;
    }
}
