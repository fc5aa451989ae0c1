//! The work of every case: each way to push, a manifest by tag, deletes, collection; through all nodes.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::client::push::{self, Image, MANIFEST_TYPE, Stage};
use crate::client::{Client, digest_of};
use crate::cluster::Cluster;
use crate::history::{Action, Content, Outcome};
use crate::http::{self, Request};
use crate::report::Check;

/// Where the layers are that every image mounts.
pub(crate) const BASE: &str = "failpoints/base";
/// Longer than an election and a restart: what does not work for so long does not work.
const PATIENCE: Duration = Duration::from_secs(20);
/// Larger than what lives in the local index.
const LARGE_BYTES: usize = 200 << 10;
const BYTES: &str = "Content-Type: application/octet-stream\r\n";

pub(crate) type Address = (u64, SocketAddr);

/// How a blob is pushed.
#[derive(Clone, Copy)]
enum Way {
    /// POST with the bytes.
    AtOnce,
    /// POST, PUT with the bytes.
    InOneSession,
    /// POST, a PATCH to each node, PUT.
    InChunks,
    /// POST that mounts it from the base.
    Mounted,
}

/// An image that was pushed, with everything that was sent.
pub(crate) struct Pushed {
    pub(crate) image: Arc<Image>,
    pub(crate) body: Vec<u8>,
    /// Bytes and digest of each blob.
    pub(crate) layers: Vec<(Vec<u8>, String)>,
}

/// Someone who works.
pub(crate) struct Worker<'a> {
    pub(crate) client: Client<'a>,
    /// The one asked first comes first.
    pub(crate) nodes: Vec<Address>,
}

