//! `GET /metrics` in the text format of Prometheus: gauges and counters read when they are asked for.
//!
//! Names are `argosy_<floor>_<noun>_<unit>`. Labels never carry names of repositories or digests.

use std::fmt::{Display, Write as _};

use consensus::{RaftNode, Role};
use metadata::command::NodeState;
use metadata::log;
use metadata::query;
use registry::Registry;
use registry::heal::RepairStatus;
use storage::blob::{BlobHealth, BlobStore};

use crate::grpc::heal::{health_name, state_name};

/// A page of metrics being written.
#[derive(Default)]
struct Page(String);

impl Page {
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.line(name, "", value);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.one(name, "gauge", help, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.one(name, "counter", help, value);
    }
}

/// Everything this node tells.
///
/// # Errors
/// The state or the disk cannot be read.
pub(crate) async fn page(
    raft: &RaftNode,
    registry: &Registry,
    blobs: &dyn BlobStore,
) -> Result<String, String> {
    let mut page = Page::default();
    consensus(&mut page, raft);
    disk(&mut page, blobs).await?;
    collection(&mut page, raft, registry)?;
    repair(&mut page, registry).await?;
    scrub(&mut page, registry).await?;
    Ok(page.0)
}

fn consensus(page: &mut Page, raft: &RaftNode) {
    let status = raft.status();
    page.gauge("argosy_consensus_term", "Raft term.", status.term);
    let leads = u8::from(status.role == Role::Leader);
    page.gauge(
        "argosy_consensus_leader",
        "1 on the node that leads.",
        leads,
    );
    let index = |index: Option<metadata::ids::LogIndex>| index.map_or(0, |index| index.0);
    let last = index(status.last_log_index);
    page.gauge(
        "argosy_consensus_last_log_index",
        "Last entry in the log.",
        last,
    );
    let committed = index(status.committed);
    page.gauge(
        "argosy_consensus_committed_index",
        "Last entry committed.",
        committed,
    );
    page.gauge(
        "argosy_consensus_applied_index",
        "Last entry applied.",
        status.applied.0,
    );
}

async fn disk(page: &mut Page, blobs: &dyn BlobStore) -> Result<(), String> {
    let usage = blobs.usage().await.map_err(|error| error.to_string())?;
    let total = "Size of the file system of the blobs.";
    page.gauge("argosy_storage_disk_total_bytes", total, usage.total_bytes);
    let free = "What is free of it.";
    page.gauge("argosy_storage_disk_free_bytes", free, usage.free_bytes);
    let trash = blobs
        .trash_usage()
        .await
        .map_err(|error| error.to_string())?;
    let help = "Deleted blobs that are still on disk.";
    page.gauge("argosy_storage_trash_bytes", help, trash.bytes);
    Ok(())
}

fn collection(page: &mut Page, raft: &RaftNode, registry: &Registry) -> Result<(), String> {
    let read = log::read(raft, |view| Ok((query::stats(view)?, query::gc(view)?)));
    let (stats, gc) = read.map_err(|error| error.to_string())?;
    page.gauge(
        "argosy_metadata_repositories",
        "Repositories.",
        stats.repositories,
    );
    page.gauge("argosy_metadata_manifests", "Manifests.", stats.manifests);
    page.gauge("argosy_metadata_blobs", "Blobs.", stats.blobs);
    page.gauge(
        "argosy_metadata_blob_bytes",
        "Their bytes, each once.",
        stats.blob_bytes,
    );
    let paused = u8::from(gc.paused.is_some());
    page.gauge(
        "argosy_gc_paused",
        "1 while garbage collection is paused.",
        paused,
    );
    let collected = gc.collected;
    page.counter(
        "argosy_gc_blobs_deleted",
        "Blobs ever deleted.",
        collected.blobs,
    );
    let help = "Bytes of copies ever deleted.";
    page.counter("argosy_gc_freed_bytes", help, collected.copy_bytes);
    page.counter(
        "argosy_gc_links_removed",
        "Links ever removed.",
        collected.links,
    );
    page.counter(
        "argosy_gc_manifests_purged",
        "Manifests ever purged.",
        collected.manifests,
    );
    let (rounds, busy_rounds) = registry.gc_rounds();
    let help = "Rounds of collection finished by this node since it started.";
    page.counter("argosy_gc_rounds", help, rounds);
    let help = "Those that found something to do.";
    page.counter("argosy_gc_busy_rounds", help, busy_rounds);
    Ok(())
}

