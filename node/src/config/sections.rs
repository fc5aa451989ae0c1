//! The keys, section by section. `deploy/config.example.toml` shows each of them; a test holds the two together.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::gc::GcSection;
use super::heal::{RepairSection, ScrubSection};

/// The file as written, defaults filled in.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// This node.
    pub node: NodeSection,
    /// The front that clients speak to.
    pub http: HttpSection,
    /// The services that other nodes and `clusterctl` speak to.
    pub grpc: GrpcSection,
    /// Who belongs to the cluster when it starts for the first time.
    pub cluster: ClusterSection,
    /// Consensus.
    pub raft: RaftSection,
    /// Disk.
    pub storage: StorageSection,
    /// Copies of blobs.
    pub replication: ReplicationSection,
    /// Missing copies, and copies too many.
    pub repair: RepairSection,
    /// Reading stored bytes again.
    pub scrub: ScrubSection,
    /// What the registry allows.
    pub registry: RegistrySection,
    /// Garbage collection.
    pub gc: GcSection,
    /// Bounds.
    pub limits: LimitsSection,
    /// Logs.
    pub telemetry: TelemetrySection,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSection {
    /// Number of this node in its cluster, from 1. Never give a number to another disk.
    pub id: u64,
    /// Everything this node stores.
    pub data_dir: PathBuf,
}

impl Default for NodeSection {
    fn default() -> Self {
        NodeSection {
            id: 1,
            data_dir: PathBuf::from("argosy-data"),
        }
    }
}

/// `[http]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSection {
    /// Address and port to listen on.
    pub listen: String,
    /// `host:port` told to others; empty: the listen address, or the host name when that is a wildcard.
    pub advertise: String,
}

impl Default for HttpSection {
    fn default() -> Self {
        HttpSection {
            listen: "0.0.0.0:5000".into(),
            advertise: String::new(),
        }
    }
}

/// `[grpc]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcSection {
    /// Address and port to listen on.
    pub listen: String,
    /// `host:port` told to other nodes; empty: the listen address.
    pub advertise: String,
}

impl Default for GrpcSection {
    fn default() -> Self {
        GrpcSection {
            listen: "127.0.0.1:5100".into(),
            advertise: String::new(),
        }
    }
}

/// `[cluster]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSection {
    /// The first members. Empty: this node is a cluster of one. Once the cluster exists, only the addresses count:
    /// this node reaches the others there, whatever they advertise.
    pub members: Vec<Member>,
    /// Wait for `clusterctl init` (or for being added) instead of starting the cluster from `members`.
    pub wait_for_init: bool,
}

/// One entry of `cluster.members`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its `node.id`.
    pub id: u64,
    /// Its gRPC address, `host:port`.
    pub grpc: String,
}

/// `[raft]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaftSection {
    /// The leader is heard at least this often.
    pub heartbeat_ms: u64,
    /// A follower that hears nothing for a random time from here …
    pub election_min_ms: u64,
    /// … to here calls an election.
    pub election_max_ms: u64,
    /// Log entries between two state snapshots.
    pub snapshot_entries: u64,
    /// Log entries kept behind a snapshot, so that a short absence needs no snapshot.
    pub keep_entries: u64,
    /// A node whose applied index is further behind is not ready.
    pub ready_lag_entries: u64,
    /// A node whose log takes longer to sync is not ready and gives leadership away: its disk hangs.
    pub sync_max_ms: u64,
    /// Between two ticks of log time, by which everything expires.
    pub tick_ms: u64,
}

impl Default for RaftSection {
    fn default() -> Self {
        RaftSection {
            heartbeat_ms: 200,
            election_min_ms: 800,
            election_max_ms: 1_600,
            snapshot_entries: 20_000,
            keep_entries: 2_000,
            ready_lag_entries: 1_000,
            sync_max_ms: 3_000,
            tick_ms: 10_000,
        }
    }
}

/// `[storage]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageSection {
    /// Blobs up to this size live in the local index instead of a file each.
    pub inline_max_bytes: u64,
    /// Bytes of unfinished small uploads in memory, all together; beyond it they go to files.
    pub inline_memory_bytes: u64,
    /// Uploads are refused when less space than this is free; 0: 256 MiB or 1 %, whichever is smaller.
    pub min_free_bytes: u64,
    /// Put aside in the Raft directory, and given up when the disk is full, so that deletes still work; 0: none.
    pub reserve_bytes: u64,
    /// How long the files of deleted blobs stay in the trash; 0: no trash.
    pub trash_ttl_ms: u64,
    /// Most that the trash holds.
    pub trash_max_bytes: u64,
    /// Most that damaged copies may take in quarantine.
    pub quarantine_max_bytes: u64,
    /// Block cache of the replicated state.
    pub state_cache_bytes: u64,
}

