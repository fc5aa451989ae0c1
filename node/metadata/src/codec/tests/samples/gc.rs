//! What garbage collection and the states of nodes add.

use oci::{Digest, MediaType};

use super::{NODE, stored};
use crate::command::{
    CollectManifests, Command, CondemnedBlob, DeleteBlobs, GcLimits, GcStep, NodeState, PauseGc,
    RecoverCluster, RemoveNode, RestoreManifest, RestoreTag, SetNodeState, UnneededManifest,
};
use crate::ids::{LogIndex, LogTime, RepositoryId};
use crate::key;
use crate::record::{
    Collected, DeleteReason, DeletedBlobRecord, DeletedManifestRecord, GcRecord, HolderSetRecord,
    ManifestRecord, PurgedManifestRecord, Referrer, ReferrerReviewRecord, RepositoryStateRecord,
};
use crate::response::{BlobsDeleted, CollectedManifest, GcStepped, Rejection, Response};
use crate::testing::{digest, repository, tag};

pub(super) fn commands() -> Vec<(&'static str, Command)> {
    let (repository, digest, tag) = (repository("a/b"), digest("blob"), tag("v1"));
    let restore_tag = |revision| {
        let (repository, tag) = (repository.clone(), tag.clone());
        Command::RestoreTag(RestoreTag {
            repository,
            tag,
            revision,
        })
    };
    let mut commands = vec![
        (
            "gc_step",
            Command::GcStep(GcStep {
                epoch: 2,
                limits: GcLimits {
                    grace_ms: 3,
                    condemn_delay_ms: 4,
                    undelete_ms: 5,
                },
                budget: 500,
            }),
        ),
        (
            "delete_blobs",
            Command::DeleteBlobs(DeleteBlobs {
                epoch: 2,
                quarantine_ms: 3,
                blobs: vec![CondemnedBlob {
                    digest,
                    condemned_since: LogTime(77),
                }],
            }),
        ),
        (
            "pause_gc",
            Command::PauseGc(PauseGc {
                reason: "why".to_owned(),
            }),
        ),
        ("resume_gc", Command::ResumeGc),
        (
            "collect_manifests",
            Command::CollectManifests(CollectManifests {
                epoch: 2,
                min_age_ms: 3,
                manifests: vec![UnneededManifest {
                    repository: RepositoryId(6),
                    digest,
                    unneeded_since: LogTime(77),
                }],
            }),
        ),
        (
            "restore_manifest",
            Command::RestoreManifest(RestoreManifest {
                repository: repository.clone(),
                digest,
            }),
        ),
        ("restore_tag", restore_tag(None)),
        ("restore_tag revision", restore_tag(Some(LogIndex(0)))),
    ];
    commands.extend(of_nodes());
    commands
}

