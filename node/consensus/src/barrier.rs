//! Read indexes, batched: one question to the quorum for all who ask meanwhile.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metadata::ids::LogIndex;
use openraft::LinearizerOption;
use openraft::errors::{LinearizableReadError, RaftError};
use proto::raft as wire;
use tokio::sync::oneshot;

use crate::error::{Obstacle, log_error};
use crate::forward::{Cluster, Leader};
use crate::network::peers::Lane;

type ReadIndex = Result<LogIndex, Obstacle>;

/// Answers read indexes. Clones share the rounds.
#[derive(Clone)]
pub(crate) struct Reads {
    cluster: Arc<Cluster>,
    round: Arc<Mutex<Round>>,
    /// How long one question may take.
    timeout: Duration,
}

#[derive(Default)]
struct Round {
    /// A task is asking.
    is_asking: bool,
    /// Who came after it asked, and therefore needs the next answer.
    waiting: Vec<oneshot::Sender<ReadIndex>>,
}

impl Reads {
    pub(crate) fn new(cluster: Arc<Cluster>, timeout: Duration) -> Reads {
        Reads {
            cluster,
            round: Arc::default(),
            timeout,
        }
    }

    /// The index that must be applied to see everything acknowledged before this call. One attempt.
    pub(crate) async fn read_index(&self) -> ReadIndex {
        let (sender, receiver) = oneshot::channel();
        let starts = self.with_round(|round| {
            round.waiting.push(sender);
            !std::mem::replace(&mut round.is_asking, true)
        });
        if starts {
            // Spawned: the first caller may give up while others still wait for the same answer.
            tokio::spawn(Rounds(self.clone()).run());
        }
        receiver.await.unwrap_or(Err(Obstacle::ShuttingDown))
    }

    fn with_round<T>(&self, body: impl FnOnce(&mut Round) -> T) -> T {
        body(&mut self.round.lock().unwrap_or_else(PoisonError::into_inner))
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

/// The task that asks until nobody waits. Dropped early (the runtime stops), it lets the waiting go.
struct Rounds(Reads);

impl Rounds {
    async fn run(self) {
        loop {
            let waiting = self.0.with_round(|round| {
                round.is_asking = !round.waiting.is_empty();
                std::mem::take(&mut round.waiting)
            });
            if waiting.is_empty() {
                return;
            }
            let answer = self.0.ask().await;
            for caller in waiting {
                // Gone when its deadline passed.
                let _ = caller.send(answer);
            }
        }
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.with_round(|round| *round = Round::default());
        }
    }
}
