//! The state machine over RocksDB, in batches, through restarts, kills, power cuts and states taken over from another node,
//! against a plain replay in memory: the same answers and the same state (invariant I5). What commands do is tested in
//! `metadata`.

use std::collections::BTreeMap;

use metadata::apply::apply_outcome;
use metadata::changes::Overlay;
use metadata::command::{
    Command, CommitBlob, DeleteBlobs, DeleteManifest, DeleteTag, GcLimits, GcStep,
    InitializeCluster, ManifestFacts, ManifestReference, MountBlob, OpenTickets, Precondition,
    PutManifest, RegisterNode, Tick, TicketKind, UnlinkBlob,
};
use metadata::entry::Entry;
use metadata::fingerprint::{Fingerprint, fingerprint};
use metadata::ids::{NodeId, RequestId, TicketId, Timestamp};
use metadata::memory::MemoryView;
use metadata::response::Outcome;
use metadata::{invariants, query};
use oci::{Algorithm, Digest, MediaType, RepositoryName, Tag};

use super::*;

/// What to do, with what.
type Choice = (u8, u8, u8);

const CONTENTS: [&str; 4] = ["zero", "one", "two", "three"];

fn content(choice: u8) -> &'static str {
    CONTENTS[usize::from(choice) % CONTENTS.len()]
}

fn digest(choice: u8) -> Digest {
    Digest::of(Algorithm::Sha256, content(choice).as_bytes())
}

fn repository(choice: u8) -> RepositoryName {
    RepositoryName::parse(["a", "a/b"][usize::from(choice) % 2]).expect("a name")
}

fn tag(choice: u8) -> Tag {
    Tag::parse(["v1", "v2"][usize::from(choice) % 2]).expect("a tag")
}

fn first_commands() -> Vec<Command> {
    let register = |node| {
        Command::RegisterNode(RegisterNode {
            node: NodeId(node),
            http_address: format!("node-{node}:5000"),
            grpc_address: format!("node-{node}:5100"),
            disk_id: "disk".to_owned(),
        })
    };
    let initialize = InitializeCluster {
        cluster_id: "0123456789abcdef0123456789abcdef".to_owned(),
        upload_key: Bytes::from_static(&[7; 32]),
        copies: 2,
        write_copies: 1,
    };
    let mut commands = vec![Command::InitializeCluster(initialize)];
    commands.extend((1..=3).map(register));
    commands
}

/// Commands that follow from what the state is.
fn commands(view: &MemoryView, (kind, a, b): Choice) -> Vec<Command> {
    let (repository, digest) = (repository(a / 4), digest(a));
    let command = match kind % 12 {
        0..=2 => return push(view, repository, a, b),
        3 | 4 => Command::PutManifest(manifest(repository, a, b)),
        5 => Command::DeleteTag(DeleteTag {
            repository,
            tag: tag(b),
            precondition: Precondition::None,
        }),
        6 => Command::DeleteManifest(DeleteManifest {
            repository,
            digest: manifest_digest(a),
        }),
        7 => Command::UnlinkBlob(UnlinkBlob { repository, digest }),
        8 => Command::MountBlob(MountBlob {
            from: None,
            repository,
            digest,
        }),
        9 => Command::Tick(Tick {
            previous_sequence: query::time(view).expect("readable").1,
            elapsed_ms: u64::from(b) * 50,
        }),
        10 => Command::GcStep(GcStep {
            epoch: 0,
            limits: GcLimits::default(),
            budget: u32::from(b % 8) + 1,
        }),
        _ => Command::DeleteBlobs(DeleteBlobs {
            epoch: 0,
            quarantine_ms: 0,
            blobs: query::condemned_blobs(view, 0, None, 10).expect("readable"),
        }),
    };
    vec![command]
}

fn push(view: &MemoryView, repository: RepositoryName, a: u8, b: u8) -> Vec<Command> {
    let open = OpenTickets {
        kind: TicketKind::Upload,
        node: NodeId(1),
        count: 1,
        ttl_ms: 60_000,
    };
    let commit = CommitBlob {
        ticket: TicketId::new(LogIndex(view.applied().0 + 1), 0),
        repository,
        digest: digest(a),
        size_bytes: content(a).len() as u64,
        holders: vec![NodeId(1), NodeId(u64::from(b % 2) + 2)],
        stragglers: u32::from(b % 3),
    };
    vec![Command::OpenTickets(open), Command::CommitBlob(commit)]
}

fn manifest_body(choice: u8) -> Bytes {
    Bytes::from(format!("a manifest of {}", content(choice)))
}

fn manifest_digest(choice: u8) -> Digest {
    Digest::of(Algorithm::Sha256, &manifest_body(choice))
}

fn manifest(repository: RepositoryName, a: u8, b: u8) -> PutManifest {
    let layer = ManifestReference {
        digest: digest(a),
        size_bytes: content(a).len() as u64,
    };
    PutManifest {
        repository,
        digest: manifest_digest(a),
        media_type: MediaType::oci_manifest(),
        body: manifest_body(a),
        facts: ManifestFacts {
            is_index: false,
            blobs: vec![layer],
            manifests: Vec::new(),
            subject: b.is_multiple_of(4).then(|| manifest_digest(b / 4)),
            artifact_type: None,
            annotations: BTreeMap::new(),
        },
        tags: b.is_multiple_of(3).then(|| tag(b)).into_iter().collect(),
        precondition: Precondition::None,
        allows_missing_manifests: false,
    }
}

