//! Administration of self-healing.

use std::sync::Arc;
use std::time::Duration;

use metadata::command::NodeState;
use metadata::ids::NodeId;
use oci::Digest;
use proto::admin as wire;
use proto::admin::heal_server::{Heal, HealServer};
use registry::Registry;
use registry::heal::HealCounts;
use storage::blob::BlobHealth;
use tonic::{Request, Response, Status};

/// The self-healing service of this node.
pub struct HealFront {
    node: NodeId,
    registry: Arc<Registry>,
}

impl HealFront {
    /// A service over the registry of this node.
    pub fn new(node: NodeId, registry: Arc<Registry>) -> HealFront {
        HealFront { node, registry }
    }

    /// To be mounted on the gRPC front.
    pub fn into_service(self) -> HealServer<HealFront> {
        HealServer::new(self)
    }
}

/// As `clusterctl` and `/metrics` name it.
pub(crate) fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Up => "up",
        NodeState::Down => "down",
        NodeState::Draining => "draining",
    }
}

/// As `clusterctl` and `/metrics` name it.
pub(crate) fn health_name(health: BlobHealth) -> &'static str {
    match health {
        BlobHealth::Healthy => "healthy",
        BlobHealth::Full => "full",
        BlobHealth::ReadOnly => "read-only",
        BlobHealth::Failed => "failed",
    }
}

fn counts(counts: HealCounts) -> wire::HealCounts {
    wire::HealCounts {
        repaired: counts.repaired,
        repaired_bytes: counts.repaired_bytes,
        failed: counts.failed,
        adopted: counts.adopted,
        trimmed: counts.trimmed,
        damaged: counts.damaged,
        quarantined: counts.quarantined,
        reported_lost: counts.reported_lost,
        checks: counts.checks,
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn names(digests: &[Digest]) -> Vec<String> {
    digests.iter().map(ToString::to_string).collect()
}

#[tonic::async_trait]
impl Heal for HealFront {
    async fn repair_status(
        &self,
        _request: Request<wire::RepairStatusRequest>,
    ) -> Result<Response<wire::RepairStatusReply>, Status> {
        let status = self.registry.repair_status().await;
        let status = status.map_err(|error| Status::internal(error.to_string()))?;
        let node = |known: registry::heal::NodeHealth| wire::NodeHealth {
            node_id: known.node.0,
            state: state_name(known.state).to_owned(),
            silent_ms: known.silence.map(milliseconds),
        };
        Ok(Response::new(wire::RepairStatusReply {
            node_id: self.node.0,
            under_replicated_blobs: status.under_replicated_blobs,
            missing_copies: status.missing_copies,
            running: names(&status.running),
            backed_off: status.backed_off as u64,
            counts: Some(counts(status.counts)),
            nodes: status.nodes.into_iter().map(node).collect(),
            health: health_name(status.health).to_owned(),
            suspect_copies: status.suspect_copies as u64,
            checked_ago_ms: status.checked_ago.map(milliseconds),
            next_check_ms: milliseconds(status.next_check_in),
        }))
    }

    async fn scrub_status(
        &self,
        _request: Request<wire::ScrubStatusRequest>,
    ) -> Result<Response<wire::ScrubStatusReply>, Status> {
        let status = self.registry.scrub_status().await;
        let status = status.map_err(|error| Status::internal(error.to_string()))?;
        let progress = status.progress.unwrap_or_default();
        Ok(Response::new(wire::ScrubStatusReply {
            node_id: self.node.0,
            pass: progress.pass,
            running: progress.pass > 0 && progress.ended_at_ms == 0,
            started_at_ms: progress.started_at_ms,
            ended_at_ms: progress.ended_at_ms,
            blobs: progress.blobs,
            bytes: progress.bytes,
            bad: progress.bad,
            unrecoverable: names(&status.unrecoverable),
            damaged_manifests: names(&status.damaged_manifests),
            quarantine_files: status.quarantine.files,
            quarantine_bytes: status.quarantine.bytes,
        }))
    }

    async fn start_scrub(
        &self,
        _request: Request<wire::StartScrubRequest>,
    ) -> Result<Response<wire::StartScrubReply>, Status> {
        self.registry.start_scrub();
        Ok(Response::new(wire::StartScrubReply {}))
    }
}
