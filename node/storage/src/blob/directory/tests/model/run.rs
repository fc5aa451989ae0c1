//! One run: the store, the model, and what happens to both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use metadata::command::TicketKind;
use metadata::ids::TicketId;

use super::reference::{Body, Reference, Rot, Staged};
use crate::blob::directory::DirectoryBlobs;
use crate::blob::{BlobOptions, BlobStore, StagedBlob, Unlink};
use crate::contract::blob::{Cluster, HERE, THERE, bytes, digest, read_all};
use crate::error::BlobError;

const INLINE_LIMIT: usize = 1000;
/// Both sides of the inline limit and of a chunk.
const SIZES: [usize; 7] = [0, 10, 1000, 1001, 262_144, 262_145, 600_000];
const NAMES: [&str; 3] = ["one", "two", "three"];

/// A generator whose sequence never changes with a library.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).expect("64 bits") % limit
    }
}

pub(super) struct Run {
    seed: u64,
    pub(super) random: Random,
    pub(super) directory: tempfile::TempDir,
    store: Option<DirectoryBlobs>,
    pub(super) bodies: Vec<Bytes>,
    pub(super) cluster: Cluster,
    tickets: Vec<TicketId>,
    closed: BTreeSet<TicketId>,
    pub(super) model: Reference,
    open: BTreeMap<String, StagedBlob>,
    trail: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
}

fn open(directory: &std::path::Path) -> DirectoryBlobs {
    let options = BlobOptions {
        inline_limit_bytes: INLINE_LIMIT,
        batch_bytes: 64 << 10,
        min_free_bytes: Some(0),
        trash_min_free_bytes: Some(0),
        ..BlobOptions::default()
    };
    DirectoryBlobs::open(directory, options).expect("opens")
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "ARGOSY_SEED={}; what was done:\n{}",
                self.seed,
                self.trail.join("\n")
            );
        }
    }
}