fn of_nodes() -> [(&'static str, Command); 5] {
    let state = |state| Command::SetNodeState(SetNodeState { node: NODE, state });
    let recover = RecoverCluster {
        cluster_id: "another".to_owned(),
        survivor: NODE,
    };
    [
        ("set_node_state up", state(NodeState::Up)),
        ("set_node_state down", state(NodeState::Down)),
        ("set_node_state draining", state(NodeState::Draining)),
        (
            "remove_node",
            Command::RemoveNode(RemoveNode { node: NODE }),
        ),
        ("recover_cluster", Command::RecoverCluster(recover)),
    ]
}

pub(super) fn responses() -> Vec<(&'static str, Response)> {
    let digest = digest("blob");
    vec![
        (
            "gc_stepped",
            Response::GcStepped(GcStepped {
                purged_manifests: 1,
                reviewed_referrers: 2,
                removed_links: 3,
                condemned_blobs: 4,
                removed_repositories: 5,
                is_more_due: true,
            }),
        ),
        (
            "blobs_deleted",
            Response::BlobsDeleted(BlobsDeleted {
                digests: vec![digest],
                blob_bytes: 5,
                copy_bytes: 15,
            }),
        ),
        (
            "manifests_collected",
            Response::ManifestsCollected(vec![CollectedManifest {
                repository: RepositoryId(6),
                digest,
            }]),
        ),
        (
            "manifest_restored",
            Response::ManifestRestored {
                tags: vec![tag("v1"), tag("v2")],
            },
        ),
        (
            "tag_restored",
            Response::TagRestored {
                digest,
                is_manifest_restored: true,
            },
        ),
        (
            "stale_epoch",
            Response::Rejected(Rejection::StaleEpoch { current: 7 }),
        ),
        ("gc_paused", Response::Rejected(Rejection::GcPaused)),
        ("not_deleted", Response::Rejected(Rejection::NotDeleted)),
        (
            "node_not_up",
            Response::Rejected(Rejection::NodeNotUp(NODE)),
        ),
        (
            "node_holds_copies",
            Response::Rejected(Rejection::NodeHoldsCopies(NODE)),
        ),
        (
            "node_removed",
            Response::Rejected(Rejection::NodeRemoved(NODE)),
        ),
    ]
}

/// A manifest that was deleted because it was asked for, one that nothing needed, and one that is purged.
fn deletions(
    digest: Digest,
) -> (
    DeletedManifestRecord,
    DeletedManifestRecord,
    PurgedManifestRecord,
) {
    let media_type = MediaType::octet_stream();
    let deleted = DeletedManifestRecord {
        manifest: ManifestRecord {
            media_type: media_type.clone(),
            size_bytes: 5,
            subject: Some(digest),
            is_index: true,
            pushed_at: LogIndex(4),
            unneeded_since: None,
            allows_missing_manifests: false,
        },
        referrer: Some(Referrer {
            digest,
            media_type,
            size_bytes: 5,
            artifact_type: None,
            annotations: [("k".to_owned(), "v".to_owned())].into(),
        }),
        tags: vec![tag("v1"), tag("v2")],
        deleted_at: LogTime(77),
        deleted_index: LogIndex(9),
        reason: DeleteReason::Asked { by: String::new() },
    };
    let collected = DeletedManifestRecord {
        reason: DeleteReason::Unneeded { since: LogTime(70) },
        ..deleted.clone()
    };
    let purged = PurgedManifestRecord {
        repository: repository("a/b"),
        size_bytes: 5,
        subject: Some(digest),
        tags: vec![tag("v1"), tag("v2")],
        more_tags: 3,
        deleted_at: LogTime(77),
        deleted_index: LogIndex(9),
        reason: DeleteReason::Asked { by: "alice".into() },
        purged_at: LogTime(78),
        purged_index: LogIndex(10),
    };
    (deleted, collected, purged)
}

pub(super) fn records() -> Vec<(&'static str, Vec<u8>)> {
    let (one, digest) = (RepositoryId(1), digest("blob"));
    let (deleted, collected, purged) = deletions(digest);
    let state = RepositoryStateRecord {
        name: repository("a/b"),
        empty_since: Some(LogTime(77)),
    };
    let gc = GcRecord {
        epoch: 1,
        paused: Some("why".to_owned()),
        collected: Collected {
            links: 2,
            blobs: 3,
            blob_bytes: 4,
            copy_bytes: 5,
            manifests: 6,
            repositories: 7,
        },
    };
    let deleted_blob = DeletedBlobRecord {
        size_bytes: 5,
        deleted_at: LogTime(77),
        deleted_index: LogIndex(9),
    };
    let review = ReferrerReviewRecord {
        after: Some(digest),
    };
    let held = HolderSetRecord {
        blobs: 300,
        bytes: 7_000,
    };
    vec![
        (
            "deleted_manifest",
            stored(&key::deleted_manifest(one, &digest), &deleted),
        ),
        (
            "deleted_manifest unneeded",
            stored(&key::deleted_manifest(one, &digest), &collected),
        ),
        ("purged_manifest", stored(&[], &purged)),
        ("repository_state", stored(&[], &state)),
        ("gc", stored(&[], &gc)),
        ("referrer_review", stored(&[], &review)),
        ("deleted_blob", stored(&[], &deleted_blob)),
        ("holder_set", stored(&[], &held)),
    ]
}
