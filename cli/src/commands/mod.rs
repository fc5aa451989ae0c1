//! One verb family in each file.

pub(crate) mod check;
pub(crate) mod gc;
pub(crate) mod init;
pub(crate) mod manifest;
pub(crate) mod member;
pub(crate) mod repair;
pub(crate) mod scrub;
pub(crate) mod status;
pub(crate) mod tag;
