//! Garbage collection, and bringing back what was deleted, as `clusterctl` asks for it.

use std::sync::Arc;
use std::time::Duration;

use consensus::RaftNode;
use metadata::ids::{LogIndex, LogTime};
use metadata::query::{DeletedManifest, Due, DueStep};
use oci::{Digest, RepositoryName, Tag};
use proto::admin as wire;
use proto::admin::gc_client::GcClient;
use proto::admin::gc_server::{Gc, GcServer};
use registry::Registry;
use registry::gc::{Candidate, GcError, GcRound, GcStatus, Local};
use tonic::{Request, Response, Status};

use super::admin::{self, PASSED_ON};
use super::explain::explain_reply;
use super::status;

/// A round on the leader may scan every manifest.
const ROUND_TIME: Duration = Duration::from_secs(3600);
/// Largest and usual page of a list.
const PAGE: usize = 1_000;
/// Who is written to the history of what an operator brings back.
const OPERATOR: &str = "clusterctl";

/// The service of this node.
pub struct GcFront {
    registry: Arc<Registry>,
    raft: Arc<RaftNode>,
}

impl GcFront {
    /// A service over the registry of this node.
    pub fn new(registry: Arc<Registry>, raft: Arc<RaftNode>) -> GcFront {
        GcFront { registry, raft }
    }

    /// To be mounted on the gRPC front.
    pub fn into_service(self) -> GcServer<GcFront> {
        GcServer::new(self)
    }

    /// Asks the leader for a round, so that an operator may ask any node.
    async fn run_on_leader(&self) -> Result<Response<wire::GcRunReply>, Status> {
        let channel = admin::leader_channel(&self.raft).await?;
        let mut request = Request::new(wire::GcRunRequest {});
        admin::mark_passed_on(&mut request, ROUND_TIME);
        GcClient::new(channel).run(request).await
    }
}

fn failed(error: GcError) -> Status {
    status::of_gc(&error)
}

