//! One Argosy node.
//!
//! This crate is the only one that knows all floors: it reads the configuration, constructs the floors bottom up
//! ([`assemble`]) and puts the fronts (`http`, `grpc`) on top. It promises that a node which cannot keep its
//! promises does not start, and that stopping loses nothing acknowledged. It must not decide anything a registry
//! decides: fronts translate.

pub mod assemble;
mod carried;
pub mod config;
mod descriptors;
mod floors;
pub mod fsck;
pub mod grpc;
pub mod http;
mod metrics;
pub mod readiness;
pub mod recover;
pub mod remedy;
mod scoped;
pub mod telemetry;
