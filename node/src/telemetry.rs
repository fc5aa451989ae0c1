//! Log lines: for people or as JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

use crate::config::{LogFormat, TelemetrySection};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("telemetry.level: {0}")]
pub struct FilterError(String);

/// Sends log lines to standard error from now on. Call once.
///
/// # Errors
/// The level is neither a level nor a filter.
pub fn start(section: &TelemetrySection) -> Result<(), FilterError> {
    // What consensus says about itself at `info` is for its developers; a filter may still name it.
    let filter = EnvFilter::try_new(format!("openraft=warn,{}", section.level))
        .map_err(|error| FilterError(error.to_string()))?;
    let is_terminal = std::io::stderr().is_terminal();
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal);
    let lines = match section.format {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // Only fails when a subscriber is set already, which tests of this process may have done.
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .try_init();
    Ok(())
}
