//! Random histories: the real state machine, a lagging node, real stores, and a model of ten lines.

use std::collections::BTreeSet;

use bytes::Bytes;
use metadata::command::TicketKind;
use metadata::ids::{NodeId, TicketId};
use metadata::memory::MemoryView;
use metadata::query::{self, TicketState};
use metadata::view::MetadataView;
use oci::Digest;
use proptest::prelude::*;

use crate::blob::{BlobStat, BlobStore, MemoryBlobs, Unlink};
use crate::contract::blob::{Cluster, HERE, LaggingLog, bytes, digest, on_disk, put};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A ticket is opened somewhere.
    Open(TicketKind),
    /// This node stores the blob under a ticket.
    Store(usize),
    /// This node pins what it has under a ticket.
    Pin(usize),
    /// The log counts this node's copy, if it was pinned under that ticket.
    Count(usize),
    /// The ticket expires.
    Close(usize),
    /// The log does not count this node's copy any more.
    Uncount,
    /// This node applies what the log has.
    CatchUp,
    /// This node looks whether it may unlink.
    Unlink,
}

fn step() -> impl Strategy<Value = Step> {
    let ticket = 0usize..6;
    prop_oneof![
        2 => Just(Step::Open(TicketKind::Upload)),
        1 => Just(Step::Open(TicketKind::Repair)),
        3 => ticket.clone().prop_map(Step::Store),
        1 => ticket.clone().prop_map(Step::Pin),
        3 => ticket.clone().prop_map(Step::Count),
        2 => ticket.prop_map(Step::Close),
        2 => Just(Step::Uncount),
        2 => Just(Step::CatchUp),
        4 => Just(Step::Unlink),
    ]
}

/// What section 6.2 says, in its own words.
fn may_unlink(here: NodeId, digest: &Digest, pins: &BTreeSet<TicketId>, view: &MemoryView) -> bool {
    let placed = query::blob(view, digest)
        .expect("readable")
        .is_some_and(|blob| blob.holders.contains(&here));
    let is_closed = |ticket: &TicketId| {
        ticket.index() <= view.applied()
            && query::ticket(view, *ticket).expect("readable") != TicketState::Open
    };
    !placed && pins.iter().all(is_closed)
}

struct World<'a> {
    store: &'a dyn BlobStore,
    cluster: Cluster,
    /// What this node has applied.
    applied: MemoryView,
    blob: Bytes,
    tickets: Vec<(TicketId, TicketKind)>,
    /// Every pin ever made since the copy came to be; the model never prunes.
    pins: BTreeSet<TicketId>,
    is_here: bool,
}

impl World<'_> {
    async fn take(&mut self, step: Step) {
        let digest = digest(&self.blob);
        match step {
            Step::Open(kind) => self.tickets.push((self.cluster.open(kind), kind)),
            Step::Store(number) => {
                let Some((ticket, _)) = self.tickets.get(number).copied() else {
                    return;
                };
                put(self.store, &self.blob, ticket).await;
                self.pins.insert(ticket);
                self.is_here = true;
            }
            Step::Pin(number) => {
                let Some((ticket, _)) = self.tickets.get(number).copied() else {
                    return;
                };
                let pinned = self.store.pin(&digest, ticket).await.expect("asked");
                assert_eq!(pinned.is_some(), self.is_here);
                if self.is_here {
                    self.pins.insert(ticket);
                }
            }
            Step::Count(number) => {
                // The caller of `commit` and `pin` reports what it pinned, whenever its message gets through.
                let Some((ticket, kind)) = self.tickets.get(number).copied() else {
                    return;
                };
                if self.pins.contains(&ticket) {
                    self.count(digest, ticket, kind);
                }
            }
            Step::Close(number) => {
                if let Some((ticket, _)) = self.tickets.get(number) {
                    self.cluster.close(*ticket);
                }
            }
            Step::Uncount => self.cluster.uncount(digest),
            Step::CatchUp => self.applied = self.cluster.log.snapshot(),
            Step::Unlink => self.unlink(digest).await,
        }
    }

    fn count(&self, digest: Digest, ticket: TicketId, kind: TicketKind) {
        match kind {
            TicketKind::Upload => {
                let stat = BlobStat {
                    digest,
                    size_bytes: self.blob.len() as u64,
                };
                self.cluster.count(stat, ticket, &[HERE]);
            }
            TicketKind::Repair | TicketKind::Import => {
                self.cluster.add(digest, ticket);
            }
        }
    }

    async fn unlink(&mut self, digest: Digest) {
        let allowed = may_unlink(HERE, &digest, &self.pins, &self.applied);
        let expected = match (self.is_here, allowed) {
            (false, _) => Unlink::Absent,
            (true, true) => Unlink::Removed,
            (true, false) => Unlink::Needed,
        };
        let lagging = LaggingLog(self.applied.clone());
        assert_eq!(
            self.store
                .unlink_if_unneeded(&digest, &lagging)
                .await
                .expect("decided"),
            expected
        );
        if expected == Unlink::Removed {
            self.is_here = false;
        }
        if !self.is_here {
            // Pins of closed tickets mean nothing; those still open were kept.
            self.pins.retain(|ticket| {
                query::ticket(&self.applied, *ticket).expect("readable") != TicketState::Closed
            });
        }
    }

    /// The claim of section 6.3, at the head of the log: whatever is counted is here.
    async fn check(&self) {
        let digest = digest(&self.blob);
        let is_here = self.store.stat(&digest).await.expect("stat").is_some();
        assert_eq!(is_here, self.is_here);
        assert!(
            is_here || !self.cluster.is_counted(&digest),
            "a counted copy is gone"
        );
    }
}

fn play(store: &dyn BlobStore, seed: u64, size: usize, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let cluster = Cluster::new();
        let applied = cluster.log.snapshot();
        let (blob, tickets, pins) = (bytes(size, seed), Vec::new(), BTreeSet::new());
        let mut world = World {
            store,
            cluster,
            applied,
            blob,
            tickets,
            pins,
            is_here: false,
        };
        for step in steps {
            world.take(*step).await;
            world.check().await;
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn memory_follows_the_rule(steps in proptest::collection::vec(step(), 1..60)) {
        play(&MemoryBlobs::new(), 1, 100, &steps);
    }
}

/// On disk every step costs syncs: fewer histories, all on one store, each with a blob of its own.
#[test]
fn the_directory_follows_the_rule() {
    let (store, _directory) = on_disk();
    let seed = std::cell::Cell::new(0);
    let config = ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let steps = proptest::collection::vec(step(), 1..40);
    let outcome = proptest::test_runner::TestRunner::new(config).run(
        &(steps, any::<bool>()),
        |(steps, is_large)| {
            seed.set(seed.get() + 1);
            play(
                &store,
                seed.get(),
                if is_large { 300_000 } else { 100 },
                &steps,
            );
            Ok(())
        },
    );
    outcome.expect("the rule holds");
}
