//! Commands.

use std::collections::BTreeMap;

use proto::log as pb;
use proto::log::entry::Command as Message;

use super::{
    CodecError, digest, digest_bytes, digests, gc, media_type, optional_digest,
    optional_digest_bytes, optional_media_type, optional_text, repository, tag, tags, tags_text,
};
use crate::command::{
    AddPlacement, CloseTickets, Command, CommitBlob, DeleteManifest, DeleteTag, DropPlacement,
    InitializeCluster, ManifestFacts, ManifestReference, MountBlob, OpenTickets, PauseGc,
    Precondition, PutManifest, RecoverCluster, RegisterNode, RemoveNode, RenewTickets, ReportLost,
    SetReplication, Tick, TicketKind, TouchBlob, UnlinkBlob,
};
use crate::ids::{NodeId, TicketId};

pub(super) fn encode(command: &Command) -> Message {
    match command {
        Command::InitializeCluster(c) => Message::InitializeCluster(encode_initialize_cluster(c)),
        Command::SetReplication(c) => Message::SetReplication(pb::SetReplication {
            copies: c.copies,
            write_copies: c.write_copies,
        }),
        Command::RegisterNode(c) => Message::RegisterNode(encode_register_node(c)),
        Command::OpenTickets(c) => Message::OpenTickets(encode_open_tickets(c)),
        Command::RenewTickets(c) => Message::RenewTickets(pb::RenewTickets {
            tickets: encode_tickets(&c.tickets),
            ttl_ms: c.ttl_ms,
        }),
        Command::CloseTickets(c) => Message::CloseTickets(pb::CloseTickets {
            tickets: encode_tickets(&c.tickets),
        }),
        Command::CommitBlob(c) => Message::CommitBlob(encode_commit_blob(c)),
        Command::MountBlob(c) => Message::MountBlob(encode_mount_blob(c)),
        Command::TouchBlob(c) => Message::TouchBlob(pb::TouchBlob {
            repository: c.repository.as_str().to_owned(),
            digest: digest_bytes(&c.digest),
        }),
        Command::UnlinkBlob(c) => Message::UnlinkBlob(pb::UnlinkBlob {
            repository: c.repository.as_str().to_owned(),
            digest: digest_bytes(&c.digest),
        }),
        Command::PutManifest(c) => Message::PutManifest(encode_put_manifest(c)),
        Command::DeleteManifest(c) => Message::DeleteManifest(pb::DeleteManifest {
            repository: c.repository.as_str().to_owned(),
            digest: digest_bytes(&c.digest),
        }),
        Command::DeleteTag(c) => Message::DeleteTag(pb::DeleteTag {
            repository: c.repository.as_str().to_owned(),
            tag: c.tag.as_str().to_owned(),
            precondition: Some(encode_precondition(&c.precondition)),
        }),
        Command::AddPlacement(c) => Message::AddPlacement(pb::AddPlacement {
            ticket: c.ticket.as_u64(),
            node: c.node.0,
            digest: digest_bytes(&c.digest),
        }),
        Command::DropPlacement(c) => Message::DropPlacement(pb::DropPlacement {
            node: c.node.0,
            digest: digest_bytes(&c.digest),
        }),
        Command::ReportLost(c) => Message::ReportLost(pb::ReportLost {
            node: c.node.0,
            digest: digest_bytes(&c.digest),
            is_gone: c.is_gone,
        }),
        Command::Tick(c) => Message::Tick(pb::Tick {
            previous_sequence: c.previous_sequence,
            elapsed_ms: c.elapsed_ms,
        }),
        Command::GcStep(c) => Message::GcStep(gc::encode_step(c)),
        Command::DeleteBlobs(c) => Message::DeleteBlobs(gc::encode_delete_blobs(c)),
        Command::PauseGc(c) => Message::PauseGc(pb::PauseGc {
            reason: c.reason.clone(),
        }),
        Command::ResumeGc => Message::ResumeGc(pb::ResumeGc {}),
        Command::CollectManifests(c) => Message::CollectManifests(gc::encode_collect(c)),
        Command::RestoreManifest(c) => Message::RestoreManifest(gc::encode_restore_manifest(c)),
        Command::RestoreTag(c) => Message::RestoreTag(gc::encode_restore_tag(c)),
        Command::SetNodeState(c) => Message::SetNodeState(gc::encode_set_node_state(*c)),
        Command::RemoveNode(c) => Message::RemoveNode(pb::RemoveNode { node: c.node.0 }),
        Command::RecoverCluster(c) => Message::RecoverCluster(encode_recover_cluster(c)),
    }
}

