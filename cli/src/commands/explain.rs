//! `clusterctl gc explain`.

use proto::admin::{
    GcExplainReply, GcExplainRequest, LocalCopy, OpenTicket, PurgedManifest, StatusRequest,
};
use serde_json::{Value, json};

use crate::client::{self, CommandError};
use crate::output::{self, Format};

/// Asks one node about the state, then every member about its own copy.
pub(crate) async fn run(
    endpoints: &[String],
    format: Format,
    digest: String,
) -> Result<(), CommandError> {
    let request = GcExplainRequest { digest };
    let first = client::gc(endpoints).await?;
    let reply = { first }.explain(client::request(request.clone())).await?;
    let reply = reply.into_inner();
    let asked = client::request(StatusRequest {});
    let members = client::connect(endpoints).await?.status(asked).await?;
    let mut copies: Vec<(u64, Option<LocalCopy>)> = Vec::new();
    for member in members.into_inner().members {
        let copy = match client::gc_of(&member.grpc_address).await {
            Ok(mut node) => match node.explain(client::request(request.clone())).await {
                Ok(reply) => reply.into_inner().local,
                Err(_) => None,
            },
            Err(_) => None,
        };
        copies.push((member.id, copy));
    }
    copies.sort_by_key(|(id, _)| *id);
    match format {
        Format::Json => println!("{:#}", explanation_as_json(&reply, &copies)),
        Format::Table => {
            for line in &reply.lines {
                println!("{line}");
            }
            for (id, copy) in &copies {
                println!("node {id}: {}", describe_copy(copy.as_ref(), reply.now_ms));
            }
        }
    }
    Ok(())
}

fn describe_copy(copy: Option<&LocalCopy>, now_ms: u64) -> String {
    let Some(copy) = copy else {
        return "did not answer".to_owned();
    };
    let bytes = match copy.size_bytes {
        Some(size_bytes) => format!("has {}", output::size(size_bytes)),
        None => "has no bytes".to_owned(),
    };
    let tickets = copy.tickets.iter();
    let tickets: Vec<String> = tickets
        .map(|ticket| describe_ticket(ticket, now_ms))
        .collect();
    if tickets.is_empty() {
        bytes
    } else {
        format!("{bytes}, kept for {}", tickets.join(", "))
    }
}

fn describe_ticket(ticket: &OpenTicket, now_ms: u64) -> String {
    if ticket.kind.is_empty() {
        return format!("ticket {}, which was just opened", ticket.id);
    }
    format!(
        "the open {} ticket {} of node {}, which expires {}",
        ticket.kind,
        ticket.id,
        ticket.node_id,
        output::due(ticket.expires_at_ms, now_ms)
    )
}

fn explanation_as_json(reply: &GcExplainReply, copies: &[(u64, Option<LocalCopy>)]) -> Value {
    let named_by = reply.named_by.iter().map(|manifest| {
        json!({
            "repository": manifest.repository, "digest": manifest.digest,
            "tags": manifest.tags, "deleted_at_ms": manifest.deleted_at_ms,
        })
    });
    let blob = reply.blob.as_ref().map(|blob| {
        let links = blob.links.iter().map(|link| {
            json!({
                "repository": link.repository,
                "unreferenced_since_ms": link.unreferenced_since_ms,
            })
        });
        json!({
            "size_bytes": blob.size_bytes, "holders": blob.holders,
            "unlinked_since_ms": blob.unlinked_since_ms,
            "condemned_since_ms": blob.condemned_since_ms, "links": Value::from_iter(links),
        })
    });
    let manifests = reply.manifests.iter().map(|manifest| {
        json!({
            "repository": manifest.repository, "tags": manifest.tags,
            "unneeded_since_ms": manifest.unneeded_since_ms,
            "deleted_at_ms": manifest.deleted_at_ms, "deleted_by": manifest.deleted_by,
        })
    });
    let nodes = copies.iter().map(|(id, copy)| match copy {
        None => json!({ "id": id, "reachable": false }),
        Some(copy) => json!({
            "id": id, "reachable": true, "size_bytes": copy.size_bytes,
            "open_tickets": Value::from_iter(copy.tickets.iter().map(ticket_as_json)),
        }),
    });
    json!({
        "now_ms": reply.now_ms, "lines": reply.lines, "blob": blob,
        "deleted_at_ms": reply.deleted_at_ms, "named_by": Value::from_iter(named_by),
        "manifests": Value::from_iter(manifests), "nodes": Value::from_iter(nodes),
        "purged": Value::from_iter(reply.purged.iter().map(purged_as_json)),
    })
}

fn ticket_as_json(ticket: &OpenTicket) -> Value {
    json!({
        "id": ticket.id, "kind": ticket.kind, "node": ticket.node_id,
        "expires_at_ms": ticket.expires_at_ms,
    })
}

fn purged_as_json(manifest: &PurgedManifest) -> Value {
    json!({
        "repository": manifest.repository, "tags": manifest.tags,
        "more_tags": manifest.more_tags, "deleted_at_ms": manifest.deleted_at_ms,
        "deleted_by": manifest.deleted_by, "unneeded_since_ms": manifest.unneeded_since_ms,
        "purged_at_ms": manifest.purged_at_ms, "subject": manifest.subject,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_told_with_the_tickets_that_protect_it() {
        let mut copy = LocalCopy {
            node_id: 2,
            size_bytes: None,
            tickets: Vec::new(),
        };
        assert_eq!(describe_copy(None, 0), "did not answer");
        assert_eq!(describe_copy(Some(&copy), 0), "has no bytes");
        copy.size_bytes = Some(2048);
        assert_eq!(describe_copy(Some(&copy), 0), "has 2.0 KiB");
        copy.tickets = vec![
            OpenTicket {
                id: "9.1".into(),
                kind: "upload".into(),
                node_id: 1,
                expires_at_ms: 61_000,
            },
            OpenTicket {
                id: "12.0".into(),
                ..OpenTicket::default()
            },
        ];
        assert_eq!(
            describe_copy(Some(&copy), 1_000),
            "has 2.0 KiB, kept for the open upload ticket 9.1 of node 1, which expires in 1 min, ticket 12.0, which was \
             just opened"
        );
    }
}
