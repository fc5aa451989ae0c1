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

/// What libraries say about themselves is for their developers, and every failed request is reported where it is
/// handled. Without this a peer that wakes up after a pause makes h2 warn about each stream that was reset meanwhile.
///
/// Two parts of openraft log errors where nothing is wrong: calls that come too late for a node that stops in order, and
/// heartbeats that outlive the leadership they were sent under.
const LIBRARIES: &str = "openraft=warn,openraft::raft::raft_inner=off,\
    openraft::core::heartbeat::worker=off,h2=error,hyper=error,hyper_util=error,tonic=error,tower=error";

/// The configured level, which may name libraries, too.
fn filter(level: &str) -> Result<EnvFilter, FilterError> {
    EnvFilter::try_new(format!("{LIBRARIES},{level}"))
        .map_err(|error| FilterError(error.to_string()))
}

/// Sends log lines to standard error from now on. Call once.
///
/// # Errors
/// The level is neither a level nor a filter.
pub fn start(section: &TelemetrySection) -> Result<(), FilterError> {
    let filter = filter(&section.level)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_unless_they_are_named() {
        let plain = filter("debug").expect("a level").to_string();
        assert!(
            plain.contains("h2=error") && plain.ends_with("debug"),
            "{plain}"
        );
        let named = filter("info,h2=trace").expect("a filter").to_string();
        assert!(
            named.contains("h2=trace") && !named.contains("h2=error"),
            "{named}"
        );
        assert!(filter("h2=loud=1").is_err());
    }

    /// Tasks do the work of requests: their lines name the request, too.
    #[tokio::test]
    async fn a_task_logs_within_the_span_of_its_caller() {
        let subscriber = tracing_subscriber::fmt()
            .with_writer(std::io::sink)
            .finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let span = tracing::info_span!("request");
        let current = async { tracing::Span::current().id() };
        let task = span.in_scope(|| runtime::Shutdown::new().spawn("work", current));
        let seen = task.await.expect("its span");
        assert!(seen.is_some());
        assert_eq!(seen, span.id());
    }
}
