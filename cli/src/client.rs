//! Reaching a node.

use std::time::Duration;

use proto::admin::admin_client::AdminClient;
use tonic::transport::{Channel, Endpoint};

/// Time to connect to one node.
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// Time for an answer that needs no work of the cluster.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// An argument cannot be meant.
    #[error("{0}")]
    Usage(String),
    /// No endpoint answered.
    #[error("no node could be reached: {0}")]
    Unreachable(String),
    /// A node answered with an error.
    #[error("{0}")]
    Refused(String),
}

impl CommandError {
    /// The documented exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            CommandError::Refused(_) => 1,
            CommandError::Usage(_) => 2,
            CommandError::Unreachable(_) => 3,
        }
    }
}

impl From<tonic::Status> for CommandError {
    fn from(status: tonic::Status) -> CommandError {
        CommandError::Refused(status.message().to_owned())
    }
}

/// Connects to one address.
pub(crate) async fn connect_one(address: &str) -> Result<AdminClient<Channel>, CommandError> {
    reach(address, Some(ANSWER_TIME)).await
}

/// For calls that may take long.
pub(crate) async fn connect_patient(
    address: &str,
    answer_time: Duration,
) -> Result<AdminClient<Channel>, CommandError> {
    reach(address, Some(answer_time)).await
}

/// `answer_time` is for each request; without it the request says how long it may take.
async fn reach(
    address: &str,
    answer_time: Option<Duration>,
) -> Result<AdminClient<Channel>, CommandError> {
    let unreachable = |error: &dyn std::error::Error| {
        let cause = error
            .source()
            .map_or_else(|| error.to_string(), ToString::to_string);
        CommandError::Unreachable(format!("{address}: {cause}"))
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| CommandError::Usage(format!("{address:?} is not host:port ({error})")))?
        .connect_timeout(CONNECT_TIME);
    let endpoint = match answer_time {
        Some(time) => endpoint.timeout(time),
        None => endpoint,
    };
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| unreachable(&error))?;
    Ok(AdminClient::new(channel))
}

/// Connects to the first endpoint that answers.
pub(crate) async fn connect(endpoints: &[String]) -> Result<AdminClient<Channel>, CommandError> {
    reach_any(endpoints, Some(ANSWER_TIME)).await
}

/// The same for a request that may take as long as it says itself.
pub(crate) async fn connect_patiently(
    endpoints: &[String],
) -> Result<AdminClient<Channel>, CommandError> {
    reach_any(endpoints, None).await
}

async fn reach_any(
    endpoints: &[String],
    answer_time: Option<Duration>,
) -> Result<AdminClient<Channel>, CommandError> {
    let mut failures = Vec::new();
    for address in endpoints {
        match reach(address, answer_time).await {
            Ok(client) => return Ok(client),
            Err(CommandError::Unreachable(reason)) => failures.push(reason),
            Err(other) => return Err(other),
        }
    }
    Err(CommandError::Unreachable(failures.join("; ")))
}

/// Reads `ID=HOST:PORT`.
pub(crate) fn parse_member(text: &str) -> Result<(u64, String), String> {
    let (id, address) = text.split_once('=').ok_or("expected ID=HOST:PORT")?;
    let id: u64 = id
        .parse()
        .map_err(|_| format!("{id:?} is not a node number"))?;
    let port = address
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse::<u16>().ok());
    if id == 0 || port.is_none() {
        return Err("expected ID=HOST:PORT with ID from 1".into());
    }
    Ok((id, address.to_owned()))
}
