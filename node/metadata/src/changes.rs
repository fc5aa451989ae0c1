//! Writes of one or more entries, readable before they are committed.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use crate::ids::LogIndex;
use crate::view::{MetadataView, ViewError};

/// Key to new value, or to `None` for a removed key. Ordered, so that a batch is deterministic.
pub type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A view with uncommitted changes on top: what `apply` reads and writes.
///
/// Several entries can be applied to one overlay and committed as one batch.
pub struct Overlay<'a> {
    base: &'a dyn MetadataView,
    changes: Changes,
}

impl<'a> Overlay<'a> {
    /// An overlay without changes.
    pub fn new(base: &'a dyn MetadataView) -> Self {
        Overlay {
            base,
            changes: Changes::new(),
        }
    }

    /// Sets `key`.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.insert(key, Some(value));
    }

    /// Removes `key`.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.changes.insert(key, None);
    }

    /// The changes, to be committed as one batch.
    pub fn into_changes(self) -> Changes {
        self.changes
    }
}

impl MetadataView for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        match self.changes.get(key) {
            Some(changed) => Ok(changed.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), ViewError> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut changed = self
            .changes
            .range::<[u8], _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .peekable();
        let mut stopped = false;
        self.base.scan(prefix, after, &mut |key, value| {
            // Merge: changed keys below `key` come first, a changed `key` replaces or hides the stored one.
            while let Some((changed_key, changed_value)) =
                changed.next_if(|(next, _)| next.as_slice() < key)
            {
                if let Some(changed_value) = changed_value
                    && visit(changed_key, changed_value).is_break()
                {
                    stopped = true;
                    return ControlFlow::Break(());
                }
            }
            let flow = match changed.next_if(|(next, _)| next.as_slice() == key) {
                Some((_, Some(changed_value))) => visit(key, changed_value),
                Some((_, None)) => ControlFlow::Continue(()),
                None => visit(key, value),
            };
            stopped = flow.is_break();
            flow
        })?;
        if stopped {
            return Ok(());
        }
        for (key, value) in changed {
            if let Some(value) = value
                && visit(key, value).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    fn applied(&self) -> LogIndex {
        self.base.applied()
    }
}

#[cfg(test)]
mod tests;
