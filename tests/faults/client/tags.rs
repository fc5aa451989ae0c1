//! Reading and moving tags that many clients share. What is written is unique, so that every read tells which write
//! it saw.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use super::push::{MANIFEST_TYPE, manifest};
use super::{Client, digest_of};
use crate::history::{Action, Content, Outcome};
use crate::http::Request;

/// Where the shared tags are.
pub(crate) const REPOSITORY: &str = "hot";
/// Operations on one tag before its slot goes on with a new one: what the search for an order can take.
const OPERATIONS: usize = 80;
/// Slots whose tags change.
const SHORT: usize = 4;
/// The slot of one tag for the whole run, checked by revision only.
const LONG: usize = SHORT;
/// The slot of two tags that only move together: one register.
const PAIR: usize = SHORT + 1;
const SLOTS: usize = SHORT + 2;

/// The tags of the moment.
#[derive(Default)]
pub(crate) struct Slots(Mutex<[Slot; SLOTS]>);

#[derive(Clone, Default)]
struct Slot {
    generation: usize,
    operations: usize,
    /// What somebody saw last, to make compare-and-swap succeed now and then.
    seen: Option<String>,
}

impl Slots {
    /// The register of `slot` for one more operation, and what was seen there last.
    fn enter(&self, slot: usize) -> (String, Option<String>) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut slots[slot];
        if slot < SHORT && state.operations >= OPERATIONS {
            *state = Slot {
                generation: state.generation + 1,
                ..Slot::default()
            };
        }
        state.operations += 1;
        (format!("s{slot}-g{}", state.generation), state.seen.clone())
    }

    fn see(&self, slot: usize, seen: Option<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[slot].seen = seen;
    }
}

impl Client<'_> {
    /// Pushes what all shared manifests refer to.
    pub(crate) fn prepare_tags(&mut self) -> bool {
        let blob = self.world.pool[0].clone();
        self.ensure_blob(REPOSITORY, &blob, &digest_of(&blob))
    }

    /// One operation on one shared tag.
    pub(crate) fn use_tag(&mut self) {
        let slot = self.rng.index(SLOTS);
        let (register, seen) = self.world.slots.enter(slot);
        if slot == PAIR {
            return self.use_pair(&register);
        }
        let path = format!("/v2/{REPOSITORY}/manifests/{register}");
        match self.rng.range(0, 100) {
            0..55 => self.read_tag(slot, register, &path),
            55..75 => self.write_tag(slot, register, &path, None),
            75..92 => self.write_tag(slot, register, &path, Some(seen)),
            // A tag for the whole run that is often absent would say less.
            _ if slot == LONG && self.rng.percent(70) => self.read_tag(slot, register, &path),
            _ => self.delete_tag(slot, register, &path),
        }
    }

    /// Writes through one node only, to the end. The other clients go from node to node, and all of them may wait for the
    /// same node that is cut off: then their silence says nothing about the others.
    pub(crate) fn write_through(&mut self, node: (u64, SocketAddr)) {
        for number in 0.. {
            if self.world.is_over() {
                return;
            }
            let register = format!("through{}-g{}", node.0, number / OPERATIONS);
            let path = format!("/v2/{REPOSITORY}/manifests/{register}");
            self.put_tag(Some(node), register, &path, None);
            self.pause(200, 600);
        }
    }

    fn read_tag(&mut self, slot: usize, register: String, path: &str) {
        let method = if self.rng.percent(30) { "HEAD" } else { "GET" };
        let request = Request {
            method,
            path,
            headers: "Accept: */*\r\n".to_owned(),
            ..Request::default()
        };
        let node = self.node();
        let (outcome, _) = self.perform(Action::GetTag { register }, node, &request);
        if let Outcome::Seen(seen) = outcome {
            self.world.slots.see(slot, seen);
        }
    }

    /// A manifest that nobody else writes.
    fn unique(&mut self) -> (Vec<u8>, String) {
        let blob = &self.world.pool[0];
        let config = (digest_of(blob), blob.len());
        let name = format!("client {} {:x}", self.number, self.rng.next());
        let body = manifest((&config.0, config.1), &[], &name);
        let digest = digest_of(&body);
        (body, digest)
    }

    fn write_tag(
        &mut self,
        slot: usize,
        register: String,
        path: &str,
        swap: Option<Option<String>>,
    ) {
        if let Some(digest) = self.put_tag(None, register, path, swap) {
            self.world.slots.see(slot, Some(digest));
        }
    }

    /// What was written, when it is known to have been. Without `node` any; `swap`: only if the tag is what was seen.
    fn put_tag(
        &mut self,
        node: Option<(u64, SocketAddr)>,
        register: String,
        path: &str,
        swap: Option<Option<String>>,
    ) -> Option<String> {
        let (body, digest) = self.unique();
        let mut headers = format!("Content-Type: {MANIFEST_TYPE}\r\n");
        let action = match swap {
            None => Action::PutTag {
                register,
                digest: digest.clone(),
            },
            Some(expected) => {
                headers.push_str(&match &expected {
                    Some(digest) => format!("If-Match: \"{digest}\"\r\n"),
                    None => "If-None-Match: *\r\n".to_owned(),
                });
                Action::SwapTag {
                    register,
                    expected,
                    digest: digest.clone(),
                }
            }
        };
        let request = Request {
            method: "PUT",
            path,
            headers,
            body: &body,
        };
        let node = node.unwrap_or_else(|| self.node());
        let (outcome, _) = self.perform(action, node, &request);
        (outcome == Outcome::Done).then_some(digest)
    }

    fn delete_tag(&mut self, slot: usize, register: String, path: &str) {
        let request = Request {
            method: "DELETE",
            path,
            ..Request::default()
        };
        let node = self.node();
        let (outcome, _) = self.perform(Action::DeleteTag { register }, node, &request);
        if outcome == Outcome::Done {
            self.world.slots.see(slot, None);
        }
    }

    /// Two tags written by one request are one register: whoever reads either must see the same order.
    fn use_pair(&mut self, register: &str) {
        let register = register.to_owned();
        if self.rng.percent(70) {
            let half = *self.rng.pick(&["a", "b"]);
            let path = format!("/v2/{REPOSITORY}/manifests/{register}-{half}");
            return self.read_tag(PAIR, register, &path);
        }
        let (body, digest) = self.unique();
        let content = Content {
            repository: REPOSITORY.to_owned(),
            digest: digest.clone(),
            is_blob: false,
        };
        let path = format!("{}?tag={register}-a&tag={register}-b", content.path());
        let request = Request {
            method: "PUT",
            path: &path,
            headers: "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n".to_owned(),
            body: &body,
        };
        let node = self.node();
        self.perform(Action::PutTag { register, digest }, node, &request);
    }
}
