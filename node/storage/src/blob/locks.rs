//! One lock per digest, in bounded memory.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use oci::Digest;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Two digests share a lock once in so many; sharing costs time, never correctness, because nobody holds two.
const SHARDS: usize = 1024;

/// Held while pins, the file and the record of a digest change together.
pub(super) type DigestGuard = OwnedMutexGuard<()>;

/// The locks `lock(d)` of protocols.md section 6.
///
/// They are async because they are held across syncs, which take milliseconds; the guard is owned so that it
/// moves into the blocking thread and stays held there when the caller's future is dropped.
pub(super) struct DigestLocks {
    shards: Vec<Arc<Mutex<()>>>,
    hasher: RandomState,
}

impl DigestLocks {
    pub(super) fn new() -> Self {
        DigestLocks {
            shards: (0..SHARDS).map(|_| Arc::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Waits for the lock of a digest.
    pub(super) async fn lock(&self, digest: &Digest) -> DigestGuard {
        // Clients choose digests: a keyed hash keeps them from choosing the lock as well.
        #[allow(
            clippy::cast_possible_truncation,
            reason = "any bits do for picking a shard"
        )]
        let shard = self.hasher.hash_one(digest) as usize % self.shards.len();
        Arc::clone(&self.shards[shard]).lock_owned().await
    }
}
