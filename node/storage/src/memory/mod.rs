//! The log and the state in memory: nothing survives the process. For tests and simulation of everything above;
//! they keep the same contracts as the stores on disk.

pub mod log;
pub mod state;

pub use log::MemoryLogStore;
pub use state::MemoryStateStore;
