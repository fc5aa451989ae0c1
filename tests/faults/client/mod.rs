//! Clients: what they know in common, and one request whose outcome is recorded.

pub(crate) mod mix;
pub(crate) mod push;
pub(crate) mod tags;
pub(crate) mod verify;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::history::{Action, Content, History, Outcome};
use crate::http::{self, Answer, Failure, Request};
use crate::report::{Check, Report};
use crate::rng::Rng;
use push::{Image, Stage};

/// Answers after a disk was in trouble that are still explained by it.
const TROUBLE_TIME: Duration = Duration::from_secs(45);

/// `sha256:…` of some bytes.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What all clients of a run share.
pub(crate) struct World {
    pub(crate) nodes: Vec<(u64, SocketAddr)>,
    pub(crate) history: History,
    pub(crate) report: Arc<Report>,
    pub(crate) seed: u64,
    pub(crate) started: Instant,
    /// How long faults are made.
    pub(crate) duration: Duration,
    /// Bytes that may be pushed over the whole run; beyond the share of the time that has passed, images are small.
    pub(crate) budget_bytes: u64,
    pub(crate) pushed_bytes: AtomicU64,
    /// Manifests may be refused for content that was collected: the grace time of collection is 0.
    pub(crate) may_be_rejected: bool,
    pub(crate) rejections: AtomicU64,
    /// Writes that were acknowledged.
    pub(crate) writes: AtomicU64,
    /// Images pushed again after their delete.
    pub(crate) pushes_again: AtomicU64,
    /// How long a client goes on with one step of a push; zero: a few tries, as docker does, and no finding.
    pub(crate) patience: Duration,
    pub(crate) stop: AtomicBool,
    /// Every image a client began to push.
    pub(crate) images: Mutex<Vec<Arc<Image>>>,
    pub(crate) pool: Vec<Vec<u8>>,
    pool_digests: Vec<String>,
    pub(crate) slots: tags::Slots,
    /// The last moment at which a disk was in trouble.
    disk_trouble: Mutex<Option<Instant>>,
}

