//! Configuration: every key, its default, and what makes it valid.
//!
//! Defaults < TOML file < environment (`ARGOSY__SECTION__KEY`) < flags. A [`Config`] that exists is valid.

mod check;
mod gc;
mod heal;
mod load;
mod sections;
#[cfg(test)]
mod tests;

pub use check::ConfigError;
pub use gc::{GcSection, Untagged};
pub use heal::{RepairSection, ScrubSection};
pub use load::{Loaded, Source, load};
pub use sections::{
    ClusterSection, GrpcSection, HttpSection, LimitsSection, LogFormat, Member, NodeSection,
    RaftSection, RawConfig, RegistrySection, ReplicationSection, StorageSection, TelemetrySection,
};

/// A checked configuration. Built only by [`load`] or [`Config::try_from`].
#[derive(Clone, Debug)]
pub struct Config {
    /// All keys, with defaults filled in.
    pub raw: RawConfig,
    /// `[gc]` as the registry wants it.
    pub gc: registry::GcOptions,
    /// R: copies a blob converges to.
    pub copies: u32,
    /// W: copies that must be durable before a push is acknowledged.
    pub write_copies: u32,
    /// `[repair]` and `[scrub]` as the registry wants them.
    pub heal: registry::HealOptions,
    /// Address other nodes and clients are told for HTTP.
    pub http_advertise: String,
    /// Address other nodes are told for gRPC.
    pub grpc_advertise: String,
}
