//! Garbage collection, undelete and node states among the random commands.

use super::{BLOBS, MANIFESTS, PICKED, TAGS, pick};
use crate::command::{
    CollectManifests, Command, DeleteBlobs, GcLimits, GcStep, NodeState, PauseGc, RecoverCluster,
    RemoveNode, RestoreManifest, RestoreTag, SetNodeState,
};
use crate::ids::{LogIndex, NodeId};
use crate::memory::MemoryView;
use crate::query;
use crate::response::GcStepped;
use crate::testing::{digest, repository, tag};
use crate::view::MetadataView;

/// What all steps of a run did: a test of garbage collection that collects nothing would be none.
#[derive(Default)]
pub(super) struct Steps(pub(super) GcStepped);

impl Steps {
    pub(super) fn add(&mut self, done: &GcStepped) {
        let all = &mut self.0;
        all.purged_manifests += done.purged_manifests;
        all.reviewed_referrers += done.reviewed_referrers;
        all.removed_links += done.removed_links;
        all.condemned_blobs += done.condemned_blobs;
        all.removed_repositories += done.removed_repositories;
    }
}

pub(super) fn command(view: &MemoryView, kind: u8, [a, b, c, d, e, _]: [u8; 6]) -> Command {
    let gc = query::gc(view).unwrap();
    let epoch = gc.epoch + u64::from(d.is_multiple_of(16));
    let wait = |choice: u8| [0, 0, 20_000, 300_000][usize::from(choice % 4)];
    let (repository, node) = (repository(pick(&PICKED, a)), NodeId(u64::from(c % 4) + 1));
    match kind {
        32..=34 => Command::GcStep(GcStep {
            epoch,
            limits: GcLimits {
                grace_ms: wait(a),
                condemn_delay_ms: wait(b),
                undelete_ms: wait(c),
            },
            budget: u32::from(e % 12),
        }),
        35 | 36 => {
            let mut blobs = query::condemned_blobs(view, 0, None, 3).unwrap();
            if let Some(blob) = blobs.first_mut().filter(|_| e.is_multiple_of(8)) {
                blob.digest = digest(pick(&BLOBS, a));
            }
            Command::DeleteBlobs(DeleteBlobs {
                epoch,
                quarantine_ms: wait(c),
                blobs,
            })
        }
        37 => {
            let unneeded = query::unneeded_manifests(view, 0, None, 2).unwrap();
            let manifests = unneeded.into_iter().map(|item| item.manifest);
            Command::CollectManifests(CollectManifests {
                epoch,
                min_age_ms: wait(c),
                manifests: manifests.collect(),
            })
        }
        38 | 39 => Command::RestoreManifest(RestoreManifest {
            repository,
            digest: digest(pick(&MANIFESTS, b)),
        }),
        40 | 41 => Command::RestoreTag(RestoreTag {
            repository,
            tag: tag(pick(&TAGS, b)),
            revision: (c % 3 == 0).then(|| LogIndex(view.applied().0.saturating_sub(u64::from(d)))),
        }),
        42 if gc.paused.is_none() && a.is_multiple_of(4) => Command::PauseGc(PauseGc {
            reason: "because".to_owned(),
        }),
        42 => Command::ResumeGc,
        43 if b.is_multiple_of(32) => Command::RecoverCluster(RecoverCluster {
            cluster_id: format!("incarnation {c}"),
            survivor: node,
        }),
        // The fourth node registers now and then, and is gone for good some time.
        _ if a.is_multiple_of(4) => Command::RemoveNode(RemoveNode { node: NodeId(4) }),
        _ => Command::SetNodeState(SetNodeState {
            node,
            state: [
                NodeState::Up,
                NodeState::Up,
                NodeState::Down,
                NodeState::Draining,
            ][usize::from(a % 4)],
        }),
    }
}
