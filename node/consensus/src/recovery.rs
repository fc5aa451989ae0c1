//! After the quorum was lost for good: one node goes on alone, as another cluster.
//!
//! Only an operator can say that the others are gone: to a node, dead and unreachable look the same. What they had
//! acknowledged without this node is lost. The log gets one entry that no quorum agreed to: the members are this node and
//! nobody else. From there Raft goes on as ever. The new name keeps nodes of the old cluster out, should they come back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use metadata::command::{Command, RecoverCluster};
use metadata::ids::NodeId;
use openraft::EntryPayload;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::entry::RaftEntry as _;
use openraft::errors::Fatal;
use openraft::storage::{RaftLogReader as _, RaftLogStorage as _};
use openraft::vote::RaftLeaderId as _;
use storage::error::StorageError;
use storage::log::{LogStore, VOTE};
use storage::state::StateStore;

use crate::error::{MembershipError, StartError};
use crate::log_store::LogAdapter;
use crate::network::convert;
use crate::node::RaftNode;
use crate::types::{LogEntry, LogId, Membership, NodeAddress, TypeConfig, Vote};

/// Makes `survivor` the only member, in the log of a node that does not run. Nothing when it is that already.
///
/// # Errors
/// `lost` are not exactly the other voters, the log does not fit the state, or a store failed.
pub async fn take_over(
    log: Arc<dyn LogStore>,
    state: Arc<dyn StateStore>,
    (survivor, grpc_address): (NodeId, &str),
    lost: &BTreeSet<NodeId>,
) -> Result<(), StartError> {
    let mut adapter = LogAdapter::new(log.clone(), state.clone());
    adapter.check_covered_by_state()?;
    let failed = |error: std::io::Error| StartError::Raft(error.to_string());
    let applied = state.applied()?;
    let mut membership = convert::decode_membership(applied.membership)
        .map_err(failed)?
        .membership()
        .clone();
    let ends = adapter.get_log_state().await.map_err(failed)?;
    let last = ends.last_log_id;
    let not_applied = applied.index.0 + 1..last.map_or(0, |last| last.index + 1);
    for entry in adapter
        .try_get_log_entries(not_applied)
        .await
        .map_err(failed)?
    {
        if let EntryPayload::Membership(newer) = entry.payload {
            membership = newer;
        }
    }
    let mut others: BTreeSet<NodeId> = membership.voter_ids().map(NodeId).collect();
    if !others.remove(&survivor) {
        return Err(StartError::Options(format!("node {survivor} has no vote")));
    }
    if others.is_empty() {
        return Ok(());
    }
    if others != *lost {
        let others: Vec<String> = others.iter().map(ToString::to_string).collect();
        return Err(StartError::Options(format!(
            "the other voters are {}; name them all, and nobody else, when they are lost",
            others.join(",")
        )));
    }
    let vote = adapter.read_vote().await.map_err(failed)?;
    let voted = vote.map_or(0, |vote| vote.leader_id.term);
    let term = voted.max(last.map_or(0, |last| last.leader_id.term)) + 1;
    let vote = Vote::new_committed(term, survivor.0);
    let log_id = LogId::new(
        vote.leader_id.to_committed(),
        last.map_or(0, |last| last.index + 1),
    );
    let address = NodeAddress {
        grpc_address: grpc_address.to_owned(),
    };
    let alone = Membership::new(
        vec![BTreeSet::from([survivor.0])],
        BTreeMap::from([(survivor.0, address)]),
    )
    .map_err(|error| StartError::Options(error.to_string()))?;
    let entry = LogEntry::new_membership(log_id, alone);
    // The vote first: an entry of a term that this node has not voted in would be no entry of its log.
    log.set_hard_state(VOTE, convert::encode_vote(&vote), true)?;
    append(&*log, &entry)?;
    Ok(())
}

fn append(log: &dyn LogStore, entry: &LogEntry) -> Result<(), StorageError> {
    let (synced, outcome) = std::sync::mpsc::channel();
    let entries = vec![(entry.index(), convert::encode_entry(entry))];
    let told = Box::new(move |result| {
        // Whoever waits is still there.
        let _ = synced.send(result);
    });
    log.append(entries, told)?;
    outcome.recv().unwrap_or(Err(StorageError::Closed))
}

impl RaftNode {
    /// Gives what [`take_over`] left its new name. Returns the name.
    ///
    /// # Errors
    /// The entry was not accepted by `deadline`.
    pub async fn rename_cluster(&self, deadline: Instant) -> Result<String, MembershipError> {
        let cluster_id = format!("{:032x}", rand::random::<u128>());
        let command = Command::RecoverCluster(RecoverCluster {
            cluster_id: cluster_id.clone(),
            survivor: self.options.node,
        });
        let index = self.decided(command, deadline).await?;
        self.compact(index.0, deadline).await?;
        Ok(cluster_id)
    }

    /// Drops the log through `index`: a new node that replayed it would take itself for one of the old cluster before it
    /// comes to the new name. It gets a snapshot instead.
    async fn compact(&self, index: u64, deadline: Instant) -> Result<(), MembershipError> {
        let fatal = |error: Fatal<TypeConfig>| MembershipError::Fatal(error.to_string());
        let raft = &self.cluster.raft;
        let mut metrics = raft.metrics();
        raft.trigger().snapshot().await.map_err(fatal)?;
        let mut asked = false;
        loop {
            let (snapshot, purged) = {
                let metrics = metrics.borrow_and_update();
                let reached = |id: &Option<LogId>| id.as_ref().is_some_and(|id| id.index >= index);
                (reached(&metrics.snapshot), reached(&metrics.purged))
            };
            if purged {
                return Ok(());
            }
            if snapshot && !std::mem::replace(&mut asked, true) {
                raft.trigger().purge_log(index).await.map_err(fatal)?;
            }
            match tokio::time::timeout_at(deadline.into(), metrics.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(MembershipError::Fatal("raft stopped".into())),
                Err(_) => return Err(MembershipError::OutcomeUnknown),
            }
        }
    }
}
