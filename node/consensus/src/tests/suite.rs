//! openraft's own suite over our adapters.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use storage::log::LogStore;
use storage::memory::{MemoryLogStore, MemoryStateStore};
use storage::rocks::{RocksLog, RocksState, StorageOptions};
use storage::state::StateStore;

use crate::log_store::LogAdapter;
use crate::snapshot;
use crate::state_machine::StateMachine;
use crate::types::TypeConfig;

type Stores = (Arc<dyn LogStore>, Arc<dyn StateStore>);

/// Opens fresh stores in a fresh directory.
struct Builder(fn(&std::path::Path) -> Stores);

fn rocks(directory: &std::path::Path) -> Stores {
    let options = StorageOptions::default();
    for store in ["log", "state"] {
        std::fs::create_dir_all(directory.join(store)).unwrap();
    }
    let log = RocksLog::open(&directory.join("log"), &options).unwrap();
    let state = RocksState::open(&directory.join("state"), &options).unwrap();
    (Arc::new(log), Arc::new(state))
}

fn memory(_: &std::path::Path) -> Stores {
    (
        Arc::new(MemoryLogStore::new()),
        Arc::new(MemoryStateStore::new()),
    )
}

impl StoreBuilder<TypeConfig, LogAdapter, StateMachine, tempfile::TempDir> for Builder {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, LogAdapter, StateMachine), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().unwrap();
        let received = directory.path().join("received");
        snapshot::prepare_directory(&received).unwrap();
        let (log, state) = self.0(directory.path());
        let machine = StateMachine::new(state.clone(), received).unwrap();
        Ok((directory, LogAdapter::new(log, state), machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openraft_suite_on_disk() {
    Suite::test_all(Builder(rocks)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn openraft_suite_in_memory() {
    Suite::test_all(Builder(memory)).await.unwrap();
}
