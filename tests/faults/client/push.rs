//! Pushing images the way real clients do: blobs first, in one piece or in chunks over several nodes, then the manifest.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::{Client, World, digest_of};
use crate::history::{Action, Content, Outcome};
use crate::http::{self, Answer, Failure, Request};
use crate::report::Check;
use crate::rng::Rng;

/// Layers that many images share.
pub(crate) const POOL: usize = 50;
/// How often a client tries one step, as docker does.
const TRIES: usize = 6;
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Where an image stands, as its pusher and its deleter know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Being pushed, or the outcome is unknown.
    Pushing = 0,
    /// 201.
    Acknowledged = 1,
    /// A delete was sent.
    Deleting = 2,
    /// 202 of the delete.
    Deleted = 3,
}

/// An image with a name of its own.
pub(crate) struct Image {
    pub(crate) tag: String,
    pub(crate) manifest: Content,
    pub(crate) blobs: Vec<Content>,
    pub(crate) body: Vec<u8>,
    stage: AtomicU8,
    /// How often its delete began.
    deletes: AtomicU64,
}

impl Image {
    pub(crate) fn new(tag: String, manifest: Content, blobs: Vec<Content>, body: Vec<u8>) -> Image {
        Image {
            tag,
            manifest,
            blobs,
            body,
            stage: AtomicU8::new(Stage::Pushing as u8),
            deletes: AtomicU64::new(0),
        }
    }

    /// Equal before and after something: nobody began to delete it meanwhile.
    pub(crate) fn deletes(&self) -> u64 {
        self.deletes.load(Ordering::SeqCst)
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::SeqCst) {
            0 => Stage::Pushing,
            1 => Stage::Acknowledged,
            2 => Stage::Deleting,
            _ => Stage::Deleted,
        }
    }

    /// Moves from one stage to another; false when it is not there.
    pub(crate) fn advance(&self, from: Stage, to: Stage) -> bool {
        let (seqcst, is_delete) = (Ordering::SeqCst, to == Stage::Deleting);
        let moved = self
            .stage
            .compare_exchange(from as u8, to as u8, seqcst, seqcst);
        // Before anybody can push it again: only who moved it here moves it on.
        if moved.is_ok() && is_delete {
            self.deletes.fetch_add(1, Ordering::SeqCst);
        }
        moved.is_ok()
    }
}

/// The bytes of one shared layer.
pub(crate) fn pool_blob(rng: &mut Rng) -> Vec<u8> {
    let length = rng.range(1 << 10, 256 << 10);
    rng.bytes(usize::try_from(length).unwrap_or(0))
}

/// The bytes of a layer of its own: mostly small, some up to 4 MiB, smaller when the run has pushed its share.
fn own_blob(world: &World, rng: &mut Rng) -> Vec<u8> {
    let passed = world.started.elapsed().as_secs_f64() / world.duration.as_secs_f64().max(1.0);
    let share = 16.0 * 1024.0 * 1024.0 + world.budget_bytes as f64 * passed;
    let is_spent = world.pushed_bytes.load(Ordering::Relaxed) as f64 > share;
    let most = match rng.range(0, 100) {
        _ if is_spent => 4 << 10,
        0..60 => 64 << 10,
        60..90 => 600 << 10,
        _ => 4 << 20,
    };
    let length = rng.range(1 << 10, most);
    world.pushed_bytes.fetch_add(length, Ordering::Relaxed);
    rng.bytes(usize::try_from(length).unwrap_or(0))
}

/// A manifest over a configuration and layers, given as digests and sizes.
pub(crate) fn manifest(config: (&str, usize), layers: &[(String, usize)], name: &str) -> Vec<u8> {
    let layers: Vec<_> = layers
        .iter()
        .map(|(digest, size)| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size,
            })
        })
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1,
        },
        "layers": layers, "annotations": { "name": name },
    });
    manifest.to_string().into_bytes()
}

/// What an attempt ended with.
enum Attempt {
    Done(Option<u64>),
    /// Not now; another try may do.
    Retry(String),
}

