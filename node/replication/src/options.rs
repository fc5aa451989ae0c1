//! What can be tuned about replication.

use std::time::Duration;

/// Plain options; every default is chosen for a small cluster on one site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationOptions {
    /// How long a push waits for W durable copies. Default 30 s (protocols.md section 4).
    pub copies_timeout: Duration,
    /// How long a push that has W copies still waits for the others: a copy counted by the commit itself saves a
    /// log entry of its own. Default 20 ms.
    pub linger: Duration,
    /// Blobs up to this many bytes travel in one message, once their digest is known; larger ones are streamed
    /// while they arrive. At most 1 MiB. Default 256 KiB.
    pub small_max_bytes: u64,
    /// How often one peer is tried for one blob. Default 4.
    pub peer_attempts: u32,
    /// Delay before a peer that failed is tried again; doubles with every failure. Default 500 ms.
    pub retry_delay: Duration,
    /// How long copies may still be made after the commit, well below the lifetime of the repair ticket.
    /// Default 3 min.
    pub straggler_timeout: Duration,
    /// Memory that copies may hold after the commit of their blob: the body of a small one, 1 MiB of buffers for a
    /// streamed one. Copies beyond it are left to repair. Default 64 MiB.
    pub straggler_memory_bytes: usize,
    /// Blobs fetched from other nodes at the same time; more wait. Default 64.
    pub fetches_max: usize,
    /// How long a fetch waits for a holder to answer before it asks the next one. Default 3 s.
    pub fetch_answer_timeout: Duration,
    /// How long a fetch waits for its turn, or for its next bytes. Default 10 s.
    pub fetch_stall_timeout: Duration,
    /// How often all holders are tried before a fetch gives up, counted anew after every byte that arrives.
    /// Default 3.
    pub fetch_rounds: u32,
    /// How long fetched bytes that are not to be kept stay for further readers. Default 30 s.
    pub unkept_ttl: Duration,
    /// How fast this node makes copies that nobody reads, all of them together; 0: no limit, which is the default.
    pub repair_bytes_per_second: u64,
    /// How fast while it or their source serves clients; each copy counts 64 KiB more for its start. 0: no other limit.
    /// Default 32 MiB.
    pub repair_busy_bytes_per_second: u64,
    /// Lifetime of the ticket of a copy that is kept, in log time. Default 10 min.
    pub repair_ttl_ms: u64,
    /// How long a proposal of replication may take. Default 10 s.
    pub propose_timeout: Duration,
}

impl Default for ReplicationOptions {
    fn default() -> Self {
        ReplicationOptions {
            copies_timeout: Duration::from_secs(30),
            linger: Duration::from_millis(20),
            small_max_bytes: 256 * 1024,
            peer_attempts: 4,
            retry_delay: Duration::from_millis(500),
            straggler_timeout: Duration::from_secs(180),
            straggler_memory_bytes: 64 << 20,
            fetches_max: 64,
            fetch_answer_timeout: Duration::from_secs(3),
            fetch_stall_timeout: Duration::from_secs(10),
            fetch_rounds: 3,
            unkept_ttl: Duration::from_secs(30),
            repair_bytes_per_second: 0,
            repair_busy_bytes_per_second: 32 << 20,
            repair_ttl_ms: 600_000,
            propose_timeout: Duration::from_secs(10),
        }
    }
}
