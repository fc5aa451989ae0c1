//! The Raft log in memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::error::StorageError;
use crate::log::{LogEnds, LogStore, Synced};

/// A log that is "durable" at once: callbacks run before `append` returns, on the caller's thread.
/// They must not append themselves.
#[derive(Default)]
pub struct MemoryLogStore {
    /// Held through a callback, so that callbacks come in the order of the calls.
    appending: Mutex<()>,
    contents: Mutex<Contents>,
}

#[derive(Default)]
struct Contents {
    purged: Option<(u64, Bytes)>,
    entries: BTreeMap<u64, Bytes>,
    hard_state: BTreeMap<String, Bytes>,
}

impl MemoryLogStore {
    /// An empty log.
    pub fn new() -> MemoryLogStore {
        MemoryLogStore::default()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    /// The index that continues the log; `None` when any does.
    fn next(&self) -> Option<u64> {
        let purged = self.purged.as_ref().map(|(index, _)| index);
        let last = self
            .entries
            .last_key_value()
            .map(|(index, _)| index)
            .or(purged);
        last.map(|index| index + 1)
    }

    fn append(&mut self, entries: Vec<(u64, Bytes)>) -> Result<(), StorageError> {
        let mut next = self.next();
        for (index, _) in &entries {
            let expected = next.unwrap_or(*index);
            if *index != expected {
                return Err(StorageError::NotNext {
                    expected,
                    found: *index,
                });
            }
            next = Some(index + 1);
        }
        self.entries.extend(entries);
        Ok(())
    }
}

impl LogStore for MemoryLogStore {
    fn ends(&self) -> Result<LogEnds, StorageError> {
        let contents = self.contents();
        let last = contents
            .entries
            .last_key_value()
            .map(|(index, entry)| (*index, entry.clone()));
        Ok(LogEnds {
            purged: contents.purged.clone(),
            last,
        })
    }

    fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<(u64, Bytes)>, StorageError> {
        let mut found: Vec<(u64, Bytes)> = Vec::new();
        let mut found_bytes: usize = 0;
        if range.is_empty() {
            return Ok(found);
        }
        for (index, entry) in self.contents().entries.range(range) {
            found_bytes = found_bytes.saturating_add(entry.len());
            if found_bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push((*index, entry.clone()));
        }
        Ok(found)
    }

    fn append(&self, entries: Vec<(u64, Bytes)>, synced: Synced) -> Result<(), StorageError> {
        let _appending = self
            .appending
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.contents().append(entries)?;
        synced(Ok(()));
        Ok(())
    }

    fn truncate_from(&self, index: u64) -> Result<(), StorageError> {
        self.contents().entries.split_off(&index);
        Ok(())
    }

    fn purge_through(&self, index: u64, marker: Bytes) -> Result<(), StorageError> {
        let mut contents = self.contents();
        if contents
            .purged
            .as_ref()
            .is_some_and(|(purged, _)| *purged >= index)
        {
            return Ok(());
        }
        if let Some((first, _)) = contents.entries.first_key_value()
            && index + 1 < *first
        {
            return Err(StorageError::NotNext {
                expected: *first,
                found: index + 1,
            });
        }
        contents.entries = contents.entries.split_off(&(index + 1));
        contents.purged = Some((index, marker));
        Ok(())
    }

    fn hard_state(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        Ok(self.contents().hard_state.get(name).cloned())
    }

    fn sync_age(&self) -> Duration {
        Duration::ZERO
    }

    fn set_hard_state(&self, name: &str, value: Bytes, _sync: bool) -> Result<(), StorageError> {
        self.contents().hard_state.insert(name.to_owned(), value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn keeps_the_contract() {
        crate::contract::log::suite(|| Arc::new(MemoryLogStore::new()));
    }
}
