//! `clusterctl gc`.

use std::time::Duration;

use clap::Subcommand;
use proto::admin::{
    GcCandidate, GcDryRunRequest, GcPauseRequest, GcResumeRequest, GcRound, GcRunRequest,
    GcStatusReply, GcStatusRequest,
};
use serde_json::{Value, json};

use super::explain;
use crate::client::{self, CommandError};
use crate::output::{self, Format};

/// A round scans every manifest before it deletes.
const ROUND_TIME: Duration = Duration::from_secs(3600);

/// Candidates asked for at once.
const PAGE: u32 = 1000;

/// What to do with garbage collection.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show whether it runs, what waits and what was collected.
    Status,
    /// Do a round now, and say what it did.
    Run,
    /// Show what will be collected, why and when, without changing anything.
    DryRun {
        /// At most this many.
        #[arg(long, default_value_t = 10_000)]
        limit: usize,
    },
    /// Stop it on all nodes, until `resume`.
    Pause {
        /// Why; shown in the status.
        #[arg(long, default_value = "paused by an operator")]
        reason: String,
    },
    /// Let it go on.
    Resume,
    /// Say why a blob or manifest is kept, or when and why it goes.
    Explain {
        /// Its digest.
        digest: String,
    },
}

/// Runs a command of garbage collection.
pub(crate) async fn run(
    endpoints: &[String],
    format: Format,
    command: Command,
) -> Result<(), CommandError> {
    match command {
        Command::Status => status(endpoints, format).await,
        Command::Run => round(endpoints, format).await,
        Command::DryRun { limit } => dry_run(endpoints, format, limit).await,
        Command::Pause { reason } => {
            let request = client::request(GcPauseRequest { reason });
            client::gc(endpoints).await?.pause(request).await?;
            say(format, "garbage collection is paused");
            Ok(())
        }
        Command::Resume => {
            let request = client::request(GcResumeRequest {});
            client::gc(endpoints).await?.resume(request).await?;
            say(format, "garbage collection goes on");
            Ok(())
        }
        Command::Explain { digest } => explain::run(endpoints, format, digest).await,
    }
}

fn say(format: Format, done: &str) {
    match format {
        Format::Table => println!("{done}"),
        Format::Json => println!("{:#}", json!({ "done": true })),
    }
}

async fn status(endpoints: &[String], format: Format) -> Result<(), CommandError> {
    let request = client::request(GcStatusRequest {});
    let reply = client::gc(endpoints).await?.status(request).await?;
    let status = reply.into_inner();
    match format {
        Format::Json => println!("{:#}", status_as_json(&status)),
        Format::Table => print_status(&status),
    }
    Ok(())
}

fn status_as_json(status: &GcStatusReply) -> Value {
    let limits = status.limits.unwrap_or_default();
    let collected = status.collected.unwrap_or_default();
    let waiting = status.waiting.unwrap_or_default();
    let sweep = status.sweep.unwrap_or_default();
    json!({
        "epoch": status.epoch, "paused": status.paused_reason, "now_ms": status.now_ms,
        "grace_ms": limits.grace_ms, "condemn_delay_ms": limits.condemn_delay_ms,
        "quarantine_ms": limits.quarantine_ms, "undelete_ms": limits.undelete_ms,
        "collected": {
            "links": collected.links, "blobs": collected.blobs, "blob_bytes": collected.blob_bytes,
            "copy_bytes": collected.copy_bytes, "manifests": collected.manifests,
            "repositories": collected.repositories,
        },
        "waiting": {
            "deleted_manifests": status.deleted_manifests,
            "deleted_manifest_bytes": status.deleted_manifest_bytes,
            "deleted_manifests_since_ms": waiting.deleted_manifests_since_ms,
            "unreferenced_links_since_ms": waiting.unreferenced_links_since_ms,
            "unlinked_blobs_since_ms": waiting.unlinked_blobs_since_ms,
            "condemned_blobs_since_ms": waiting.condemned_blobs_since_ms,
            "empty_repositories_since_ms": waiting.empty_repositories_since_ms,
        },
        "node": {
            "id": status.node_id, "is_leader": status.is_leader, "is_automatic": status.is_automatic,
            "last_round": status.last_round.as_ref().map(round_as_json),
            "last_round_age_ms": status.last_round_age_ms,
            "rounds": status.rounds, "busy_rounds": status.busy_rounds,
            "verifying_manifests": status.verifying_manifests,
            "removed_blobs": sweep.removed_blobs, "removed_bytes": sweep.removed_bytes,
            "walks": sweep.walks, "trash_files": sweep.trash_files,
            "trash_bytes": sweep.trash_bytes,
        },
    })
}

