//! One verb family in each file.

pub(crate) mod check;
pub(crate) mod init;
pub(crate) mod member;
pub(crate) mod status;
