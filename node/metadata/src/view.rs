//! Reading the replicated state.

use std::cell::Cell;
use std::ops::ControlFlow;

use crate::ids::LogIndex;

/// A read failed below the state machine. Fatal for whoever applies, 500 for whoever serves.
#[derive(Debug, thiserror::Error)]
#[error("reading the replicated state: {0}")]
pub struct ViewError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// An ordered map of the whole state at one log index.
///
/// Two implementations: memory (`BTreeMap`) and RocksDB. Keys are laid out in [`crate::key`].
pub trait MetadataView {
    /// The value at `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError>;

    /// Visits the keys that start with `prefix` in ascending order, strictly after `after` when given
    /// (a full key), until the visitor breaks.
    // An alias would hide what a visitor gets, and tie two lifetimes that need not be one.
    #[allow(clippy::type_complexity)]
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), ViewError>;

    /// The log index this view shows.
    fn applied(&self) -> LogIndex;
}

/// A view whose reads fail once `is_stopped` says so: for reads of the whole state that somebody may stop waiting for.
pub struct Stoppable<'v> {
    /// What is read.
    pub view: &'v dyn MetadataView,
    /// Asked before every read and for every key of a scan.
    pub is_stopped: &'v dyn Fn() -> bool,
}

/// Why reads of a [`Stoppable`] fail.
#[derive(Debug, thiserror::Error)]
#[error("nobody waits for it any more, or the node stops")]
pub struct Stopped;

impl Stoppable<'_> {
    fn go_on(&self) -> Result<(), ViewError> {
        if (self.is_stopped)() {
            return Err(ViewError(Box::new(Stopped)));
        }
        Ok(())
    }
}

impl MetadataView for Stoppable<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        self.go_on()?;
        self.view.get(key)
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), ViewError> {
        let mut going_on = self.go_on();
        if going_on.is_ok() {
            self.view.scan(prefix, after, &mut |key, value| {
                going_on = self.go_on();
                match going_on {
                    Ok(()) => visit(key, value),
                    Err(_) => ControlFlow::Break(()),
                }
            })?;
        }
        going_on
    }

    fn applied(&self) -> LogIndex {
        self.view.applied()
    }
}

/// A view that counts what is read of it, for tests and measurements of cost.
pub struct Counted<'v> {
    view: &'v dyn MetadataView,
    reads: Cell<u64>,
}

impl<'v> Counted<'v> {
    /// Nothing is counted yet.
    pub fn new(view: &'v dyn MetadataView) -> Counted<'v> {
        Counted {
            view,
            reads: Cell::new(0),
        }
    }

    /// Lookups, scans, and keys that scans passed.
    pub fn reads(&self) -> u64 {
        self.reads.get()
    }

    fn count(&self) {
        self.reads.set(self.reads.get() + 1);
    }
}

impl MetadataView for Counted<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        self.count();
        self.view.get(key)
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), ViewError> {
        self.count();
        self.view.scan(prefix, after, &mut |key, value| {
            self.count();
            visit(key, value)
        })
    }

    fn applied(&self) -> LogIndex {
        self.view.applied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryView;

    /// The keys that a scan of four sees when somebody stops waiting after `asked` looks.
    fn seen(asked: usize) -> (usize, bool) {
        let mut memory = MemoryView::new();
        let changes = (0..4u8).map(|key| (vec![key], Some(vec![key])));
        memory.commit(changes.collect(), LogIndex(7));
        let looks = Cell::new(0);
        let view = Stoppable {
            view: &memory,
            is_stopped: &|| looks.replace(looks.get() + 1) >= asked,
        };
        let mut seen = 0;
        let scanned = view.scan(&[], None, &mut |_, _| {
            seen += 1;
            ControlFlow::Continue(())
        });
        assert_eq!(view.get(&[1]).is_ok(), asked > looks.get() - 1);
        (seen, scanned.is_ok())
    }

    #[test]
    fn a_stopped_read_fails_and_never_looks_like_a_short_one() {
        assert_eq!(seen(usize::MAX), (4, true));
        assert_eq!(seen(0), (0, false));
        assert_eq!(seen(1), (0, false));
        assert_eq!(seen(3), (2, false));
        // Only the read behind the scan.
        assert_eq!(seen(5), (4, true));
    }
}