fn print_status(status: &GcStatusReply) {
    let limits = status.limits.unwrap_or_default();
    let collected = status.collected.unwrap_or_default();
    let sweep = status.sweep.unwrap_or_default();
    match &status.paused_reason {
        Some(reason) => println!("PAUSED: {reason}"),
        None => println!("running   epoch {}", status.epoch),
    }
    println!(
        "a blob that nothing names stays for {}, is condemned after {}, deleted after {}; deletes can be undone for {}",
        output::duration(limits.grace_ms),
        output::duration(limits.condemn_delay_ms),
        output::duration(limits.quarantine_ms),
        output::duration(limits.undelete_ms)
    );
    print_waiting(status);
    println!(
        "collected: {} blobs, {} ({} with all copies)   {} links   {} manifests   {} repositories",
        collected.blobs,
        output::size(collected.blob_bytes),
        output::size(collected.copy_bytes),
        collected.links,
        collected.manifests,
        collected.repositories
    );
    println!(
        "node {}:    {} blobs, {} removed since it started; {} in its trash",
        status.node_id,
        sweep.removed_blobs,
        output::size(sweep.removed_bytes),
        output::size(sweep.trash_bytes)
    );
    if !status.is_automatic {
        println!("it starts no rounds by itself (gc.enabled = false)");
    }
    if let Some(manifests) = status.verifying_manifests {
        println!("a scan of all manifests is under way, {manifests} so far");
    }
    if let (Some(round), Some(age_ms)) = (&status.last_round, status.last_round_age_ms) {
        println!(
            "\nits last of {} rounds ({} found something to do), {} ago:",
            status.rounds,
            status.busy_rounds,
            output::duration(age_ms)
        );
        print_round(round);
    }
}

fn print_waiting(status: &GcStatusReply) {
    let waiting = status.waiting.unwrap_or_default();
    for (since_ms, what) in [
        (waiting.deleted_manifests_since_ms, "deleted manifests"),
        (
            waiting.unreferenced_links_since_ms,
            "links without a manifest",
        ),
        (
            waiting.unlinked_blobs_since_ms,
            "blobs without a repository",
        ),
        (waiting.condemned_blobs_since_ms, "condemned blobs"),
        (
            waiting.empty_repositories_since_ms,
            "repositories without content",
        ),
    ] {
        if let Some(since_ms) = since_ms {
            let age_ms = status.now_ms.saturating_sub(since_ms);
            println!(
                "waiting:   {what}, the oldest for {}",
                output::duration(age_ms)
            );
        }
    }
    if status.deleted_manifests > 0 {
        println!(
            "{} deleted manifests can be restored",
            status.deleted_manifests
        );
    }
}

async fn round(endpoints: &[String], format: Format) -> Result<(), CommandError> {
    let mut request = tonic::Request::new(GcRunRequest {});
    request.set_timeout(ROUND_TIME);
    let reply = client::gc(endpoints).await?.run(request).await?;
    let round = reply.into_inner().round.unwrap_or_default();
    match format {
        Format::Json => println!("{:#}", round_as_json(&round)),
        Format::Table => print_round(&round),
    }
    match round.disagreement {
        Some(reason) => Err(CommandError::Refused(format!(
            "garbage collection is paused: {reason}"
        ))),
        None => Ok(()),
    }
}

