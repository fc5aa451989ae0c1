//! Comparing the directory with the state (protocols.md section 7, anti-entropy): names and lengths, no bytes.

use std::sync::Arc;

use metadata::query;
use oci::Digest;
use storage::blob::BlobStat;

use crate::error::not_stored;
use crate::{Registry, Result};

/// Placements compared at once.
const PAGE: usize = 512;

/// Extra copies listed with a page; the unlink rule is run on them.
const EXTRAS: usize = 512;

impl Registry {
    /// One comparison of everything.
    pub(crate) async fn check_copies(self: &Arc<Self>) {
        match self.compare_placements().await {
            Ok(()) => self.heal.memory().counts.checks += 1,
            Err(error) => {
                tracing::warn!(error = %error, "the copies of this node were not checked")
            }
        }
    }

    async fn compare_placements(self: &Arc<Self>) -> Result<()> {
        let me = self.log.node_id();
        let mut after: Option<Digest> = None;
        loop {
            let (expected, next) = self
                .look(|view| {
                    let page = query::blobs_of_node(view, me, after.as_ref(), PAGE)?;
                    let next = page.last().copied().filter(|_| page.len() == PAGE);
                    let mut expected = Vec::with_capacity(page.len());
                    for digest in page {
                        let blob = query::blob(view, &digest)?;
                        expected.extend(blob.map(|blob| BlobStat {
                            digest,
                            size_bytes: blob.size_bytes,
                        }));
                    }
                    Ok((expected, next))
                })?
                .value;
            let compared = self
                .blobs
                .compare(after.as_ref(), next.as_ref(), &expected, EXTRAS)
                .await
                .map_err(not_stored)?;
            for digest in compared.missing.iter().chain(&compared.wrong_size) {
                // Read again before it is believed: it may have been committed or dropped since the view.
                if let Some(inspection) = self.suspect_copy(*digest) {
                    // A panic in there is logged where it happens.
                    let _ = inspection.await;
                }
            }
            for extra in compared.extra {
                self.unlink(&extra.digest).await;
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }
}
