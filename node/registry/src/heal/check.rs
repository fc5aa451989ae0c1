//! Comparing the directory with the state (protocols.md section 7, anti-entropy): names and lengths, no bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metadata::query;
use oci::Digest;
use storage::blob::BlobStat;

use crate::error::not_stored;
use crate::{HealOptions, Registry, Result};

/// Placements compared at once.
const PAGE: usize = 512;

/// Extra copies listed with a page; the unlink rule is run on them.
const EXTRAS: usize = 512;

/// How long a due comparison waits for this node to be up to date. After that it waits for the next look.
const CATCH_UP_TIME: Duration = Duration::from_secs(5);

/// When the first comparison is due. Each start draws a moment of its own (`draw`, from 0 to 1), so that nodes that
/// start together do not all read their directories, and replace what they find missing, at once.
pub(super) fn first_at(options: &HealOptions, draw: f64) -> Duration {
    let first = options.check_first.mul_f64(1.0 + draw);
    first.min(options.check_interval)
}

impl Registry {
    /// Compares when it is time and this node has applied what the others have: while it lags, what they dropped or
    /// deleted meanwhile would look lost, and every such copy would be looked at for nothing.
    pub(crate) async fn check_if_due(self: &Arc<Self>) {
        if self.heal.memory().next_check > self.heal_clock() {
            return;
        }
        if let Err(error) = self.log.barrier(Instant::now() + CATCH_UP_TIME).await {
            tracing::debug!(%error, "the copies of this node are checked once it is up to date");
            return;
        }
        self.check_copies().await;
        let now = self.heal_clock();
        self.heal.memory().next_check = now + self.options.heal.check_interval;
    }

    /// One comparison of everything.
    pub(crate) async fn check_copies(self: &Arc<Self>) {
        match self.compare_placements().await {
            Ok(()) => {
                let now = self.heal_clock();
                let mut memory = self.heal.memory();
                memory.counts.checks += 1;
                memory.last_check = Some(now);
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_start_together_check_at_different_times_and_soon() {
        let options = HealOptions::default();
        let at = |draw| first_at(&options, draw).as_secs();
        assert_eq!((at(0.0), at(0.5), at(1.0)), (60, 90, 120));
        let often = HealOptions {
            check_interval: Duration::from_secs(1),
            ..options
        };
        assert_eq!(first_at(&often, 0.5).as_secs(), 1, "never later than usual");
    }
}
