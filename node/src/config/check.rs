//! What makes a configuration valid.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::{Config, RawConfig, heal};

/// Largest `limits.manifest_max_bytes`: a manifest must fit one log entry and one gRPC message.
const MANIFEST_CEILING_BYTES: u64 = 8 << 20;

/// Largest `raft.tick_ms`: more than that is not counted of one tick, so log time would fall behind.
const LONGEST_TICK_MS: u64 = metadata::apply::MAX_TICK_MS;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what is expected; the message names line and column.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// An environment variable or flag does not fit.
    #[error("{origin}: {message}")]
    Override {
        /// The variable or flag.
        origin: String,
        /// What is wrong.
        message: String,
    },
    /// A value is out of bounds or contradicts another.
    #[error("{section}.{key}: {message}")]
    Invalid {
        /// Section.
        section: &'static str,
        /// Key.
        key: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
}

pub(super) fn invalid<T>(
    section: &'static str,
    key: &'static str,
    message: impl Into<String>,
) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid {
        section,
        key,
        message: message.into(),
    })
}

impl TryFrom<RawConfig> for Config {
    type Error = ConfigError;

    fn try_from(raw: RawConfig) -> Result<Config, ConfigError> {
        let members = check_members(&raw)?;
        let (copies, write_copies) = check_copies(&raw, members)?;
        check_raft(&raw)?;
        check_limits(&raw)?;
        let gc = raw.gc.check()?;
        let heal = heal::check(&raw.repair, &raw.scrub)?;
        let http_advertise = advertise("http", &raw.http.listen, &raw.http.advertise)?;
        let grpc_advertise = advertise("grpc", &raw.grpc.listen, &raw.grpc.advertise)?;
        Ok(Config {
            raw,
            gc,
            copies,
            write_copies,
            heal,
            http_advertise,
            grpc_advertise,
        })
    }
}

/// The number of members, after checking that ids and addresses are distinct and this node is one of them.
fn check_members(raw: &RawConfig) -> Result<u32, ConfigError> {
    if raw.node.id == 0 {
        return invalid("node", "id", "node numbers start at 1");
    }
    let members = &raw.cluster.members;
    if members.is_empty() {
        return Ok(1);
    }
    let ids: BTreeSet<u64> = members.iter().map(|member| member.id).collect();
    let addresses: BTreeSet<&str> = members.iter().map(|member| member.grpc.as_str()).collect();
    if ids.contains(&0) {
        return invalid("cluster", "members", "node numbers start at 1");
    }
    if ids.len() != members.len() {
        return invalid("cluster", "members", "two members have the same id");
    }
    if addresses.len() != members.len() {
        return invalid(
            "cluster",
            "members",
            "two members have the same gRPC address",
        );
    }
    if !ids.contains(&raw.node.id) {
        return invalid(
            "cluster",
            "members",
            format!("node.id {} is not among them", raw.node.id),
        );
    }
    for member in members {
        if !is_host_and_port(&member.grpc) {
            return invalid(
                "cluster",
                "members",
                format!("{:?} is not host:port", member.grpc),
            );
        }
    }
    u32::try_from(members.len()).or_else(|_| invalid("cluster", "members", "too many"))
}

/// R and W by the rule of protocols.md section 0: f+1 <= W <= R <= N and W <= N-f.
fn check_copies(raw: &RawConfig, nodes: u32) -> Result<(u32, u32), ConfigError> {
    let section = &raw.replication;
    let losses = (nodes - 1) / 2;
    let write_copies = if section.write_copies == 0 {
        losses + 1
    } else {
        section.write_copies
    };
    let copies = if section.copies == 0 {
        nodes.min(write_copies.max(3))
    } else {
        section.copies
    };
    if copies > nodes {
        return invalid(
            "replication",
            "copies",
            format!("{copies} copies need {copies} nodes, there are {nodes}"),
        );
    }
    if write_copies > copies {
        return invalid(
            "replication",
            "write_copies",
            format!("{write_copies} is more than the {copies} copies"),
        );
    }
    if section.allow_weak_durability {
        return Ok((copies, write_copies));
    }
    if write_copies <= losses {
        let message = format!(
            "{write_copies} copies do not survive the {losses} lost nodes that consensus survives; \
             use at least {}, or set replication.allow_weak_durability = true",
            losses + 1
        );
        return invalid("replication", "write_copies", message);
    }
    if write_copies > nodes - losses {
        let message = format!(
            "{write_copies} copies cannot be made with {losses} of {nodes} nodes down; use at most {}",
            nodes - losses
        );
        return invalid("replication", "write_copies", message);
    }
    Ok((copies, write_copies))
}

