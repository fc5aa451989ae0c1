//! What this crate needs to know of the replicated state.

use metadata::ids::NodeId;
use metadata::query;
use metadata::record::{ClusterRecord, NodeRecord};
use metadata::view::ViewError;
use storage::state::StateStore;

/// What is true for the whole cluster; `None` before `InitializeCluster` is applied here.
pub(crate) fn cluster(state: &dyn StateStore) -> Result<Option<ClusterRecord>, ViewError> {
    let mut found = None;
    state.read(&mut |view| {
        found = query::cluster(view)?;
        Ok(())
    })?;
    Ok(found)
}

/// What is registered for `node`.
pub(crate) fn registered(
    state: &dyn StateStore,
    node: NodeId,
) -> Result<Option<NodeRecord>, ViewError> {
    let mut found = None;
    state.read(&mut |view| {
        found = query::node(view, node)?;
        Ok(())
    })?;
    Ok(found)
}

/// Whether `node` is gone for good.
pub(crate) fn is_removed(state: &dyn StateStore, node: NodeId) -> Result<bool, ViewError> {
    let mut removed = false;
    state.read(&mut |view| {
        removed = query::is_removed(view, node)?;
        Ok(())
    })?;
    Ok(removed)
}

/// How many ticks are applied here.
pub(crate) fn tick_sequence(state: &dyn StateStore) -> Result<u64, ViewError> {
    let mut sequence = 0;
    state.read(&mut |view| {
        (_, sequence) = query::time(view)?;
        Ok(())
    })?;
    Ok(sequence)
}

/// Everything that is registered.
pub(crate) fn nodes(state: &dyn StateStore) -> Result<Vec<NodeRecord>, ViewError> {
    let mut found = Vec::new();
    state.read(&mut |view| {
        found = query::nodes(view)?;
        Ok(())
    })?;
    Ok(found)
}
