//! Processes that die, stand still or are restarted.

use std::time::Duration;

use anyhow::Result;

use super::{ELECTION, Stage};
use crate::rng::Rng;

pub(super) fn kill(stage: &Stage<'_>, rng: &mut Rng) -> Result<String> {
    let (name, victims) = stage.victims(rng);
    for id in &victims {
        stage.cluster.node(*id).kill();
    }
    // Some come back at once, some after the others have gone on without them.
    let away = *rng.pick(&[0, 200, 2_000, 6_000]);
    stage.hold(Duration::from_millis(away));
    for id in &victims {
        stage.cluster.node(*id).start()?;
    }
    // Killed again while it replays its log.
    let again = rng.range(0, 3);
    for _ in 0..again {
        stage.hold(Duration::from_millis(rng.range(20, 600)));
        let node = stage.cluster.node(victims[0]);
        node.kill();
        node.start()?;
    }
    Ok(format!(
        "kill {name}, away {away} ms, {again} times more while starting"
    ))
}

pub(super) fn pause(stage: &Stage<'_>, rng: &mut Rng) -> Result<String> {
    let (name, victims) = stage.victims(rng);
    let time = ELECTION * u32::try_from(*rng.pick(&[1, 2, 3, 6, 20])).unwrap_or(1) / 2;
    for id in &victims {
        stage.cluster.node(*id).pause();
    }
    // Every client may be waiting for an answer of the one that stands still: nothing is said of progress.
    stage.hold(time);
    for id in &victims {
        stage.cluster.node(*id).resume();
    }
    Ok(format!("pause {name} for {} ms", time.as_millis()))
}

/// The leader stands still again and again, just long enough for another to follow it.
pub(super) fn churn(stage: &Stage<'_>, rng: &mut Rng) -> Result<String> {
    let rounds = rng.range(6, 10);
    let mut leaders = Vec::new();
    stage.serving(|| {
        for _ in 0..rounds {
            let leader = stage.leader(rng);
            leaders.push(leader);
            stage.cluster.node(leader).pause();
            stage.hold(ELECTION * 5 / 4);
            stage.cluster.node(leader).resume();
            stage.hold(Duration::from_millis(rng.range(0, 500)));
        }
    });
    Ok(format!("churn: leaders {leaders:?} stood still in turn"))
}

pub(super) fn restart(stage: &Stage<'_>, rng: &mut Rng) -> Result<String> {
    let (name, victims) = stage.victims(rng);
    for id in &victims {
        let node = stage.cluster.node(*id);
        node.stop()?;
        node.start()?;
        if victims.len() > 1 {
            stage.hold(Duration::from_secs(2));
        }
    }
    Ok(format!("restart {name}"))
}
