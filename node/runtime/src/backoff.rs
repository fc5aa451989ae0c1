//! Waiting between tries.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Exponential delays with jitter, never longer than a limit.
///
/// Each delay is drawn between half of a ceiling and the ceiling, and the ceiling doubles until the limit. The
/// jitter keeps nodes that failed together from trying again together; the half keeps a try from coming at once.
///
/// It is an endless iterator: bound the tries with `backoff.take(5)`, or end the loop on shutdown.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    ceiling: Duration,
    random: StdRng,
}

impl Backoff {
    /// Delays from about `first` up to `longest`. A `first` above `longest` counts as `longest`.
    pub fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff::seeded(first, longest, rand::random())
    }

    /// The same with a chosen seed, for runs that must repeat exactly.
    pub fn seeded(first: Duration, longest: Duration, seed: u64) -> Backoff {
        let first = first.min(longest);
        Backoff {
            first,
            longest,
            ceiling: first,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// The time to wait before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = ceiling.saturating_mul(2).min(self.longest);
        self.random.random_range(ceiling / 2..=ceiling)
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.next_delay())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(2);

    #[test]
    fn delays_double_up_to_the_limit_and_stay_in_the_upper_half() {
        for seed in 0..200 {
            let mut ceiling = FIRST;
            for delay in Backoff::seeded(FIRST, LONGEST, seed).take(12) {
                assert!(
                    ceiling / 2 <= delay && delay <= ceiling,
                    "seed {seed}: {delay:?} under {ceiling:?}"
                );
                ceiling = (ceiling * 2).min(LONGEST);
            }
            assert_eq!(ceiling, LONGEST);
        }
    }

    #[test]
    fn two_nodes_do_not_wait_equally_long() {
        let delays = |seed| {
            Backoff::seeded(FIRST, LONGEST, seed)
                .take(8)
                .collect::<Vec<_>>()
        };
        assert_ne!(delays(1), delays(2));
        assert_eq!(delays(1), delays(1));
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        backoff.by_ref().take(10).for_each(drop);
        backoff.reset();
        assert!(backoff.next_delay() <= FIRST);
    }

    #[test]
    fn extreme_limits_neither_overflow_nor_panic() {
        let far = Backoff::new(Duration::MAX, Duration::MAX).take(3);
        assert!(far.into_iter().all(|delay| delay >= Duration::MAX / 2));
        assert_eq!(
            Backoff::new(FIRST, Duration::ZERO).next_delay(),
            Duration::ZERO
        );
    }
}
