//! Sources of bytes that turned out wrong. They are asked last for a while, so that a damaged copy on the nearest
//! node does not fail every retry of a client.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metadata::ids::NodeId;
use oci::Digest;
use tokio::time::Instant;

/// How long a source stays suspect. Scrubbing finds and repairs the damage in its own time.
const MEMORY: Duration = Duration::from_secs(600);

/// Suspects remembered; the oldest make room.
const REMEMBERED: usize = 1_024;

#[derive(Default)]
pub(super) struct Suspects(Mutex<VecDeque<(NodeId, Digest, Instant)>>);

impl Suspects {
    pub(super) fn add(&self, node: NodeId, digest: Digest) {
        let mut suspects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        suspects.retain(|(_, _, since)| since.elapsed() < MEMORY);
        if suspects.len() == REMEMBERED {
            suspects.pop_front();
        }
        suspects.push_back((node, digest, Instant::now()));
    }

    pub(super) fn contains(&self, node: NodeId, digest: &Digest) -> bool {
        let suspects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        suspects.iter().any(|(suspect, blob, since)| {
            *suspect == node && blob == digest && since.elapsed() < MEMORY
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::Algorithm;

    #[tokio::test(start_paused = true)]
    async fn suspicion_is_per_blob_fades_and_is_bounded() {
        let suspects = Suspects::default();
        let (one, other) = (
            Digest::of(Algorithm::Sha256, b"1"),
            Digest::of(Algorithm::Sha256, b"2"),
        );
        suspects.add(NodeId(1), one);
        assert!(suspects.contains(NodeId(1), &one));
        assert!(!suspects.contains(NodeId(1), &other));
        assert!(!suspects.contains(NodeId(2), &one));
        tokio::time::advance(MEMORY).await;
        assert!(!suspects.contains(NodeId(1), &one));
        for node in 0..2_000 {
            suspects.add(NodeId(node), one);
        }
        assert_eq!(suspects.0.lock().unwrap().len(), REMEMBERED);
        assert!(suspects.contains(NodeId(1_999), &one));
    }
}
