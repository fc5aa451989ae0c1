//! Tasks and time.
//!
//! Promises: a task that was spawned through a [`Shutdown`] is either finished when the door closes or named in
//! the log; every wait between two tries of the same thing is jittered and bounded; a test can hold the clock
//! still.
//!
//! This crate must not know: what the tasks do, the OCI vocabulary, the wire schema, or any other crate of the
//! workspace.

mod backoff;
mod clients;
mod clock;
mod pacer;
mod request_scope;
mod shutdown;

pub use backoff::Backoff;
pub use clients::{Clients, Visit};
pub use clock::{Clock, ManualClock};
pub use pacer::Pacer;
pub use request_scope::{REQUEST_ID_HEADER, RequestScope};
pub use shutdown::{Shutdown, StillInside};
