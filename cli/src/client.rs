//! Reaching a node.

use std::time::Duration;

use proto::admin::StatusRequest;
use proto::admin::admin_client::AdminClient;
use proto::admin::gc_client::GcClient;
use proto::admin::heal_client::HealClient;
use tonic::Code;
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
    /// A node could not do it now.
    #[error("{0}")]
    Unavailable(String),
}

impl CommandError {
    /// Whether the same may succeed in a moment, for example because a leader is elected.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            CommandError::Unreachable(_) | CommandError::Unavailable(_) => true,
            CommandError::Usage(_) | CommandError::Refused(_) => false,
        }
    }

    /// The documented exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            CommandError::Refused(_) | CommandError::Unavailable(_) => 1,
            CommandError::Usage(_) => 2,
            CommandError::Unreachable(_) => 3,
        }
    }
}

impl From<tonic::Status> for CommandError {
    fn from(status: tonic::Status) -> CommandError {
        let message = status.message().to_owned();
        match status.code() {
            // Not the leader, and no other one is known: `FailedPrecondition` is of requests that no leader would do.
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
                CommandError::Unavailable(message)
            }
            _ => CommandError::Refused(message),
        }
    }
}

/// Connects to one address.
async fn channel_to(address: &str) -> Result<Channel, CommandError> {
    let unreachable = |error: &dyn std::error::Error| {
        let cause = error
            .source()
            .map_or_else(|| error.to_string(), ToString::to_string);
        CommandError::Unreachable(format!("{address}: {cause}"))
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| CommandError::Usage(format!("{address:?} is not host:port ({error})")))?
        .connect_timeout(CONNECT_TIME);
    endpoint
        .connect()
        .await
        .map_err(|error| unreachable(&error))
}

/// Connects to the first endpoint that answers.
async fn channel(endpoints: &[String]) -> Result<Channel, CommandError> {
    let mut failures = Vec::new();
    for address in endpoints {
        match channel_to(address).await {
            Ok(channel) => return Ok(channel),
            Err(CommandError::Unreachable(reason)) => failures.push(reason),
            Err(other) => return Err(other),
        }
    }
    Err(CommandError::Unreachable(failures.join("; ")))
}

/// Administration of the node at one address.
pub(crate) async fn connect_one(address: &str) -> Result<AdminClient<Channel>, CommandError> {
    channel_to(address).await.map(AdminClient::new)
}

/// Administration of the first endpoint that answers.
pub(crate) async fn connect(endpoints: &[String]) -> Result<AdminClient<Channel>, CommandError> {
    channel(endpoints).await.map(AdminClient::new)
}

/// Garbage collection as the node at one address sees it.
pub(crate) async fn gc_of(address: &str) -> Result<GcClient<Channel>, CommandError> {
    channel_to(address).await.map(GcClient::new)
}

/// Garbage collection as the first endpoint that answers sees it.
pub(crate) async fn gc(endpoints: &[String]) -> Result<GcClient<Channel>, CommandError> {
    channel(endpoints).await.map(GcClient::new)
}

/// Self-healing of every member that answers, by node id; the others are named on standard error.
///
/// # Errors
/// No endpoint answers.
pub(crate) async fn heal_of_all(
    endpoints: &[String],
) -> Result<Vec<(u64, HealClient<Channel>)>, CommandError> {
    let status = connect(endpoints)
        .await?
        .status(request(StatusRequest {}))
        .await?;
    let mut members = status.into_inner().members;
    members.sort_by_key(|member| member.id);
    let mut clients = Vec::new();
    for member in members {
        match channel_to(&member.grpc_address).await {
            Ok(channel) => clients.push((member.id, HealClient::new(channel))),
            Err(error) => eprintln!("clusterctl: node {}: {error}", member.id),
        }
    }
    Ok(clients)
}

/// A request with the usual time for its answer.
pub(crate) fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(ANSWER_TIME);
    request
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
