//! Slowing background work down to a rate.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Lets work through at a number of bytes per second. Shared by everything that keeps to one rate together.
///
/// Time in which nothing was done is not saved up: after a pause work goes on at the rate, not faster.
#[derive(Debug)]
pub struct Pacer {
    /// 0: no limit.
    bytes_per_second: u64,
    /// When the next work may begin.
    free_at: Mutex<Instant>,
}

impl Pacer {
    /// A pace of so many bytes a second; 0 is no limit. Must be called within a tokio runtime.
    pub fn new(bytes_per_second: u64) -> Pacer {
        Pacer {
            bytes_per_second,
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// Waits until it is the turn of the next `bytes`. Whoever stops waiting has used its turn all the same.
    pub async fn take(&self, bytes: u64) {
        self.take_at(bytes, self.bytes_per_second).await;
    }

    /// The same at another rate, which changes as others come and go.
    pub async fn take_at(&self, bytes: u64, bytes_per_second: u64) {
        if let Some(turn) = self.reserve(bytes, bytes_per_second) {
            sleep_until(turn).await;
        }
    }

    fn reserve(&self, bytes: u64, bytes_per_second: u64) -> Option<Instant> {
        let micros = bytes
            .saturating_mul(1_000_000)
            .checked_div(bytes_per_second)?;
        // One assignment: a panic elsewhere leaves a whole value.
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*free_at).max(Instant::now());
        *free_at = turn + Duration::from_micros(micros);
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_takes_the_time_its_bytes_take() {
        let pacer = Pacer::new(1_000);
        let start = Instant::now();
        for _ in 0..5 {
            pacer.take(500).await;
        }
        // The first goes at once, each other one waits for the one before it.
        assert_eq!(start.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_is_not_saved_up() {
        let pacer = Pacer::new(1_000);
        tokio::time::advance(Duration::from_secs(3_600)).await;
        let start = Instant::now();
        pacer.take(2_000).await;
        pacer.take(1).await;
        assert_eq!(start.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn work_at_several_rates_shares_the_time() {
        let pacer = Pacer::new(1_000);
        let start = Instant::now();
        pacer.take_at(1_000, 500).await;
        pacer.take(1_000).await;
        assert_eq!(start.elapsed(), Duration::from_secs(2));
        pacer.take_at(1, 0).await;
        assert_eq!(start.elapsed(), Duration::from_secs(2), "no limit, no turn");
        pacer.take(1).await;
        assert_eq!(start.elapsed(), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits() {
        let pacer = Pacer::new(0);
        let start = Instant::now();
        pacer.take(u64::MAX).await;
        pacer.take(u64::MAX).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