pub(super) fn decode(message: Message) -> Result<Command, CodecError> {
    Ok(match message {
        Message::InitializeCluster(m) => Command::InitializeCluster(decode_initialize_cluster(m)),
        Message::SetReplication(m) => Command::SetReplication(decode_set_replication(&m)),
        Message::RegisterNode(m) => Command::RegisterNode(decode_register_node(m)),
        Message::OpenTickets(m) => Command::OpenTickets(OpenTickets {
            kind: decode_ticket_kind(m.kind)?,
            node: NodeId(m.node),
            count: m.count,
            ttl_ms: m.ttl_ms,
        }),
        Message::RenewTickets(m) => Command::RenewTickets(RenewTickets {
            tickets: decode_tickets(&m.tickets),
            ttl_ms: m.ttl_ms,
        }),
        Message::CloseTickets(m) => Command::CloseTickets(CloseTickets {
            tickets: decode_tickets(&m.tickets),
        }),
        Message::CommitBlob(m) => Command::CommitBlob(decode_commit_blob(m)?),
        Message::MountBlob(m) => Command::MountBlob(decode_mount_blob(&m)?),
        Message::TouchBlob(m) => Command::TouchBlob(TouchBlob {
            repository: repository(&m.repository)?,
            digest: digest("digest", &m.digest)?,
        }),
        Message::UnlinkBlob(m) => Command::UnlinkBlob(UnlinkBlob {
            repository: repository(&m.repository)?,
            digest: digest("digest", &m.digest)?,
        }),
        Message::PutManifest(m) => Command::PutManifest(decode_put_manifest(m)?),
        Message::DeleteManifest(m) => Command::DeleteManifest(DeleteManifest {
            repository: repository(&m.repository)?,
            digest: digest("digest", &m.digest)?,
        }),
        Message::DeleteTag(m) => Command::DeleteTag(DeleteTag {
            repository: repository(&m.repository)?,
            tag: tag(&m.tag)?,
            precondition: decode_precondition(m.precondition)?,
        }),
        Message::AddPlacement(m) => Command::AddPlacement(AddPlacement {
            ticket: TicketId::from_u64(m.ticket),
            node: NodeId(m.node),
            digest: digest("digest", &m.digest)?,
        }),
        Message::DropPlacement(m) => Command::DropPlacement(DropPlacement {
            node: NodeId(m.node),
            digest: digest("digest", &m.digest)?,
        }),
        Message::ReportLost(m) => Command::ReportLost(ReportLost {
            node: NodeId(m.node),
            digest: digest("digest", &m.digest)?,
            is_gone: m.is_gone,
        }),
        Message::Tick(m) => Command::Tick(Tick {
            previous_sequence: m.previous_sequence,
            elapsed_ms: m.elapsed_ms,
        }),
        Message::GcStep(m) => Command::GcStep(gc::decode_step(m)),
        Message::DeleteBlobs(m) => Command::DeleteBlobs(gc::decode_delete_blobs(&m)?),
        Message::PauseGc(m) => Command::PauseGc(PauseGc { reason: m.reason }),
        Message::ResumeGc(_) => Command::ResumeGc,
        Message::CollectManifests(m) => Command::CollectManifests(gc::decode_collect(&m)?),
        Message::RestoreManifest(m) => Command::RestoreManifest(gc::decode_restore_manifest(&m)?),
        Message::RestoreTag(m) => Command::RestoreTag(gc::decode_restore_tag(&m)?),
        Message::SetNodeState(m) => Command::SetNodeState(gc::decode_set_node_state(m)?),
        Message::RemoveNode(m) => Command::RemoveNode(decode_remove_node(m)),
        Message::RecoverCluster(m) => Command::RecoverCluster(decode_recover_cluster(m)),
    })
}

fn decode_set_replication(message: &pb::SetReplication) -> SetReplication {
    SetReplication {
        copies: message.copies,
        write_copies: message.write_copies,
    }
}

fn encode_recover_cluster(command: &RecoverCluster) -> pb::RecoverCluster {
    pb::RecoverCluster {
        cluster_id: command.cluster_id.clone(),
        survivor: command.survivor.0,
    }
}

