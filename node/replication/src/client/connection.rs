//! One peer: its channels and its health.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metadata::ids::NodeId;

use crate::transport::{self, Client};

/// Failures in a row after which a peer counts as unreachable. One alone may be a connection that broke while idle.
const FAILURES_MAX: u32 = 2;

/// The weight of a new round trip in the average is one in this many, as TCP has it.
const SMOOTHING: u64 = 8;

pub(super) struct Connection {
    pub(super) node: NodeId,
    pub(super) address: String,
    bulk: Client,
    control: Client,
    health: Mutex<Health>,
    /// As of its last ping.
    serves_clients: AtomicBool,
}

#[derive(Clone, Copy, Default)]
struct Health {
    smoothed_us: Option<u64>,
    /// Failures since the last answer.
    failures: u32,
}

impl Connection {
    pub(super) fn new(
        node: NodeId,
        address: String,
    ) -> Result<Connection, tonic::transport::Error> {
        let (bulk, control) = (transport::client(&address)?, transport::client(&address)?);
        Ok(Connection {
            node,
            address,
            bulk,
            control,
            health: Mutex::default(),
            serves_clients: AtomicBool::new(false),
        })
    }

    /// For streams of bytes.
    pub(super) fn bulk(&self) -> Client {
        self.bulk.clone()
    }

    /// For small calls.
    pub(super) fn control(&self) -> Client {
        self.control.clone()
    }

    pub(super) fn answered(&self, round_trip: Duration) {
        let sample = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX / SMOOTHING);
        self.with_health(|health| {
            let smoothed = health
                .smoothed_us
                .map_or(sample, |old| (old * (SMOOTHING - 1) + sample) / SMOOTHING);
            *health = Health {
                smoothed_us: Some(smoothed),
                failures: 0,
            };
        });
    }

    pub(super) fn failed(&self) {
        self.with_health(|health| health.failures = health.failures.saturating_add(1));
    }

    /// A peer that was never tried counts as reachable.
    pub(super) fn is_reachable(&self) -> bool {
        self.with_health(|health| health.failures < FAILURES_MAX)
    }

    pub(super) fn round_trip_us(&self) -> Option<u64> {
        self.with_health(|health| {
            health
                .smoothed_us
                .filter(|_| health.failures < FAILURES_MAX)
        })
    }

    pub(super) fn set_serves_clients(&self, serves: bool) {
        self.serves_clients.store(serves, Ordering::Relaxed);
    }

    /// A peer that does not answer serves nobody.
    pub(super) fn serves_clients(&self) -> bool {
        self.is_reachable() && self.serves_clients.load(Ordering::Relaxed)
    }

    fn with_health<T>(&self, body: impl FnOnce(&mut Health) -> T) -> T {
        // Written in one assignment each time; a panic elsewhere cannot have left it half done.
        body(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn health_follows_answers_and_failures() {
        let peer = Connection::new(NodeId(2), "127.0.0.1:1".into()).unwrap();
        assert!(peer.is_reachable());
        assert_eq!(peer.round_trip_us(), None);
        peer.answered(Duration::from_micros(800));
        assert_eq!(peer.round_trip_us(), Some(800));
        peer.answered(Duration::from_micros(1_600));
        assert_eq!(peer.round_trip_us(), Some(900));
        peer.failed();
        assert!(peer.is_reachable());
        peer.failed();
        assert!(!peer.is_reachable());
        assert_eq!(peer.round_trip_us(), None);
        peer.answered(Duration::from_micros(900));
        assert!(peer.is_reachable());
        assert_eq!(peer.round_trip_us(), Some(900));
    }

    #[tokio::test]
    async fn a_peer_serves_clients_as_long_as_it_answers() {
        let peer = Connection::new(NodeId(2), "127.0.0.1:1".into()).unwrap();
        assert!(!peer.serves_clients());
        peer.set_serves_clients(true);
        assert!(peer.serves_clients());
        peer.failed();
        peer.failed();
        assert!(!peer.serves_clients());
    }
}