impl Client<'_> {
    /// Pushes a new image into `repository` as `tag`; returns it when it was acknowledged.
    pub(crate) fn push_image(&mut self, repository: &str, tag: &str) -> Option<Arc<Image>> {
        self.push_image_of(repository, tag, 40)
    }

    /// The same; so many layers of 100 are shared.
    pub(crate) fn push_image_of(
        &mut self,
        repository: &str,
        tag: &str,
        shared: u64,
    ) -> Option<Arc<Image>> {
        let mut layers = Vec::new();
        for _ in 0..self.rng.range(2, 7) {
            if self.rng.percent(shared) {
                let pool = &self.world.pool;
                layers.push(self.rng.pick(pool).clone());
            } else {
                layers.push(own_blob(self.world, &mut self.rng));
            }
        }
        let described: Vec<(String, usize)> = layers
            .iter()
            .map(|bytes| (digest_of(bytes), bytes.len()))
            .collect();
        let body = manifest((&described[0].0, described[0].1), &described[1..], tag);
        let content = |digest: &String, is_blob| Content {
            repository: repository.to_owned(),
            digest: digest.clone(),
            is_blob,
        };
        let mut blobs: Vec<Content> = described
            .iter()
            .map(|(digest, _)| content(digest, true))
            .collect();
        blobs.dedup();
        let manifest = content(&digest_of(&body), false);
        let image = Arc::new(Image::new(tag.to_owned(), manifest, blobs, body));
        self.world
            .images
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(image.clone());
        let layers: Vec<(&[u8], &str)> = layers
            .iter()
            .zip(&described)
            .map(|(bytes, (digest, _))| (bytes.as_slice(), digest.as_str()))
            .collect();
        self.push_parts(&image, &layers).then_some(image)
    }

    /// Pushes the blobs of an image that nobody else pushes or deletes now, then its manifest.
    fn push_parts(&mut self, image: &Image, layers: &[(&[u8], &str)]) -> bool {
        let repository = &image.manifest.repository;
        layers
            .iter()
            .all(|(bytes, digest)| self.ensure_blob(repository, bytes, digest))
            && self.put_manifest(&image.manifest, &image.tag, &image.body)
            && image.advance(Stage::Pushing, Stage::Acknowledged)
    }

    /// Pushes an image again that was deleted; false when it cannot, for want of the bytes of its layers.
    pub(crate) fn push_again(&mut self, image: &Image) -> bool {
        let world = self.world;
        let layers: Option<Vec<(&[u8], &str)>> = image
            .blobs
            .iter()
            .map(|blob| Some((world.shared(&blob.digest)?, blob.digest.as_str())))
            .collect();
        let Some(layers) = layers else {
            return false;
        };
        image.advance(Stage::Deleted, Stage::Pushing) && self.push_parts(image, &layers)
    }

    /// Whether a step that failed `attempt` times since `started` is tried once more; else that is a finding where
    /// clients are patient enough to outlast every fault.
    fn goes_on(&self, attempt: usize, started: Instant, content: &Content) -> bool {
        let patience = self.world.patience;
        if attempt < TRIES || started.elapsed() < patience {
            return true;
        }
        if !patience.is_zero() {
            let text = format!("{content:?}: gave up after {attempt} tries");
            self.world.report.found(Check::Rejections, text);
        }
        false
    }

    fn pause_after(&mut self, attempt: usize) {
        self.pause(100, 400 * (attempt as u64 + 1).min(TRIES as u64));
    }

    /// Makes sure that a blob is in the repository: asks first, mounts it, or pushes it.
    pub(crate) fn ensure_blob(&mut self, repository: &str, bytes: &[u8], digest: &str) -> bool {
        let content = Content {
            repository: repository.to_owned(),
            digest: digest.to_owned(),
            is_blob: true,
        };
        let started = Instant::now();
        let mut attempt = 0;
        while self.goes_on(attempt, started, &content) {
            if self.world.is_over() {
                return false;
            }
            if self.rng.percent(50) && self.blob_exists(&content) {
                return true;
            }
            let action = Action::Put(content.clone());
            let id = self.world.history.call(self.number, 0, action);
            let result = match self.rng.range(0, 4) {
                0 => self.push_at_once(repository, bytes, digest),
                1 => self.push_in_chunks(repository, bytes, digest),
                2 => self.mount(repository, bytes, digest),
                _ => self.push_in_one_session(repository, bytes, digest),
            };
            let (outcome, revision, text) = match result {
                Attempt::Done(revision) => (Outcome::Done, revision, "201".to_owned()),
                Attempt::Retry(reason) => (Outcome::Unknown, None, reason),
            };
            let is_done = outcome == Outcome::Done;
            self.world.history.returned(id, outcome, revision, text);
            if is_done {
                return true;
            }
            self.pause_after(attempt);
            attempt += 1;
        }
        false
    }

    fn blob_exists(&mut self, content: &Content) -> bool {
        let path = content.path();
        let request = Request {
            method: "HEAD",
            path: &path,
            ..Request::default()
        };
        let node = self.node();
        http::send(node.1, &request).is_ok_and(|answer| answer.status == 200)
    }

    /// One step of an upload. `Err` is the reason to start again.
    pub(crate) fn step(
        &mut self,
        node: (u64, SocketAddr),
        request: &Request<'_>,
        expected: &[u16],
    ) -> Result<Answer, String> {
        match http::send(node.1, request) {
            Ok(answer) if expected.contains(&answer.status) => Ok(answer),
            Ok(answer) => {
                let what = format!("{} {}", request.method, request.path);
                match answer.status {
                    500..=599 => self.check_server_error(&answer, node.0, &what),
                    // The owner of the session is gone, or ended while it took the bytes.
                    404 | 416 | 429 => {}
                    _ => self.unexpected(&answer, node.0, &what),
                }
                Err(format!(
                    "{} {}",
                    answer.status,
                    answer.codes().chars().take(60).collect::<String>()
                ))
            }
            Err(Failure::NotSent) => Err("not sent".to_owned()),
            Err(Failure::Broken(reason)) => Err(reason),
        }
    }

    fn open_session(&mut self, repository: &str, query: &str) -> Result<(u16, String), String> {
        let path = format!("/v2/{repository}/blobs/uploads/{query}");
        let request = Request {
            method: "POST",
            path: &path,
            ..Request::default()
        };
        let node = self.node();
        let answer = self.step(node, &request, &[201, 202])?;
        let location = answer.header("location").unwrap_or("").to_owned();
        Ok((answer.status, location))
    }

    fn finish(&mut self, location: &str, bytes: &[u8], digest: &str) -> Attempt {
        let separator = if location.contains('?') { '&' } else { '?' };
        let path = format!("{location}{separator}digest={digest}");
        let request = Request {
            method: "PUT",
            path: &path,
            headers: "Content-Type: application/octet-stream\r\n".to_owned(),
            body: bytes,
        };
        let node = self.node();
        match self.step(node, &request, &[201]) {
            Ok(answer) => Attempt::Done(answer.revision()),
            Err(reason) => Attempt::Retry(reason),
        }
    }

    fn push_at_once(&mut self, repository: &str, bytes: &[u8], digest: &str) -> Attempt {
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let request = Request {
            method: "POST",
            path: &path,
            headers: "Content-Type: application/octet-stream\r\n".to_owned(),
            body: bytes,
        };
        let node = self.node();
        match self.step(node, &request, &[201]) {
            Ok(answer) => Attempt::Done(answer.revision()),
            Err(reason) => Attempt::Retry(reason),
        }
    }

    fn push_in_one_session(&mut self, repository: &str, bytes: &[u8], digest: &str) -> Attempt {
        match self.open_session(repository, "") {
            Ok((_, location)) => self.finish(&location, bytes, digest),
            Err(reason) => Attempt::Retry(reason),
        }
    }

    /// Mounts the blob from wherever an image has it; pushes it when that does not do.
    fn mount(&mut self, repository: &str, bytes: &[u8], digest: &str) -> Attempt {
        let Some(image) = self.world.some_image(&mut self.rng) else {
            return self.push_in_one_session(repository, bytes, digest);
        };
        let query = format!("?mount={digest}&from={}", image.manifest.repository);
        match self.open_session(repository, &query) {
            Ok((201, _)) => Attempt::Done(None),
            Ok((_, location)) => self.finish(&location, bytes, digest),
            Err(reason) => Attempt::Retry(reason),
        }
    }

    /// Each chunk through another node.
    fn push_in_chunks(&mut self, repository: &str, bytes: &[u8], digest: &str) -> Attempt {
        let mut location = match self.open_session(repository, "") {
            Ok((_, location)) => location,
            Err(reason) => return Attempt::Retry(reason),
        };
        let chunks = self.rng.range(2, 5);
        let length = bytes.len() / usize::try_from(chunks).unwrap_or(1) + 1;
        let mut start = 0;
        for chunk in bytes.chunks(length) {
            let request = Request {
                method: "PATCH",
                path: &location,
                headers: format!(
                    "Content-Type: application/octet-stream\r\nContent-Range: {start}-{}\r\n",
                    start + chunk.len() - 1
                ),
                body: chunk,
            };
            let node = self.node();
            match self.step(node, &request, &[202]) {
                Ok(answer) => {
                    start += chunk.len();
                    if let Some(next) = answer.header("location") {
                        location = next.to_owned();
                    }
                }
                Err(reason) => return Attempt::Retry(reason),
            }
        }
        self.finish(&location, &[], digest)
    }

    /// Tries until it is acknowledged, as docker does; every try is an operation of its own.
    pub(crate) fn put_manifest(&mut self, content: &Content, tag: &str, body: &[u8]) -> bool {
        let path = format!("/v2/{}/manifests/{tag}", content.repository);
        let request = Request {
            method: "PUT",
            path: &path,
            headers: format!("Content-Type: {MANIFEST_TYPE}\r\n"),
            body,
        };
        let started = Instant::now();
        let mut attempt = 0;
        while self.goes_on(attempt, started, content) {
            let node = self.node();
            let action = Action::Put(content.clone());
            let (outcome, answer) = self.perform(action, node, &request);
            match outcome {
                Outcome::Done => return true,
                Outcome::NotDone => {
                    if let Some(answer) = answer.filter(|answer| answer.status == 400) {
                        self.rejected(&answer, content, node.0);
                        return false;
                    }
                }
                Outcome::Seen(_) | Outcome::Refused | Outcome::Unknown => {}
            }
            if self.world.is_over() {
                return false;
            }
            self.pause_after(attempt);
            attempt += 1;
        }
        false
    }

    /// Every blob was acknowledged or said to be there a moment ago, and yet the manifest is refused.
    fn rejected(&self, answer: &Answer, content: &Content, node: u64) {
        self.world.rejections.fetch_add(1, Ordering::Relaxed);
        if !self.world.may_be_rejected {
            let text = format!("node {node}: {content:?}: {}", answer.codes());
            self.world.report.found(Check::Rejections, text);
        }
    }
}
