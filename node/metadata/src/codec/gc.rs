//! Commands of garbage collection, and the states of nodes.

use proto::log as pb;

use super::{CodecError, digest, digest_bytes, repository, tag};
use crate::command::{
    CollectManifests, CondemnedBlob, DeleteBlobs, GcLimits, GcStep, NodeState, RestoreManifest,
    RestoreTag, SetNodeState, UnneededManifest,
};
use crate::ids::{LogIndex, LogTime, NodeId, RepositoryId};

pub(super) fn encode_step(command: &GcStep) -> pb::GcStep {
    pb::GcStep {
        epoch: command.epoch,
        grace_ms: command.limits.grace_ms,
        condemn_delay_ms: command.limits.condemn_delay_ms,
        undelete_ms: command.limits.undelete_ms,
        budget: command.budget,
    }
}

pub(super) fn decode_step(message: pb::GcStep) -> GcStep {
    GcStep {
        epoch: message.epoch,
        limits: GcLimits {
            grace_ms: message.grace_ms,
            condemn_delay_ms: message.condemn_delay_ms,
            undelete_ms: message.undelete_ms,
        },
        budget: message.budget,
    }
}

pub(super) fn encode_delete_blobs(command: &DeleteBlobs) -> pb::DeleteBlobs {
    let encode = |blob: &CondemnedBlob| pb::CondemnedBlob {
        digest: digest_bytes(&blob.digest),
        condemned_since_ms: blob.condemned_since.0,
    };
    pb::DeleteBlobs {
        epoch: command.epoch,
        quarantine_ms: command.quarantine_ms,
        blobs: command.blobs.iter().map(encode).collect(),
    }
}

pub(super) fn decode_delete_blobs(message: &pb::DeleteBlobs) -> Result<DeleteBlobs, CodecError> {
    let decode = |blob: &pb::CondemnedBlob| {
        Ok(CondemnedBlob {
            digest: digest("digest", &blob.digest)?,
            condemned_since: LogTime(blob.condemned_since_ms),
        })
    };
    Ok(DeleteBlobs {
        epoch: message.epoch,
        quarantine_ms: message.quarantine_ms,
        blobs: message
            .blobs
            .iter()
            .map(decode)
            .collect::<Result<_, CodecError>>()?,
    })
}

pub(super) fn encode_collect(command: &CollectManifests) -> pb::CollectManifests {
    let encode = |manifest: &UnneededManifest| pb::UnneededManifest {
        repository: manifest.repository.0,
        digest: digest_bytes(&manifest.digest),
        unneeded_since_ms: manifest.unneeded_since.0,
    };
    pb::CollectManifests {
        epoch: command.epoch,
        min_age_ms: command.min_age_ms,
        manifests: command.manifests.iter().map(encode).collect(),
    }
}

pub(super) fn decode_collect(
    message: &pb::CollectManifests,
) -> Result<CollectManifests, CodecError> {
    let decode = |manifest: &pb::UnneededManifest| {
        Ok(UnneededManifest {
            repository: RepositoryId(manifest.repository),
            digest: digest("digest", &manifest.digest)?,
            unneeded_since: LogTime(manifest.unneeded_since_ms),
        })
    };
    Ok(CollectManifests {
        epoch: message.epoch,
        min_age_ms: message.min_age_ms,
        manifests: message
            .manifests
            .iter()
            .map(decode)
            .collect::<Result<_, CodecError>>()?,
    })
}

pub(super) fn encode_restore_manifest(command: &RestoreManifest) -> pb::RestoreManifest {
    pb::RestoreManifest {
        repository: command.repository.as_str().to_owned(),
        digest: digest_bytes(&command.digest),
    }
}

pub(super) fn decode_restore_manifest(
    message: &pb::RestoreManifest,
) -> Result<RestoreManifest, CodecError> {
    Ok(RestoreManifest {
        repository: repository(&message.repository)?,
        digest: digest("digest", &message.digest)?,
    })
}

pub(super) fn encode_restore_tag(command: &RestoreTag) -> pb::RestoreTag {
    pb::RestoreTag {
        repository: command.repository.as_str().to_owned(),
        tag: command.tag.as_str().to_owned(),
        revision: command.revision.map(|revision| revision.0),
    }
}

pub(super) fn decode_restore_tag(message: &pb::RestoreTag) -> Result<RestoreTag, CodecError> {
    Ok(RestoreTag {
        repository: repository(&message.repository)?,
        tag: tag(&message.tag)?,
        revision: message.revision.map(LogIndex),
    })
}

pub(super) fn encode_set_node_state(command: SetNodeState) -> pb::SetNodeState {
    pb::SetNodeState {
        node: command.node.0,
        state: encode_node_state(command.state).into(),
    }
}

pub(super) fn decode_set_node_state(message: pb::SetNodeState) -> Result<SetNodeState, CodecError> {
    Ok(SetNodeState {
        node: NodeId(message.node),
        state: decode_node_state(message.state)?,
    })
}

pub(super) fn encode_node_state(state: NodeState) -> pb::NodeState {
    match state {
        NodeState::Up => pb::NodeState::Up,
        NodeState::Down => pb::NodeState::Down,
        NodeState::Draining => pb::NodeState::Draining,
    }
}

pub(super) fn decode_node_state(state: i32) -> Result<NodeState, CodecError> {
    match pb::NodeState::try_from(state) {
        Ok(pb::NodeState::Up) => Ok(NodeState::Up),
        Ok(pb::NodeState::Down) => Ok(NodeState::Down),
        Ok(pb::NodeState::Draining) => Ok(NodeState::Draining),
        Ok(pb::NodeState::Unspecified) | Err(_) => Err(CodecError::Missing {
            field: "node state",
        }),
    }
}
