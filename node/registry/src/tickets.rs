//! Upload tickets, kept ready so that starting an upload costs no log entry of its own.
//!
//! A block of tickets is opened with one entry and with twice the lifetime of an upload. A ticket is handed out
//! only while at least one lifetime is left, so that an upload that just started has its full time. What is left
//! of a block after that closes by itself, in log time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use metadata::command::{Command, OpenTickets, TicketKind};
use metadata::ids::{LogIndex, LogTime, TICKETS_PER_ENTRY, TicketId};
use metadata::log::{self, LogError, MetadataLog};
use metadata::query::{self, TicketState};
use metadata::response::Response;
use metadata::view::MetadataView;
use runtime::Shutdown;

use crate::error::{no_answer, unreadable};
use crate::{Result, Seen};

/// How many tickets are left when the next block is opened: enough for the uploads that start meanwhile.
const LOW_WATER: usize = 16;

/// How long opening a block may take. It goes on when the request that needed it first has given up.
const REFILL_TIMEOUT: Duration = Duration::from_secs(10);

/// A refill under way; everyone who found the pool dry waits for the same one.
type Refill = Shared<BoxFuture<'static, std::result::Result<(), LogError>>>;

/// The tickets of this node that no upload uses yet.
pub(crate) struct Tickets {
    log: Arc<dyn MetadataLog>,
    shutdown: Shutdown,
    ttl_ms: u64,
    pool: Mutex<Pool>,
}

#[derive(Default)]
struct Pool {
    free: VecDeque<Free>,
    refill: Option<Refill>,
}

/// A ticket that nobody uses.
#[derive(Clone, Copy)]
struct Free {
    ticket: TicketId,
    /// Log time when its block was not open yet.
    opened_after: LogTime,
}

impl Tickets {
    /// An empty pool; the first upload fills it. `ttl_ms` is the lifetime of an upload in log time.
    pub(crate) fn new(log: Arc<dyn MetadataLog>, shutdown: Shutdown, ttl_ms: u64) -> Arc<Tickets> {
        Arc::new(Tickets {
            log,
            shutdown,
            ttl_ms,
            pool: Mutex::default(),
        })
    }

    /// A ticket with at least one lifetime left, and the state in which it was seen open.
    pub(crate) async fn take(self: &Arc<Self>, deadline: Instant) -> Result<Seen<TicketId>> {
        loop {
            let (free, refill) = self.pop();
            if let Some(Free {
                ticket,
                opened_after,
            }) = free
            {
                if let Some(revision) = self.usable(ticket, opened_after)? {
                    return Ok(Seen {
                        revision,
                        value: ticket,
                    });
                }
                // The others of its block are as old.
                self.pool()
                    .free
                    .retain(|other| other.ticket.index() > ticket.index());
                continue;
            }
            if let Some(refill) = refill {
                let refilled = tokio::time::timeout_at(deadline.into(), refill).await;
                refilled
                    .unwrap_or(Err(LogError::NoLeader))
                    .map_err(no_answer)?;
            }
        }
    }

    /// The next ticket, if there is one, and the refill that is under way, if one is needed.
    fn pop(self: &Arc<Self>) -> (Option<Free>, Option<Refill>) {
        let mut pool = self.pool();
        let free = pool.free.pop_front();
        if pool.free.len() < LOW_WATER {
            let refill = pool
                .refill
                .get_or_insert_with(|| self.start_refill())
                .clone();
            return (free, Some(refill));
        }
        (free, None)
    }

    fn start_refill(self: &Arc<Self>) -> Refill {
        let tickets = self.clone();
        let task = self.shutdown.spawn("open tickets", async move {
            let opened = tickets.open_block().await;
            let mut pool = tickets.pool();
            pool.refill = None;
            let block = opened?;
            pool.free.extend(block);
            Ok(())
        });
        task.map(|joined| joined.unwrap_or(Err(LogError::ShuttingDown)))
            .boxed()
            .shared()
    }

    async fn open_block(&self) -> std::result::Result<Vec<Free>, LogError> {
        let opened_after = self.now()?;
        let failed = |error: std::io::Error| LogError::Fatal(error.to_string());
        storage::failpoints::hit("tickets_before_open").map_err(failed)?;
        let command = Command::OpenTickets(OpenTickets {
            kind: TicketKind::Upload,
            node: self.log.node_id(),
            count: u32::try_from(TICKETS_PER_ENTRY).unwrap_or(u32::MAX),
            ttl_ms: self.ttl_ms.saturating_mul(2),
        });
        let outcome = self
            .log
            .propose(command, "", Instant::now() + REFILL_TIMEOUT)
            .await?;
        match outcome.response {
            Response::TicketsOpened { first, count } => {
                let nth = |number| Free {
                    ticket: TicketId::from_u64(first.as_u64() + number),
                    opened_after,
                };
                Ok((0..u64::from(count)).map(nth).collect())
            }
            other => {
                tracing::warn!(response = ?other, "no tickets were opened");
                Err(LogError::NoLeader)
            }
        }
    }

    /// Where the ticket was seen open, with a full lifetime ahead.
    fn usable(&self, ticket: TicketId, opened_after: LogTime) -> Result<Option<LogIndex>> {
        let read = |view: &dyn MetadataView| {
            let is_fresh = query::time(view)?.0.0.saturating_sub(opened_after.0) <= self.ttl_ms;
            let is_open = query::ticket(view, ticket)? == TicketState::Open;
            Ok((is_fresh && is_open).then(|| view.applied()))
        };
        log::read(&*self.log, read).map_err(unreadable)
    }

    fn now(&self) -> std::result::Result<LogTime, LogError> {
        let read = log::read(&*self.log, |view| Ok(query::time(view)?.0));
        read.map_err(|error| LogError::Fatal(error.to_string()))
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        // Every change of the pool leaves it whole.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
