//! The applied state in memory.

use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use metadata::changes::Changes;
use metadata::memory::MemoryView;
use metadata::view::{MetadataView, ViewError};

use crate::error::StorageError;
use crate::snapshot_stream::{SnapshotReader, SnapshotWriter};
use crate::state::{Applied, StateCheckpoint, StateStore};

/// An ordered map. Readers keep the one they started with; a commit copies it when somebody reads it.
#[derive(Default)]
pub struct MemoryStateStore {
    current: RwLock<Arc<Contents>>,
    /// Held while the state changes: a commit during an install would be lost.
    writer: Mutex<()>,
}

#[derive(Clone, Default)]
struct Contents {
    view: MemoryView,
    applied: Applied,
}

impl MemoryStateStore {
    /// The empty state.
    pub fn new() -> MemoryStateStore {
        MemoryStateStore::default()
    }

    fn contents(&self) -> Arc<Contents> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl StateStore for MemoryStateStore {
    fn applied(&self) -> Result<Applied, StorageError> {
        Ok(self.contents().applied.clone())
    }

    fn read(
        &self,
        reader: &mut dyn FnMut(&dyn MetadataView) -> Result<(), ViewError>,
    ) -> Result<(), ViewError> {
        reader(&self.contents().view)
    }

    fn commit(&self, changes: Changes, applied: Applied) -> Result<(), StorageError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let contents = Arc::make_mut(&mut current);
        contents.view.commit(changes, applied.index);
        contents.applied = applied;
        Ok(())
    }

    fn flush(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn checkpoint(&self) -> Result<Box<dyn StateCheckpoint>, StorageError> {
        Ok(Box::new(MemoryCheckpoint(self.contents())))
    }

    fn install(&self, source: &mut dyn Read) -> Result<Applied, StorageError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reader = SnapshotReader::new(source)?;
        let mut changes = Changes::new();
        while reader.next_frame(&mut |key, value| {
            changes.insert(key.to_vec(), Some(value.to_vec()));
        })? {}
        let applied = reader.applied().clone();
        let mut view = MemoryView::new();
        view.commit(changes, applied.index);
        let contents = Contents {
            view,
            applied: applied.clone(),
        };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(contents);
        Ok(applied)
    }
}

struct MemoryCheckpoint(Arc<Contents>);

impl StateCheckpoint for MemoryCheckpoint {
    fn applied(&self) -> &Applied {
        &self.0.applied
    }

    fn export(&self, sink: &mut dyn Write) -> Result<(), StorageError> {
        let mut writer = SnapshotWriter::new(sink, &self.0.applied)?;
        let mut outcome = Ok(());
        let visited = self.0.view.scan(b"", None, &mut |key, value| {
            outcome = writer.record(key, value);
            if outcome.is_ok() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        visited.map_err(StorageError::database("read the state"))?;
        outcome?;
        writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_contract() {
        crate::contract::state::suite(|| Arc::new(MemoryStateStore::new()));
    }
}
