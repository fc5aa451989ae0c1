//! Blobs that only an open ticket keeps, as they are explained to an operator.

use metadata::command::TicketKind;
use metadata::ids::NodeId;
use oci::Digest;

use super::fixture::*;
use crate::RegistryError;
use crate::gc::LocalCopy;

async fn copy_on(cluster: &Cluster, node: u64, digest: &Digest) -> LocalCopy {
    cluster.registry(node).local_copy(digest).await.unwrap()
}

/// Whose tickets of which kind keep the copy of a node.
fn kept_for(copy: &LocalCopy) -> Vec<(TicketKind, NodeId)> {
    let records = copy.tickets.iter().map(|ticket| ticket.record.unwrap());
    records.map(|record| (record.kind, record.node)).collect()
}

#[tokio::test]
async fn bytes_of_an_upload_that_is_not_done_are_told_with_its_ticket() {
    let cluster = Cluster::on_disk_with(3, 3, 3, impatient());
    let registry = cluster.registry(1);
    for (seed, length) in [(1, 100), (2, 5 * SMALL_BYTES)] {
        let blob = pattern(length, seed);
        let digest = sha256(&blob);
        let id = begin(registry).await;
        cluster.network.cut(NodeId(1), NodeId(3));
        let finish = registry
            .finish_upload(&caller(), &repository(), &id, &digest, chunk(&blob))
            .await;
        let few = matches!(finish, Err(RegistryError::TooFewCopies { reached: 2, .. }));
        assert!(few, "{finish:?}");
        // Node 2 has it on its disk, node 1 in its upload, and no manifest or repository knows of it.
        let there = copy_on(&cluster, 2, &digest).await;
        assert_eq!(there.size_bytes, Some(length as u64));
        assert_eq!(kept_for(&there), [(TicketKind::Upload, NodeId(1))]);
        let explained = cluster.registry(2).gc_explain(&digest).await.unwrap();
        assert!(explained.facts.blob.is_none() && explained.facts.links.is_empty());
        let words = explained.lines.join("\n");
        assert!(words.contains("knows no blob"), "{words}");
        let nothing = copy_on(&cluster, 3, &digest).await;
        assert_eq!((nothing.size_bytes, nothing.tickets), (None, vec![]));

        cluster.network.heal(NodeId(1), NodeId(3));
        eventually("the repeated PUT succeeds", || async {
            registry
                .finish_upload(&caller(), &repository(), &id, &digest, empty())
                .await
                .is_ok()
        })
        .await;
        for node in 1..=3 {
            let copy = copy_on(&cluster, node, &digest).await;
            assert_eq!(
                (copy.size_bytes, copy.tickets),
                (Some(length as u64), vec![])
            );
        }
        let explained = registry.gc_explain(&digest).await.unwrap();
        let words = explained.lines.join("\n");
        assert!(
            words.contains("no manifest names it; the link is removed in 24 h"),
            "{words}"
        );
    }
}

#[tokio::test]
async fn a_copy_that_repair_makes_is_told_with_its_ticket() {
    let cluster = Cluster::on_disk_with(1, 1, 1, impatient());
    let node = &cluster.nodes[0];
    let blob = pattern(100, 1);
    let digest = sha256(&blob);
    push(&node.registry, &repository(), &blob).await.unwrap();
    let replication = &node.registry.replication;
    let (ticket, unused) = (
        replication.repair_ticket().await.unwrap(),
        replication.repair_ticket().await.unwrap(),
    );
    assert!(node.blobs.pin(&digest, ticket).await.unwrap().is_some());
    let copy = copy_on(&cluster, 1, &digest).await;
    assert_eq!(kept_for(&copy), [(TicketKind::Repair, NodeId(1))]);
    assert_eq!(copy.tickets[0].id, ticket);
    assert_ne!(copy.tickets[0].id, unused);
}
