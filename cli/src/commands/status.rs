//! `clusterctl status`.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use proto::admin::{Disk, StatusReply, StatusRequest, Totals};
use serde_json::{Value, json};

use crate::client::{self, CommandError};
use crate::output::{self, Format};

/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// One node as the table shows it.
struct Row {
    id: u64,
    address: String,
    voter: bool,
    /// `None`: the node did not answer.
    reply: Option<StatusReply>,
}

/// How to look.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Look again and again, with so many seconds in between, until interrupted.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
}

/// Prints how the cluster is, once or again and again.
pub(crate) async fn run(
    endpoints: &[String],
    format: Format,
    arguments: Arguments,
) -> Result<(), CommandError> {
    let Some(seconds) = arguments.watch else {
        let (first, rows) = look(endpoints).await?;
        match format {
            Format::Json => println!("{:#}", as_json(&first, &rows)),
            Format::Table => print_tables(&first, &rows),
        }
        return Ok(());
    };
    loop {
        let looked = look(endpoints).await;
        if io::stdout().is_terminal() && format == Format::Table {
            print!("{CLEAR}");
        }
        match (looked, format) {
            // A document on each line, for programs that read along.
            (Ok((first, rows)), Format::Json) => println!("{}", as_json(&first, &rows)),
            (Ok((first, rows)), Format::Table) => print_tables(&first, &rows),
            // Whoever watches wants to see it come back.
            (Err(error @ CommandError::Unreachable(_)), _) => eprintln!("clusterctl: {error}"),
            (Err(error), _) => return Err(error),
        }
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

/// Asks one node who belongs to the cluster, then each of them how it is.
async fn look(endpoints: &[String]) -> Result<(StatusReply, Vec<Row>), CommandError> {
    let first = ask(&mut client::connect(endpoints).await?).await?;
    let mut rows = Vec::new();
    for member in &first.members {
        let reply = if member.id == first.node_id {
            Some(first.clone())
        } else {
            match client::connect_one(&member.grpc_address).await {
                Ok(mut client) => ask(&mut client).await.ok(),
                Err(_) => None,
            }
        };
        let address = member.grpc_address.clone();
        rows.push(Row {
            id: member.id,
            address,
            voter: member.voter,
            reply,
        });
    }
    rows.sort_by_key(|row| row.id);
    Ok((first, rows))
}

/// Prints who belongs to the cluster.
pub(crate) async fn list_members(endpoints: &[String], format: Format) -> Result<(), CommandError> {
    let (first, rows) = look(endpoints).await?;
    let state = |row: &Row| match &row.reply {
        None => "unreachable".to_owned(),
        Some(reply) if reply.ready => "ready".to_owned(),
        Some(reply) => format!("not ready: {}", reply.reason),
    };
    let is_leader = |row: &Row| first.leader_id == Some(row.id);
    if format == Format::Json {
        let members = rows.iter().map(|row| {
            json!({
                "id": row.id, "grpc_address": row.address, "voter": row.voter, "leader": is_leader(row),
                "ready": row.reply.as_ref().is_some_and(|reply| reply.ready), "state": state(row),
            })
        });
        println!("{:#}", Value::from_iter(members));
        return Ok(());
    }
    let mut table = output::table(&["NODE", "GRPC", "VOTE", "LEADER", "STATE"]);
    for row in &rows {
        let yes = |is: bool| if is { "yes" } else { "no" };
        let cells = [
            &row.id.to_string(),
            &row.address,
            yes(row.voter),
            yes(is_leader(row)),
            &state(row),
        ];
        table.add_row(cells);
    }
    println!("{table}");
    Ok(())
}

async fn ask(
    client: &mut proto::admin::admin_client::AdminClient<tonic::transport::Channel>,
) -> Result<StatusReply, CommandError> {
    let request = client::request(StatusRequest {});
    Ok(client.status(request).await?.into_inner())
}

/// Entries that a node has not applied of what the most advanced node has committed.
fn lag(row: &StatusReply, rows: &[Row]) -> u64 {
    let committed = rows
        .iter()
        .filter_map(|row| row.reply.as_ref())
        .map(|reply| reply.committed_index);
    committed
        .max()
        .unwrap_or(0)
        .saturating_sub(row.applied_index)
}

fn as_json(first: &StatusReply, rows: &[Row]) -> Value {
    let totals = first.totals.unwrap_or_default();
    let nodes: Vec<Value> = rows
        .iter()
        .map(|row| match &row.reply {
            None => json!({ "id": row.id, "grpc_address": row.address, "voter": row.voter, "reachable": false }),
            Some(reply) => {
                let disk = reply.disk.unwrap_or_default();
                json!({
                    "id": row.id, "grpc_address": row.address, "http_address": reply.http_address,
                    "voter": row.voter, "reachable": true, "version": reply.version,
                    "role": reply.role, "ready": reply.ready, "reason": reply.reason,
                    "term": reply.term, "last_log_index": reply.last_log_index,
                    "committed_index": reply.committed_index, "applied_index": reply.applied_index,
                    "lag_entries": lag(reply, rows), "blobs": reply.local_blobs,
                    "disk_total_bytes": disk.total_bytes, "disk_free_bytes": disk.free_bytes,
                })
            }
        })
        .collect();
    json!({
        "cluster_id": first.cluster_id, "leader": first.leader_id, "term": first.term,
        "copies": first.copies, "write_copies": first.write_copies,
        "repositories": totals.repositories, "tags": totals.tags, "manifests": totals.manifests,
        "blobs": totals.blobs, "blob_bytes": totals.blob_bytes,
        "missing_copies": totals.missing_copies, "nodes": nodes,
    })
}

fn print_tables(first: &StatusReply, rows: &[Row]) {
    let leader = first
        .leader_id
        .map_or_else(|| "none".to_owned(), |id| format!("node {id}"));
    let name = if first.cluster_id.is_empty() {
        "not initialised"
    } else {
        &first.cluster_id
    };
    println!("cluster {name}   leader {leader}   term {}", first.term);
    print_totals(first, &first.totals.unwrap_or_default());
    let mut table = output::table(&[
        "NODE",
        "GRPC",
        "HTTP",
        "ROLE",
        "READY",
        "LOG",
        "COMMITTED",
        "APPLIED",
        "LAG",
        "BLOBS",
        "DISK FREE",
    ]);
    for row in rows {
        table.add_row(cells(row, rows));
    }
    println!("{table}");
    for row in rows {
        if let Some(reply) = row.reply.as_ref().filter(|reply| !reply.ready) {
            println!("node {} is not ready: {}", row.id, reply.reason);
        }
    }
}

fn print_totals(first: &StatusReply, totals: &Totals) {
    println!(
        "{} repositories   {} tags   {} manifests   {} blobs   {}",
        totals.repositories,
        totals.tags,
        totals.manifests,
        totals.blobs,
        output::size(totals.blob_bytes)
    );
    println!(
        "copies {}, {} before a push is acknowledged   missing copies {}\n",
        first.copies, first.write_copies, totals.missing_copies
    );
}

fn cells(row: &Row, rows: &[Row]) -> Vec<String> {
    let Some(reply) = &row.reply else {
        let mut cells = vec![
            row.id.to_string(),
            row.address.clone(),
            "-".into(),
            "unreachable".into(),
        ];
        cells.resize(11, "-".into());
        return cells;
    };
    let disk = reply.disk.unwrap_or(Disk::default());
    vec![
        row.id.to_string(),
        row.address.clone(),
        reply.http_address.clone(),
        reply.role.clone(),
        if reply.ready { "yes" } else { "no" }.into(),
        reply.last_log_index.to_string(),
        reply.committed_index.to_string(),
        reply.applied_index.to_string(),
        lag(reply, rows).to_string(),
        reply.local_blobs.to_string(),
        format!(
            "{} of {}",
            output::size(disk.free_bytes),
            output::size(disk.total_bytes)
        ),
    ]
}
