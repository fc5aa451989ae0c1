//! One hash over the whole state: equal at equal index on all nodes (invariant I5).

use std::fmt;
use std::ops::ControlFlow;

use sha2::{Digest as _, Sha256};

use crate::view::{MetadataView, ViewError};

/// SHA-256 over every key and value in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hashes the whole state: linear in its size, for audits and tests.
///
/// # Errors
/// [`ViewError`].
pub fn fingerprint(view: &dyn MetadataView) -> Result<Fingerprint, ViewError> {
    let mut hasher = Sha256::new();
    view.scan(&[], None, &mut |key, value| {
        // Lengths first, or moving a byte from a value to its key would go unseen.
        hasher.update((key.len() as u64).to_be_bytes());
        hasher.update(key);
        hasher.update((value.len() as u64).to_be_bytes());
        hasher.update(value);
        ControlFlow::Continue(())
    })?;
    Ok(Fingerprint(hasher.finalize().into()))
}
