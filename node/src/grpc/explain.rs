//! Explanations of garbage collection, as `clusterctl` reads them.

use metadata::command::TicketKind;
use metadata::query::{DeleteReason, ExplainedManifest, Naming, PurgedManifestRecord};
use proto::admin as wire;
use registry::gc::{Explanation, LocalCopy, OpenTicket};

use super::gc::texts;

pub(super) fn explain_reply(explanation: Explanation, local: LocalCopy) -> wire::GcExplainReply {
    let facts = explanation.facts;
    let links = facts.links.iter().map(|link| wire::ExplainedLink {
        repository: link.repository.to_string(),
        unreferenced_since_ms: link.unreferenced_since.map(|since| since.0),
    });
    let links = links.collect();
    wire::GcExplainReply {
        lines: explanation.lines,
        blob: facts.blob.map(|blob| wire::ExplainedBlob {
            size_bytes: blob.size_bytes,
            holders: blob.holders.iter().map(|node| node.0).collect(),
            unlinked_since_ms: blob.unlinked_since.map(|since| since.0),
            condemned_since_ms: blob.condemned_since.map(|since| since.0),
            links,
        }),
        manifests: facts.manifests.iter().map(explained).collect(),
        local: Some(local_copy(local)),
        now_ms: explanation.now.0,
        named_by: facts
            .edges
            .iter()
            .chain(&facts.deleted_edges)
            .map(naming)
            .collect(),
        deleted_at_ms: facts.deleted.map(|deleted| deleted.deleted_at.0),
        purged: facts.purged.into_iter().map(purged).collect(),
    }
}

fn naming(naming: &Naming) -> wire::NamingManifest {
    wire::NamingManifest {
        repository: naming.repository.to_string(),
        digest: naming.manifest.to_string(),
        tags: texts(&naming.tags),
        deleted_at_ms: naming.deleted_at.map(|at| at.0),
    }
}

fn explained(manifest: &ExplainedManifest) -> wire::ExplainedManifest {
    wire::ExplainedManifest {
        repository: manifest.repository.to_string(),
        tags: texts(&manifest.tags),
        unneeded_since_ms: manifest.unneeded_since.map(|since| since.0),
        deleted_at_ms: manifest.deleted.as_ref().map(|deleted| deleted.at.0),
        deleted_by: manifest
            .deleted
            .as_ref()
            .and_then(|deleted| asked_by(&deleted.reason)),
    }
}

fn purged(purged: PurgedManifestRecord) -> wire::PurgedManifest {
    wire::PurgedManifest {
        repository: purged.repository.to_string(),
        tags: texts(&purged.tags),
        more_tags: purged.more_tags,
        deleted_at_ms: purged.deleted_at.0,
        deleted_by: asked_by(&purged.reason),
        unneeded_since_ms: match purged.reason {
            DeleteReason::Unneeded { since } => Some(since.0),
            DeleteReason::Asked { .. } => None,
        },
        purged_at_ms: purged.purged_at.0,
        subject: purged
            .subject
            .map(|subject| subject.to_string())
            .unwrap_or_default(),
    }
}

fn asked_by(reason: &DeleteReason) -> Option<String> {
    match reason {
        DeleteReason::Asked { by } => Some(by.clone()),
        DeleteReason::Unneeded { .. } => None,
    }
}

fn local_copy(local: LocalCopy) -> wire::LocalCopy {
    wire::LocalCopy {
        node_id: local.node.0,
        size_bytes: local.size_bytes,
        tickets: local.tickets.iter().map(open_ticket).collect(),
    }
}

fn open_ticket(ticket: &OpenTicket) -> wire::OpenTicket {
    let id = ticket.id.to_string();
    let Some(record) = ticket.record else {
        return wire::OpenTicket {
            id,
            ..wire::OpenTicket::default()
        };
    };
    let kind = match record.kind {
        TicketKind::Upload => "upload",
        TicketKind::Repair => "repair",
        TicketKind::Import => "import",
    };
    wire::OpenTicket {
        id,
        kind: kind.to_owned(),
        node_id: record.node.0,
        expires_at_ms: record.expires_at.0,
    }
}
