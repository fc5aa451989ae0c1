//! Named points at durable steps, where a test can make the disk fail or the process die.
//!
//! Compiled out unless the feature `failpoints` is on. Then the environment variable `FAILPOINTS` of the process, or a
//! file that `FAILPOINTS_FILE` names, says what happens where. `node/docs/failpoints.md` lists the points and the
//! actions; a test compares the list with the code.

use std::io;
use std::path::Path;

use crate::error::{BlobError, StorageError};

#[cfg(feature = "failpoints")]
mod control;

/// Passes the point `name`.
///
/// # Errors
/// Only with the feature `failpoints`, when the point is set to fail.
#[inline]
pub fn hit(name: &'static str) -> io::Result<()> {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(name, |action| control::perform(name, action.as_deref()));
    let _ = name;
    Ok(())
}

/// The same where failures are those of the blob store.
///
/// # Errors
/// As [`hit`].
#[inline]
pub fn blob_hit(name: &'static str) -> Result<(), BlobError> {
    hit(name).map_err(BlobError::io("pass", Path::new(name)))
}

/// The same where failures are those of the log and the state.
///
/// # Errors
/// As [`hit`].
#[inline]
pub fn storage_hit(name: &'static str) -> Result<(), StorageError> {
    hit(name).map_err(StorageError::io("pass", Path::new(name)))
}

/// Keeps the failpoints set. They are all off when it is dropped.
pub struct Armed {
    #[cfg(feature = "failpoints")]
    _scenario: fail::FailScenario<'static>,
}

/// Sets the failpoints that the environment names: once per process, at its start.
pub fn arm() -> Armed {
    Armed {
        #[cfg(feature = "failpoints")]
        _scenario: control::start(),
    }
}