async fn repair(page: &mut Page, registry: &Registry) -> Result<(), String> {
    let status = registry
        .repair_status()
        .await
        .map_err(|error| error.to_string())?;
    let help = "Blobs of the cluster with too few copies.";
    page.gauge(
        "argosy_heal_under_replicated_blobs",
        help,
        status.under_replicated_blobs,
    );
    page.gauge(
        "argosy_heal_missing_copies",
        "Copies to make.",
        status.missing_copies,
    );
    let running = status.running.len();
    page.gauge(
        "argosy_heal_repairs_running",
        "Copies this node is making.",
        running,
    );
    let help = "Blobs that wait here after a failure.";
    page.gauge("argosy_heal_repairs_waiting", help, status.backed_off);
    let counts = status.counts;
    page.counter("argosy_heal_repairs_done", "Copies made.", counts.repaired);
    page.counter(
        "argosy_heal_repaired_bytes",
        "Their bytes.",
        counts.repaired_bytes,
    );
    page.counter(
        "argosy_heal_repairs_failed",
        "Attempts that failed.",
        counts.failed,
    );
    page.counter(
        "argosy_heal_copies_adopted",
        "Files counted again.",
        counts.adopted,
    );
    page.counter(
        "argosy_heal_copies_trimmed",
        "Surplus copies dropped.",
        counts.trimmed,
    );
    page.counter(
        "argosy_heal_copies_damaged",
        "Bad copies found.",
        counts.damaged,
    );
    page.counter(
        "argosy_heal_copies_quarantined",
        "Of them, moved to quarantine.",
        counts.quarantined,
    );
    page.counter(
        "argosy_heal_copies_lost",
        "Of them, reported lost.",
        counts.reported_lost,
    );
    page.counter(
        "argosy_heal_checks",
        "Comparisons of the blob directory with the state.",
        counts.checks,
    );
    suspects(page, &status);
    conditions(page, &status);
    Ok(())
}

/// What is suspected and not decided. Of nodes only the leader knows.
fn suspects(page: &mut Page, status: &RepairStatus) {
    page.gauge(
        "argosy_heal_suspect_copies",
        "Copies that somebody found bad and that are being read again.",
        status.suspect_copies,
    );
    let nodes = status.nodes.iter();
    let suspect = nodes.filter(|node| node.silence.is_some()).count();
    page.gauge(
        "argosy_heal_suspect_nodes",
        "On the leader: nodes that do not answer it.",
        suspect,
    );
}

fn conditions(page: &mut Page, status: &RepairStatus) {
    let name = "argosy_heal_node_state";
    page.head(name, "gauge", "1 for the state a node is in.");
    for node in &status.nodes {
        for state in [NodeState::Up, NodeState::Down, NodeState::Draining] {
            let labels = format!("{{node=\"{}\",state=\"{}\"}}", node.node, state_name(state));
            page.line(name, &labels, u8::from(node.state == state));
        }
    }
    let name = "argosy_storage_health";
    page.head(name, "gauge", "1 for the condition of the blob directory.");
    for health in [
        BlobHealth::Healthy,
        BlobHealth::Full,
        BlobHealth::ReadOnly,
        BlobHealth::Failed,
    ] {
        let labels = format!("{{health=\"{}\"}}", health_name(health));
        page.line(name, &labels, u8::from(status.health == health));
    }
}

async fn scrub(page: &mut Page, registry: &Registry) -> Result<(), String> {
    let status = registry
        .scrub_status()
        .await
        .map_err(|error| error.to_string())?;
    let progress = status.progress.unwrap_or_default();
    page.gauge("argosy_scrub_pass", "Number of the pass.", progress.pass);
    let is_running = progress.pass > 0 && progress.ended_at_ms == 0;
    let help = "1 while a pass is under way.";
    page.gauge("argosy_scrub_running", help, u8::from(is_running));
    let help = "When the last pass ended, in unix time.";
    page.gauge("argosy_scrub_ended_ms", help, progress.ended_at_ms);
    page.gauge("argosy_scrub_blobs", "Blobs read in it.", progress.blobs);
    page.gauge("argosy_scrub_bytes", "Bytes read in it.", progress.bytes);
    page.gauge("argosy_scrub_bad_blobs", "Bad ones of them.", progress.bad);
    let help = "Damaged copies that are the last of their blob.";
    page.gauge(
        "argosy_scrub_unrecoverable_blobs",
        help,
        status.unrecoverable.len(),
    );
    let help = "Damaged manifests in the state of this node.";
    page.gauge(
        "argosy_scrub_damaged_manifests",
        help,
        status.damaged_manifests.len(),
    );
    let help = "Damaged copies in quarantine.";
    page.gauge(
        "argosy_storage_quarantine_files",
        help,
        status.quarantine.files,
    );
    page.gauge(
        "argosy_storage_quarantine_bytes",
        "Their bytes.",
        status.quarantine.bytes,
    );
    Ok(())
}