fn round_as_json(round: &GcRound) -> Value {
    json!({
        "collected_manifests": round.collected_manifests,
        "purged_manifests": round.purged_manifests, "removed_links": round.removed_links,
        "condemned_blobs": round.condemned_blobs, "deleted_blobs": round.deleted_blobs,
        "blob_bytes": round.blob_bytes, "copy_bytes": round.copy_bytes,
        "removed_repositories": round.removed_repositories,
        "verified_manifests": round.verified_manifests,
        "unverified_blobs": round.unverified_blobs, "held_blobs": round.held_blobs,
        "is_more_due": round.is_more_due, "disagreement": round.disagreement,
    })
}

fn print_round(round: &GcRound) {
    println!(
        "{} blobs deleted, {} ({} with all copies)",
        round.deleted_blobs,
        output::size(round.blob_bytes),
        output::size(round.copy_bytes)
    );
    for (count, what) in [
        (round.condemned_blobs, "blobs condemned"),
        (round.removed_links, "links removed"),
        (round.purged_manifests, "deleted manifests purged"),
        (round.collected_manifests, "untagged manifests deleted"),
        (round.removed_repositories, "empty repositories removed"),
        (round.verified_manifests, "manifests scanned to confirm it"),
        (
            round.unverified_blobs,
            "condemned blobs wait for the next scan of all manifests",
        ),
        (
            round.held_blobs,
            "condemned blobs wait for deleted manifests that can be restored",
        ),
    ] {
        if count > 0 {
            println!("{count} {what}");
        }
    }
    if round.is_more_due {
        println!("more is due, and left to the next round");
    }
}

async fn dry_run(endpoints: &[String], format: Format, limit: usize) -> Result<(), CommandError> {
    let mut client = client::gc(endpoints).await?;
    let mut request = GcDryRunRequest {
        after: Default::default(),
        limit: PAGE,
    };
    let mut candidates: Vec<GcCandidate> = Vec::new();
    let mut now_ms = 0;
    let mut is_partial = false;
    loop {
        let asked = client.dry_run(client::request(request.clone()));
        let page = asked.await?.into_inner();
        now_ms = now_ms.max(page.now_ms);
        candidates.extend(page.candidates);
        if page.next.is_empty() {
            break;
        }
        if candidates.len() >= limit {
            is_partial = true;
            break;
        }
        request.after = page.next;
    }
    is_partial |= candidates.len() > limit;
    candidates.truncate(limit);
    match format {
        Format::Json => {
            let list = candidates.iter().map(|candidate| {
                json!({
                    "kind": candidate.kind, "digest": candidate.digest,
                    "repository": candidate.repository, "size_bytes": candidate.size_bytes,
                    "next_step": candidate.next_step, "reason": candidate.reason,
                    "due_ms": candidate.due_ms, "is_due": candidate.due_ms <= now_ms,
                })
            });
            let list = Value::from_iter(list);
            println!(
                "{:#}",
                json!({ "now_ms": now_ms, "is_partial": is_partial, "candidates": list })
            );
        }
        Format::Table => print_candidates(&candidates, now_ms, is_partial),
    }
    Ok(())
}

fn print_candidates(candidates: &[GcCandidate], now_ms: u64, is_partial: bool) {
    let mut table = output::table(&["WHAT", "DIGEST", "REPOSITORY", "SIZE", "NEXT", "DUE", "WHY"]);
    for candidate in candidates {
        table.add_row([
            candidate.kind.clone(),
            candidate.digest.clone(),
            candidate.repository.clone(),
            output::size(candidate.size_bytes),
            candidate.next_step.clone(),
            output::due(candidate.due_ms, now_ms),
            candidate.reason.clone(),
        ]);
    }
    println!("{table}");
    if is_partial {
        println!("there are more: see --limit");
    }
}
