//! `clusterctl member drain` and `member remove`.

use std::time::Duration;

use clap::{Args, value_parser};
use proto::admin::{
    DrainReply, DrainRequest, RemoveMemberReply, RemoveMemberRequest, StatusRequest,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::{self, CommandError};
use crate::output::{self, Format};

/// How often the cluster is asked how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// How long a removal may take: as long as the node gives it, and the way there.
const REMOVE_TIME: Duration = Duration::from_secs(605);

/// Which node shall drain.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct DrainArguments {
    /// The node.
    #[arg(value_name = "NODE", value_parser = value_parser!(u64).range(1..))]
    node: u64,
    /// Take it back: the node counts again.
    #[arg(long, conflicts_with_all = ["no_wait", "timeout"])]
    undo: bool,
    /// Do not wait; the node goes on by itself.
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
    /// Wait no longer than this; the node then goes on by itself.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

/// Which node shall go.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct RemoveArguments {
    /// The node.
    #[arg(value_name = "NODE", value_parser = value_parser!(u64).range(1..))]
    node: u64,
    /// Give up copies that the others have too few of, even the last ones, and list their blobs.
    #[arg(long)]
    force: bool,
    /// Leave fewer than three voters, which do not survive the loss of one.
    #[arg(long)]
    allow_few: bool,
}

/// Lets a node drain, or takes that back.
pub(crate) async fn drain(
    endpoints: &[String],
    format: Format,
    arguments: DrainArguments,
) -> Result<(), CommandError> {
    let node = arguments.node;
    let begun = Instant::now();
    let mut reply = ask(endpoints, node, Some(!arguments.undo)).await?;
    if !arguments.undo && !arguments.no_wait {
        let deadline = arguments
            .timeout
            .map(|seconds| begun + Duration::from_secs(seconds));
        reply = wait_until_drained(endpoints, node, reply, deadline).await?;
    }
    match format {
        Format::Json => println!("{:#}", as_json(node, &reply)),
        Format::Table if arguments.undo => println!("node {node} is {}", reply.state),
        Format::Table if reply.needed_blobs == 0 => {
            println!("node {node} holds nothing that others lack; it may go: member remove {node}");
        }
        Format::Table => println!("node {node}: {}", progress(&reply, &reply, Duration::ZERO)),
    }
    Ok(())
}

async fn wait_until_drained(
    endpoints: &[String],
    node: u64,
    first: DrainReply,
    deadline: Option<Instant>,
) -> Result<DrainReply, CommandError> {
    let begun = Instant::now();
    let (mut reply, mut said) = (first.clone(), String::new());
    while reply.needed_blobs > 0 {
        let now = progress(&first, &reply, begun.elapsed());
        if now != said {
            eprintln!("node {node}: {now}");
            said = now;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(CommandError::Refused(format!(
                "node {node} cannot go yet: {said}. It goes on by itself; this command may be repeated"
            )));
        }
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        reply = look(endpoints, node, &reply).await?;
    }
    Ok(reply)
}

/// The second half of a replacement: the old node drains and goes.
pub(crate) async fn replace(
    endpoints: &[String],
    format: Format,
    node: u64,
    deadline: Instant,
) -> Result<(), CommandError> {
    let status = client::connect(endpoints)
        .await?
        .status(client::request(StatusRequest {}))
        .await?;
    let mut members = status.into_inner().members.into_iter();
    // Otherwise it is gone already, and this is the same command once more.
    if members.any(|member| member.id == node) {
        match ask(endpoints, node, Some(true)).await {
            Ok(first) => {
                wait_until_drained(endpoints, node, first, Some(deadline)).await?;
            }
            // Removed, and a member still: what follows finishes that.
            Err(CommandError::Refused(reason)) if reason.contains("was removed") => {}
            Err(error) => return Err(error),
        }
    }
    let arguments = RemoveArguments {
        node,
        force: false,
        allow_few: false,
    };
    remove(endpoints, format, arguments).await
}

