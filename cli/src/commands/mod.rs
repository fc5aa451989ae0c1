//! One verb family in each file.

pub(crate) mod check;
mod explain;
pub(crate) mod gc;
pub(crate) mod help;
pub(crate) mod init;
pub(crate) mod leader;
pub(crate) mod manifest;
pub(crate) mod member;
mod removal;
pub(crate) mod repair;
pub(crate) mod scrub;
pub(crate) mod status;
pub(crate) mod tag;
