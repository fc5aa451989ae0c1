//! A check that cannot fail is none: every table is damaged in every way, and the check must see it.

use crate::changes::Changes;
use crate::command::{AddPlacement, Command, RemoveNode, TicketKind, UnlinkBlob};
use crate::entry::Entry;
use crate::ids::{NodeId, RequestId, Timestamp};
use crate::invariants::check;
use crate::key::Table;
use crate::memory::MemoryView;
use crate::query;
use crate::testing::{World, digest, manifest, register, repository, tag};
use crate::view::MetadataView;

/// A state with something in every table that commands of today can fill.
fn world() -> World {
    let mut world = World::new();
    collected(&mut world);
    for content in ["layer", "loose", "gone"] {
        world.push_blob("a", content);
    }
    let gone = UnlinkBlob {
        repository: repository("a"),
        digest: digest("gone"),
    };
    world.done(Command::UnlinkBlob(gone));
    let mut put = manifest("a", "m", &["layer"], &["v1"]);
    put.facts.subject = Some(digest("subject"));
    world.push(put);
    let ticket = world.open(TicketKind::Repair);
    let (node, layer) = (NodeId(3), digest("layer"));
    world.done(Command::AddPlacement(AddPlacement {
        ticket,
        node,
        digest: layer,
    }));
    world.open(TicketKind::Upload);
    world.pass_ms(1);
    world.done(register(9, "disk-9"));
    world.done(Command::RemoveNode(RemoveNode { node: NodeId(9) }));
    world.enter(&Entry {
        proposed_at: Timestamp(0),
        subject: String::new(),
        request: Some(RequestId {
            node: NodeId(1),
            boot: 1,
            sequence: 1,
        }),
        command: register(1, "disk-1"),
    });
    world
}

/// Something deleted, condemned, removed or waiting in every way.
fn collected(world: &mut World) {
    for content in ["condemned", "deleted"] {
        world.push_blob("gone", content);
        let unlink = UnlinkBlob {
            repository: repository("gone"),
            digest: digest(content),
        };
        world.done(Command::UnlinkBlob(unlink));
    }
    // A repository with history, but without content is removed, and its history is cleared by a later step.
    world.push(manifest("old", "old", &[], &["v1"]));
    world.delete_manifest("old", "old");
    world.step(0, 100);
    for content in ["condemned", "deleted"] {
        world.push_blob("gone", content);
        let unlink = UnlinkBlob {
            repository: repository("gone"),
            digest: digest(content),
        };
        world.done(Command::UnlinkBlob(unlink));
    }
    world.step(0, 3);
    let blobs = query::condemned_blobs(&world.view, 0, None, 10).unwrap();
    let deleted = blobs
        .into_iter()
        .filter(|blob| blob.digest == digest("deleted"));
    world.delete_blobs(deleted.collect());
    // A subject with referrers appears, so they are to be reviewed; one of them is unneeded for another reason.
    let mut referrer = manifest("a", "referrer", &[], &[]);
    referrer.facts.subject = Some(digest("subject of many"));
    world.push(referrer);
    world.push(manifest("a", "untagged", &[], &[]));
    world.push(manifest("a", "subject of many", &[], &["s"]));
    world.push_blob("a", "deleted layer");
    let mut deleted = manifest("a", "deleted manifest", &["deleted layer"], &[]);
    deleted.facts.subject = Some(digest("subject"));
    world.push(deleted);
    world.delete_manifest("a", "deleted manifest");
}

fn pairs(view: &MemoryView) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut pairs = Vec::new();
    view.scan(&[], None, &mut |key, value| {
        pairs.push((key.to_vec(), value.to_vec()));
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    pairs
}

/// Whether the check objects, by a violation or because the state cannot be read.
fn objects(world: &World, changes: Changes) -> bool {
    let mut view = world.view.clone();
    let applied = view.applied();
    view.commit(changes, applied);
    check(&view).map_or(true, |violations| !violations.is_empty())
}

#[test]
fn a_whole_state_has_no_violations_and_every_table_is_there() {
    let world = world();
    assert_eq!(check(&world.view).unwrap(), []);
    let pairs = pairs(&world.view);
    for table in Table::ALL {
        let is_there = pairs.iter().any(|(key, _)| key[0] == table as u8);
        assert!(is_there, "{table:?}");
    }
}

#[test]
fn every_key_that_disappears_is_missed() {
    let world = world();
    // Nothing else promises that a cluster is initialised or that time has passed.
    let alone =
        [Table::Cluster, Table::Time, Table::Gc, Table::RemovedNode].map(|table| table as u8);
    for (key, _) in pairs(&world.view) {
        let seen = objects(&world, [(key.clone(), None)].into());
        assert_eq!(seen, !alone.contains(&key[0]), "removed {key:02x?}");
    }
}

/// Moves each key to a place that nothing promises, as a wrong derivation would.
#[test]
fn every_key_that_should_not_be_there_is_seen() {
    let world = world();
    for (key, value) in pairs(&world.view) {
        if [Table::Cluster, Table::Time, Table::Totals, Table::Gc]
            .iter()
            .any(|table| *table as u8 == key[0])
        {
            continue;
        }
        // Below the newest change of a tag, and in what is left of a removed repository, anything may be.
        if key[0] == Table::TagHistory as u8 {
            continue;
        }
        // A node may exist for itself, and a review of nothing ends with the next step.
        let is_alone = [Table::Node, Table::RemovedNode, Table::ReferrerReview]
            .iter()
            .any(|table| *table as u8 == key[0]);
        let mut other = key.clone();
        if let Some(last) = other.last_mut() {
            *last ^= 1;
        }
        let seen = objects(&world, [(other, Some(value))].into());
        assert_eq!(seen, !is_alone, "added a neighbour of {key:02x?}");
    }
}

#[test]
fn a_key_of_no_table_is_seen() {
    assert!(objects(
        &world(),
        [(vec![0xee, 1], Some(Vec::new()))].into()
    ));
}

#[test]
fn a_flipped_bit_in_a_manifest_is_seen() {
    let world = world();
    let (repository, _) = (repository("a"), tag("v1"));
    let body = crate::query::manifest_body(&world.view, &repository, &digest("m")).unwrap();
    assert_eq!(body.unwrap(), "m");
    for (key, value) in pairs(&world.view) {
        // The bodies of deleted manifests are checked as well.
        if key[0] == Table::ManifestBody as u8 {
            let mut flipped = value;
            flipped[0] ^= 1;
            assert!(objects(&world, [(key, Some(flipped))].into()));
        }
    }
}

#[test]
fn a_violation_names_law_and_key() {
    let violation = super::Violation {
        law: "the law",
        key: vec![0x20, 0xff],
    };
    assert_eq!(violation.to_string(), "violated at key 20ff: the law");
}