impl Worker<'_> {
    /// The node asked at a try; the next one when it failed.
    fn at(&self, number: usize) -> Address {
        self.nodes[number % self.nodes.len()]
    }

    /// Tries until it works, at one node after the other.
    fn insist(
        &mut self,
        what: &str,
        mut act: impl FnMut(&mut Self, usize) -> Result<(), String>,
    ) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut number = 0;
        loop {
            let Err(reason) = act(self, number) else {
                return true;
            };
            if Instant::now() > deadline {
                let text = format!("{what}: {reason}");
                self.client.world.report.found(Check::Alive, text);
                return false;
            }
            number += 1;
            self.client.pause(20, 100);
        }
    }

    /// Pushes layers that stay, to be mounted and damaged.
    pub(crate) fn push_base(&mut self, layers: usize) -> Option<Pushed> {
        let ways = vec![(LARGE_BYTES, Way::AtOnce); layers];
        self.push(BASE, "base", &ways, None)
    }

    /// Pushes an image in all ways; `base` is the layer to mount.
    pub(crate) fn push_image(
        &mut self,
        repository: &str,
        tag: &str,
        base: &(Vec<u8>, String),
    ) -> Option<Arc<Image>> {
        let ways = [
            (300, Way::AtOnce),
            (3_000, Way::InOneSession),
            (LARGE_BYTES, Way::InChunks),
        ];
        Some(self.push(repository, tag, &ways, Some(base))?.image)
    }

    fn push(
        &mut self,
        repository: &str,
        tag: &str,
        ways: &[(usize, Way)],
        base: Option<&(Vec<u8>, String)>,
    ) -> Option<Pushed> {
        let mut layers: Vec<(Vec<u8>, String, Way)> = Vec::new();
        for (bytes, way) in ways {
            let bytes = self.client.rng.bytes(*bytes);
            let digest = digest_of(&bytes);
            layers.push((bytes, digest, *way));
        }
        layers.extend(base.map(|(bytes, digest)| (bytes.clone(), digest.clone(), Way::Mounted)));
        let described: Vec<(String, usize)> = layers
            .iter()
            .map(|(bytes, digest, _)| (digest.clone(), bytes.len()))
            .collect();
        let body = push::manifest((&described[0].0, described[0].1), &described[1..], tag);
        let content = |digest: &str, is_blob| Content {
            repository: repository.to_owned(),
            digest: digest.to_owned(),
            is_blob,
        };
        let blobs = described.iter().map(|(digest, _)| content(digest, true));
        let manifest = content(&digest_of(&body), false);
        let image = Image::new(tag.to_owned(), manifest, blobs.collect(), body.clone());
        let image = Arc::new(image);
        for (bytes, digest, way) in &layers {
            let content = content(digest, true);
            if !self.insist("the push of a blob", |worker, number| {
                worker.push_blob(number, &content, bytes, *way)
            }) {
                return None;
            }
        }
        let images = &self.client.world.images;
        let mut images = images.lock().unwrap_or_else(PoisonError::into_inner);
        images.push(image.clone());
        drop(images);
        self.put_manifest(&image.manifest, tag, &body)
            .then(|| image.advance(Stage::Pushing, Stage::Acknowledged))?;
        let layers = layers.into_iter().map(|(bytes, digest, _)| (bytes, digest));
        Some(Pushed {
            image,
            body,
            layers: layers.collect(),
        })
    }

    fn push_blob(
        &mut self,
        number: usize,
        content: &Content,
        bytes: &[u8],
        way: Way,
    ) -> Result<(), String> {
        let history = &self.client.world.history;
        let id = history.call(
            self.client.number,
            self.at(number).0,
            Action::Put(content.clone()),
        );
        let pushed = self.try_push_blob(number, content, bytes, way);
        let (outcome, text) = match &pushed {
            Ok(()) => (Outcome::Done, "201".to_owned()),
            Err(reason) => (Outcome::Unknown, reason.clone()),
        };
        self.client.world.history.returned(id, outcome, None, text);
        pushed
    }

    fn try_push_blob(
        &mut self,
        number: usize,
        content: &Content,
        bytes: &[u8],
        way: Way,
    ) -> Result<(), String> {
        let uploads = format!("/v2/{}/blobs/uploads/", content.repository);
        let digest = &content.digest;
        let node = self.at(number);
        let (path, body) = match way {
            Way::AtOnce => (format!("{uploads}?digest={digest}"), bytes),
            Way::Mounted => (format!("{uploads}?mount={digest}&from={BASE}"), &[][..]),
            Way::InOneSession | Way::InChunks => (uploads, &[][..]),
        };
        let answer = self.send(node, "POST", &path, BYTES, body, &[201, 202])?;
        if answer.status == 201 {
            return Ok(());
        }
        let mut location = answer.header("location").unwrap_or("").to_owned();
        let mut rest = bytes;
        if let Way::InChunks = way {
            let mut start = 0;
            for (chunk, step) in bytes.chunks(bytes.len() / 3 + 1).zip(0..) {
                let range = format!(
                    "{BYTES}Content-Range: {start}-{}\r\n",
                    start + chunk.len() - 1
                );
                let answer =
                    self.send_somewhere(number + step, "PATCH", &location, &range, chunk, &[202])?;
                location = answer.header("location").unwrap_or(&location).to_owned();
                start += chunk.len();
            }
            rest = &[];
        }
        let path = with_digest(&location, digest);
        self.send_somewhere(number + 1, "PUT", &path, BYTES, rest, &[201])
            .map(drop)
    }

    /// One request, to the next node that accepts a connection.
    fn send_somewhere(
        &mut self,
        number: usize,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
        expected: &[u16],
    ) -> Result<http::Answer, String> {
        let mut last = Err(String::new());
        for other in 0..self.nodes.len() {
            let node = self.at(number + other);
            last = self.send(node, method, path, headers, body, expected);
            if !matches!(&last, Err(reason) if reason == "not sent") {
                break;
            }
        }
        last
    }

    fn send(
        &mut self,
        node: Address,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
        expected: &[u16],
    ) -> Result<http::Answer, String> {
        let request = Request {
            method,
            path,
            headers: headers.to_owned(),
            body,
        };
        self.client.step(node, &request, expected)
    }

    /// Every try is an operation of its own.
    pub(crate) fn put_manifest(&mut self, content: &Content, tag: &str, body: &[u8]) -> bool {
        let path = format!("/v2/{}/manifests/{tag}", content.repository);
        let request = Request {
            method: "PUT",
            path: &path,
            headers: format!("Content-Type: {MANIFEST_TYPE}\r\n"),
            body,
        };
        self.insist("the push of a manifest", |worker, number| {
            let action = Action::Put(content.clone());
            let node = worker.at(number);
            match worker.client.perform(action, node, &request) {
                (Outcome::Done, _) => Ok(()),
                (outcome, answer) => Err(format!(
                    "{outcome:?} {:?}",
                    answer.map(|answer| answer.codes())
                )),
            }
        })
    }

    /// Content that does not match its digest, and an upload that is given up.
    pub(crate) fn spoil(&mut self, repository: &str) {
        let bytes = self.client.rng.bytes(2_000);
        let other = digest_of(b"other");
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        let wrong = format!("{uploads}?digest={other}");
        self.insist("a push of wrong bytes", |worker, number| {
            let node = worker.at(number);
            worker
                .send(node, "POST", &wrong, BYTES, &bytes, &[400])
                .map(drop)
        });
        self.insist("a cancelled upload", |worker, number| {
            let node = worker.at(number);
            let location = worker.open(node, repository, &bytes)?;
            worker
                .send(node, "DELETE", &location, "", &[], &[204])
                .map(drop)
        });
    }

    /// An upload that has some bytes. Returns where it goes on.
    pub(crate) fn open(
        &mut self,
        node: Address,
        repository: &str,
        bytes: &[u8],
    ) -> Result<String, String> {
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        let answer = self.send(node, "POST", &uploads, "", &[], &[202])?;
        let location = answer.header("location").unwrap_or("").to_owned();
        let answer = self.send(node, "PATCH", &location, BYTES, bytes, &[202])?;
        Ok(answer.header("location").unwrap_or(&location).to_owned())
    }

    /// Deletes an image by its digest, or only its tag.
    pub(crate) fn delete(&mut self, image: &Image) {
        if !image.advance(Stage::Acknowledged, Stage::Deleting) {
            return;
        }
        let path = image.manifest.path();
        let request = Request {
            method: "DELETE",
            path: &path,
            ..Request::default()
        };
        let is_done = self.insist("the delete of a manifest", |worker, number| {
            let action = Action::Delete(image.manifest.clone());
            let node = worker.at(number);
            match worker.client.perform(action, node, &request).0 {
                Outcome::Done | Outcome::Refused => Ok(()),
                outcome => Err(format!("{outcome:?}")),
            }
        });
        if is_done {
            image.advance(Stage::Deleting, Stage::Deleted);
        }
    }

    pub(crate) fn delete_tag(&mut self, image: &Image) {
        let path = format!("/v2/{}/manifests/{}", image.manifest.repository, image.tag);
        self.insist("the delete of a tag", |worker, number| {
            let node = worker.at(number);
            worker
                .send(node, "DELETE", &path, "", &[], &[202, 404])
                .map(drop)
        });
    }

    /// One round of collection, asked of one node after the other.
    pub(crate) fn collect(&mut self, cluster: &Cluster) {
        self.insist("garbage collection", |worker, number| {
            let node = worker.at(number);
            let collected = cluster.collect_garbage(node.0);
            collected.map_err(|error| format!("{error:#}"))
        });
    }

    /// Moves some tags so often that `entries` log entries are made.
    pub(crate) fn churn(&mut self, image: &Image, body: &[u8], entries: usize) {
        let content = &image.manifest;
        for number in 0..entries {
            let tag = format!("churn{}", number % 8);
            if !self.put_manifest(content, &tag, body) {
                return;
            }
        }
    }
}

fn with_digest(location: &str, digest: &str) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}digest={digest}")
}
