//! Why something is kept, or when and why it goes: in words.

use metadata::apply::DELETED_TTL_MS;
use metadata::ids::LogTime;
use metadata::query::{
    self, BlobRecord, DeleteReason, DeletedBlobRecord, Deletion, ExplainedLink, ExplainedManifest,
    GcStatus, Naming, PurgedManifestRecord,
};
use oci::{Digest, RepositoryName, Tag};

use super::GcError;
use crate::{GcOptions, Registry};

/// Repositories and reasons told of; more are only said to exist.
const REASONS: usize = 20;

/// Repositories looked through in one view.
const REPOSITORIES: usize = 1_000;

/// Everything known of one digest, and what it means.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// In words, the most important first.
    pub lines: Vec<String>,
    /// The facts.
    pub facts: query::Explanation,
    /// Log time.
    pub now: LogTime,
}

impl Registry {
    /// Says why the blob or manifest is kept, or why and when it goes or went.
    ///
    /// # Errors
    /// [`GcError`].
    pub async fn gc_explain(&self, digest: &Digest) -> Result<Explanation, GcError> {
        self.gc_barrier().await?;
        let (gc, now, mut facts) = self.gc_look(|view| {
            let facts = query::explain(view, None, digest, REASONS)?;
            Ok((query::gc(view)?, query::time(view)?.0, facts))
        })?;
        // A manifest that nothing names is known by its repository only.
        for name in self.repositories_with_manifest(digest)? {
            let here = self.gc_look(|view| query::explain(view, Some(&name), digest, REASONS))?;
            let is_new = facts.manifests.iter().all(|known| known.repository != name);
            let found = here.manifests.into_iter();
            facts
                .manifests
                .extend(found.filter(|found| is_new && found.repository == name));
        }
        let words = Words {
            options: &self.options.gc,
            now,
            gc: &gc,
        };
        let lines = words.all(&facts);
        Ok(Explanation { lines, facts, now })
    }

    /// Repositories that have a manifest with this digest, deleted or not; some, if there are many.
    fn repositories_with_manifest(&self, digest: &Digest) -> Result<Vec<RepositoryName>, GcError> {
        let mut with = Vec::new();
        let mut after: Option<RepositoryName> = None;
        loop {
            let names = self.gc_look(|view| {
                let after = after.as_ref().map(RepositoryName::as_str);
                let names = query::repositories(view, after, REPOSITORIES)?;
                for name in &names {
                    if query::manifest(view, name, digest)?.is_some()
                        || query::deleted_manifest(view, name, digest)?.is_some()
                    {
                        with.push(name.clone());
                    }
                }
                Ok(names)
            })?;
            after = names.last().cloned();
            if names.len() < REPOSITORIES || with.len() >= REASONS {
                return Ok(with);
            }
        }
    }
}

/// Puts facts into words.
struct Words<'a> {
    options: &'a GcOptions,
    now: LogTime,
    gc: &'a GcStatus,
}