fn digest(text: &str) -> Result<Digest, Status> {
    Digest::parse(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn repository(text: &str) -> Result<RepositoryName, Status> {
    RepositoryName::parse(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn tag(text: &str) -> Result<Tag, Status> {
    Tag::parse(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn page(limit: u32) -> usize {
    match limit as usize {
        0 => PAGE,
        limit => limit.min(PAGE),
    }
}

fn after(position: &[u8]) -> Option<&[u8]> {
    Some(position).filter(|position| !position.is_empty())
}

pub(super) fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

#[tonic::async_trait]
impl Gc for GcFront {
    async fn status(
        &self,
        _request: Request<wire::GcStatusRequest>,
    ) -> Result<Response<wire::GcStatusReply>, Status> {
        let status = self.registry.gc_status().await.map_err(failed)?;
        Ok(Response::new(status_reply(status)))
    }

    async fn run(
        &self,
        request: Request<wire::GcRunRequest>,
    ) -> Result<Response<wire::GcRunReply>, Status> {
        let was_passed_on = request.metadata().contains_key(PASSED_ON);
        match self.registry.gc_run().await {
            Ok(round) => Ok(Response::new(wire::GcRunReply {
                round: Some(round_reply(round)),
                node_id: self.raft.status().node.0,
            })),
            Err(GcError::NotLeader) if !was_passed_on => self.run_on_leader().await,
            Err(error) => Err(failed(error)),
        }
    }

    async fn dry_run(
        &self,
        request: Request<wire::GcDryRunRequest>,
    ) -> Result<Response<wire::GcDryRunReply>, Status> {
        let wanted = request.into_inner();
        let position = after(&wanted.after);
        let listed = self.registry.gc_candidates(position, page(wanted.limit));
        let listed = listed.await.map_err(failed)?;
        Ok(Response::new(wire::GcDryRunReply {
            candidates: listed.items.into_iter().map(candidate).collect(),
            next: listed.next.unwrap_or_default().into(),
            now_ms: listed.now.0,
        }))
    }

    async fn pause(
        &self,
        request: Request<wire::GcPauseRequest>,
    ) -> Result<Response<wire::GcPauseReply>, Status> {
        let reason = request.into_inner().reason;
        let paused = self.registry.gc_pause(&reason, OPERATOR).await;
        paused.map_err(failed)?;
        Ok(Response::new(wire::GcPauseReply {}))
    }

    async fn resume(
        &self,
        _request: Request<wire::GcResumeRequest>,
    ) -> Result<Response<wire::GcResumeReply>, Status> {
        let resumed = self.registry.gc_resume(OPERATOR).await;
        resumed.map_err(failed)?;
        Ok(Response::new(wire::GcResumeReply {}))
    }

    async fn explain(
        &self,
        request: Request<wire::GcExplainRequest>,
    ) -> Result<Response<wire::GcExplainReply>, Status> {
        let digest = digest(&request.into_inner().digest)?;
        let explanation = self.registry.gc_explain(&digest).await.map_err(failed)?;
        let local = self.registry.local_copy(&digest).await.map_err(failed)?;
        Ok(Response::new(explain_reply(explanation, local)))
    }

    async fn tag_history(
        &self,
        request: Request<wire::TagHistoryRequest>,
    ) -> Result<Response<wire::TagHistoryReply>, Status> {
        let wanted = request.into_inner();
        let (name, tag) = (repository(&wanted.repository)?, tag(&wanted.tag)?);
        let history = self.registry.tag_history(&name, &tag, page(wanted.limit));
        let events = history.await.map_err(failed)?.into_iter().map(|change| {
            let digest = change.digest.map(|digest| digest.to_string());
            wire::TagEvent {
                revision: change.index.0,
                digest: digest.unwrap_or_default(),
                proposed_at_unix_ms: change.proposed_at.0,
                subject: change.subject,
            }
        });
        let events = events.collect();
        Ok(Response::new(wire::TagHistoryReply { events }))
    }

    async fn restore_tag(
        &self,
        request: Request<wire::RestoreTagRequest>,
    ) -> Result<Response<wire::RestoreTagReply>, Status> {
        let wanted = request.into_inner();
        let (name, tag) = (repository(&wanted.repository)?, tag(&wanted.tag)?);
        let revision = wanted.revision.map(LogIndex);
        let restored = self.registry.restore_tag(&name, &tag, revision, OPERATOR);
        let (digest, is_manifest_restored) = restored.await.map_err(failed)?;
        Ok(Response::new(wire::RestoreTagReply {
            digest: digest.to_string(),
            is_manifest_restored,
        }))
    }

    async fn deleted_manifests(
        &self,
        request: Request<wire::DeletedManifestsRequest>,
    ) -> Result<Response<wire::DeletedManifestsReply>, Status> {
        let wanted = request.into_inner();
        let name = match wanted.repository.as_str() {
            "" => None,
            name => Some(repository(name)?),
        };
        let position = after(&wanted.after);
        let listed = self
            .registry
            .deleted_manifests(name.as_ref(), position, page(wanted.limit));
        let listed = listed.await.map_err(failed)?;
        let undelete_ms = self.registry.gc_options().undelete_ms;
        let manifests = listed.items.into_iter();
        Ok(Response::new(wire::DeletedManifestsReply {
            manifests: manifests
                .map(|deleted| deleted_manifest(deleted, undelete_ms))
                .collect(),
            next: listed.next.unwrap_or_default().into(),
            now_ms: listed.now.0,
        }))
    }

    async fn restore_manifest(
        &self,
        request: Request<wire::RestoreManifestRequest>,
    ) -> Result<Response<wire::RestoreManifestReply>, Status> {
        let wanted = request.into_inner();
        let (name, digest) = (repository(&wanted.repository)?, digest(&wanted.digest)?);
        let restored = self.registry.restore_manifest(&name, &digest, OPERATOR);
        let tags = texts(&restored.await.map_err(failed)?);
        Ok(Response::new(wire::RestoreManifestReply { tags }))
    }
}

fn status_reply(status: GcStatus) -> wire::GcStatusReply {
    let heads = &status.cluster.heads;
    let since = |head: Option<LogTime>| head.map(|since| since.0);
    let collected = &status.cluster.collected;
    let options = &status.options;
    let local: Local = status.local;
    let (last_round_age_ms, last_round) = match local.last_round {
        Some((age, round)) => (
            u64::try_from(age.as_millis()).ok(),
            Some(round_reply(round)),
        ),
        None => (None, None),
    };
    wire::GcStatusReply {
        epoch: status.cluster.epoch,
        now_ms: status.now.0,
        limits: Some(wire::GcLimits {
            grace_ms: options.grace_ms,
            condemn_delay_ms: options.condemn_delay_ms,
            quarantine_ms: options.quarantine_ms,
            undelete_ms: options.undelete_ms,
        }),
        collected: Some(wire::GcTotals {
            links: collected.links,
            blobs: collected.blobs,
            blob_bytes: collected.blob_bytes,
            copy_bytes: collected.copy_bytes,
            manifests: collected.manifests,
            repositories: collected.repositories,
        }),
        waiting: Some(wire::GcWaiting {
            deleted_manifests_since_ms: since(heads.deleted_manifests),
            unreferenced_links_since_ms: since(heads.unreferenced_links),
            unlinked_blobs_since_ms: since(heads.unlinked_blobs),
            condemned_blobs_since_ms: since(heads.condemned_blobs),
            empty_repositories_since_ms: since(heads.empty_repositories),
        }),
        deleted_manifests: status.cluster.deleted_manifests,
        deleted_manifest_bytes: status.cluster.deleted_manifest_bytes,
        node_id: local.node.0,
        is_leader: local.is_leader,
        is_automatic: options.is_automatic,
        last_round,
        last_round_age_ms,
        rounds: local.rounds,
        busy_rounds: local.busy_rounds,
        verifying_manifests: local.verifying_manifests,
        sweep: Some(wire::GcSweep {
            removed_blobs: local.removed_blobs,
            removed_bytes: local.removed_bytes,
            walks: local.walks,
            trash_files: local.trash.files,
            trash_bytes: local.trash.bytes,
        }),
        paused_reason: status.cluster.paused,
    }
}

fn round_reply(round: GcRound) -> wire::GcRound {
    wire::GcRound {
        collected_manifests: round.collected_manifests,
        purged_manifests: round.purged_manifests,
        removed_links: round.removed_links,
        condemned_blobs: round.condemned_blobs,
        deleted_blobs: round.deleted_blobs,
        blob_bytes: round.blob_bytes,
        copy_bytes: round.copy_bytes,
        removed_repositories: round.removed_repositories,
        verified_manifests: round.verified_manifests,
        unverified_blobs: round.unverified_blobs,
        held_blobs: round.held_blobs,
        is_more_due: round.is_more_due,
        disagreement: round.disagreement,
    }
}

/// What it is, what happens to it next, and why.
fn step_words(step: DueStep) -> (&'static str, &'static str, &'static str) {
    match step {
        DueStep::PurgeManifest => ("deleted manifest", "purged", "deleted, can be restored"),
        DueStep::RemoveLink => ("link", "removed", "no manifest of the repository names it"),
        DueStep::CondemnBlob => ("unlinked blob", "condemned", "no repository links it"),
        DueStep::DeleteBlob => (
            "condemned blob",
            "deleted",
            "condemned, no repository links it",
        ),
        DueStep::RemoveRepository => ("repository", "removed", "it has no content"),
    }
}

fn candidate(candidate: Candidate) -> wire::GcCandidate {
    match candidate {
        Candidate::Untagged {
            unneeded,
            size_bytes,
            due_at,
        } => wire::GcCandidate {
            kind: "manifest".to_owned(),
            digest: unneeded.manifest.digest.to_string(),
            repository: unneeded.repository.to_string(),
            size_bytes,
            next_step: "deleted".to_owned(),
            reason: "untagged, and needed by nothing".to_owned(),
            due_ms: due_at.0,
        },
        Candidate::Due(due) => due_candidate(&due),
    }
}

fn due_candidate(due: &Due) -> wire::GcCandidate {
    let (kind, next_step, reason) = step_words(due.step);
    wire::GcCandidate {
        kind: kind.to_owned(),
        digest: due
            .digest
            .map(|digest| digest.to_string())
            .unwrap_or_default(),
        repository: due
            .repository
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        size_bytes: due.size_bytes,
        next_step: next_step.to_owned(),
        reason: reason.to_owned(),
        due_ms: due.due_at.0,
    }
}

fn deleted_manifest(
    (repository, deleted): (RepositoryName, DeletedManifest),
    undelete_ms: u64,
) -> wire::DeletedManifest {
    let record = deleted.record;
    wire::DeletedManifest {
        repository: repository.to_string(),
        digest: deleted.digest.to_string(),
        media_type: record.manifest.media_type.as_str().to_owned(),
        size_bytes: record.manifest.size_bytes,
        tags: texts(&record.tags),
        deleted_at_ms: record.deleted_at.0,
        expires_at_ms: record.deleted_at.plus_ms(undelete_ms).0,
    }
}