fn check_raft(raw: &RawConfig) -> Result<(), ConfigError> {
    let raft = &raw.raft;
    if raft.heartbeat_ms == 0 {
        return invalid("raft", "heartbeat_ms", "must be at least 1");
    }
    if raft.election_min_ms < raft.heartbeat_ms.saturating_mul(3) {
        return invalid(
            "raft",
            "election_min_ms",
            "must be at least three heartbeats",
        );
    }
    if raft.election_max_ms <= raft.election_min_ms {
        return invalid(
            "raft",
            "election_max_ms",
            "must be more than election_min_ms",
        );
    }
    if raft.tick_ms < 10 || raft.tick_ms > LONGEST_TICK_MS {
        return invalid(
            "raft",
            "tick_ms",
            format!("must be from 10 to {LONGEST_TICK_MS}"),
        );
    }
    if raft.sync_max_ms < 10 {
        return invalid("raft", "sync_max_ms", "must be at least 10");
    }
    if raft.snapshot_entries < 100 {
        return invalid("raft", "snapshot_entries", "must be at least 100");
    }
    Ok(())
}

fn check_limits(raw: &RawConfig) -> Result<(), ConfigError> {
    let limits = &raw.limits;
    if limits.manifest_max_bytes == 0 || limits.manifest_max_bytes > MANIFEST_CEILING_BYTES {
        return invalid(
            "limits",
            "manifest_max_bytes",
            format!("must be from 1 to {MANIFEST_CEILING_BYTES}"),
        );
    }
    if limits.page_max == 0 || limits.page_max > 10_000 {
        return invalid("limits", "page_max", "must be from 1 to 10000");
    }
    if limits.header_max_bytes < 8 * 1024 {
        return invalid("limits", "header_max_bytes", "must be at least 8192");
    }
    if raw.storage.inline_max_bytes > 256 << 10 {
        return invalid("storage", "inline_max_bytes", "must be at most 262144");
    }
    for (key, value) in [
        ("uploads_max", limits.uploads_max as u64),
        ("connections_max", limits.connections_max as u64),
        ("header_timeout_ms", limits.header_timeout_ms),
        ("request_deadline_ms", limits.request_deadline_ms),
        ("body_idle_ms", limits.body_idle_ms),
    ] {
        if value == 0 {
            return invalid("limits", key, "must be at least 1");
        }
    }
    Ok(())
}

/// The address others are told: as configured, else the listen address unless that is a wildcard.
fn advertise(section: &'static str, listen: &str, advertise: &str) -> Result<String, ConfigError> {
    if !is_host_and_port(listen) {
        return invalid(section, "listen", format!("{listen:?} is not address:port"));
    }
    if !advertise.is_empty() {
        if !is_host_and_port(advertise) {
            return invalid(
                section,
                "advertise",
                format!("{advertise:?} is not host:port"),
            );
        }
        return Ok(advertise.to_owned());
    }
    match listen.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => {
            Ok(SocketAddr::new(local_ip(address.ip()), address.port()).to_string())
        }
        _ => Ok(listen.to_owned()),
    }
}

/// A wildcard cannot be told to others: a cluster over several machines must set `advertise`.
fn local_ip(wildcard: IpAddr) -> IpAddr {
    match wildcard {
        IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    }
}

fn is_host_and_port(text: &str) -> bool {
    match text.rsplit_once(':') {
        Some((host, port)) => !host.is_empty() && port.parse::<u16>().is_ok(),
        None => false,
    }
}
