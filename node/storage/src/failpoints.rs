//! Named points at durable steps, where a test can make the disk fail or the process die.
//!
//! Compiled out unless the feature `failpoints` is on. Then the environment variable `FAILPOINTS` of the process says
//! what happens where, in the language of the `fail` crate: `name=action;name=action`. Actions that mean something
//! here: `return(EIO)`, `return(ENOSPC)`, `return(abort)` (the process dies on the spot, as with `kill -9`), `panic`,
//! `sleep(ms)`; with a count or a chance in front, such as `3*off->1*return(EIO)` or `5%sleep(100)`.
//! `node/docs/failpoints.md` lists the points; a test compares the list with the code.

use std::io;

/// Passes the point `name`.
///
/// # Errors
/// Only with the feature `failpoints`, when the point is set to `return(EIO)` or `return(ENOSPC)`.
#[inline]
pub fn hit(name: &'static str) -> io::Result<()> {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(name, |action| Err(injected(name, action.as_deref())));
    let _ = name;
    Ok(())
}

#[cfg(feature = "failpoints")]
fn injected(name: &'static str, action: Option<&str>) -> io::Error {
    tracing::warn!(failpoint = name, action, "a failpoint fired");
    match action {
        Some("ENOSPC") => io::ErrorKind::StorageFull.into(),
        Some("abort") => std::process::abort(),
        _ => io::Error::other(format!("failpoint {name}")),
    }
}

/// Keeps the failpoints set. They are all off when it is dropped.
pub struct Armed {
    #[cfg(feature = "failpoints")]
    _scenario: fail::FailScenario<'static>,
}

/// Sets the failpoints that `FAILPOINTS` names: once per process, at its start.
pub fn arm() -> Armed {
    Armed {
        #[cfg(feature = "failpoints")]
        _scenario: fail::FailScenario::setup(),
    }
}
