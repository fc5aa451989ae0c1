//! The protocols of tickets, placement and garbage collection, checked in every order of events.
//!
//! `state.rs` says what there is, `actions.rs` and `commands.rs` what may happen, `properties.rs` what must hold,
//! `mutants.rs` which shortcuts must be caught. The figures are in `node/docs/reliability.md`.

mod actions;
mod commands;
mod mutants;
mod properties;
mod sets;
mod state;

use std::time::Instant;

use actions::{Model, Named, Scenario};
use mutants::Mutant;
use properties::{INVARIANTS, WITNESSES};
use sets::Set;
use stateright::{Checker, HasDiscoveries, Model as _};

/// Two threads: the machines that run this have two processors.
const THREADS: usize = 2;

fn named(repository: usize, digests: &[usize]) -> Named {
    Named {
        repository,
        digests: Set::of(digests),
    }
}

/// Two uploads of one digest race its collection.
fn collection() -> Scenario {
    Scenario {
        digests: 1,
        repositories: 1,
        manifests: [named(0, &[0]), Named::default()],
        uploads: 2,
        lag: 3,
        ..Scenario::default()
    }
}

/// One upload, and every way to keep or lose a link: touch, unlink, delete, restore, mount.
fn links() -> Scenario {
    Scenario {
        repositories: 2,
        manifests: [named(0, &[0]), named(1, &[0])],
        uploads: 1,
        lag: 2,
        touches: true,
        unlinks: true,
        ..collection()
    }
}

/// Repair, trimming, a node that leaves.
fn repair() -> Scenario {
    Scenario {
        uploads: 1,
        repairs: 1,
        lag: 1,
        drops: true,
        removals: 1,
        ..collection()
    }
}

/// Repair after a node lost its files.
fn loss() -> Scenario {
    Scenario {
        losses: 1,
        removals: 0,
        ..repair()
    }
}

/// Repair while a node is down for a while.
fn down() -> Scenario {
    Scenario {
        downs: true,
        removals: 0,
        ..repair()
    }
}

/// A manifest that names two digests.
fn two_digests() -> Scenario {
    Scenario {
        digests: 2,
        manifests: [named(0, &[0, 1]), Named::default()],
        uploads: 1,
        lag: 2,
        ..collection()
    }
}

/// Explores everything. No invariant may be broken.
#[track_caller]
fn require_safe(name: &str, scenario: Scenario) {
    let started = Instant::now();
    let model = Model {
        scenario,
        mutant: None,
    };
    let checker = model
        .checker()
        .threads(THREADS)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    println!(
        "{name}: {} states, {} steps deep, {} s",
        checker.unique_state_count(),
        checker.max_depth(),
        started.elapsed().as_secs()
    );
    if let Some((broken, path)) = checker.discoveries().into_iter().next() {
        panic!("{name}: {broken}: {:#?}", path.into_actions());
    }
}

/// The shortcut breaks the invariant.
#[track_caller]
fn require_caught(mutant: Mutant, scenario: Scenario, invariant: &'static str) {
    assert!(INVARIANTS.iter().any(|(name, _)| *name == invariant));
    let model = Model {
        scenario,
        mutant: Some(mutant),
    };
    let checker = model
        .checker()
        .threads(THREADS)
        .finish_when(HasDiscoveries::AllOf([invariant].into()))
        .spawn_bfs()
        .join();
    let found = checker.discoveries();
    let steps = found
        .get(invariant)
        .map(|path| path.clone().into_actions().len());
    println!(
        "{mutant:?}: {steps:?} steps, {} states",
        checker.unique_state_count()
    );
    assert!(
        steps.is_some(),
        "{mutant:?} breaks {:?}, not: {invariant}",
        found.keys()
    );
}

#[test]
#[ignore = "slow: explores a million states"]
fn collection_is_safe() {
    require_safe("collection", collection());
}

#[test]
fn links_are_safe() {
    require_safe("links", links());
}

#[test]
#[ignore = "slow: explores a million states"]
fn repair_is_safe() {
    require_safe("repair", repair());
}

#[test]
#[ignore = "slow: explores a million states"]
fn loss_is_safe() {
    require_safe("loss", loss());
}

#[test]
#[ignore = "slow: explores a million states"]
fn down_is_safe() {
    require_safe("down", down());
}

#[test]
#[ignore = "slow: explores a million states"]
fn two_digests_are_safe() {
    require_safe("two digests", two_digests());
}

/// A model in which nothing happens would be safe as well.
#[test]
#[ignore = "slow: explores a million states"]
fn everything_can_happen() {
    let scenario = Scenario {
        finds_witnesses: true,
        touches: true,
        removals: 1,
        ..links()
    };
    let model = Model {
        scenario,
        mutant: None,
    };
    let wanted = WITNESSES.iter().map(|(name, _)| *name).collect();
    let checker = model
        .checker()
        .threads(THREADS)
        .finish_when(HasDiscoveries::AllOf(wanted))
        .spawn_bfs()
        .join();
    let found = checker.discoveries();
    for (name, _) in WITNESSES {
        assert!(found.contains_key(name), "never: {name}");
    }
    assert_eq!(found.len(), WITNESSES.len());
}

#[test]
fn mutants_of_collection_are_caught() {
    const FILE: &str = "I3 a counted copy has its file";
    const OPEN: &str = "I3 acknowledged bytes of an open ticket stay";
    for (mutant, invariant) in [
        (Mutant::UnlinkOnDelete, FILE),
        (Mutant::NewestPinOnly, OPEN),
        (Mutant::NewTicketsAreClosed, OPEN),
        (Mutant::CommitAfterClose, FILE),
        (Mutant::StoreWithoutPin, OPEN),
        (Mutant::InstallForgetsPins, OPEN),
        (
            Mutant::InstallWithoutSweep,
            "no file stays without a reason",
        ),
        (Mutant::DeleteUnchecked, "I3 what a manifest names is there"),
        (
            Mutant::CommitWithoutRescue,
            "what is linked is live, what is deleted can be restored",
        ),
        (
            Mutant::ExpiryIgnoresDeleted,
            "what is linked is live, what is deleted can be restored",
        ),
        (Mutant::InstallOlderState, "I11 no node goes back"),
    ] {
        require_caught(mutant, collection(), invariant);
    }
}

#[test]
fn mutants_of_links_are_caught() {
    require_caught(
        Mutant::RestoreUnchecked,
        links(),
        "I3 what a manifest names is there",
    );
    require_caught(
        Mutant::DeleteCondemnedAgain,
        links(),
        "only what was verified is deleted",
    );
    require_caught(
        Mutant::TouchWithoutRescue,
        links(),
        "what was promised outlives an older decision",
    );
}

#[test]
fn mutants_of_repair_are_caught() {
    const KEEPS: &str = "I3 what a manifest names keeps W copies";
    for (mutant, invariant) in [
        (Mutant::AddAfterClose, "I3 a counted copy has its file"),
        (Mutant::DropUnchecked, KEEPS),
        (Mutant::RemoveWithPlacements, KEEPS),
        (
            Mutant::CommitCountsRemoved,
            "I3 a counted copy has its file",
        ),
        (
            Mutant::AddRevivesDeleted,
            "I11 nothing deleted comes back by repair",
        ),
    ] {
        require_caught(mutant, repair(), invariant);
    }
    require_caught(
        Mutant::PutWithoutCopies,
        down(),
        "I2 W copies before an acknowledgement",
    );
}