fn decode_recover_cluster(message: pb::RecoverCluster) -> RecoverCluster {
    RecoverCluster {
        cluster_id: message.cluster_id,
        survivor: NodeId(message.survivor),
    }
}

fn decode_remove_node(message: pb::RemoveNode) -> RemoveNode {
    RemoveNode {
        node: NodeId(message.node),
    }
}

fn encode_initialize_cluster(command: &InitializeCluster) -> pb::InitializeCluster {
    pb::InitializeCluster {
        cluster_id: command.cluster_id.clone(),
        upload_key: command.upload_key.clone(),
        copies: command.copies,
        write_copies: command.write_copies,
    }
}

fn decode_initialize_cluster(message: pb::InitializeCluster) -> InitializeCluster {
    InitializeCluster {
        cluster_id: message.cluster_id,
        upload_key: message.upload_key,
        copies: message.copies,
        write_copies: message.write_copies,
    }
}

fn encode_register_node(command: &RegisterNode) -> pb::RegisterNode {
    pb::RegisterNode {
        node: command.node.0,
        http_address: command.http_address.clone(),
        grpc_address: command.grpc_address.clone(),
        disk_id: command.disk_id.clone(),
    }
}

fn decode_register_node(message: pb::RegisterNode) -> RegisterNode {
    RegisterNode {
        node: NodeId(message.node),
        http_address: message.http_address,
        grpc_address: message.grpc_address,
        disk_id: message.disk_id,
    }
}

fn encode_mount_blob(command: &MountBlob) -> pb::MountBlob {
    let from = command.from.as_ref();
    pb::MountBlob {
        from: from
            .map(|from| from.as_str().to_owned())
            .unwrap_or_default(),
        repository: command.repository.as_str().to_owned(),
        digest: digest_bytes(&command.digest),
    }
}

fn decode_mount_blob(message: &pb::MountBlob) -> Result<MountBlob, CodecError> {
    let from = Some(message.from.as_str()).filter(|from| !from.is_empty());
    Ok(MountBlob {
        from: from.map(repository).transpose()?,
        repository: repository(&message.repository)?,
        digest: digest("digest", &message.digest)?,
    })
}

fn encode_tickets(tickets: &[TicketId]) -> Vec<u64> {
    tickets.iter().map(|ticket| ticket.as_u64()).collect()
}

fn decode_tickets(tickets: &[u64]) -> Vec<TicketId> {
    tickets
        .iter()
        .map(|ticket| TicketId::from_u64(*ticket))
        .collect()
}

pub(super) fn encode_ticket_kind(kind: TicketKind) -> pb::TicketKind {
    match kind {
        TicketKind::Upload => pb::TicketKind::Upload,
        TicketKind::Repair => pb::TicketKind::Repair,
        TicketKind::Import => pb::TicketKind::Import,
    }
}

pub(super) fn decode_ticket_kind(kind: i32) -> Result<TicketKind, CodecError> {
    match pb::TicketKind::try_from(kind) {
        Ok(pb::TicketKind::Upload) => Ok(TicketKind::Upload),
        Ok(pb::TicketKind::Repair) => Ok(TicketKind::Repair),
        Ok(pb::TicketKind::Import) => Ok(TicketKind::Import),
        Ok(pb::TicketKind::Unspecified) | Err(_) => Err(CodecError::Missing {
            field: "ticket kind",
        }),
    }
}

fn encode_open_tickets(command: &OpenTickets) -> pb::OpenTickets {
    pb::OpenTickets {
        kind: encode_ticket_kind(command.kind).into(),
        node: command.node.0,
        count: command.count,
        ttl_ms: command.ttl_ms,
    }
}

fn encode_commit_blob(command: &CommitBlob) -> pb::CommitBlob {
    pb::CommitBlob {
        ticket: command.ticket.as_u64(),
        repository: command.repository.as_str().to_owned(),
        digest: digest_bytes(&command.digest),
        size_bytes: command.size_bytes,
        holders: command.holders.iter().map(|node| node.0).collect(),
        stragglers: command.stragglers,
    }
}

fn decode_commit_blob(message: pb::CommitBlob) -> Result<CommitBlob, CodecError> {
    Ok(CommitBlob {
        ticket: TicketId::from_u64(message.ticket),
        repository: repository(&message.repository)?,
        digest: digest("digest", &message.digest)?,
        size_bytes: message.size_bytes,
        holders: message.holders.into_iter().map(NodeId).collect(),
        stragglers: message.stragglers,
    })
}