/// Applies the choices in memory: the log, the answers, and the state.
fn in_memory(choices: &[Choice]) -> (Vec<Entry>, Vec<Outcome>, Fingerprint) {
    let mut view = MemoryView::new();
    let (mut log, mut outcomes) = (Vec::new(), Vec::new());
    let mut choices = choices.iter();
    let mut next = first_commands();
    loop {
        for command in next.drain(..) {
            let sequence = log.len() as u64 + 1;
            let entry = Entry {
                proposed_at: Timestamp(sequence),
                subject: "somebody".to_owned(),
                request: Some(RequestId {
                    node: NodeId(1),
                    boot: 1,
                    sequence,
                }),
                command,
            };
            let mut overlay = Overlay::new(&view);
            let outcome = apply_outcome(&mut overlay, LogIndex(sequence), &entry);
            let changes = overlay.into_changes();
            view.commit(changes, LogIndex(sequence));
            outcomes.push(outcome.expect("applied"));
            log.push(entry);
        }
        let Some(choice) = choices.next() else { break };
        next = commands(&view, *choice);
    }
    assert_eq!(invariants::check(&view).expect("readable"), []);
    let state = fingerprint(&view).expect("readable");
    (log, outcomes, state)
}

/// What happens to the node before its next entry.
#[derive(Clone, Copy, Debug)]
enum Event {
    Flush,
    Restart,
    /// The process ends between two commits.
    Kill,
    /// Of what was not synced, so many parts of 255 are left; the log applies the others again.
    PowerCut(u8),
    /// The node gets its state from another one, and goes on with that.
    TakeOver,
}

fn event() -> impl Strategy<Value = Option<Event>> {
    prop_oneof![
        6 => Just(None),
        1 => Just(Some(Event::Flush)),
        1 => Just(Some(Event::Restart)),
        1 => Just(Some(Event::Kill)),
        1 => any::<u8>().prop_map(|left| Some(Event::PowerCut(left))),
        1 => Just(Some(Event::TakeOver)),
    ]
}

/// A node on disk; its state is closed only while its directory changes.
struct OnDisk {
    dir: TempDir,
    state: Option<RocksState>,
}

impl OnDisk {
    fn new() -> OnDisk {
        let dir = temp();
        let state = Some(open(&dir));
        OnDisk { dir, state }
    }

    fn state(&self) -> &RocksState {
        self.state.as_ref().expect("open")
    }

    fn applied(&self) -> usize {
        let applied = self.state().applied().expect("readable").index.0;
        usize::try_from(applied).expect("small")
    }

    /// Applies the entries after the last one as one batch.
    fn apply(&self, entries: &[Entry]) -> Vec<Outcome> {
        let first = self.applied() as u64 + 1;
        let mut done = None;
        let read = self.state().read(&mut |view| {
            let mut overlay = Overlay::new(view);
            let entries = (first..).map(LogIndex).zip(entries);
            let outcomes = entries.map(|(at, entry)| apply_outcome(&mut overlay, at, entry));
            let outcomes: Vec<Outcome> =
                outcomes.map(|outcome| outcome.expect("applied")).collect();
            done = Some((outcomes, overlay.into_changes()));
            Ok(())
        });
        read.expect("readable");
        let (outcomes, changes) = done.expect("the reader ran");
        let last = first + entries.len() as u64 - 1;
        let committed = self.state().commit(changes, applied(last));
        committed.expect("committed");
        outcomes
    }

    /// Goes on with a copy of the directory, as if the process had ended now.
    fn end(&mut self, damage: impl FnOnce(&TempDir)) {
        let dir = killed(&self.dir);
        damage(&dir);
        let state = Some(open(&dir));
        *self = OnDisk { dir, state };
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Flush => self.state().flush().expect("flushed"),
            Event::Restart => {
                self.state = None;
                self.state = Some(open(&self.dir));
            }
            Event::Kill => self.end(|_| {}),
            Event::PowerCut(left) => self.end(|dir| cut(dir, left)),
            Event::TakeOver => {
                let stream = export(self.state());
                let other = OnDisk::new();
                let taken = other.state().install(&mut stream.as_slice());
                let wanted = self.state().applied().expect("readable");
                assert_eq!(taken.expect("installed"), wanted);
                *self = other;
            }
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        let mut found = None;
        let read = self.state().read(&mut |view| {
            found = Some(fingerprint(view)?);
            Ok(())
        });
        read.expect("readable");
        found.expect("the reader ran")
    }
}

/// Cuts off the end of the newest write-ahead log. What was flushed is in other files.
fn cut(dir: &TempDir, left: u8) {
    let below = names(dir).into_iter().map(|name| dir.path().join(name));
    let files = below
        .filter(|path| path.is_dir())
        .flat_map(|path| std::fs::read_dir(path).expect("listed"));
    let paths = files.map(|file| file.expect("listed").path());
    let wals = paths.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let wal = wals.max().expect("a database has a write-ahead log");
    let bytes = std::fs::read(&wal).expect("readable");
    let kept = bytes.len() * usize::from(left) / usize::from(u8::MAX);
    std::fs::write(&wal, &bytes[..kept]).expect("written");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn restarts_kills_and_states_taken_over_change_no_answer_and_no_state(
        choices in prop::collection::vec(any::<Choice>(), 1..60),
        events in prop::collection::vec((event(), 1_usize..8), 150),
    ) {
        let (log, outcomes, wanted) = in_memory(&choices);
        let mut node = OnDisk::new();
        let mut events = events.into_iter();
        while node.applied() < log.len() {
            let (event, batch) = events.next().unwrap_or((None, 1));
            let batch = node.applied()..log.len().min(node.applied() + batch);
            prop_assert_eq!(node.apply(&log[batch.clone()]), &outcomes[batch]);
            if let Some(event) = event {
                node.happens(event);
            }
        }
        prop_assert_eq!(node.fingerprint(), wanted);
    }
}
