//! Leaders that die in the middle of a round of garbage collection.

use std::time::Duration;

use anyhow::Result;

use super::Stage;
use crate::rng::Rng;

/// About as long as a short round takes; a long one is hit early.
const ROUND_MS: u64 = 60;

/// Asks the leader for a round and kills it a moment later.
pub(super) fn kill_in_round(stage: &Stage<'_>, rng: &mut Rng) -> Result<String> {
    let leader = stage.leader(rng);
    let round = stage.cluster.start_round(leader);
    let after_ms = rng.range(1, ROUND_MS);
    std::thread::sleep(Duration::from_millis(after_ms));
    let had_ended = round.is_finished();
    stage.cluster.node(leader).kill();
    let away = *rng.pick(&[0, 500, 3_000]);
    stage.hold(Duration::from_millis(away));
    stage.cluster.node(leader).start()?;
    let what = if had_ended { "just after" } else { "inside" };
    Ok(format!(
        "kill leader {leader} {what} a round of collection, {after_ms} ms after its request, away {away} ms"
    ))
}
