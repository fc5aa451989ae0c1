//! What a coordinator knows of the copies on their way, and of the peers that failed.

use std::time::Duration;

use storage::blob::ReadMark;
use tokio::time::Instant;

/// A peer that took no byte for this long, while somebody waits for its copy, is not relied on any more.
pub(super) const LATE_AFTER: Duration = Duration::from_secs(3);

/// A copy on its way, or the counting of one.
pub(super) struct Lane {
    mark: ReadMark,
    seen_bytes: u64,
    moved_at: Instant,
}

impl Lane {
    pub(super) fn new(mark: ReadMark) -> Lane {
        Lane {
            mark,
            seen_bytes: 0,
            moved_at: Instant::now(),
        }
    }

    /// Notes whether it got further.
    pub(super) fn look(&mut self) {
        let offset_bytes = self.mark.offset_bytes();
        if offset_bytes > self.seen_bytes {
            self.seen_bytes = offset_bytes;
            self.moved_at = Instant::now();
        }
    }

    /// Until now there was nothing to send.
    pub(super) fn start_over(&mut self) {
        self.moved_at = Instant::now();
    }

    pub(super) fn is_late(&self) -> bool {
        self.moved_at.elapsed() >= LATE_AFTER
    }
}

/// The failures of one peer.
#[derive(Default)]
pub(super) struct Failures {
    /// Since somebody began to wait.
    pub(super) attempts: u32,
    /// All of them: who failed less comes first.
    pub(super) count: u32,
    /// When the peer may be tried again.
    not_before: Option<Instant>,
}

impl Failures {
    pub(super) fn add(&mut self, retry_delay: Duration) {
        let delay = retry_delay * (1 << self.attempts.min(6));
        self.attempts += 1;
        self.count += 1;
        self.not_before = Some(Instant::now() + delay);
    }

    /// The peer may be tried again, now; that it failed is not forgotten.
    pub(super) fn forgive(&mut self) {
        self.attempts = 0;
        self.not_before = None;
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|moment| moment <= now)
    }
}
