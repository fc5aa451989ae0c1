//! What must always hold, and what must be possible.

use stateright::Property;

use crate::actions::Model;
use crate::state::{Blob, Manifest, State, WRITE_COPIES, Witness, Wrong};

type Condition = fn(&Model, &State) -> bool;

/// The invariants; [`WITNESSES`] as well when they are looked for.
pub(crate) fn all(with_witnesses: bool) -> Vec<Property<Model>> {
    let always = INVARIANTS
        .iter()
        .map(|(name, condition)| Property::always(name, *condition));
    let sometimes = WITNESSES
        .iter()
        .filter(|_| with_witnesses)
        .map(|(name, condition)| Property::sometimes(name, *condition));
    always.chain(sometimes).collect()
}

pub(crate) const INVARIANTS: [(&str, Condition); 11] = [
    ("I3 a counted copy has its file", |_, state| {
        state
            .nodes
            .iter()
            .all(|node| node.counted.minus(node.files).minus(node.lost).is_empty())
    }),
    ("I3 what a manifest names is there", named_blobs_are_there),
    ("I3 what a manifest names keeps W copies", |model, state| {
        let wanted = WRITE_COPIES.saturating_sub(state.losses);
        every_named(model, state, |digest| state.copies(digest) >= wanted)
    }),
    (
        "I3 acknowledged bytes of an open ticket stay",
        open_tickets_keep,
    ),
    ("I2 W copies before an acknowledgement", |_, state| {
        state.wrong != Wrong::AcknowledgedBelowW
    }),
    ("I11 nothing deleted comes back by repair", |_, state| {
        state.wrong != Wrong::Revived
    }),
    ("I11 no node goes back", |_, state| {
        state.wrong != Wrong::WentBack
    }),
    (
        "what was promised outlives an older decision",
        |_, state| state.wrong != Wrong::PromiseBroken,
    ),
    ("only what was verified is deleted", |_, state| {
        state.wrong != Wrong::DeletedUnverified
    }),
    (
        "what is linked is live, what is deleted can be restored",
        |model, state| linked_is_live(state) && deleted_can_be_restored(model, state),
    ),
    ("no file stays without a reason", nothing_leaks),
];

pub(crate) const WITNESSES: [(&str, Condition); 8] = [
    ("a blob is fully reclaimed", |_, state| {
        state.witnessed.has(Witness::Reclaimed as usize)
    }),
    ("a commit rescues a condemned blob", |_, state| {
        state.witnessed.has(Witness::RescuedByCommit as usize)
    }),
    ("a touch saves a link about to expire", |_, state| {
        state.witnessed.has(Witness::RescuedByTouch as usize)
    }),
    ("a mount overtakes the expiry of its source", |_, state| {
        state.witnessed.has(Witness::RescuedByMount as usize)
    }),
    ("a deleted digest is uploaded again", |_, state| {
        state.witnessed.has(Witness::UploadedAgain as usize)
    }),
    ("a deleted manifest is restored", |_, state| {
        state.witnessed.has(Witness::Restored as usize)
    }),
    ("a node unlinks after it jumped", |_, state| {
        state.witnessed.has(Witness::UnlinkedAfterJump as usize)
    }),
    ("a node is removed", |_, state| {
        state.witnessed.has(Witness::Removed as usize)
    }),
];

/// Every digest that a present manifest names.
fn every_named(model: &Model, state: &State, holds: impl Fn(usize) -> bool) -> bool {
    let manifests = model.scenario.manifests.iter().zip(state.manifests);
    let mut present = manifests.filter(|(_, is)| *is == Manifest::Present);
    present.all(|(named, _)| named.digests.iter().all(&holds))
}

/// Live, linked, and with a file to serve on a node that counts, whatever single disk was lost.
fn named_blobs_are_there(model: &Model, state: &State) -> bool {
    let is_linked = model
        .scenario
        .manifests
        .iter()
        .zip(state.manifests)
        .filter(|(_, is)| *is == Manifest::Present)
        .all(|(named, _)| {
            named
                .digests
                .minus(state.links[named.repository])
                .is_empty()
        });
    is_linked
        && every_named(model, state, |digest| {
            let serves =
                |node: &crate::state::Node| node.counted.has(digest) && node.files.has(digest);
            state.blobs[digest] == Blob::Live && state.nodes.iter().any(serves)
        })
}

fn open_tickets_keep(_: &Model, state: &State) -> bool {
    state.members().all(|(_, node)| {
        node.stored.and(state.open).iter().all(|ticket| {
            state.tickets[ticket].is_some_and(|purpose| {
                let digest = purpose.digest();
                node.files.has(digest) || node.lost.has(digest)
            })
        })
    })
}

fn linked_is_live(state: &State) -> bool {
    let linked = state.links[0].or(state.links[1]);
    linked
        .iter()
        .all(|digest| state.blobs[digest] == Blob::Live)
}

/// Unless clients removed the blobs themselves.
fn deleted_can_be_restored(model: &Model, state: &State) -> bool {
    let manifests = model.scenario.manifests.iter().zip(state.manifests);
    let mut deleted = manifests.filter(|(_, is)| *is == Manifest::Deleted);
    model.scenario.unlinks
        || deleted.all(|(named, _)| {
            named
                .digests
                .minus(state.links[named.repository])
                .is_empty()
        })
}

fn nothing_leaks(model: &Model, state: &State) -> bool {
    let is_quiet = state.open.is_empty()
        && state.members().all(|(number, node)| {
            node.applied == state.head
                && !(0..model.scenario.digests)
                    .any(|digest| model.may_unlink(state, number, digest))
        });
    !is_quiet
        || state
            .members()
            .all(|(_, node)| node.files == node.counted.minus(node.lost))
}

/// A record was deleted, and no node has anything left.
pub(crate) fn is_reclaimed(state: &State) -> bool {
    state.deleted_before.iter().any(|digest| {
        state.blobs[digest] == Blob::Unknown
            && state.nodes.iter().all(|node| !node.files.has(digest))
    })
}