impl Default for StorageSection {
    fn default() -> Self {
        StorageSection {
            inline_max_bytes: 128 * 1024,
            inline_memory_bytes: 32 << 20,
            min_free_bytes: 0,
            reserve_bytes: 64 << 20,
            trash_ttl_ms: 24 * 3_600_000,
            trash_max_bytes: 16 << 30,
            quarantine_max_bytes: 16 << 30,
            state_cache_bytes: 16 << 20,
        }
    }
}

/// `[replication]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplicationSection {
    /// R, copies a blob converges to; 0: min(3, voters), following the cluster as it grows.
    pub copies: u32,
    /// W, copies that must be durable before a push is acknowledged; 0: one more than the losses that
    /// consensus survives.
    pub write_copies: u32,
    /// Accept a W that does not survive the losses that consensus survives.
    pub allow_weak_durability: bool,
    /// How long a push waits for W copies.
    pub copies_timeout_ms: u64,
}

impl Default for ReplicationSection {
    fn default() -> Self {
        ReplicationSection {
            copies: 0,
            write_copies: 0,
            allow_weak_durability: false,
            copies_timeout_ms: 30_000,
        }
    }
}

/// `[registry]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySection {
    /// Whether tags, manifests and blobs can be deleted; otherwise 405.
    pub deletes_enabled: bool,
    /// Refuse every push and delete with 405. Of a whole cluster when every node has it.
    pub read_only: bool,
    /// Accept an index whose manifests are not all in the repository.
    pub sparse_indexes: bool,
    /// Whether a read by tag waits until it sees everything acknowledged before it.
    pub linearizable_tags: bool,
    /// Blobs are served without a quorum for this long after the last answer of one; 0: not at all.
    pub offline_reads_ms: u64,
    /// An upload session without bytes for this long (log time) is dropped.
    pub upload_ttl_ms: u64,
    /// Announced as `OCI-Chunk-Min-Length`; 0: not announced. Smaller chunks are accepted all the same.
    pub chunk_min_bytes: u64,
}

impl Default for RegistrySection {
    fn default() -> Self {
        RegistrySection {
            deletes_enabled: true,
            read_only: false,
            sparse_indexes: false,
            linearizable_tags: true,
            offline_reads_ms: 30_000,
            upload_ttl_ms: 3_600_000,
            chunk_min_bytes: 0,
        }
    }
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSection {
    /// Largest manifest; larger ones get 413. At most 8 MiB.
    pub manifest_max_bytes: u64,
    /// Largest blob; an upload that outgrows it ends with 413. 0: no limit.
    pub blob_max_bytes: u64,
    /// Largest page of a list; larger wishes are clamped.
    pub page_max: usize,
    /// Memory for pages of lists that nobody changed since they were made; 0: none is kept.
    pub list_cache_bytes: usize,
    /// Open upload sessions with bytes on this node; more get 429.
    pub uploads_max: usize,
    /// HTTP connections; more get 503. Fewer when the limit of file descriptors is low.
    pub connections_max: usize,
    /// Names and values of the headers of a request, in bytes; more get 431.
    pub header_max_bytes: usize,
    /// A request's head must arrive within this time.
    pub header_timeout_ms: u64,
    /// How long a request waits for consensus before 503.
    pub request_deadline_ms: u64,
    /// A body that brings no byte for this long is cut off.
    pub body_idle_ms: u64,
    /// A stopping node is not ready, but still accepts, for this long: load balancers need to notice.
    pub stop_notice_ms: u64,
    /// How long a stopping node then waits for requests in flight.
    pub drain_ms: u64,
}

impl Default for LimitsSection {
    fn default() -> Self {
        LimitsSection {
            manifest_max_bytes: 4 << 20,
            blob_max_bytes: 0,
            page_max: 1_000,
            list_cache_bytes: 8 << 20,
            uploads_max: 4_096,
            connections_max: 8_192,
            header_max_bytes: 64 * 1024,
            header_timeout_ms: 30_000,
            request_deadline_ms: 15_000,
            body_idle_ms: 120_000,
            stop_notice_ms: 1_000,
            drain_ms: 20_000,
        }
    }
}

/// `[telemetry]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySection {
    /// `human` or `json`.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,consensus=debug`.
    pub level: String,
}

impl Default for TelemetrySection {
    fn default() -> Self {
        TelemetrySection {
            format: LogFormat::Human,
            level: "info".into(),
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}
