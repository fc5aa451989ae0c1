//! The second opinion before anything is deleted (protocols.md section 5).
//!
//! The log deletes what its indexes call unneeded. A fault in an index would make it delete what is needed, so this scan
//! asks what the indexes were made from: it parses every manifest body again and looks for the blobs that are about to
//! go. No walk from tags is needed: every manifest that is stored keeps what it names, tagged or not.
//!
//! Cost: one pass over all manifests, however many blobs are candidates; memory: the candidates and one page.
//!
//! **Why pages suffice.** No view is held for the whole scan (decision 10), so each page shows a later state than the one
//! before. Let a blob be condemned since `t` in the state in which the candidates were listed. A manifest that names it
//! and was stored all the time is on one of the pages: pages follow the order of the keys, and deleting and restoring a
//! manifest leave its body where it is. A manifest that is pushed or restored meanwhile is accepted only if its
//! repository links the blob; a link ends the condemnation, and then `DeleteBlobs`, which names `t`, is refused at
//! apply. A body that goes away meanwhile needs nothing any more. So what no page names, nothing needs when the delete
//! is applied.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use metadata::ids::RepositoryId;
use metadata::log::{self, MetadataLog};
use metadata::query::{self, ManifestBody};
use metadata::view::ViewError;
use oci::{Digest, Manifest, ParseError};

use super::GcError;

/// Manifests read from one view.
const PAGE_MANIFESTS: usize = 256;

/// Bytes of bodies read from one view: with the largest manifest on top, what a scan holds in memory.
const PAGE_BYTES: usize = 2 << 20;

/// What the scan says of all candidates.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No manifest that exists names any of them.
    Agreed {
        /// Those that a deleted manifest names, which can still be restored: they have to wait.
        held: BTreeSet<Digest>,
    },
    /// The indexes are wrong.
    Disagreed {
        /// For people.
        reason: String,
    },
}

/// Scans all manifests for `candidates`, at half speed: as long as it works it rests. Counts them in `scanned`.
pub(crate) async fn verify(
    log: &Arc<dyn MetadataLog>,
    candidates: HashSet<Digest>,
    scanned: &AtomicU64,
) -> Result<Verdict, GcError> {
    let candidates = Arc::new(candidates);
    let mut held = BTreeSet::new();
    let mut after = None;
    loop {
        let started = Instant::now();
        let (log, wanted) = (log.clone(), candidates.clone());
        let page = move || look_at_page(&*log, &wanted, after);
        let page = tokio::task::spawn_blocking(page).await;
        let page = page.map_err(|_| GcError::Stopping)??;
        scanned.fetch_add(page.manifests, Ordering::Relaxed);
        held.extend(page.held);
        if let Some(reason) = page.disagreement {
            return Ok(Verdict::Disagreed { reason });
        }
        after = page.last;
        if after.is_none() {
            return Ok(Verdict::Agreed { held });
        }
        tokio::time::sleep(started.elapsed()).await;
    }
}

/// The manifest a page ended with.
type Position = (RepositoryId, Digest);

/// What one page says.
#[derive(Default)]
struct Page {
    manifests: u64,
    held: Vec<Digest>,
    disagreement: Option<String>,
    /// Where the next one goes on; `None` after the last.
    last: Option<Position>,
}

fn look_at_page(
    log: &dyn MetadataLog,
    candidates: &HashSet<Digest>,
    after: Option<Position>,
) -> Result<Page, ViewError> {
    let bodies = log::read(log, |view| {
        query::manifest_bodies(view, after, PAGE_MANIFESTS, PAGE_BYTES)
    })?;
    let mut page = Page {
        manifests: bodies.len() as u64,
        last: bodies.last().map(|last| (last.repository, last.digest)),
        ..Page::default()
    };
    for stored in &bodies {
        let named = match blobs_of(stored) {
            Ok(named) => named,
            Err(error) => {
                // It was readable when it was pushed. What it needs is unknown now, so nothing may go.
                let reason = format!("cannot be read ({error}), so what it needs is unknown");
                page.disagreement = Some(complaint(log, stored, &reason)?);
                break;
            }
        };
        let needed: Vec<Digest> = named
            .into_iter()
            .filter(|digest| candidates.contains(digest))
            .collect();
        match needed.first() {
            Some(digest) if !stored.is_deleted => {
                let reason = format!("names blob {digest}, which is condemned");
                page.disagreement = Some(complaint(log, stored, &reason)?);
                break;
            }
            _ => page.held.extend(needed),
        }
    }
    Ok(page)
}

/// The blobs a body names, by nothing but the body. Child manifests are not among them: their content is no blob.
fn blobs_of(stored: &ManifestBody) -> Result<Vec<Digest>, ParseError> {
    let manifest = Manifest::parse(stored.media_type.as_ref(), &stored.body)?;
    Ok(manifest.blobs().map(|blob| blob.digest).collect())
}

fn complaint(
    log: &dyn MetadataLog,
    stored: &ManifestBody,
    reason: &str,
) -> Result<String, ViewError> {
    let name = log::read(log, |view| query::repository_name(view, stored.repository))?;
    let repository = name.map_or_else(
        || format!("repository {}", stored.repository),
        |name| name.to_string(),
    );
    Ok(format!(
        "manifest {} of {repository} {reason}",
        stored.digest
    ))
}