fn encode_precondition(precondition: &Precondition) -> pb::Precondition {
    let (kind, digests) = match precondition {
        Precondition::None => (pb::PreconditionKind::None, Vec::new()),
        Precondition::Matches(digests) => (
            pb::PreconditionKind::Matches,
            digests.iter().map(digest_bytes).collect(),
        ),
        Precondition::Exists => (pb::PreconditionKind::Exists, Vec::new()),
        Precondition::Absent => (pb::PreconditionKind::Absent, Vec::new()),
    };
    pb::Precondition {
        kind: kind.into(),
        digests,
    }
}

/// A missing precondition is an error: taking it for "none" would turn a conditional write into a blind one.
fn decode_precondition(message: Option<pb::Precondition>) -> Result<Precondition, CodecError> {
    let message = message.ok_or(CodecError::Missing {
        field: "precondition",
    })?;
    match pb::PreconditionKind::try_from(message.kind) {
        Ok(pb::PreconditionKind::None) => Ok(Precondition::None),
        Ok(pb::PreconditionKind::Matches) => Ok(Precondition::Matches(digests(
            "precondition",
            &message.digests,
        )?)),
        Ok(pb::PreconditionKind::Exists) => Ok(Precondition::Exists),
        Ok(pb::PreconditionKind::Absent) => Ok(Precondition::Absent),
        Err(_) => Err(CodecError::Missing {
            field: "precondition",
        }),
    }
}

fn encode_reference(reference: &ManifestReference) -> pb::ManifestReference {
    pb::ManifestReference {
        digest: digest_bytes(&reference.digest),
        size_bytes: reference.size_bytes,
    }
}

fn decode_references(
    messages: &[pb::ManifestReference],
) -> Result<Vec<ManifestReference>, CodecError> {
    messages
        .iter()
        .map(|m| {
            Ok(ManifestReference {
                digest: digest("reference", &m.digest)?,
                size_bytes: m.size_bytes,
            })
        })
        .collect()
}

pub(super) fn encode_annotations(annotations: &BTreeMap<String, String>) -> Vec<pb::Annotation> {
    annotations
        .iter()
        .map(|(key, value)| pb::Annotation {
            key: key.clone(),
            value: value.clone(),
        })
        .collect()
}

pub(super) fn decode_annotations(messages: Vec<pb::Annotation>) -> BTreeMap<String, String> {
    messages
        .into_iter()
        .map(|annotation| (annotation.key, annotation.value))
        .collect()
}

fn encode_put_manifest(command: &PutManifest) -> pb::PutManifest {
    let facts = &command.facts;
    pb::PutManifest {
        repository: command.repository.as_str().to_owned(),
        digest: digest_bytes(&command.digest),
        media_type: command.media_type.as_str().to_owned(),
        body: command.body.clone(),
        facts: Some(pb::ManifestFacts {
            is_index: facts.is_index,
            blobs: facts.blobs.iter().map(encode_reference).collect(),
            manifests: facts.manifests.iter().map(encode_reference).collect(),
            subject: optional_digest_bytes(facts.subject.as_ref()),
            artifact_type: optional_text(facts.artifact_type.as_ref()),
            annotations: encode_annotations(&facts.annotations),
        }),
        tags: tags_text(&command.tags),
        precondition: Some(encode_precondition(&command.precondition)),
        allows_missing_manifests: command.allows_missing_manifests,
    }
}

fn decode_put_manifest(message: pb::PutManifest) -> Result<PutManifest, CodecError> {
    let facts = message
        .facts
        .ok_or(CodecError::Missing { field: "facts" })?;
    Ok(PutManifest {
        repository: repository(&message.repository)?,
        digest: digest("digest", &message.digest)?,
        media_type: media_type(&message.media_type)?,
        body: message.body,
        facts: ManifestFacts {
            is_index: facts.is_index,
            blobs: decode_references(&facts.blobs)?,
            manifests: decode_references(&facts.manifests)?,
            subject: optional_digest("subject", &facts.subject)?,
            artifact_type: optional_media_type(&facts.artifact_type)?,
            annotations: decode_annotations(facts.annotations),
        },
        tags: tags(&message.tags)?,
        precondition: decode_precondition(message.precondition)?,
        allows_missing_manifests: message.allows_missing_manifests,
    })
}
