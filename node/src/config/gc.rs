//! `[gc]`: how long what nothing needs is kept, and how often it is looked for.

use std::time::Duration;

use registry::GcOptions;
use registry::gc::{RepositoryPattern, UntaggedRule};
use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::check::invalid;

/// `[gc]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GcSection {
    /// Whether this node collects by itself while it leads. `clusterctl gc run` works either way.
    pub enabled: bool,
    /// Between two rounds.
    pub interval_ms: u64,
    /// How long a blob that no manifest names stays in its repository (log time).
    pub grace_ms: u64,
    /// How long a blob that no repository has waits before it is condemned (log time).
    pub condemn_delay_ms: u64,
    /// How long a condemned blob waits before it is deleted (log time).
    pub quarantine_ms: u64,
    /// How long a deleted tag or manifest can be restored (log time).
    pub undelete_ms: u64,
    /// Items that one log entry of garbage collection may handle.
    pub step_budget: u32,
    /// Shortest time between two scans of all manifests that confirm what is about to be deleted.
    pub verify_interval_ms: u64,
    /// Between two walks over the blobs of this node.
    pub walk_interval_ms: u64,
    /// Repositories whose untagged manifests are deleted. None unless named.
    pub untagged: Vec<Untagged>,
}

/// One entry of `gc.untagged`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Untagged {
    /// Repository names; `*` stands for any characters, `/` included.
    pub pattern: String,
    /// How long a manifest must have been without a tag (log time).
    pub min_age_ms: u64,
}

impl Default for GcSection {
    fn default() -> Self {
        GcSection {
            enabled: true,
            interval_ms: 10_000,
            grace_ms: 86_400_000,
            condemn_delay_ms: 0,
            quarantine_ms: 3_600_000,
            undelete_ms: 86_400_000,
            step_budget: 500,
            verify_interval_ms: 600_000,
            walk_interval_ms: 3_600_000,
            untagged: Vec::new(),
        }
    }
}

/// Largest `gc.step_budget`: one entry must not hold up those behind it.
const STEP_CEILING: u32 = 5_000;

impl GcSection {
    /// What the registry is told, once it makes sense.
    pub(super) fn check(&self) -> Result<GcOptions, ConfigError> {
        for (key, value) in [
            ("interval_ms", self.interval_ms),
            ("walk_interval_ms", self.walk_interval_ms),
        ] {
            if value < 100 {
                return invalid("gc", key, "must be at least 100");
            }
        }
        if self.step_budget == 0 || self.step_budget > STEP_CEILING {
            let message = format!("must be from 1 to {STEP_CEILING}");
            return invalid("gc", "step_budget", message);
        }
        let rules = self.untagged.iter().map(|rule| {
            match RepositoryPattern::parse(&rule.pattern) {
                Some(pattern) => Ok(UntaggedRule {
                    pattern,
                    min_age_ms: rule.min_age_ms,
                }),
                None => invalid(
                    "gc",
                    "untagged",
                    format!(
                        "{:?} is no pattern of repository names: lower-case names with * for any characters",
                        rule.pattern
                    ),
                ),
            }
        });
        Ok(GcOptions {
            is_automatic: self.enabled,
            interval: Duration::from_millis(self.interval_ms),
            grace_ms: self.grace_ms,
            condemn_delay_ms: self.condemn_delay_ms,
            quarantine_ms: self.quarantine_ms,
            undelete_ms: self.undelete_ms,
            step_budget: self.step_budget,
            verify_interval: Duration::from_millis(self.verify_interval_ms),
            walk_interval: Duration::from_millis(self.walk_interval_ms),
            untagged: rules.collect::<Result<_, _>>()?,
        })
    }
}
