//! What tags and manifests must do, in a few lines.

use std::collections::{BTreeMap, BTreeSet};

use oci::Digest;

use super::{MANIFESTS, REPOSITORIES, gc};
use crate::command::Command;
use crate::memory::MemoryView;
use crate::query;
use crate::response::Response;
use crate::testing::{digest, repository, tag};

/// Tags and manifests as a child would implement them.
#[derive(Default)]
pub(super) struct Model {
    manifests: BTreeSet<(String, Digest)>,
    tags: BTreeMap<(String, String), Digest>,
    pub(super) steps: gc::Steps,
    pub(super) deleted_blobs: usize,
    pub(super) restored: u64,
}

impl Model {
    pub(super) fn accept(&mut self, view: &MemoryView, command: &Command, response: &Response) {
        match response {
            Response::ManifestsCollected(collected) => {
                for gone in collected {
                    let name = query::repository_name(view, gone.repository).unwrap();
                    self.delete_manifest(name.unwrap().as_str(), gone.digest);
                }
            }
            Response::GcStepped(done) => self.steps.add(done),
            Response::BlobsDeleted(deleted) => self.deleted_blobs += deleted.digests.len(),
            _ => {}
        }
        match command {
            Command::PutManifest(c) => {
                let name = c.repository.as_str().to_owned();
                self.manifests.insert((name.clone(), c.digest));
                for tag in &c.tags {
                    self.tags
                        .insert((name.clone(), tag.as_str().to_owned()), c.digest);
                }
            }
            Command::DeleteManifest(c) => {
                self.delete_manifest(c.repository.as_str(), c.digest);
            }
            Command::RestoreManifest(c) => {
                let Response::ManifestRestored { tags } = response else {
                    panic!("{response:?}")
                };
                let name = c.repository.as_str().to_owned();
                self.manifests.insert((name.clone(), c.digest));
                for tag in tags {
                    let key = (name.clone(), tag.as_str().to_owned());
                    assert_eq!(self.tags.insert(key, c.digest), None);
                }
                self.restored += 1;
            }
            Command::RestoreTag(c) => {
                let Response::TagRestored { digest, .. } = response else {
                    panic!("{response:?}")
                };
                let name = c.repository.as_str().to_owned();
                self.manifests.insert((name.clone(), *digest));
                self.tags.insert((name, c.tag.as_str().to_owned()), *digest);
                self.restored += 1;
            }
            Command::DeleteTag(c) => {
                let key = (c.repository.as_str().to_owned(), c.tag.as_str().to_owned());
                self.tags.remove(&key);
            }
            _ => {}
        }
    }

    fn delete_manifest(&mut self, name: &str, gone: Digest) {
        self.manifests.remove(&(name.to_owned(), gone));
        self.tags
            .retain(|(of, _), digest| of != name || *digest != gone);
    }

    pub(super) fn compare(&self, view: &MemoryView) {
        for name in REPOSITORIES {
            let tags: Vec<_> = query::tags(view, &repository(name), None, 100)
                .unwrap()
                .unwrap_or_default()
                .iter()
                .map(|tag| tag.as_str().to_owned())
                .collect();
            let wanted: Vec<_> = self
                .tags
                .keys()
                .filter(|(of, _)| of == name)
                .map(|(_, tag)| tag.clone())
                .collect();
            assert_eq!(tags, wanted);
            for tag_name in wanted {
                let found = query::tag(view, &repository(name), &tag(&tag_name)).unwrap();
                let wanted = self.tags[&(name.to_owned(), tag_name)];
                assert_eq!(found.map(|found| found.digest), Some(wanted));
            }
            for body in MANIFESTS {
                let found = query::manifest(view, &repository(name), &digest(body)).unwrap();
                let wanted = self.manifests.contains(&(name.to_owned(), digest(body)));
                assert_eq!(found.is_some(), wanted);
            }
        }
    }
}