/// Removes a node.
pub(crate) async fn remove(
    endpoints: &[String],
    format: Format,
    arguments: RemoveArguments,
) -> Result<(), CommandError> {
    let node = arguments.node;
    let mut client = client::connect(endpoints).await?;
    let mut request = tonic::Request::new(RemoveMemberRequest {
        node_id: node,
        force: arguments.force,
        allow_few: arguments.allow_few,
    });
    request.set_timeout(REMOVE_TIME);
    let reply = client.remove_member(request).await?.into_inner();
    match format {
        Format::Json => println!("{:#}", removed_as_json(node, &reply)),
        Format::Table => {
            for blob in &reply.given_up {
                println!("{}  {} copies left", blob.digest, blob.copies);
            }
            let more = reply
                .given_up_blobs
                .saturating_sub(reply.given_up.len() as u64);
            if more > 0 {
                println!("and {more} more; the log of the leader names them");
            }
            println!("node {node} is removed; stop it, and never start it with this data again");
        }
    }
    Ok(())
}

async fn ask(
    endpoints: &[String],
    node: u64,
    draining: Option<bool>,
) -> Result<DrainReply, CommandError> {
    let request = client::request(DrainRequest {
        node_id: node,
        draining,
    });
    let mut client = client::connect(endpoints).await?;
    Ok(client.drain(request).await?.into_inner())
}

/// Looks again. Without an answer, for example while a leader is elected, what was known stays.
async fn look(
    endpoints: &[String],
    node: u64,
    before: &DrainReply,
) -> Result<DrainReply, CommandError> {
    let now = match ask(endpoints, node, None).await {
        Ok(now) => now,
        Err(error) if error.may_pass() => return Ok(before.clone()),
        Err(error) => return Err(error),
    };
    // Another operator took it back, or a node that was down is there again.
    match now.state == "up" {
        true => Err(CommandError::Refused(format!(
            "node {node} does not drain any more, it is up; this command may be repeated"
        ))),
        false => Ok(now),
    }
}

/// What is left, and how long that takes at the pace so far.
fn progress(first: &DrainReply, now: &DrainReply, elapsed: Duration) -> String {
    let left = format!(
        "{} blobs with {} bytes have to be copied",
        now.needed_blobs, now.needed_bytes
    );
    let done = first.needed_bytes.saturating_sub(now.needed_bytes);
    if done == 0 {
        return left;
    }
    let left_ms = elapsed.as_millis() * u128::from(now.needed_bytes) / u128::from(done);
    // Whole seconds: a new line for each millisecond tells nobody anything.
    let left_ms = u64::try_from(left_ms).unwrap_or(u64::MAX) / 1000 * 1000;
    format!("{left}, about {} more", output::duration(left_ms))
}

fn as_json(node: u64, reply: &DrainReply) -> Value {
    json!({
        "id": node, "state": reply.state, "blobs": reply.blobs, "bytes": reply.bytes,
        "needed_blobs": reply.needed_blobs, "needed_bytes": reply.needed_bytes,
    })
}

fn removed_as_json(node: u64, reply: &RemoveMemberReply) -> Value {
    let given_up = reply
        .given_up
        .iter()
        .map(|blob| json!({ "digest": blob.digest, "copies": blob.copies }));
    json!({
        "removed": node, "given_up_blobs": reply.given_up_blobs, "given_up": Value::from_iter(given_up),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_what_is_left_and_how_long_it_takes() {
        let reply = |needed_blobs, needed_bytes| DrainReply {
            needed_blobs,
            needed_bytes,
            ..DrainReply::default()
        };
        let first = reply(10, 1000);
        let left = progress(&first, &first, Duration::from_secs(5));
        assert_eq!(left, "10 blobs with 1000 bytes have to be copied");
        let left = progress(&first, &reply(6, 600), Duration::from_secs(60));
        assert_eq!(
            left,
            "6 blobs with 600 bytes have to be copied, about 1 min 30 s more"
        );
    }
}
