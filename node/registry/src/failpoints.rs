//! Failpoints between the durable steps of a request; see `node/docs/failpoints.md`.

use crate::Result;
use crate::error::not_stored;

/// Passes the point `name`.
#[inline]
pub(crate) fn hit(name: &'static str) -> Result<()> {
    storage::failpoints::blob_hit(name).map_err(not_stored)
}
