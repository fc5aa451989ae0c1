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
            "damaged": counts.damaged, "quarantined": counts.quarantined,
            "reported_lost": counts.reported_lost, "suspect_copies": reply.suspect_copies,
            "checks": counts.checks, "checked_ago_ms": reply.checked_ago_ms,
            "next_check_ms": reply.next_check_ms,
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
    for reply in replies {
        println!("node {}: {}", reply.node_id, describe_checks(reply));
        if let Some(copies) = describe_bad_copies(reply) {
            println!("node {}: {copies}", reply.node_id);
        }
    }
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

/// How the comparisons of the directory with the state stand.
fn describe_checks(reply: &RepairStatusReply) -> String {
    let times = match reply.counts.unwrap_or_default().checks {
        1 => "once".to_owned(),
        checks => format!("{checks} times"),
    };
    let next = match reply.next_check_ms {
        0 => "now".to_owned(),
        wait_ms => format!("in {}", output::duration(wait_ms)),
    };
    match reply.checked_ago_ms {
        None => format!("directory not compared with the state since the start, first {next}"),
        Some(ago_ms) => {
            let ago = output::duration(ago_ms);
            format!(
                "directory compared with the state {times} since the start, last {ago} ago, next {next}"
            )
        }
    }
}

/// What is known of bad copies; `None` when there were none.
fn describe_bad_copies(reply: &RepairStatusReply) -> Option<String> {
    let counts = reply.counts.unwrap_or_default();
    if (reply.suspect_copies, counts.damaged) == (0, 0) {
        return None;
    }
    Some(format!(
        "{} suspect copies are being read again; since the start {} were found damaged or missing, {} of them moved to \
         quarantine, {} reported lost",
        reply.suspect_copies, counts.damaged, counts.quarantined, counts.reported_lost
    ))
}

fn state_of(node_id: u64, replies: &[RepairStatusReply]) -> String {
    let mut states = replies.iter().flat_map(|reply| &reply.nodes);
    let known = states.find(|node| node.node_id == node_id);
    known.map_or_else(|| "-".to_owned(), |node| node.state.clone())
}

#[cfg(test)]
mod tests {
    use proto::admin::HealCounts;

    use super::*;

    #[test]
    fn checks_and_bad_copies_are_told_in_words() {
        let mut reply = RepairStatusReply {
            next_check_ms: 61_000,
            ..RepairStatusReply::default()
        };
        assert_eq!(
            describe_checks(&reply),
            "directory not compared with the state since the start, first in 1 min 1 s"
        );
        assert_eq!(describe_bad_copies(&reply), None);
        reply.counts = Some(HealCounts {
            checks: 2,
            damaged: 3,
            quarantined: 1,
            reported_lost: 2,
            ..HealCounts::default()
        });
        (reply.checked_ago_ms, reply.next_check_ms) = (Some(5_000), 0);
        reply.suspect_copies = 4;
        assert_eq!(
            describe_checks(&reply),
            "directory compared with the state 2 times since the start, last 5 s ago, next now"
        );
        let copies = describe_bad_copies(&reply).unwrap();
        assert!(
            copies.starts_with("4 suspect copies are being read again"),
            "{copies}"
        );
        assert!(
            copies.contains("3 were found damaged or missing, 1 of them"),
            "{copies}"
        );
        assert!(copies.ends_with("2 reported lost"), "{copies}");
    }
}
