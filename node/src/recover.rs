//! `argosy recover`: a node goes on alone after the quorum was lost for good.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use consensus::{Formation, MembershipError, RaftNode};
use metadata::ids::{LogIndex, NodeId};
use metadata::log;
use metadata::query;
use metadata::record::HolderSetRecord;
use metadata::view::ViewError;

use crate::assemble::{self, StartupError};
use crate::config::Config;

/// Replaying the log may take a while.
const RECOVERY_TIME: Duration = Duration::from_secs(600);

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The directory cannot be opened, or the members are others.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// The new cluster has no name yet. The command may be repeated.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The state cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
}

/// What goes on.
#[derive(Debug)]
pub struct Recovered {
    /// The name of the new cluster.
    pub cluster_id: String,
    /// What it knows.
    pub applied: LogIndex,
    /// Blobs without a copy here.
    pub elsewhere: HolderSetRecord,
    /// The nodes that were lost and are still registered.
    pub lost: Vec<NodeId>,
}

/// Makes the node of this configuration, which does not run, a cluster of its own. May be repeated after an error.
///
/// # Errors
/// [`RecoverError`].
pub async fn run(config: &Config, lost: &BTreeSet<NodeId>) -> Result<Recovered, RecoverError> {
    let stores = assemble::open_stores(config)?;
    let me = NodeId(config.raw.node.id);
    let mut options = assemble::raft_options(config, &stores.directory);
    // It asks nobody.
    options.members = Vec::new();
    options.formation = Formation::Manual;
    let address = (me, options.grpc_address.as_str());
    consensus::take_over(stores.log.clone(), stores.state.clone(), address, lost)
        .await
        .map_err(StartupError::from)?;
    let log = Arc::clone(&stores.log);
    let raft = RaftNode::open(options, log, stores.state.clone())
        .await
        .map_err(StartupError::from)?;
    raft.join().await.map_err(StartupError::from)?;
    let cluster_id = raft.rename_cluster(Instant::now() + RECOVERY_TIME).await?;
    let (elsewhere, nodes) = log::read(raft.as_ref(), |view| {
        Ok((query::blobs_elsewhere(view, me)?, query::nodes(view)?))
    })?;
    let applied = raft.status().applied;
    raft.shutdown(Instant::now() + RECOVERY_TIME)
        .await
        .map_err(StartupError::from)?;
    stores
        .directory
        .rebind_cluster(&cluster_id)
        .map_err(StartupError::from)?;
    let nodes = nodes.into_iter().map(|node| node.node);
    Ok(Recovered {
        cluster_id,
        applied,
        elsewhere,
        lost: nodes.filter(|node| *node != me).collect(),
    })
}
