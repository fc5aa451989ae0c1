//! What a node must be told. Only the `node` crate knows configuration files.

use std::path::PathBuf;
use std::time::Duration;

use metadata::ids::NodeId;

/// Largest gRPC message between nodes, in both directions. The default of tonic, 4 MiB, would let one legal
/// manifest stop replication for ever (protocols.md 10.6).
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Largest encoded entry that is proposed. An entry must fit a message with room for what surrounds it.
pub const MAX_ENTRY_BYTES: usize = 12 << 20;

/// A member of the cluster as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which node.
    pub node: NodeId,
    /// `host:port` of its gRPC front.
    pub grpc_address: String,
}

/// Who forms a new cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formation {
    /// The configured members; the lowest id starts once all others answer that there is no cluster yet.
    Static,
    /// An operator, by [`crate::RaftNode::initialize`].
    Manual,
}

/// The options of a [`crate::RaftNode`].
#[derive(Clone, Debug)]
pub struct RaftOptions {
    /// This node.
    pub node: NodeId,
    /// Random name of this node's data directory.
    pub disk_id: String,
    /// Where clients reach this node, `host:port`.
    pub http_address: String,
    /// Where other nodes reach this node, `host:port`.
    pub grpc_address: String,
    /// All members, this node included; empty for a cluster of one.
    pub members: Vec<Member>,
    /// Who forms a new cluster.
    pub formation: Formation,
    /// Copies a blob converges to (R). Proposed by the leader when the state says otherwise. 0 follows the voters.
    pub copies: u32,
    /// Copies that must be durable before a push is acknowledged (W). 0 follows the voters.
    pub write_copies: u32,
    /// A directory of this crate alone, for snapshots on their way in.
    pub snapshot_directory: PathBuf,
    /// Between two heartbeats of the leader.
    pub heartbeat: Duration,
    /// Shortest silence of the leader after which a follower stands for election.
    pub election_timeout_min: Duration,
    /// Longest such silence.
    pub election_timeout_max: Duration,
    /// Entries after which the state counts as a new snapshot and older entries are purged.
    pub snapshot_after_entries: u64,
    /// Entries kept behind a snapshot, for followers that lag a little.
    pub keep_entries: u64,
    /// A node that has applied all but this many committed entries is ready.
    pub ready_lag_entries: u64,
    /// A node whose log takes longer to sync is not ready and gives leadership away: its disk hangs.
    pub sync_max: Duration,
    /// Between two ticks of log time (protocols.md section 2).
    pub tick: Duration,
    /// Encoded proposals of this node that may be in flight together, in bytes.
    pub proposals_in_flight_bytes: usize,
}

impl RaftOptions {
    /// The defaults for a node; everything may be changed afterwards.
    pub fn new(node: NodeId, disk_id: String, snapshot_directory: PathBuf) -> RaftOptions {
        RaftOptions {
            node,
            disk_id,
            http_address: String::new(),
            grpc_address: String::new(),
            members: Vec::new(),
            formation: Formation::Static,
            copies: 1,
            write_copies: 1,
            snapshot_directory,
            heartbeat: Duration::from_millis(200),
            election_timeout_min: Duration::from_millis(600),
            election_timeout_max: Duration::from_millis(1200),
            snapshot_after_entries: 20_000,
            keep_entries: 5_000,
            ready_lag_entries: 1_000,
            sync_max: Duration::from_secs(3),
            tick: Duration::from_secs(10),
            proposals_in_flight_bytes: 64 << 20,
        }
    }

    /// The configured members other than this node.
    pub(crate) fn others(&self) -> Vec<Member> {
        self.members
            .iter()
            .filter(|member| member.node != self.node)
            .cloned()
            .collect()
    }

    pub(crate) fn raft_config(&self) -> openraft::Config {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        openraft::Config {
            cluster_name: "argosy".into(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_timeout_min),
            election_timeout_max: millis(self.election_timeout_max),
            // A node that was cut off must not depose a healthy leader when it returns.
            enable_pre_vote: Some(true),
            // A leader that restarts does not know up to where its log was committed. Going on without an election, it
            // would answer barriers with what it has applied, which may be less than it acknowledged.
            enable_leader_restore: Some(false),
            // By bytes, not by count: see `LogAdapter::limited_get_log_entries`.
            max_payload_entries: 4096,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_after_entries),
            max_in_snapshot_log_to_keep: self.keep_entries,
            ..openraft::Config::default()
        }
    }
}
