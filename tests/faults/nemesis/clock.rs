//! Wall clocks that jump while the processes run.

use std::time::Duration;

use anyhow::Result;

use super::Stage;
use crate::rng::Rng;

pub(super) fn jump(stage: &Stage<'_>, rng: &mut Rng) -> Result<String> {
    let (name, victims) = stage.victims(rng);
    let mut jumps = Vec::new();
    for _ in 0..rng.range(1, 4) {
        let jump = *rng.pick(&["+3650d", "-3650d", "+1h", "-1h", "+90s", "-5s"]);
        for id in &victims {
            stage.cluster.node(*id).set_clock(jump)?;
        }
        jumps.push(jump);
        stage.hold(Duration::from_millis(rng.range(1_500, 5_000)));
    }
    for id in &victims {
        stage.cluster.node(*id).set_clock("+0")?;
    }
    Ok(format!("clock of {name}: {}", jumps.join(", ")))
}
