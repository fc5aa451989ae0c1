//! What an operator can choose about the registry's services.

use std::time::Duration;

use crate::gc::UntaggedRule;

/// Limits and choices. Plain values: only the node knows where they were configured.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// Largest manifest body in bytes. The spec wants at least 4 MB to work.
    pub manifest_max_bytes: u64,
    /// Most entries of one page of a list.
    pub page_max: usize,
    /// Memory for pages of lists that nobody changed since they were made, in bytes; 0: none is kept.
    pub list_cache_bytes: usize,
    /// How long an upload lives after its last byte, in milliseconds of log time. It may live up to a third longer.
    pub upload_ttl_ms: u64,
    /// How long a push may take to reach W durable copies once all its bytes have arrived.
    pub copies_timeout: Duration,
    /// Whether manifests, tags and blobs may be deleted.
    pub deletes_enabled: bool,
    /// Whether this node refuses every push and delete of its clients. It still keeps copies for other nodes.
    pub read_only: bool,
    /// Whether an index pushed through this node may name manifests that the repository does not have.
    pub sparse_indexes: bool,
    /// Whether reads of tags and lists see everything acknowledged anywhere before they began. Without it they
    /// show what this node has applied, which may be a little old.
    pub linearizable_tags: bool,
    /// How long blobs are served without a quorum after the last answer of one. What the others deleted meanwhile is
    /// served as well. Zero: not at all. Nothing bounds it where `linearizable_tags` is off.
    pub offline_reads: Duration,
    /// Open upload sessions with bytes on this node; one more is refused as overload. Small ones keep their bytes in
    /// memory, as far as the blob store allows for all of them together.
    pub uploads_max: usize,
    /// Largest blob in bytes; `None` leaves it to the disk.
    pub upload_max_bytes: Option<u64>,
    /// Garbage collection.
    pub gc: GcOptions,
    /// Self-healing.
    pub heal: HealOptions,
}

/// How long what nothing needs is kept, and how often it is looked for. Times in milliseconds are log time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcOptions {
    /// Whether rounds start by themselves while this node leads.
    pub is_automatic: bool,
    /// Between two rounds.
    pub interval: Duration,
    /// How long a blob that no manifest names stays linked.
    pub grace_ms: u64,
    /// How long a blob that no repository links waits before it is condemned.
    pub condemn_delay_ms: u64,
    /// How long a condemned blob waits before it is deleted.
    pub quarantine_ms: u64,
    /// How long a deleted tag or manifest can be restored.
    pub undelete_ms: u64,
    /// Items that one entry may handle.
    pub step_budget: u32,
    /// Shortest time between two scans of all manifests that confirm what is about to be deleted.
    pub verify_interval: Duration,
    /// Between two walks over the blobs of this node.
    pub walk_interval: Duration,
    /// Where untagged manifests are collected.
    pub untagged: Vec<UntaggedRule>,
}

impl Default for GcOptions {
    fn default() -> Self {
        const HOUR_MS: u64 = 60 * 60 * 1000;
        GcOptions {
            is_automatic: true,
            interval: Duration::from_secs(10),
            grace_ms: 24 * HOUR_MS,
            condemn_delay_ms: 0,
            quarantine_ms: HOUR_MS,
            undelete_ms: 24 * HOUR_MS,
            step_budget: 500,
            verify_interval: Duration::from_secs(600),
            walk_interval: Duration::from_secs(3600),
            untagged: Vec::new(),
        }
    }
}

/// How a node looks after its copies. Times named `_ms` are log time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealOptions {
    /// Between two looks at what is missing, too many or silent.
    pub repair_interval: Duration,
    /// Copies this node makes at once; of up to 256 KiB eight in the place of one. All nodes together make 64.
    pub repair_parallel: usize,
    /// A node silent for this long is suspect.
    pub suspect_after: Duration,
    /// A node silent for this long is down: its copies do not count any more.
    pub down_after_ms: u64,
    /// A blob has too many copies for this long before one is dropped.
    pub trim_delay_ms: u64,
    /// Between two comparisons of the directory with the state.
    pub check_interval: Duration,
    /// The first one comes between this and twice this time after the start, but not later than `check_interval`.
    pub check_first: Duration,
    /// Between the starts of two scrubs.
    pub scrub_interval: Duration,
    /// How fast a scrub reads; 0: no limit.
    pub scrub_bytes_per_second: u64,
}

impl Default for HealOptions {
    fn default() -> Self {
        const HOUR_MS: u64 = 60 * 60 * 1000;
        HealOptions {
            repair_interval: Duration::from_secs(5),
            repair_parallel: 4,
            suspect_after: Duration::from_secs(30),
            down_after_ms: HOUR_MS / 6,
            trim_delay_ms: HOUR_MS,
            check_interval: Duration::from_millis(HOUR_MS),
            check_first: Duration::from_secs(60),
            scrub_interval: Duration::from_millis(14 * 24 * HOUR_MS),
            scrub_bytes_per_second: 20 << 20,
        }
    }
}

impl Default for RegistryOptions {
    fn default() -> Self {
        RegistryOptions {
            manifest_max_bytes: 4 * 1024 * 1024,
            page_max: 1000,
            list_cache_bytes: 8 << 20,
            upload_ttl_ms: 60 * 60 * 1000,
            copies_timeout: Duration::from_secs(30),
            deletes_enabled: true,
            read_only: false,
            sparse_indexes: false,
            linearizable_tags: true,
            offline_reads: Duration::from_secs(30),
            uploads_max: 4_096,
            upload_max_bytes: None,
            gc: GcOptions::default(),
            heal: HealOptions::default(),
        }
    }
}
