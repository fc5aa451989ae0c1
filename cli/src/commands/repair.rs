//! `clusterctl repair`.

use clap::Subcommand;
use proto::admin::{RepairStatusReply, RepairStatusRequest};
use serde_json::{Value, json};

use crate::client::{self, CommandError};
use crate::output::{self, Format};

/// What to ask about repair.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show missing copies, what each node does about them, and which nodes count.
    Status,
}

/// Runs a repair command.
pub(crate) async fn run(
    endpoints: &[String],
    command: Command,
    format: Format,
) -> Result<(), CommandError> {
    let Command::Status = command;
    let mut replies = Vec::new();
    for (_, mut client) in client::heal_of_all(endpoints).await? {
        let reply = client.repair_status(client::request(RepairStatusRequest {}));
        replies.push(reply.await?.into_inner());
    }
    match format {
        Format::Json => println!("{:#}", as_json(&replies)),
        Format::Table => print_tables(&replies),
    }
    Ok(())
}

fn as_json(replies: &[RepairStatusReply]) -> Value {
    let nodes = replies.iter().map(|reply| {
        let counts = reply.counts.unwrap_or_default();
        let states = reply.nodes.iter().map(
            |node| json!({ "id": node.node_id, "state": node.state, "silent_ms": node.silent_ms }),
        );
        json!({
            "id": reply.node_id, "health": reply.health, "running": reply.running,
            "backed_off": reply.backed_off, "repaired": counts.repaired,
            "repaired_bytes": counts.repaired_bytes, "failed": counts.failed,
            "adopted": counts.adopted, "trimmed": counts.trimmed,
            "reported_lost": counts.reported_lost, "checks": counts.checks,
            "under_replicated_blobs": reply.under_replicated_blobs,
            "missing_copies": reply.missing_copies, "states": states.collect::<Vec<_>>(),
        })
    });
    json!({ "nodes": nodes.collect::<Vec<_>>() })
}

fn print_tables(replies: &[RepairStatusReply]) {
    if let Some(first) = replies.first() {
        println!(
            "blobs that lack copies {}   missing copies {}\n",
            first.under_replicated_blobs, first.missing_copies
        );
    }
    let mut table = output::table(&[
        "NODE", "STATE", "DISK", "RUNNING", "WAITING", "REPAIRED", "BYTES", "FAILED", "ADOPTED",
        "TRIMMED", "LOST",
    ]);
    for reply in replies {
        let counts = reply.counts.unwrap_or_default();
        table.add_row(vec![
            reply.node_id.to_string(),
            state_of(reply.node_id, replies),
            reply.health.clone(),
            reply.running.len().to_string(),
            reply.backed_off.to_string(),
            counts.repaired.to_string(),
            output::size(counts.repaired_bytes),
            counts.failed.to_string(),
            counts.adopted.to_string(),
            counts.trimmed.to_string(),
            counts.reported_lost.to_string(),
        ]);
    }
    println!("{table}");
    let silent = replies.iter().flat_map(|reply| &reply.nodes);
    for node in silent.filter(|node| node.silent_ms.is_some() || node.state != "up") {
        println!(
            "node {} is {}, silent for {} s",
            node.node_id,
            node.state,
            node.silent_ms.unwrap_or(0) / 1000
        );
    }
}

fn state_of(node_id: u64, replies: &[RepairStatusReply]) -> String {
    let mut states = replies.iter().flat_map(|reply| &reply.nodes);
    let known = states.find(|node| node.node_id == node_id);
    known.map_or_else(|| "-".to_owned(), |node| node.state.clone())
}
