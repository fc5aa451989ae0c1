//! Time, as something a test can hold still.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// The time of the machine, or of a test. Cheap to clone; clones of a manual clock share its time.
///
/// The monotonic time is for measuring and for deadlines; the unix time is for stamps that leave the process. An
/// administrator may set the unix time back, so no two stamps may be subtracted to learn how long something took.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System { start: Instant },
    Manual(ManualClock),
}

impl Clock {
    /// The time of the machine. Its monotonic part is tokio's, so it stands still with a paused runtime.
    pub fn system() -> Clock {
        Clock(Source::System {
            start: Instant::now(),
        })
    }

    /// Time since some fixed moment in the past. Never goes back.
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System { start } => start.elapsed(),
            Source::Manual(manual) => manual.read().monotonic,
        }
    }

    /// Milliseconds since 1970. May jump in either direction.
    pub fn unix_ms(&self) -> u64 {
        match &self.0 {
            Source::System { .. } => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                // A machine that believes it is before 1970 has no battery; zero is as good as what it believes.
                since.map_or(0, whole_ms)
            }
            Source::Manual(manual) => manual.read().unix_ms,
        }
    }
}

/// A clock that moves only when told to.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Mutex<Reading>>);

#[derive(Debug, Clone, Copy)]
struct Reading {
    monotonic: Duration,
    unix_ms: u64,
}

impl ManualClock {
    /// A clock that stands at this unix time, with its monotonic time at zero.
    pub fn new(unix_ms: u64) -> ManualClock {
        ManualClock(Arc::new(Mutex::new(Reading {
            monotonic: Duration::ZERO,
            unix_ms,
        })))
    }

    /// The clock to hand to the code under test.
    pub fn clock(&self) -> Clock {
        Clock(Source::Manual(self.clone()))
    }

    /// Lets time pass for both readings.
    pub fn advance(&self, passed: Duration) {
        self.change(|reading| {
            reading.monotonic = reading.monotonic.saturating_add(passed);
            reading.unix_ms = reading.unix_ms.saturating_add(whole_ms(passed));
        });
    }

    /// Sets the unix time, as an administrator or a time daemon would; the monotonic time stays.
    pub fn set_unix_ms(&self, unix_ms: u64) {
        self.change(|reading| reading.unix_ms = unix_ms);
    }

    fn read(&self) -> Reading {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Reading)) {
        // Each change is a few assignments that cannot panic halfway, so a poisoned lock still guards a whole reading.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let manual = ManualClock::new(1_000);
        let clock = manual.clock();
        assert_eq!(
            (clock.monotonic(), clock.unix_ms()),
            (Duration::ZERO, 1_000)
        );
        manual.advance(Duration::from_millis(250));
        assert_eq!(
            (clock.monotonic(), clock.clone().unix_ms()),
            (Duration::from_millis(250), 1_250)
        );
    }

    #[test]
    fn setting_the_unix_time_back_leaves_the_monotonic_time() {
        let manual = ManualClock::new(1_000);
        manual.advance(Duration::from_secs(1));
        manual.set_unix_ms(5);
        assert_eq!(manual.clock().monotonic(), Duration::from_secs(1));
        assert_eq!(manual.clock().unix_ms(), 5);
    }

    #[test]
    fn the_system_clock_tells_the_time_of_the_machine() {
        let clock = Clock::system();
        let before = clock.monotonic();
        // 2020-01-01: any machine that builds this is past it.
        assert!(clock.unix_ms() > 1_577_836_800_000);
        assert!(clock.monotonic() >= before);
    }

    #[tokio::test(start_paused = true)]
    async fn the_system_clock_follows_a_paused_runtime() {
        let clock = Clock::system();
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(clock.monotonic(), Duration::from_secs(3600));
    }
}
