//! The state that one request has seen, for answers that are refusals, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metadata::ids::LogIndex;

/// Shared by everything that works for one request. Clones note in the same place.
#[derive(Clone, Debug, Default)]
pub struct SeenState(Arc<AtomicU64>);

impl SeenState {
    /// The newest state that was looked at, or made: what decided the answer, as looks of one node never go back.
    /// `None` while none was: the first entry of a log has index 1.
    pub fn revision(&self) -> Option<LogIndex> {
        let newest = self.0.load(Ordering::Acquire);
        (newest > 0).then_some(LogIndex(newest))
    }

    pub(crate) fn note(&self, revision: LogIndex) {
        self.0.fetch_max(revision.0, Ordering::AcqRel);
    }
}
