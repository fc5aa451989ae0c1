//! Tickets for copies that are made outside an upload. Everyone who waits gets one of the block that the next entry opens, so
//! many small copies share the entries of their tickets.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use metadata::command::{Command, OpenTickets, TicketKind};
use metadata::ids::{TICKETS_PER_ENTRY, TicketId};
use metadata::response::Response;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::Replication;

type Caller = oneshot::Sender<Option<TicketId>>;

/// Who waits for a ticket.
#[derive(Default)]
pub(crate) struct RepairTickets {
    /// Held while a block is opened: those who come meanwhile share the next one.
    turn: tokio::sync::Mutex<()>,
    waiting: Mutex<VecDeque<Caller>>,
}

impl RepairTickets {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Caller>> {
        // Every change is one call; a panic elsewhere leaves the queue whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those who share the next block, oldest first. Who has left needs none.
    fn next_block(&self) -> Vec<Caller> {
        let mut waiting = self.waiting();
        waiting.retain(|caller| !caller.is_closed());
        (0..TICKETS_PER_ENTRY)
            .map_while(|_| waiting.pop_front())
            .collect()
    }
}

impl Replication {
    /// A ticket for one copy of this node, which pins it first and counts it then; `None` when the log gives none.
    /// One that is not used has to be closed, or expires.
    pub async fn repair_ticket(&self) -> Option<TicketId> {
        let (caller, mut mine) = oneshot::channel();
        self.repair_tickets.waiting().push_back(caller);
        let _turn = self.repair_tickets.turn.lock().await;
        loop {
            match mine.try_recv() {
                Ok(ticket) => return ticket,
                // Whoever opened the block for this caller was cut off.
                Err(TryRecvError::Closed) => return None,
                Err(TryRecvError::Empty) => self.open_block().await,
            }
        }
    }

    async fn open_block(&self) {
        let callers = self.repair_tickets.next_block();
        let command = Command::OpenTickets(OpenTickets {
            kind: TicketKind::Repair,
            node: self.log.node_id(),
            count: u32::try_from(callers.len()).unwrap_or(u32::MAX),
            ttl_ms: self.options.repair_ttl_ms,
        });
        let first = match self.propose(command).await {
            Ok(Response::TicketsOpened { first, .. }) => Some(first),
            Ok(response) => {
                tracing::warn!(?response, "no tickets for copies");
                None
            }
            Err(error) => {
                tracing::info!(%error, "no tickets for copies");
                None
            }
        };
        for (number, caller) in (0..).zip(callers) {
            // The ticket of a caller that left meanwhile is left to expire.
            let _ = caller.send(first.map(|first| TicketId::new(first.index(), number)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures::FutureExt as _;
    use futures::future::join_all;

    use crate::testing::Cluster;

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_together_share_entries_and_no_ticket() {
        let cluster = Cluster::new(1, 1, 1);
        let replication = &cluster.replication;
        let busy = replication.repair_tickets.turn.lock().await;
        let mut callers: Vec<_> = (0..101)
            .map(|_| Box::pin(replication.repair_ticket()))
            .collect();
        for caller in &mut callers {
            assert!(caller.now_or_never().is_none(), "it waits for its turn");
        }
        // It leaves, and takes no ticket with it.
        drop(callers.remove(7));
        drop(busy);
        let tickets = join_all(callers).await;
        let tickets: BTreeSet<_> = tickets.into_iter().flatten().collect();
        assert_eq!(tickets.len(), 100, "each has one of its own");
        let entries: Vec<_> = tickets.iter().map(|ticket| ticket.index()).collect();
        let distinct: BTreeSet<_> = entries.iter().collect();
        assert_eq!(distinct.len(), 2, "of 64 and of 36");
        assert_eq!(entries.iter().filter(|at| **at == entries[0]).count(), 64);
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_answer_of_the_log_nobody_gets_one() {
        let cluster = Cluster::new(1, 1, 1);
        cluster
            .log
            .set_failure(Some(metadata::log::LogError::NoLeader));
        assert_eq!(cluster.replication.repair_ticket().await, None);
    }
}
