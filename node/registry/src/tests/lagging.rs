//! A node that lags.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_trait::async_trait;
use metadata::command::Command;
use metadata::ids::{LogIndex, NodeId};
use metadata::log::{LogError, MetadataLog};
use metadata::memory::{MemoryLog, MemoryView};
use metadata::response::Outcome;
use metadata::view::{MetadataView, ViewError};

/// A log whose node has stopped applying; it catches up when something waits for it.
pub(super) struct LaggingLog {
    inner: MemoryLog,
    frozen: Mutex<Option<MemoryView>>,
    pub(super) barriers: AtomicU64,
}

impl LaggingLog {
    pub(super) fn new(inner: MemoryLog) -> Arc<LaggingLog> {
        Arc::new(LaggingLog {
            inner,
            frozen: Mutex::default(),
            barriers: AtomicU64::new(0),
        })
    }

    pub(super) fn freeze(&self) {
        *self.frozen.lock().unwrap() = Some(self.inner.snapshot());
    }

    /// The node applies everything again.
    pub(super) fn thaw(&self) {
        self.catch_up();
    }

    fn catch_up(&self) {
        *self.frozen.lock().unwrap() = None;
    }
}

#[async_trait]
impl MetadataLog for LaggingLog {
    async fn propose(
        &self,
        command: Command,
        subject: &str,
        deadline: Instant,
    ) -> std::result::Result<Outcome, LogError> {
        self.catch_up();
        self.inner.propose(command, subject, deadline).await
    }

    async fn barrier(&self, deadline: Instant) -> std::result::Result<LogIndex, LogError> {
        self.barriers.fetch_add(1, Ordering::Relaxed);
        let index = self.inner.barrier(deadline).await?;
        self.catch_up();
        Ok(index)
    }

    async fn wait_applied(
        &self,
        index: LogIndex,
        deadline: Instant,
    ) -> std::result::Result<(), LogError> {
        self.inner.wait_applied(index, deadline).await?;
        self.catch_up();
        Ok(())
    }

    fn read(
        &self,
        reader: &mut dyn FnMut(&dyn MetadataView) -> std::result::Result<(), ViewError>,
    ) -> std::result::Result<(), ViewError> {
        match &*self.frozen.lock().unwrap() {
            Some(view) => reader(view),
            None => self.inner.read(reader),
        }
    }

    fn node_id(&self) -> NodeId {
        self.inner.node_id()
    }

    fn is_leader(&self) -> bool {
        self.inner.is_leader()
    }
}
