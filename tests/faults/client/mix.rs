//! What a client of the chaos run does: a mixture of everything.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use super::Client;
use super::push::{Image, Stage};
use crate::history::{Action, Outcome};
use crate::http::{self, Request};
use crate::report::Check;

/// Images in one repository, so that a list of its tags is one page.
const IMAGES: u64 = 200;

impl Client<'_> {
    /// Works until the world is over.
    pub(crate) fn mix(&mut self, numbers: &AtomicU64) {
        while !self.world.is_over() {
            match self.rng.range(0, 100) {
                0..15 => {
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    let repository = format!("chaos/r{}", number / IMAGES);
                    self.push_image(&repository, &format!("i{number}"));
                }
                15..30 => self.pull_some_image(),
                30..33 => self.delete_some_image(),
                33..37 => self.list_some_repository(),
                _ => self.use_tag(),
            }
            self.pause(5, 60);
        }
    }

    /// Pulls an image: the manifest, then each blob, from any nodes.
    pub(crate) fn pull_some_image(&mut self) {
        let Some(image) = self.world.some_image(&mut self.rng) else {
            return;
        };
        let deletes = image.deletes();
        let node = self.node();
        let Outcome::Seen(Some(_)) = self.pull(&image.manifest, node) else {
            return;
        };
        for blob in &image.blobs {
            let node = self.node();
            let outcome = self.pull(blob, node);
            let is_kept = image.stage() == Stage::Acknowledged && image.deletes() == deletes;
            if outcome == Outcome::Seen(None) && is_kept {
                let text = format!(
                    "node {}: {} has no {}",
                    node.0,
                    image.manifest.path(),
                    blob.digest
                );
                self.world.report.found(Check::Whole, text);
            }
        }
    }

    /// Deletes an image for good. Nobody pushes it again.
    pub(crate) fn delete_some_image(&mut self) {
        let Some(image) = self.world.some_image(&mut self.rng) else {
            return;
        };
        if image.advance(Stage::Acknowledged, Stage::Deleting) {
            self.delete_image(&image);
        }
    }

    /// Sends the delete of an image that is marked as being deleted.
    pub(crate) fn delete_image(&mut self, image: &Image) -> bool {
        let path = image.manifest.path();
        let request = Request {
            method: "DELETE",
            path: &path,
            ..Request::default()
        };
        let node = self.node();
        let action = Action::Delete(image.manifest.clone());
        let (outcome, _) = self.perform(action, node, &request);
        outcome == Outcome::Done && image.advance(Stage::Deleting, Stage::Deleted)
    }

    /// A list holds every tag acknowledged before it was asked for, and none deleted before.
    fn list_some_repository(&mut self) {
        let Some(some) = self.world.some_image(&mut self.rng) else {
            return;
        };
        let repository = some.manifest.repository.clone();
        let images: Vec<_> = self
            .world
            .images
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .filter(|image| image.manifest.repository == repository)
            .cloned()
            .collect();
        let before: Vec<Stage> = images.iter().map(|image| image.stage()).collect();
        let path = format!("/v2/{repository}/tags/list?n=1000");
        let request = Request {
            method: "GET",
            path: &path,
            ..Request::default()
        };
        let node = self.node();
        let Ok(answer) = http::send(node.1, &request) else {
            return;
        };
        if answer.status >= 500 {
            return self.check_server_error(&answer, node.0, &path);
        }
        let list: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let tags = list["tags"].as_array().into_iter().flatten();
        let tags: BTreeSet<&str> = tags.filter_map(Value::as_str).collect();
        for (image, before) in images.iter().zip(before) {
            let is_listed = tags.contains(image.tag.as_str());
            let text = format!("node {}: {path}: {}", node.0, image.tag);
            let is_kept = before == Stage::Acknowledged && image.stage() == before;
            if is_kept && !is_listed {
                self.world
                    .report
                    .found(Check::Lists, format!("{text} is not in the list"));
            }
            if before == Stage::Deleted && is_listed {
                self.world
                    .report
                    .found(Check::Lists, format!("{text} is in the list"));
            }
        }
    }
}
