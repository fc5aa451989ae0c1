//! What the traits of this crate promise, as suites that every implementation passes.

#[cfg(test)]
pub(crate) mod blob;
pub mod log;
pub mod state;
