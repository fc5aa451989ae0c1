//! `[repair]` and `[scrub]`.

use std::time::Duration;

use registry::HealOptions;
use serde::{Deserialize, Serialize};

use super::check::{ConfigError, invalid};

/// `[repair]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RepairSection {
    /// Between two looks at what is missing, too many or silent.
    pub interval_ms: u64,
    /// Copies this node makes at once; of up to 256 KiB eight in the place of one.
    pub parallel: usize,
    /// How fast it makes them while no client waits for them; 0: no limit.
    pub bytes_per_second: u64,
    /// How fast while it or the node they come from serves clients; 0: no other limit.
    pub busy_bytes_per_second: u64,
    /// A node silent for this long is suspect.
    pub suspect_after_ms: u64,
    /// A node silent for this long (log time) is down: its copies do not count any more.
    pub down_after_ms: u64,
    /// A blob has too many copies for this long (log time) before one is dropped.
    pub trim_delay_ms: u64,
    /// Between two comparisons of the blob directory with the state.
    pub check_interval_ms: u64,
    /// The first one after a start comes between this and twice this time later, if not earlier by `check_interval_ms`.
    pub check_first_ms: u64,
}

impl Default for RepairSection {
    fn default() -> Self {
        RepairSection {
            interval_ms: 5_000,
            parallel: 4,
            bytes_per_second: 0,
            busy_bytes_per_second: 32 << 20,
            suspect_after_ms: 30_000,
            down_after_ms: 600_000,
            trim_delay_ms: 3_600_000,
            check_interval_ms: 3_600_000,
            check_first_ms: 60_000,
        }
    }
}

/// `[scrub]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScrubSection {
    /// Between the starts of two scrubs.
    pub interval_ms: u64,
    /// How fast a scrub reads; 0: no limit.
    pub bytes_per_second: u64,
}

impl Default for ScrubSection {
    fn default() -> Self {
        ScrubSection {
            interval_ms: 14 * 24 * 3_600_000,
            bytes_per_second: 20 << 20,
        }
    }
}

/// Both sections as the registry wants them.
pub(super) fn check(
    repair: &RepairSection,
    scrub: &ScrubSection,
) -> Result<HealOptions, ConfigError> {
    for (key, value) in [
        ("interval_ms", repair.interval_ms),
        ("suspect_after_ms", repair.suspect_after_ms),
        ("check_interval_ms", repair.check_interval_ms),
    ] {
        if value < 50 {
            return invalid("repair", key, "must be at least 50");
        }
    }
    if repair.parallel == 0 || repair.parallel > 64 {
        return invalid("repair", "parallel", "must be from 1 to 64");
    }
    if repair.down_after_ms < repair.suspect_after_ms {
        return invalid(
            "repair",
            "down_after_ms",
            "must be at least suspect_after_ms",
        );
    }
    if scrub.interval_ms == 0 {
        return invalid("scrub", "interval_ms", "must be at least 1");
    }
    Ok(HealOptions {
        repair_interval: Duration::from_millis(repair.interval_ms),
        repair_parallel: repair.parallel,
        suspect_after: Duration::from_millis(repair.suspect_after_ms),
        down_after_ms: repair.down_after_ms,
        trim_delay_ms: repair.trim_delay_ms,
        check_interval: Duration::from_millis(repair.check_interval_ms),
        check_first: Duration::from_millis(repair.check_first_ms),
        scrub_interval: Duration::from_millis(scrub.interval_ms),
        scrub_bytes_per_second: scrub.bytes_per_second,
    })
}
