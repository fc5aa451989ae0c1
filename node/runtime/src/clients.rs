//! Whether somebody is being served, so that work nobody waits for can stand back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Requests of one client come in a row, with pauses in which it hashes, unpacks or asks its user.
const PAUSE: Duration = Duration::from_secs(2);

/// The clients of one process. Cheap to clone; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Clients(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    visits: usize,
    last_left: Option<Instant>,
}

impl Clients {
    /// A client is served from now on, until the visit is dropped.
    #[must_use]
    pub fn enter(&self) -> Visit {
        self.seen().visits += 1;
        Visit(self.clone())
    }

    /// Whether a client is being served, or was a moment ago.
    pub fn are_here(&self) -> bool {
        let seen = self.seen();
        seen.visits > 0 || seen.last_left.is_some_and(|left| left.elapsed() < PAUSE)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Nothing panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request of a client, from its head to the last byte of its answer.
#[derive(Debug)]
pub struct Visit(Clients);

impl Drop for Visit {
    fn drop(&mut self) {
        let mut seen = self.0.seen();
        seen.visits -= 1;
        seen.last_left = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn clients_are_here_while_they_are_served_and_a_moment_longer() {
        let clients = Clients::default();
        assert!(!clients.are_here());
        let (one, other) = (clients.enter(), clients.clone().enter());
        tokio::time::advance(Duration::from_secs(3_600)).await;
        drop(one);
        tokio::time::advance(PAUSE).await;
        assert!(clients.are_here(), "the other one still is");
        drop(other);
        assert!(clients.are_here(), "its next request may come at once");
        tokio::time::advance(PAUSE).await;
        assert!(!clients.are_here());
    }
}