impl World {
    /// A world before anything happened in it.
    pub(crate) fn new(
        nodes: Vec<(u64, SocketAddr)>,
        history: History,
        report: Arc<Report>,
        seed: u64,
        duration: Duration,
    ) -> World {
        let mut rng = Rng::new(seed, 0x9001);
        let pool: Vec<_> = (0..push::POOL).map(|_| push::pool_blob(&mut rng)).collect();
        World {
            nodes,
            history,
            report,
            seed,
            started: Instant::now(),
            duration,
            budget_bytes: 1 << 30,
            pushed_bytes: AtomicU64::new(0),
            may_be_rejected: false,
            rejections: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            pushes_again: AtomicU64::new(0),
            patience: Duration::ZERO,
            stop: AtomicBool::new(false),
            images: Mutex::default(),
            pool_digests: pool.iter().map(|bytes| digest_of(bytes)).collect(),
            pool,
            slots: tags::Slots::default(),
            disk_trouble: Mutex::default(),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Called while a disk is full or dead.
    pub(crate) fn mark_disk_trouble(&self) {
        *self
            .disk_trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Called when no disk is in trouble any more and every node has been started since.
    pub(crate) fn end_disk_trouble(&self) {
        *self
            .disk_trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether a node may answer 500 or end because of its disk.
    pub(crate) fn has_disk_trouble(&self) -> bool {
        let trouble = self
            .disk_trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        trouble.is_some_and(|last| last.elapsed() < TROUBLE_TIME)
    }

    /// The bytes of a shared layer.
    pub(crate) fn shared(&self, digest: &str) -> Option<&[u8]> {
        let at = self.pool_digests.iter().position(|known| known == digest)?;
        self.pool.get(at).map(Vec::as_slice)
    }

    /// How many images stand where `stage` says.
    pub(crate) fn count(&self, stage: Stage) -> usize {
        let images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        images.iter().filter(|image| image.stage() == stage).count()
    }

    /// Some image that stands there.
    pub(crate) fn some_image_at(&self, stage: Stage, rng: &mut Rng) -> Option<Arc<Image>> {
        let images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        let there = images.iter().filter(|image| image.stage() == stage);
        let there: Vec<&Arc<Image>> = there.collect();
        (!there.is_empty()).then(|| (*rng.pick(&there)).clone())
    }

    /// Some image that was pushed.
    pub(crate) fn some_image(&self, rng: &mut Rng) -> Option<Arc<Image>> {
        let images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        (!images.is_empty()).then(|| images[rng.index(images.len())].clone())
    }
}

/// One client.
pub(crate) struct Client<'a> {
    pub(crate) number: usize,
    pub(crate) rng: Rng,
    pub(crate) world: &'a World,
}

impl<'a> Client<'a> {
    pub(crate) fn new(number: usize, world: &'a World) -> Client<'a> {
        Client {
            number,
            rng: Rng::new(world.seed, 1000 + number as u64),
            world,
        }
    }

    /// Any node.
    pub(crate) fn node(&mut self) -> (u64, SocketAddr) {
        *self.rng.pick(&self.world.nodes)
    }

    /// Waits a little, and longer where something failed.
    pub(crate) fn pause(&mut self, low_ms: u64, high_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.rng.range(low_ms, high_ms)));
    }

    /// Sends one request to `node` and records what it asked and what came back.
    pub(crate) fn perform(
        &self,
        action: Action,
        node: (u64, SocketAddr),
        request: &Request<'_>,
    ) -> (Outcome, Option<Answer>) {
        let id = self.world.history.call(self.number, node.0, action.clone());
        let answer = http::send(node.1, request);
        let outcome = match &answer {
            Ok(answer) => self.judge(&action, answer, request.method, node.0),
            Err(Failure::NotSent) => Outcome::NotDone,
            Err(Failure::Broken(_)) => Outcome::Unknown,
        };
        if outcome == Outcome::Done {
            self.world.writes.fetch_add(1, Ordering::SeqCst);
        }
        let (revision, text) = match &answer {
            // The revision of a 404 is only an upper bound.
            Ok(answer) if answer.status == 404 => (None, "404".to_owned()),
            Ok(answer) => (answer.revision(), answer.status.to_string()),
            Err(Failure::NotSent) => (None, "not sent".to_owned()),
            Err(Failure::Broken(reason)) => (None, reason.clone()),
        };
        self.world
            .history
            .returned(id, outcome.clone(), revision, text);
        (outcome, answer.ok())
    }

    fn judge(&self, action: &Action, answer: &Answer, method: &str, node: u64) -> Outcome {
        let seen = || Outcome::Seen(Some(seen_digest(answer, method)));
        match (action, answer.status) {
            (_, 500..=599) => {
                self.check_server_error(answer, node, method);
                Outcome::Unknown
            }
            (_, 429) => Outcome::NotDone,
            (Action::Put(_) | Action::PutTag { .. } | Action::SwapTag { .. }, 201) => Outcome::Done,
            (Action::Pull(_) | Action::GetTag { .. }, 200) => seen(),
            (Action::Pull(_) | Action::GetTag { .. }, 404) => Outcome::Seen(None),
            (Action::Delete(_) | Action::DeleteTag { .. }, 202) => Outcome::Done,
            (Action::Delete(_) | Action::DeleteTag { .. }, 404) | (Action::SwapTag { .. }, 412) => {
                Outcome::Refused
            }
            // What a rejection means is for the one who pushes to say.
            (Action::Put(_), 400 | 404) if answer.codes().contains("MANIFEST_BLOB_UNKNOWN") => {
                Outcome::NotDone
            }
            _ => {
                self.unexpected(answer, node, &format!("{action:?}"));
                Outcome::NotDone
            }
        }
    }

    /// 503 and 507 are how a node says that it cannot now; anything else says that it is broken.
    pub(crate) fn check_server_error(&self, answer: &Answer, node: u64, what: &str) {
        if !matches!(answer.status, 503 | 507) && !self.world.has_disk_trouble() {
            self.unexpected(answer, node, what);
        }
    }

    pub(crate) fn unexpected(&self, answer: &Answer, node: u64, what: &str) {
        let text = format!(
            "node {node}: {} to {what}: {}",
            answer.status,
            answer.codes()
        );
        self.world.report.found(Check::Answers, text);
    }

    /// Pulls content by its digest.
    pub(crate) fn pull(&self, content: &Content, node: (u64, SocketAddr)) -> Outcome {
        let path = content.path();
        let request = Request {
            method: "GET",
            path: &path,
            headers: "Accept: */*\r\n".to_owned(),
            ..Request::default()
        };
        self.perform(Action::Pull(content.clone()), node, &request)
            .0
    }
}

/// The digest of the bytes that came; of a HEAD, the one that is claimed.
fn seen_digest(answer: &Answer, method: &str) -> String {
    if method == "HEAD" {
        let claimed = answer.header("docker-content-digest");
        return claimed.unwrap_or("none").to_owned();
    }
    digest_of(&answer.body)
}
