//! `clusterctl leader`.

use std::time::Duration;

use clap::Subcommand;
use proto::admin::TransferLeaderRequest;
use serde_json::json;

use crate::client::{self, CommandError};
use crate::output::Format;

/// What the way to the leader and back takes besides.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// What to do with the leader.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Give leadership to another voter, for example before the leader is stopped. May be repeated after an error.
    Transfer {
        /// Who shall lead; the voter that lacks the fewest log entries otherwise.
        #[arg(value_name = "NODE", value_parser = clap::value_parser!(u64).range(1..))]
        to: Option<u64>,
        /// Give up after this time; at most 60.
        #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
        timeout: u64,
    },
}

/// Runs a leader command.
pub(crate) async fn run(
    endpoints: &[String],
    format: Format,
    command: Command,
) -> Result<(), CommandError> {
    let Command::Transfer { to, timeout } = command;
    let timeout = Duration::from_secs(timeout);
    let mut client = client::connect(endpoints).await?;
    let mut request = tonic::Request::new(TransferLeaderRequest {
        to,
        timeout_ms: timeout.as_millis().try_into().unwrap_or(u64::MAX),
    });
    request.set_timeout(timeout + ANSWER_TIME);
    let leader = client
        .transfer_leader(request)
        .await?
        .into_inner()
        .leader_id;
    match format {
        Format::Json => println!("{:#}", json!({ "leader": leader })),
        Format::Table => println!("node {leader} leads"),
    }
    match to {
        Some(wanted) if wanted != leader => Err(CommandError::Refused(format!(
            "an election came between; this command may be repeated to have node {wanted} lead"
        ))),
        _ => Ok(()),
    }
}