impl Run {
    pub(super) fn new(seed: u64) -> Run {
        let directory = tempfile::tempdir().expect("a directory");
        let bodies =
            (SIZES.iter().enumerate()).map(|(at, size)| bytes(*size, seed * 100 + at as u64));
        let cluster = Cluster::new();
        let tickets = vec![cluster.open(TicketKind::Upload)];
        Run {
            seed,
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            store: Some(open(directory.path())),
            directory,
            bodies: bodies.collect(),
            cluster,
            tickets,
            closed: BTreeSet::new(),
            model: Reference::default(),
            open: BTreeMap::new(),
            trail: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    pub(super) fn store(&self) -> DirectoryBlobs {
        self.store.clone().expect("it is open")
    }

    pub(super) fn note(&mut self, what: String) {
        self.trail.push(what);
    }

    pub(super) fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    pub(super) fn body(&mut self) -> Body {
        self.random.below(SIZES.len())
    }

    pub(super) fn ticket(&mut self) -> TicketId {
        let at = self.random.below(self.tickets.len());
        self.tickets[at]
    }

    /// One random operation, and a look at everything.
    pub(super) async fn step(&mut self) {
        match self.random.below(24) {
            0..=8 => self.upload().await,
            9 => self.give_up().await,
            10 => self.pin().await,
            11 => self.tickets(),
            12 => self.place(),
            13 => self.unlink().await,
            14 | 15 => self.rot(),
            16 | 17 => self.quarantine().await,
            18 => self.adopt().await,
            19 => self.orphan().await,
            20 => self.empty_trash().await,
            21 | 22 => self.read().await,
            _ => self.restart().await,
        }
        self.look_at_everything().await;
    }

    pub(super) async fn finish(mut self) -> BTreeMap<&'static str, u64> {
        self.restart().await;
        self.look_at_everything().await;
        for body in 0..self.bodies.len() {
            self.read_body(body).await;
        }
        std::mem::take(&mut self.counts)
    }

    /// The next thing an upload does: begin or resume, append, settle, commit.
    async fn upload(&mut self) {
        let name = NAMES[self.random.below(NAMES.len())].to_owned();
        let Some(mut staged) = self.open.remove(&name) else {
            return self.begin(name).await;
        };
        let known = self.model.staged[&name];
        let body = self.bodies[known.body].clone();
        if known.len < body.len() {
            let left = body.len() - known.len;
            let end = match self.random.below(2) {
                0 => body.len(),
                _ => known.len + 1 + self.random.below(left),
            };
            self.note(format!(
                "append to {name}: {}..{end} of body {}",
                known.len, known.body
            ));
            staged
                .append(body.slice(known.len..end))
                .await
                .expect("appended");
            let now = self.model.staged.get_mut(&name).expect("staged");
            now.len = end;
            if self.random.below(3) == 0 {
                let now = self.model.staged.get_mut(&name).expect("staged");
                assert_eq!(staged.settle().await.expect("durable"), end as u64);
                if staged.in_memory().is_none() {
                    now.durable = end;
                }
            }
            self.open.insert(name, staged);
            return;
        }
        let ticket = self.ticket();
        let in_memory = staged.in_memory().is_some();
        self.note(format!(
            "commit {name}: body {} with {ticket:?}",
            known.body
        ));
        let committed = self.store().commit(staged, &digest(&body), ticket).await;
        let stat = committed.map_err(|(error, _)| error).expect("committed");
        assert_eq!(stat.size_bytes, body.len() as u64);
        self.model.staged.remove(&name);
        self.model.commit(known.body, ticket, in_memory);
        self.count("commit");
    }

    async fn begin(&mut self, name: String) {
        let staged = self.store().stage(&name).await.expect("staged");
        let found = usize::try_from(staged.len_bytes()).expect("small");
        let known = match self.model.staged.get(&name).copied() {
            // What was appended and not settled may have reached the file.
            Some(known) => {
                assert!(
                    (known.durable..=known.len).contains(&found),
                    "resumed at {found}: {known:?}"
                );
                self.count("resumed");
                Staged {
                    len: found,
                    durable: found,
                    ..known
                }
            }
            None => {
                assert_eq!(found, 0, "a new upload is empty");
                Staged {
                    body: self.body(),
                    ..Staged::default()
                }
            }
        };
        self.note(format!("stage {name} for body {} at {found}", known.body));
        self.model.staged.insert(name.clone(), known);
        self.open.insert(name, staged);
    }

    /// A client goes away, or says that it does not want to go on.
    async fn give_up(&mut self) {
        let Some(name) = self.open.keys().next().cloned() else {
            return;
        };
        let staged = self.open.remove(&name).expect("open");
        if self.random.below(2) == 0 {
            self.note(format!("discard {name}"));
            self.store().discard(staged).await.expect("discarded");
            self.model.staged.remove(&name);
            return;
        }
        self.note(format!("leave {name}"));
        let in_memory = staged.in_memory().is_some();
        drop(staged);
        if in_memory {
            self.model.staged.remove(&name);
        } else {
            // Its last batch is still on its way.
            while !self.store().names.is_free(&name) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    async fn pin(&mut self) {
        let (body, ticket) = (self.body(), self.ticket());
        self.note(format!("pin body {body} with {ticket:?}"));
        let pinned = self.store().pin(&digest(&self.bodies[body]), ticket).await;
        // A copy is verified before it is pinned: what is damaged must not count as one.
        let is_whole = (self.model.copies.get(&body)).is_some_and(|copy| copy.is_whole());
        assert_eq!(pinned.expect("asked").is_some(), is_whole, "body {body}");
        if is_whole {
            self.model.pin(body, ticket);
        }
    }

    fn tickets(&mut self) {
        if self.random.below(3) == 0 {
            self.tickets.push(self.cluster.open(TicketKind::Upload));
        } else {
            let ticket = self.ticket();
            self.note(format!("close {ticket:?}"));
            self.cluster.close(ticket);
            self.closed.insert(ticket);
            self.tickets.push(self.cluster.open(TicketKind::Upload));
        }
    }

    /// The state begins or ends to count a copy.
    fn place(&mut self) {
        let body = self.body();
        let digest = digest(&self.bodies[body]);
        if self.cluster.is_counted(&digest) {
            self.note(format!("uncount body {body}"));
            self.cluster.uncount(digest);
            return;
        }
        let pins = self.model.pins.get(&body).cloned().unwrap_or_default();
        let open = pins.difference(&self.closed).next().copied();
        if let (Some(ticket), Some(_)) = (open, self.model.copies.get(&body)) {
            self.note(format!("count body {body} with {ticket:?}"));
            let size_bytes = self.bodies[body].len() as u64;
            let stat = crate::blob::BlobStat { digest, size_bytes };
            self.cluster.count(stat, ticket, &[HERE, THERE]);
            // The commit closes it.
            self.closed.insert(ticket);
            self.tickets.retain(|one| *one != ticket);
            self.tickets.push(self.cluster.open(TicketKind::Upload));
        }
    }

    async fn unlink(&mut self) {
        let body = self.body();
        let digest = digest(&self.bodies[body]);
        self.note(format!("unlink body {body}"));
        let done = self
            .store()
            .unlink_if_unneeded(&digest, &self.cluster.log)
            .await;
        let pins = self.model.pins.entry(body).or_default();
        pins.retain(|pin| !self.closed.contains(pin));
        let is_needed = !pins.is_empty() || self.cluster.is_counted(&digest);
        let wanted = match self.model.copies.get(&body) {
            None => Unlink::Absent,
            Some(_) if is_needed => Unlink::Needed,
            Some(_) => Unlink::Removed,
        };
        assert_eq!(done.expect("decided"), wanted, "body {body}");
        match wanted {
            Unlink::Removed => {
                self.count("removed");
                if self.model.copies[&body].is_file {
                    self.model.unlink_file(body);
                    self.count("trashed");
                }
                self.model.copies.remove(&body);
            }
            Unlink::Needed => self.count("needed"),
            Unlink::Absent => {}
        }
    }

    async fn read(&mut self) {
        let body = self.body();
        self.read_body(body).await;
    }

    async fn read_body(&mut self, body: Body) {
        let wanted = self.bodies[body].clone();
        let opened = self.store().open(&digest(&wanted)).await;
        match self.model.copies.get(&body).map(|copy| copy.rot) {
            None => assert!(opened.expect("asked").is_none(), "body {body}"),
            Some(Rot::None) => {
                let reader = opened.expect("opens").expect("there");
                assert_eq!(read_all(&reader).await, wanted, "body {body}");
                self.count("read");
            }
            Some(Rot::Missing) => {
                assert!(
                    matches!(opened, Err(BlobError::Corrupt { .. })),
                    "body {body}"
                );
                self.count("read rot");
            }
            Some(Rot::Flipped) => {
                let read = opened
                    .expect("opens")
                    .expect("there")
                    .verify(0..u64::MAX)
                    .await;
                assert!(
                    matches!(read, Err(BlobError::Corrupt { .. })),
                    "body {body}"
                );
                self.count("read rot");
            }
        }
    }

    /// Everything in memory is forgotten.
    async fn restart(&mut self) {
        self.note("restart".to_owned());
        for (name, staged) in std::mem::take(&mut self.open) {
            let in_memory = staged.in_memory().is_some();
            drop(staged);
            while !self.store().names.is_free(&name) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if in_memory {
                self.model.staged.remove(&name);
            }
        }
        self.store = None;
        self.store = Some(open(self.directory.path()));
        self.count("restart");
    }

    async fn look_at_everything(&mut self) {
        let store = self.store();
        let listed = store.list(None, 100).await.expect("listed");
        let listed: BTreeMap<_, _> = listed
            .iter()
            .map(|stat| (stat.digest, stat.size_bytes))
            .collect();
        let stat = |body: &Body| (digest(&self.bodies[*body]), self.bodies[*body].len() as u64);
        assert_eq!(
            listed,
            self.model.copies.keys().map(stat).collect(),
            "the listing"
        );
        for (body, pins) in &self.model.pins {
            let found = store
                .pins(&digest(&self.bodies[*body]))
                .await
                .expect("pins");
            assert_eq!(
                found,
                pins.iter().copied().collect::<Vec<_>>(),
                "pins of body {body}"
            );
        }
        let trash = store.trash_usage().await.expect("counted");
        assert_eq!(trash.files, self.model.trash.len() as u64, "the trash");
        let quarantine = store.quarantine_usage().await.expect("counted");
        assert_eq!(quarantine.files, self.model.quarantined, "the quarantine");
        let in_place: BTreeSet<_> = (self.model.copies.iter())
            .filter(|(_, copy)| copy.is_file && copy.rot != Rot::Missing)
            .map(|(body, _)| *body)
            .chain(self.model.orphans.iter().copied())
            .map(|body| digest(&self.bodies[body]).hex())
            .collect();
        assert_eq!(self.names_in("sha256"), in_place, "files in place");
        let trashed = self.model.trash.keys();
        let trashed = trashed.map(|body| format!("sha256-{}", digest(&self.bodies[*body]).hex()));
        assert_eq!(
            self.names_in("trash"),
            trashed.collect(),
            "files in the trash"
        );
        let staged = self.names_in("uploads");
        let is_known = |name: &String| self.model.staged.contains_key(name);
        assert!(
            staged.iter().all(is_known),
            "{staged:?} staged without a reason"
        );
    }

    /// Names of the files below a directory of the blobs.
    fn names_in(&self, directory: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut pending = vec![self.directory.path().join("blobs").join(directory)];
        while let Some(directory) = pending.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    pending.push(entry.path());
                } else {
                    names.insert(entry.file_name().into_string().expect("text"));
                }
            }
        }
        names
    }
}
