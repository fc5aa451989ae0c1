//! How many staged bytes may be in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of staged blobs in memory, over all of them. The buffers behind them may be up to twice as large, because
/// they grow by doubling.
pub(super) struct Budget {
    limit_bytes: u64,
    used_bytes: AtomicU64,
}

impl Budget {
    pub(super) fn new(limit_bytes: u64) -> Arc<Budget> {
        Arc::new(Budget {
            limit_bytes,
            used_bytes: AtomicU64::new(0),
        })
    }

    /// Nothing yet for one more staged blob, which may have at most `most_bytes`.
    pub(super) fn share(self: &Arc<Self>, most_bytes: u64) -> Share {
        Share {
            budget: Arc::clone(self),
            most_bytes,
            bytes: 0,
        }
    }
}

/// What one staged blob has of the budget; given back when dropped.
pub(super) struct Share {
    budget: Arc<Budget>,
    most_bytes: u64,
    bytes: u64,
}

impl Share {
    /// Takes so much more. False, and nothing was taken, when it is too much for this blob or for all together.
    pub(super) fn grow(&mut self, bytes: u64) -> bool {
        if self.bytes.saturating_add(bytes) > self.most_bytes {
            return false;
        }
        let limit_bytes = self.budget.limit_bytes;
        let more = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit_bytes);
        // Only the sum counts; nothing else is ordered by it.
        let used = &self.budget.used_bytes;
        let is_taken = used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok();
        if is_taken {
            self.bytes += bytes;
        }
        is_taken
    }

    /// Most that this staged blob may have.
    pub(super) fn most_bytes(&self) -> u64 {
        self.most_bytes
    }

    /// What it has, to go along with the bytes; what is left has nothing.
    pub(super) fn hand_over(&mut self) -> Share {
        let empty = self.budget.share(self.most_bytes);
        std::mem::replace(self, empty)
    }

    /// The bytes are in memory no longer.
    pub(super) fn give_back(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.budget.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_bounded_each_and_together() {
        let budget = Budget::new(10);
        let (mut one, mut two) = (budget.share(6), budget.share(6));
        assert!(one.grow(6) && !one.grow(1), "no more than it may have");
        assert!(two.grow(4) && !two.grow(1), "no more than is left");
        one.give_back();
        assert!(two.grow(2) && one.grow(4) && !one.grow(1));
        let handed_over = one.hand_over();
        assert!(one.most_bytes() == 6 && !one.grow(5), "they still count");
        drop(handed_over);
        assert!(one.grow(4));
        drop(two);
        assert!(one.grow(2));
        drop(one);
        assert_eq!(budget.used_bytes.load(Ordering::Relaxed), 0);
        assert!(!budget.share(u64::MAX).grow(u64::MAX));
    }
}
