//! A small world for the tests of this crate.

use bytes::Bytes;
use oci::{Algorithm, Digest, MediaType, RepositoryName, Tag};

use crate::apply::apply_outcome;
use crate::changes::Overlay;
use crate::command::{
    Command, CommitBlob, CondemnedBlob, DeleteBlobs, DeleteManifest, GcLimits, GcStep,
    InitializeCluster, ManifestFacts, ManifestReference, OpenTickets, Precondition, PutManifest,
    RegisterNode, Tick, TicketKind,
};
use crate::entry::Entry;
use crate::ids::{LogIndex, NodeId, TicketId, Timestamp};
use crate::invariants;
use crate::memory::MemoryView;
use crate::query;
use crate::response::{BlobsDeleted, GcStepped, Outcome, Response};
use crate::view::MetadataView;

pub(crate) fn repository(name: &str) -> RepositoryName {
    RepositoryName::parse(name).unwrap()
}

pub(crate) fn tag(name: &str) -> Tag {
    Tag::parse(name).unwrap()
}

pub(crate) fn digest(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

pub(crate) fn register(node: u64, disk_id: &str) -> Command {
    Command::RegisterNode(RegisterNode {
        node: NodeId(node),
        http_address: format!("node-{node}:5000"),
        grpc_address: format!("node-{node}:5100"),
        disk_id: disk_id.to_owned(),
    })
}

pub(crate) fn initialize(copies: u32, write_copies: u32) -> Command {
    Command::InitializeCluster(InitializeCluster {
        cluster_id: "0123456789abcdef0123456789abcdef".to_owned(),
        upload_key: Bytes::from_static(&[7; 32]),
        copies,
        write_copies,
    })
}

pub(crate) fn open(kind: TicketKind, count: u32) -> Command {
    Command::OpenTickets(OpenTickets {
        kind,
        node: NodeId(1),
        count,
        ttl_ms: 60_000,
    })
}

/// A blob is its text: so are its digest and size.
pub(crate) fn commit(ticket: TicketId, name: &str, content: &str, holders: &[u64]) -> CommitBlob {
    CommitBlob {
        ticket,
        repository: repository(name),
        digest: digest(content),
        size_bytes: content.len() as u64,
        holders: holders.iter().map(|node| NodeId(*node)).collect(),
        stragglers: 0,
    }
}

pub(crate) fn reference(content: &str) -> ManifestReference {
    ManifestReference {
        digest: digest(content),
        size_bytes: content.len() as u64,
    }
}

/// A manifest is its text; it names the blobs given.
pub(crate) fn manifest(name: &str, body: &str, blobs: &[&str], tags: &[&str]) -> PutManifest {
    PutManifest {
        repository: repository(name),
        digest: digest(body),
        media_type: MediaType::oci_manifest(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        facts: ManifestFacts {
            blobs: blobs.iter().map(|blob| reference(blob)).collect(),
            ..ManifestFacts::default()
        },
        tags: tags.iter().map(|name| tag(name)).collect(),
        precondition: Precondition::None,
        allows_missing_manifests: false,
    }
}

/// One state, entry after entry, with its invariants checked after each.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) view: MemoryView,
}

impl World {
    /// Nothing was ever applied.
    pub(crate) fn empty() -> World {
        World {
            view: MemoryView::new(),
        }
    }

    /// Nodes 1 to 3, R = 3, W = 2.
    pub(crate) fn new() -> World {
        let mut world = World::empty();
        world.done(initialize(3, 2));
        for node in 1..=3 {
            world.done(register(node, &format!("disk-{node}")));
        }
        world
    }

    /// Applies an entry at the next index.
    pub(crate) fn enter(&mut self, entry: &Entry) -> Outcome {
        let outcome = self.enter_unchecked(entry);
        let violations = invariants::check(&self.view).unwrap();
        assert!(violations.is_empty(), "after {entry:?}: {violations:?}");
        outcome
    }

    /// The same when there are so many that reading everything after each would take too long.
    pub(crate) fn enter_unchecked(&mut self, entry: &Entry) -> Outcome {
        let at = LogIndex(self.view.applied().0 + 1);
        let mut overlay = Overlay::new(&self.view);
        let outcome = apply_outcome(&mut overlay, at, entry).unwrap();
        let changes = overlay.into_changes();
        self.view.commit(changes, at);
        outcome
    }

    /// Applies a command that nobody repeats.
    pub(crate) fn apply(&mut self, command: Command) -> Response {
        let entry = Entry {
            proposed_at: Timestamp(1000 + self.view.applied().0),
            subject: "somebody".to_owned(),
            request: None,
            command,
        };
        self.enter(&entry).response
    }

    /// Applies a command that is answered "done".
    #[track_caller]
    pub(crate) fn done(&mut self, command: Command) {
        assert_eq!(self.apply(command), Response::Done);
    }

    /// Applies a command that is refused, and sees to it that it changes nothing.
    #[track_caller]
    pub(crate) fn rejected(&mut self, command: Command) -> crate::response::Rejection {
        let mut before = self.view.clone();
        let Response::Rejected(rejection) = self.apply(command) else {
            panic!("not rejected")
        };
        before.commit(crate::changes::Changes::new(), self.view.applied());
        assert_eq!(before, self.view, "a rejection changed the state");
        rejection
    }

    pub(crate) fn open(&mut self, kind: TicketKind) -> TicketId {
        match self.apply(open(kind, 1)) {
            Response::TicketsOpened { first, .. } => first,
            other => panic!("{other:?}"),
        }
    }

    /// Uploads a blob to nodes 1 and 2.
    pub(crate) fn push_blob(&mut self, name: &str, content: &str) {
        let ticket = self.open(TicketKind::Upload);
        let response = self.apply(Command::CommitBlob(commit(ticket, name, content, &[1, 2])));
        assert_eq!(
            response,
            Response::BlobCommitted {
                repair_ticket: None
            }
        );
    }

    /// Puts a manifest whose blobs are there.
    pub(crate) fn push(&mut self, manifest: PutManifest) {
        assert_eq!(
            self.apply(Command::PutManifest(manifest)),
            Response::ManifestPut
        );
    }

    pub(crate) fn delete_manifest(&mut self, name: &str, body: &str) {
        self.done(Command::DeleteManifest(DeleteManifest {
            repository: repository(name),
            digest: digest(body),
        }));
    }

    /// A step in the present epoch in which everything waits for `wait_ms`.
    pub(crate) fn step(&mut self, wait_ms: u64, budget: u32) -> GcStepped {
        let limits = GcLimits {
            grace_ms: wait_ms,
            condemn_delay_ms: wait_ms,
            undelete_ms: wait_ms,
        };
        self.step_with(limits, budget)
    }

    pub(crate) fn step_with(&mut self, limits: GcLimits, budget: u32) -> GcStepped {
        let epoch = query::gc(&self.view).unwrap().epoch;
        let step = GcStep {
            epoch,
            limits,
            budget,
        };
        match self.apply(Command::GcStep(step)) {
            Response::GcStepped(done) => done,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn delete_blobs(&mut self, blobs: Vec<CondemnedBlob>) -> BlobsDeleted {
        let epoch = query::gc(&self.view).unwrap().epoch;
        let command = DeleteBlobs {
            epoch,
            quarantine_ms: 0,
            blobs,
        };
        match self.apply(Command::DeleteBlobs(command)) {
            Response::BlobsDeleted(deleted) => deleted,
            other => panic!("{other:?}"),
        }
    }

    /// Lets log time pass.
    pub(crate) fn pass_ms(&mut self, mut elapsed_ms: u64) {
        while elapsed_ms > 0 {
            let step_ms = elapsed_ms.min(20_000);
            let (_, previous_sequence) = query::time(&self.view).unwrap();
            self.done(Command::Tick(Tick {
                previous_sequence,
                elapsed_ms: step_ms,
            }));
            elapsed_ms -= step_ms;
        }
    }

    pub(crate) fn tag_of(&self, name: &str, name_of_tag: &str) -> Option<Digest> {
        let record = query::tag(&self.view, &repository(name), &tag(name_of_tag)).unwrap();
        record.map(|record| record.digest)
    }
}
