//! What replication reads of the replicated state, as this node has applied it.

use metadata::command::NodeState;
use metadata::ids::{NodeId, TicketId};
use metadata::log::{self, MetadataLog};
use metadata::query::{self, TicketState};
use metadata::view::ViewError;
use oci::Digest;

/// How many copies blobs get, and who can hold them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// R.
    pub(crate) copies: usize,
    /// W.
    pub(crate) write_copies: usize,
    /// The registered nodes that are up: those that get new copies.
    pub(crate) nodes: Vec<NodeId>,
    /// Whether a new copy on this node is to be counted. While it drains or is down, others make them all. (The log
    /// refuses what a node without a registration claims.)
    pub(crate) counts_own: bool,
}

impl Cluster {
    /// R and W without the copy on this node.
    pub(crate) fn elsewhere(&self, counts_own: bool) -> (usize, usize) {
        let own = usize::from(counts_own);
        let without = |copies: usize| copies.saturating_sub(own);
        (without(self.copies), without(self.write_copies))
    }
}

/// Before the cluster is initialised there is nobody to copy to: one copy, which this node makes.
pub(crate) fn cluster(log: &dyn MetadataLog) -> Result<Cluster, ViewError> {
    log::read(log, |view| {
        let (copies, write_copies) =
            query::cluster(view)?.map_or((1, 1), |cluster| (cluster.copies, cluster.write_copies));
        let nodes: Vec<NodeId> = query::nodes(view)?
            .into_iter()
            .filter(|record| record.state == NodeState::Up)
            .map(|record| record.node)
            .collect();
        let counts_own =
            nodes.contains(&log.node_id()) || query::node(view, log.node_id())?.is_none();
        let count = |copies| usize::try_from(copies).unwrap_or(usize::MAX);
        Ok(Cluster {
            copies: count(copies),
            write_copies: count(write_copies),
            nodes,
            counts_own,
        })
    })
}

/// Every registered node, up or not; none when the state cannot be read.
pub(crate) fn members(log: &dyn MetadataLog) -> Vec<NodeId> {
    log::read(log, query::nodes)
        .map(|nodes| nodes.into_iter().map(|record| record.node).collect())
        .unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read the nodes of the cluster");
            Vec::new()
        })
}

/// Where the gRPC services of a node are.
pub(crate) fn grpc_address(log: &dyn MetadataLog, node: NodeId) -> Option<String> {
    let record = log::read(log, |view| query::node(view, node)).unwrap_or_else(|error| {
        tracing::error!(%error, "cannot read the address of a node");
        None
    });
    record.map(|record| record.grpc_address)
}

/// The counted copies of a blob; none of a blob that the state does not know.
pub(crate) fn holders(log: &dyn MetadataLog, digest: &Digest) -> Result<Vec<NodeId>, ViewError> {
    let record = log::read(log, |view| query::blob(view, digest))?;
    Ok(record.map(|record| record.holders).unwrap_or_default())
}

/// Whether a copy on this node would be one that is missing: its counted copy is not there, or there are fewer
/// counted copies than there should be and this node is up, so that it may have a new one.
pub(crate) fn misses_copy(log: &dyn MetadataLog, digest: &Digest) -> Result<bool, ViewError> {
    log::read(log, |view| {
        let Some(record) = query::blob(view, digest)? else {
            return Ok(false);
        };
        if record.holders.contains(&log.node_id()) {
            return Ok(true);
        }
        let (lasting, wanted) = query::lasting_copies(view, &record)?;
        let me = query::node(view, log.node_id())?;
        Ok(lasting < wanted && me.is_some_and(|me| me.state == NodeState::Up))
    })
}

/// Whether the state here shows a ticket as closed. A newer one than the state counts as open.
pub(crate) fn is_closed(log: &dyn MetadataLog, ticket: TicketId) -> Result<bool, ViewError> {
    Ok(log::read(log, |view| query::ticket(view, ticket))? == TicketState::Closed)
}
