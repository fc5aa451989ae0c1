//! Read indexes, batched: one question to the quorum for all who ask meanwhile.

use std::sync::Arc;
use std::time::Duration;

use metadata::ids::LogIndex;
use openraft::LinearizerOption;
use openraft::errors::{LinearizableReadError, RaftError};
use proto::raft as wire;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Obstacle, log_error};
use crate::forward::{Cluster, Leader};
use crate::network::peers::Lane;

/// Most callers that one question is for; more wait for the next.
const CALLERS: usize = 4096;

type ReadIndex = Result<LogIndex, Obstacle>;
type Caller = oneshot::Sender<ReadIndex>;

/// Answers read indexes.
pub(crate) struct Reads {
    callers: mpsc::Sender<Caller>,
}

impl Reads {
    /// One question may take `timeout`. Must be called within a tokio runtime.
    pub(crate) fn new(cluster: Arc<Cluster>, timeout: Duration) -> Reads {
        let (callers, waiting) = mpsc::channel(CALLERS);
        // A task of its own: a caller may give up while others still wait for the same answer.
        tokio::spawn(Rounds { cluster, timeout }.run(waiting));
        Reads { callers }
    }

    /// The index that must be applied to see everything acknowledged before this call. One attempt.
    pub(crate) async fn read_index(&self) -> ReadIndex {
        let (caller, answer) = oneshot::channel();
        let asked = self.callers.send(caller).await;
        asked.map_err(|_| Obstacle::ShuttingDown)?;
        answer.await.unwrap_or(Err(Obstacle::ShuttingDown))
    }
}

/// Asks, round after round.
struct Rounds {
    cluster: Arc<Cluster>,
    timeout: Duration,
}

impl Rounds {
    /// Ends when nobody can ask any more.
    async fn run(self, mut waiting: mpsc::Receiver<Caller>) {
        let mut round = Vec::new();
        while let Some(first) = waiting.recv().await {
            round.push(first);
            // Callers that are ready to ask join this round. Those that come after it was asked need the next answer.
            tokio::task::yield_now().await;
            while round.len() < CALLERS
                && let Ok(caller) = waiting.try_recv()
            {
                round.push(caller);
            }
            let answer = self.ask().await;
            for caller in round.drain(..) {
                // Gone when its deadline passed.
                let _ = caller.send(answer);
            }
        }
    }

    async fn ask(&self) -> ReadIndex {
        match self.cluster.leader() {
            None => Err(Obstacle::NoLeader),
            Some(leader) if leader.node == self.cluster.node => self.ask_quorum().await,
            Some(leader) => self.ask_leader(&leader).await,
        }
    }

    async fn ask_quorum(&self) -> ReadIndex {
        // Age zero: a heartbeat sent after this moment must be acknowledged. Leases trust clocks, so none.
        let option =
            LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(self.timeout);
        match self.cluster.raft.get_read_log_id(option).await {
            Ok((read, _)) => Ok(LogIndex(read.index())),
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(Obstacle::NoQuorum)
            }
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
                Err(Obstacle::NoLeader)
            }
            Err(RaftError::Fatal(fatal)) => {
                tracing::debug!(error = %log_error(fatal), "no read index");
                Err(Obstacle::ShuttingDown)
            }
        }
    }

    async fn ask_leader(&self, leader: &Leader) -> ReadIndex {
        use wire::read_index_response::Result as Wire;
        let peers = &self.cluster.peers;
        let mut client = peers
            .client(Lane::Control, &leader.address)
            .map_err(|_| Obstacle::NoLeader)?;
        let request = peers.request(leader.node, wire::ReadIndexRequest {});
        let answer = tokio::select! {
            answer = tokio::time::timeout(self.timeout, client.read_index(request)) => answer,
            () = self.cluster.no_longer_leads(leader.node) => return Err(Obstacle::NoLeader),
        };
        match answer {
            Ok(Ok(response)) => match response.into_inner().result {
                Some(Wire::Index(index)) => Ok(LogIndex(index)),
                Some(Wire::NoQuorum(_)) => Err(Obstacle::NoQuorum),
                Some(Wire::NotLeader(_)) | None => Err(Obstacle::NoLeader),
            },
            Ok(Err(_)) | Err(_) => Err(Obstacle::NoLeader),
        }
    }
}
