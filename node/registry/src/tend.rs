//! Keeping upload sessions alive while bytes come, and clearing away those that are over.

use std::sync::{Arc, Weak};
use std::time::Duration;

use metadata::command::{Command, RenewTickets};
use metadata::ids::TicketId;
use metadata::query::{self, TicketState};

use crate::error::not_stored;
use crate::failpoints::hit;
use crate::sessions::{Session, ticket_of_name};
use crate::{Registry, Result};

/// Most tickets that one entry can renew.
const RENEWED_PER_ENTRY: usize = 4096;

/// An upload that takes longer than this many lifetimes is not renewed any more (protocols.md section 12: 24 h).
const LIFETIMES_MAX: u32 = 24;

/// Never more often than this, however short the lifetime of an upload is.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Tends the sessions of `registry` until it is dropped or its shutdown begins. Log time is never faster than real
/// time, so a third of an upload's lifetime in real time is often enough.
pub(crate) fn start(registry: &Arc<Registry>) {
    let interval = Duration::from_millis(registry.options.upload_ttl_ms / 3).max(SHORTEST_INTERVAL);
    let stop = registry.shutdown.token();
    let tended: Weak<Registry> = Arc::downgrade(registry);
    drop(registry.shutdown.spawn("tend uploads", async move {
        // Starting with what a restart left behind.
        while let Some(registry) = tended.upgrade() {
            registry.tend_uploads().await;
            drop(registry);
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = stop.cancelled() => return,
            }
        }
    }));
}

impl Registry {
    /// One round. What fails is tried again in the next one.
    pub(crate) async fn tend_uploads(&self) {
        let sessions = self.sessions.all();
        if let Err(error) = self.renew(&sessions).await {
            tracing::warn!(error = %error, "the tickets of uploads were not renewed");
        }
        for session in sessions {
            match self.is_closed(session.ticket()) {
                Ok(true) => self.clear(&session).await,
                Ok(false) => {}
                Err(error) => tracing::warn!(error = %error, "a ticket cannot be read"),
            }
        }
        if let Err(error) = self.clear_staged().await {
            tracing::warn!(error = %error, "what uploads left behind cannot be told");
        }
    }

    /// Renews the tickets of the sessions that received bytes since the last round.
    async fn renew(&self, sessions: &[Arc<Session>]) -> Result<()> {
        let oldest =
            Duration::from_millis(self.options.upload_ttl_ms).saturating_mul(LIFETIMES_MAX);
        let alive: Vec<&Arc<Session>> = sessions
            .iter()
            .filter(|session| session.opened.elapsed() < oldest && session.take_touched())
            .collect();
        let mut outcome = Ok(());
        for batch in alive.chunks(RENEWED_PER_ENTRY) {
            let command = RenewTickets {
                tickets: batch.iter().map(|session| session.ticket()).collect(),
                ttl_ms: self.options.upload_ttl_ms,
            };
            let renewed = match hit("tickets_before_renew") {
                Ok(()) => self.upkeep(Command::RenewTickets(command)).await,
                Err(error) => Err(error),
            };
            if let Err(error) = renewed {
                // They were alive all the same: the next round must know.
                batch.iter().for_each(|session| session.touch());
                outcome = Err(error);
            }
        }
        outcome
    }

    /// Closed for ever. A ticket this node has not heard of yet is not.
    fn is_closed(&self, ticket: TicketId) -> Result<bool> {
        Ok(self.look(|view| query::ticket(view, ticket))?.value == TicketState::Closed)
    }

    /// Ends a session whose ticket is closed. A request that still writes to it is told, and cleared away after.
    async fn clear(&self, session: &Session) {
        session.close();
        if let Ok(mut writer) = session.lock() {
            self.forget(session, &mut writer).await;
        }
    }

    /// Removes what sessions that are over left on disk, from this run or an earlier one.
    async fn clear_staged(&self) -> Result<()> {
        let staged = self.blobs.staged_names().await.map_err(not_stored)?;
        let open = self.sessions.names();
        for name in staged {
            let Some(ticket) = ticket_of_name(&name) else {
                continue;
            };
            // A closed ticket lets no request open these bytes any more; one that has them open clears them itself.
            if open.contains(&name) || !self.is_closed(ticket)? {
                continue;
            }
            if let Err(error) = self.blobs.discard_name(&name).await {
                tracing::warn!(upload_id = %name, error = %error, "what an upload left behind was not removed");
            }
        }
        Ok(())
    }
}
