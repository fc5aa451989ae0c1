//! The replicated state machine, pure.
//!
//! Everything the cluster agrees on is one ordered map of bytes. A [`command::Command`], stamped into an
//! [`entry::Entry`] by the node that proposes it, is applied to that map in log order by every node alike.
//!
//! | what | where |
//! |---|---|
//! | commands, entries, answers | [`command`], [`entry`], [`response`] |
//! | the map: reading, pending writes | [`view`], [`changes`] |
//! | its keys and values | [`key`], [`record`] |
//! | commands at work | [`apply`] |
//! | questions services ask | [`query`] |
//! | bytes on disk and on the wire | [`codec`] |
//! | what must always hold | [`invariants`], [`fingerprint`] |
//! | the seam to consensus | [`log`]; in memory for tests: [`memory`] |
//!
//! **Promises**: the same entries give the same bytes on every node, whether applied one by one, in batches, or
//! twice. A rejected command changes nothing but the memory of its answer. State that cannot be decoded, and
//! commands this binary does not know, are errors that stop the node, never skipped.
//!
//! **Must not know** a clock, randomness, threads, an async runtime, the network, a database, or the content of
//! a manifest: the proposer parses, `apply` never does.

pub mod apply;
pub mod changes;
pub mod codec;
pub mod command;
pub mod entry;
pub mod fingerprint;
pub mod ids;
pub mod invariants;
pub mod key;
pub mod log;
pub mod memory;
pub mod query;
pub mod record;
pub mod response;
mod scan;
#[cfg(test)]
mod testing;
pub mod view;
