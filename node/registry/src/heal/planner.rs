//! Which missing copies this node makes next. Pure: it is told the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metadata::ids::NodeId;
use oci::Digest;
use replication::placement;

/// A copy that is on its way needs less than this, so that it is not fetched a second time.
const SETTLE: Duration = Duration::from_secs(5);

/// When a node does not make a copy that is its own to make, the next one in the order does after this time.
const TAKEOVER: Duration = Duration::from_secs(60);

/// Pause after the first failure; doubles with each further one, six times at most (64 minutes).
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const DOUBLINGS_MAX: u32 = 6;

/// Blobs remembered. One that is forgotten is merely tried earlier.
const REMEMBERED: usize = 8_192;

/// A blob that lacks copies, as the state shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
    /// Nodes with a counted copy.
    pub(super) holders: Vec<NodeId>,
    /// How many of them are up.
    pub(super) live: usize,
    /// Whether a manifest names it.
    pub(super) is_referenced: bool,
}

/// Who could do what.
#[derive(Clone, Debug)]
pub(super) struct Situation {
    pub(super) me: NodeId,
    /// Nodes whose copies count.
    pub(super) up: Vec<NodeId>,
    /// Other nodes that answer this one.
    pub(super) reachable: BTreeSet<NodeId>,
    /// R, but no more than nodes that are up.
    pub(super) copies: usize,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    since: Duration,
    failures: u32,
    not_before: Duration,
}

/// What was seen missing, and what failed.
#[derive(Debug, Default)]
pub(super) struct Planner {
    known: BTreeMap<Digest, Known>,
}

impl Planner {
    /// What this node fetches now, the most urgent first: fewest live copies, then those that a manifest names, then
    /// those missing for longest.
    ///
    /// Each missing copy is one node's to make: the first in rendezvous order over the nodes that are up, answer and
    /// have none. So nodes that look at the same moment do not all fetch the same blob. A node that does not do its
    /// part is passed over after a while.
    pub(super) fn plan(
        &mut self,
        missing: Vec<Missing>,
        situation: &Situation,
        now: Duration,
    ) -> Vec<Missing> {
        self.forget_found(&missing);
        let mut due: Vec<(Duration, Missing)> = Vec::new();
        for blob in missing {
            let known = *self.known.entry(blob.digest).or_insert(Known {
                since: now,
                failures: 0,
                not_before: now + SETTLE,
            });
            if known.not_before <= now && is_mine(&blob, situation, now - known.since) {
                due.push((known.since, blob));
            }
        }
        self.forget_some();
        due.sort_by_key(|(since, blob)| (blob.live, !blob.is_referenced, *since, blob.digest));
        due.into_iter().map(|(_, blob)| blob).collect()
    }

    pub(super) fn succeeded(&mut self, digest: &Digest) {
        self.known.remove(digest);
    }

    pub(super) fn failed(&mut self, digest: &Digest, now: Duration) {
        if let Some(known) = self.known.get_mut(digest) {
            known.not_before = now + FIRST_PAUSE * (1 << known.failures.min(DOUBLINGS_MAX));
            known.failures = known.failures.saturating_add(1);
        }
    }

    /// Blobs that wait because an attempt failed.
    pub(super) fn backed_off(&self, now: Duration) -> usize {
        let waits = |known: &&Known| known.failures > 0 && known.not_before > now;
        self.known.values().filter(waits).count()
    }

    /// What is not missing any more has to settle anew when it is missing again: most of these were copies on their way.
    /// Failures are remembered longer, as a blob may only be too far down the list.
    fn forget_found(&mut self, missing: &[Missing]) {
        let missing: BTreeSet<Digest> = missing.iter().map(|blob| blob.digest).collect();
        self.known
            .retain(|digest, known| known.failures > 0 || missing.contains(digest));
    }

    /// Those that were due first: they are done, or not missing any more.
    fn forget_some(&mut self) {
        let surplus = self.known.len().saturating_sub(REMEMBERED);
        if surplus == 0 {
            return;
        }
        let mut oldest: Vec<(Duration, Digest)> = self
            .known
            .iter()
            .map(|(digest, known)| (known.not_before, *digest))
            .collect();
        oldest.sort_unstable();
        for (_, digest) in oldest.into_iter().take(surplus) {
            self.known.remove(&digest);
        }
    }
}