impl Words<'_> {
    fn all(&self, facts: &query::Explanation) -> Vec<String> {
        let mut lines: Vec<String> = facts
            .manifests
            .iter()
            .map(|manifest| self.manifest(manifest, facts))
            .collect();
        lines.extend(facts.purged.iter().map(|purged| self.purged(purged)));
        match (&facts.blob, &facts.deleted) {
            (Some(blob), _) => {
                lines.push(self.blob(blob, facts.links.len()));
                lines.extend(facts.links.iter().map(|link| self.link(link, facts)));
            }
            (None, Some(deleted)) => lines.push(self.deleted_blob(deleted)),
            (None, None) if lines.is_empty() => lines.push(format!(
                "the cluster knows no blob and no manifest with this digest, and has deleted none in the last {}",
                time(DELETED_TTL_MS)
            )),
            (None, None) => {}
        }
        if let Some(reason) = &self.gc.paused {
            lines.push(format!(
                "garbage collection is paused, nothing goes: {reason}"
            ));
        }
        lines
    }

    fn manifest(&self, manifest: &ExplainedManifest, facts: &query::Explanation) -> String {
        let place = format!("manifest in {}", manifest.repository);
        if let Some(deleted) = &manifest.deleted {
            let Deletion { at, index, reason } = deleted;
            return format!(
                "{place}: deleted {}{}; can be restored; purged {}",
                self.deletion(*at, index.0, reason),
                tagged(&manifest.tags, 0),
                self.when(*at, self.options.undelete_ms)
            );
        }
        let mut reasons = Vec::new();
        if !manifest.tags.is_empty() {
            reasons.push(format!("tagged {}", join(&manifest.tags)));
        }
        let here = |naming: &&Naming| naming.repository == manifest.repository;
        let indexes: Vec<&Naming> = facts.edges.iter().filter(here).collect();
        if !indexes.is_empty() {
            reasons.push(format!("listed by index {}", list(&indexes)));
        }
        if !reasons.is_empty() {
            return format!("{place}: kept, {}", reasons.join("; "));
        }
        let Some(since) = manifest.unneeded_since else {
            return format!("{place}: kept, an index or a subject needs it");
        };
        let mut rules = self.options.untagged.iter();
        match rules.find(|rule| rule.pattern.matches(&manifest.repository)) {
            Some(rule) => format!(
                "{place}: untagged and needed by nothing; deleted {}",
                self.when(since, rule.min_age_ms)
            ),
            None => format!(
                "{place}: kept; nothing needs it, but untagged manifests of this repository are not collected"
            ),
        }
    }

    fn purged(&self, purged: &PurgedManifestRecord) -> String {
        let deletion = self.deletion(purged.deleted_at, purged.deleted_index.0, &purged.reason);
        let subject = match (&purged.subject, &purged.reason) {
            // Otherwise it would have been needed.
            (Some(subject), DeleteReason::Unneeded { .. }) => {
                format!(", referred to {subject}, which was gone")
            }
            (Some(subject), DeleteReason::Asked { .. }) => format!(", referred to {subject}"),
            (None, _) => String::new(),
        };
        format!(
            "manifest of {} bytes in {}: deleted {deletion}{}{subject}; purged {} ago (log index {}), cannot be restored",
            purged.size_bytes,
            purged.repository,
            tagged(&purged.tags, purged.more_tags),
            self.ago(purged.purged_at),
            purged.purged_index
        )
    }

    /// When, by whom and why a manifest was deleted.
    fn deletion(&self, at: LogTime, index: u64, reason: &DeleteReason) -> String {
        let ago = self.ago(at);
        match reason {
            DeleteReason::Asked { by } => {
                let by = if by.is_empty() {
                    "an anonymous client"
                } else {
                    by
                };
                format!("{ago} ago by {by} (log index {index})")
            }
            DeleteReason::Unneeded { since } => {
                let unneeded = time(at.0.saturating_sub(since.0));
                format!(
                    "{ago} ago by garbage collection (log index {index}), untagged and needed by nothing for {unneeded}"
                )
            }
        }
    }

    fn deleted_blob(&self, deleted: &DeletedBlobRecord) -> String {
        format!(
            "blob of {} bytes: deleted {} ago by garbage collection (log index {}), because no repository linked it",
            deleted.size_bytes,
            self.ago(deleted.deleted_at),
            deleted.deleted_index
        )
    }

    fn ago(&self, at: LogTime) -> String {
        time(self.now.0.saturating_sub(at.0))
    }

    fn blob(&self, blob: &BlobRecord, links: usize) -> String {
        let (size_bytes, holders) = (blob.size_bytes, join(&blob.holders));
        let on = format!("counted copies on the nodes {holders}");
        if let Some(since) = blob.condemned_since {
            let when = self.when(since, self.options.quarantine_ms);
            return format!(
                "blob of {size_bytes} bytes: condemned, because no repository links it; deleted {when}, unless it is pushed before; {on}"
            );
        }
        if let Some(since) = blob.unlinked_since {
            let when = self.when(since, self.options.condemn_delay_ms);
            return format!(
                "blob of {size_bytes} bytes: no repository links it; condemned {when}; {on}"
            );
        }
        let repositories = match links {
            1 => "1 repository".to_owned(),
            REASONS => format!("{REASONS} or more repositories"),
            links => format!("{links} repositories"),
        };
        format!("blob of {size_bytes} bytes: linked by {repositories}; {on}")
    }

    fn link(&self, link: &ExplainedLink, facts: &query::Explanation) -> String {
        let place = format!("in {}", link.repository);
        let here = |naming: &&Naming| naming.repository == link.repository;
        let named_by: Vec<&Naming> = facts.edges.iter().filter(here).collect();
        if !named_by.is_empty() {
            return format!("{place}: kept, named by {}", list(&named_by));
        }
        if let Some(since) = link.unreferenced_since {
            let when = self.when(since, self.options.grace_ms);
            return format!("{place}: no manifest names it; the link is removed {when}");
        }
        let held_by: Vec<&Naming> = facts.deleted_edges.iter().filter(here).collect();
        if held_by.is_empty() {
            return format!("{place}: kept, manifests name it");
        }
        format!(
            "{place}: kept for deleted manifests that can be restored: {}",
            list(&held_by)
        )
    }

    fn when(&self, since: LogTime, wait_ms: u64) -> String {
        let due = since.plus_ms(wait_ms);
        if due <= self.now {
            "by the next round".to_owned()
        } else {
            format!("in {}", time(due.0 - self.now.0))
        }
    }
}

/// The tags that a deleted manifest had.
fn tagged(tags: &[Tag], more: u64) -> String {
    match (tags, more) {
        ([], _) => ", untagged".to_owned(),
        (tags, 0) => format!(", tagged {}", join(tags)),
        (tags, more) => format!(", tagged {} and {more} more", join(tags)),
    }
}

fn list(manifests: &[&Naming]) -> String {
    let named = manifests.iter().map(|naming| match naming.tags.is_empty() {
        true => naming.manifest.to_string(),
        false => format!("{} (tagged {})", naming.manifest, join(&naming.tags)),
    });
    join(&named.collect::<Vec<_>>())
}

fn join<T: ToString>(items: &[T]) -> String {
    let texts: Vec<String> = items.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// A length of time as people read it.
fn time(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}
