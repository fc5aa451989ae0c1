//! A data directory whose node does not run, opened to be looked at. Nothing in it is changed.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::blob::offline::OfflineBlobs;
use crate::error::StorageError;
use crate::identity::Identity;
use crate::layout;
use crate::place::{Place, Placed};
use crate::rocks::StorageOptions;
use crate::rocks::offline::{LogSummary, OfflineState, inspect_log};

/// The directory, locked as a running node would lock it.
pub struct OfflineDir {
    root: PathBuf,
    identity: Identity,
    _lock: File,
}

impl OfflineDir {
    /// Takes the lock and reads the identity.
    ///
    /// # Errors
    /// `StorageError::Refused` when a node runs on it, when it is no data directory, or when its parts do not
    /// belong together.
    pub fn open(path: &Path) -> Result<OfflineDir, StorageError> {
        let lock = layout::lock_existing(path)?;
        let identity = layout::inspect(path)?;
        Ok(OfflineDir {
            root: path.to_path_buf(),
            identity,
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Whose it is.
    pub fn node_id(&self) -> metadata::ids::NodeId {
        self.identity.node_id
    }

    /// Names the directory.
    pub fn disk_id(&self) -> &str {
        &self.identity.disk_id
    }

    /// The cluster it is bound to, once it is.
    pub fn cluster_id(&self) -> Option<&str> {
        self.identity.cluster_id.as_deref()
    }

    /// Where the directory was that this one is a copy of; `None` when it is none.
    ///
    /// # Errors
    /// The file that tells is damaged.
    pub fn copy_of(&self) -> Result<Option<PathBuf>, StorageError> {
        Ok(match Place::look(&self.root.join(layout::RAFT))? {
            Placed::Copy(original) => Some(original),
            Placed::Here | Placed::Unknown => None,
        })
    }

    /// Reads the log and compares it with its high-water mark.
    pub fn log(&self) -> Result<LogSummary, StorageError> {
        inspect_log(&self.root.join(layout::RAFT), &StorageOptions::default())
    }

    /// Opens the state.
    pub fn state(&self) -> Result<OfflineState, StorageError> {
        OfflineState::open(&self.root.join(layout::STATE), &StorageOptions::default())
    }

    /// Opens the blobs.
    pub fn blobs(&self) -> Result<OfflineBlobs, crate::error::BlobError> {
        OfflineBlobs::open(&self.root)
    }
}
