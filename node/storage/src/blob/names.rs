//! Which upload names are in use in this process.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::BlobError;

/// Two writers of one file would mix their bytes: a name is given out once at a time.
#[derive(Clone, Default)]
pub(super) struct Names(Arc<Mutex<HashSet<String>>>);

impl Names {
    /// Whether nobody uses a name at this moment.
    pub(super) fn is_free(&self, name: &str) -> bool {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !names.contains(name)
    }

    /// Takes a name until the claim is dropped.
    pub(super) fn claim(&self, name: &str) -> Result<NameClaim, BlobError> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.insert(name.to_owned()) {
            Ok(NameClaim {
                names: self.clone(),
                name: name.to_owned(),
            })
        } else {
            Err(BlobError::InUse {
                name: name.to_owned(),
            })
        }
    }
}

/// A name in use. Lives as long as anything may still write under it, a dropped upload's last batch included.
pub(super) struct NameClaim {
    names: Names,
    name: String,
}

impl Drop for NameClaim {
    fn drop(&mut self) {
        self.names
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.name);
    }
}
