//! `clusterctl scrub`.

use clap::Subcommand;
use proto::admin::{ScrubStatusReply, ScrubStatusRequest, StartScrubRequest};
use serde_json::{Value, json};

use crate::client::{self, CommandError};
use crate::output::{self, Format};

/// What to do with the scrub.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Command {
    /// Read every blob and manifest again now, on every node that answers.
    Start,
    /// Show how far each node is and what it found.
    Status,
}

/// Runs a scrub command.
pub(crate) async fn run(
    endpoints: &[String],
    command: Command,
    format: Format,
) -> Result<(), CommandError> {
    let (mut started, mut replies) = (Vec::new(), Vec::new());
    for (node_id, mut client) in client::heal_of_all(endpoints).await? {
        match command {
            Command::Start => {
                client
                    .start_scrub(client::request(StartScrubRequest {}))
                    .await?;
                if format == Format::Table {
                    println!("node {node_id} scrubs");
                }
                started.push(node_id);
            }
            Command::Status => {
                let reply = client.scrub_status(client::request(ScrubStatusRequest {}));
                replies.push(reply.await?.into_inner());
            }
        }
    }
    match (command, format) {
        (Command::Start, Format::Json) => println!("{:#}", json!({ "scrubbing": started })),
        (Command::Start, Format::Table) => {}
        (Command::Status, Format::Json) => println!("{:#}", as_json(&replies)),
        (Command::Status, Format::Table) => print_tables(&replies),
    }
    Ok(())
}

fn as_json(replies: &[ScrubStatusReply]) -> Value {
    let nodes = replies.iter().map(|reply| {
        json!({
            "id": reply.node_id, "pass": reply.pass, "running": reply.running,
            "started_at_ms": reply.started_at_ms, "ended_at_ms": reply.ended_at_ms,
            "blobs": reply.blobs, "bytes": reply.bytes, "bad": reply.bad,
            "unrecoverable": reply.unrecoverable, "damaged_manifests": reply.damaged_manifests,
            "quarantine_files": reply.quarantine_files, "quarantine_bytes": reply.quarantine_bytes,
        })
    });
    json!({ "nodes": nodes.collect::<Vec<_>>() })
}

fn print_tables(replies: &[ScrubStatusReply]) {
    let mut table = output::table(&[
        "NODE",
        "PASS",
        "STATE",
        "BLOBS",
        "READ",
        "BAD",
        "QUARANTINE",
    ]);
    for reply in replies {
        let state = match (reply.pass, reply.running) {
            (0, _) => "not yet",
            (_, true) => "running",
            (_, false) => "done",
        };
        table.add_row(vec![
            reply.node_id.to_string(),
            reply.pass.to_string(),
            state.to_owned(),
            reply.blobs.to_string(),
            output::size(reply.bytes),
            reply.bad.to_string(),
            format!("{} files", reply.quarantine_files),
        ]);
    }
    println!("{table}");
    for reply in replies {
        for digest in &reply.unrecoverable {
            println!(
                "node {}: {digest} is damaged, and the last copy",
                reply.node_id
            );
        }
        for digest in &reply.damaged_manifests {
            println!(
                "node {}: manifest {digest} is damaged in its state",
                reply.node_id
            );
        }
    }
}