fn is_mine(blob: &Missing, situation: &Situation, missing_for: Duration) -> bool {
    let me = situation.me;
    if blob.holders.contains(&me) || !situation.up.contains(&me) {
        return false;
    }
    let wanted = situation.copies.saturating_sub(blob.live);
    let candidates: Vec<NodeId> = situation
        .up
        .iter()
        .copied()
        .filter(|node| !blob.holders.contains(node))
        .filter(|node| *node == me || situation.reachable.contains(node))
        .collect();
    let order = placement::order(&blob.digest.to_key(), &candidates);
    let Some(rank) = order.iter().position(|node| *node == me) else {
        return false;
    };
    // Passed over: one more place for each time the takeover has gone by.
    let passed_over = usize::try_from(missing_for.as_secs() / TAKEOVER.as_secs()).unwrap_or(0);
    wanted > 0 && rank < wanted.saturating_add(passed_over)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::Algorithm;

    fn digest(number: u32) -> Digest {
        Digest::of(Algorithm::Sha256, &number.to_be_bytes())
    }

    fn nodes(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn missing(number: u32, holders: &[u64]) -> Missing {
        Missing {
            digest: digest(number),
            size_bytes: 1,
            holders: nodes(holders),
            live: holders.len(),
            is_referenced: true,
        }
    }

    fn situation(me: u64, up: &[u64], silent: &[u64], copies: usize) -> Situation {
        let reachable = nodes(up).into_iter().filter(|node| node.0 != me);
        Situation {
            me: NodeId(me),
            up: nodes(up),
            reachable: reachable.filter(|node| !silent.contains(&node.0)).collect(),
            copies,
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What each of the nodes fetches at `at`, when all have seen it missing since 0.
    fn fetched_by(blob: &Missing, up: &[u64], silent: &[u64], copies: usize, at: u64) -> Vec<u64> {
        up.iter()
            .copied()
            .filter(|me| {
                let mut planner = Planner::default();
                let situation = situation(*me, up, silent, copies);
                planner.plan(vec![blob.clone()], &situation, seconds(0));
                !planner
                    .plan(vec![blob.clone()], &situation, seconds(at))
                    .is_empty()
            })
            .collect()
    }

    #[test]
    fn each_missing_copy_has_one_node_that_makes_it() {
        for number in 0..100 {
            let one = fetched_by(&missing(number, &[1, 2]), &[1, 2, 3, 4, 5], &[], 3, 10);
            assert_eq!(one.len(), 1);
            assert!(one[0] > 2, "a holder does not fetch");
            let two = fetched_by(&missing(number, &[1]), &[1, 2, 3, 4, 5], &[], 3, 10);
            assert_eq!(two.len(), 2);
        }
    }

    #[test]
    fn nothing_is_fetched_at_first_sight_nor_when_there_are_enough() {
        let blob = missing(1, &[1, 2]);
        assert!(fetched_by(&blob, &[1, 2, 3], &[], 3, 1).is_empty());
        assert_eq!(fetched_by(&blob, &[1, 2, 3], &[], 3, 10), [3]);
        assert!(fetched_by(&blob, &[1, 2, 3], &[], 2, 10).is_empty());
        // With node 3 down there is no place for a third copy.
        assert!(fetched_by(&blob, &[1, 2], &[], 2, 10).is_empty());
    }

    #[test]
    fn a_copy_that_came_and_is_lost_again_settles_anew() {
        let situation = situation(3, &[1, 2, 3], &[], 3);
        let (lost, other) = (missing(1, &[1, 2]), missing(2, &[1, 2]));
        let mut planner = Planner::default();
        planner.plan(vec![lost.clone()], &situation, seconds(0));
        planner.plan(vec![], &situation, seconds(1));
        let both = vec![lost, other];
        assert!(
            planner
                .plan(both.clone(), &situation, seconds(100))
                .is_empty()
        );
        assert_eq!(planner.plan(both, &situation, seconds(105)).len(), 2);
    }

    #[test]
    fn a_silent_node_is_passed_over_and_an_idle_one_after_a_while() {
        for number in 0..20 {
            let blob = missing(number, &[1, 2]);
            let up = [1, 2, 3, 4];
            let first = fetched_by(&blob, &up, &[], 3, 10)[0];
            let other = if first == 3 { 4 } else { 3 };
            let seen = fetched_by(&blob, &up, &[first], 3, 10);
            assert!(seen.contains(&other));
            assert_eq!(fetched_by(&blob, &up, &[], 3, 70).len(), 2);
        }
    }

    #[test]
    fn the_most_endangered_come_first() {
        let situation = situation(9, &[1, 2, 9], &[], 3);
        let mut unreferenced = missing(3, &[1]);
        unreferenced.is_referenced = false;
        let blobs = vec![missing(1, &[1, 2]), unreferenced, missing(2, &[1])];
        let mut planner = Planner::default();
        planner.plan(blobs.clone(), &situation, seconds(0));
        let order: Vec<Digest> = planner
            .plan(blobs, &situation, seconds(10))
            .into_iter()
            .map(|blob| blob.digest)
            .collect();
        assert_eq!(order, [digest(2), digest(3), digest(1)]);
    }

    #[test]
    fn failures_wait_ever_longer_up_to_64_minutes_and_a_success_forgets_them() {
        let situation = situation(3, &[1, 2, 3], &[], 3);
        let blob = missing(1, &[1, 2]);
        let mut planner = Planner::default();
        let mut now = seconds(0);
        planner.plan(vec![blob.clone()], &situation, now);
        now += SETTLE;
        for pause in [60, 120, 240, 480, 960, 1_920, 3_840, 3_840] {
            assert_eq!(planner.plan(vec![blob.clone()], &situation, now).len(), 1);
            planner.failed(&blob.digest, now);
            assert_eq!(planner.backed_off(now), 1);
            let early = now + seconds(pause) - Duration::from_millis(1);
            assert!(
                planner
                    .plan(vec![blob.clone()], &situation, early)
                    .is_empty()
            );
            now += seconds(pause);
        }
        planner.succeeded(&blob.digest);
        assert_eq!(planner.backed_off(now), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let situation = situation(3, &[1, 2, 3], &[], 3);
        let mut planner = Planner::default();
        // What failed is remembered, but not all of it.
        for page in 0..5 {
            let now = seconds(u64::from(page));
            let blobs: Vec<Missing> = (0..4_096)
                .map(|number| missing(page * 4_096 + number, &[1]))
                .collect();
            planner.plan(blobs.clone(), &situation, now);
            for blob in &blobs {
                planner.failed(&blob.digest, now);
            }
        }
        assert_eq!(planner.known.len(), REMEMBERED);
        planner.plan(vec![missing(0, &[1])], &situation, seconds(10));
        assert!(planner.known.len() <= REMEMBERED);
    }
}
