//! Reading the replicated state.

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
