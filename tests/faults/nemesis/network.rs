//! Links that are cut, late, narrow or unreliable.

use std::time::Duration;

use anyhow::Result;

use super::Stage;
use crate::proxy::Weather;
use crate::rng::Rng;

const CUT: Weather = Weather {
    is_cut: true,
    delay_ms: (0, 0),
    bytes_per_second: 0,
    reset_per_mille: 0,
};

fn others(stage: &Stage<'_>, node: u64) -> Vec<u64> {
    let ids = stage.cluster.nodes.iter().map(|other| other.id);
    ids.filter(|other| *other != node).collect()
}

pub(super) fn partition(stage: &Stage<'_>, rng: &mut Rng) -> Result<String> {
    let (what, has_majority) = if stage.cluster.nodes.len() >= 5 && rng.percent(50) {
        split(stage, rng)
    } else {
        cut_one(stage, rng)
    };
    let time = Duration::from_millis(rng.range(1_000, 20_000));
    if has_majority {
        stage.hold_serving(time);
    } else {
        stage.hold(time);
    }
    stage.cluster.network.heal();
    Ok(format!("partition: {what}"))
}

/// Cuts links of one node, mostly of the leader. Whatever is cut, the others can go on.
fn cut_one(stage: &Stage<'_>, rng: &mut Rng) -> (String, bool) {
    let victim = if rng.percent(60) {
        stage.leader(rng)
    } else {
        stage.any(rng)
    };
    let others = others(stage, victim);
    let set = |from, to| stage.cluster.network.set(from, to, CUT);
    let what = match rng.range(0, 4) {
        0 => {
            others.iter().for_each(|other| {
                set(victim, *other);
                set(*other, victim);
            });
            "is cut off"
        }
        1 => {
            others.iter().for_each(|other| set(victim, *other));
            "hears but is not heard"
        }
        2 => {
            others.iter().for_each(|other| set(*other, victim));
            "is heard but does not hear"
        }
        _ => {
            let other = *rng.pick(&others);
            set(victim, other);
            set(other, victim);
            "does not reach one other"
        }
    };
    (
        format!("node {victim} {what}"),
        stage.cluster.nodes.len() > 2,
    )
}

/// Splits a larger cluster into groups, or leaves each node its two neighbours only.
fn split(stage: &Stage<'_>, rng: &mut Rng) -> (String, bool) {
    let mut ids: Vec<u64> = stage.cluster.nodes.iter().map(|node| node.id).collect();
    for last in (1..ids.len()).rev() {
        ids.swap(last, rng.index(last + 1));
    }
    let (name, has_majority) = *rng.pick(&[("3/2", true), ("2/2/1", false), ("ring", false)]);
    let count = ids.len();
    let is_linked = |one: usize, other: usize| match name {
        "3/2" => (one < 3) == (other < 3),
        "2/2/1" => one / 2 == other / 2,
        _ => (one + 1) % count == other || (other + 1) % count == one,
    };
    for one in 0..count {
        for other in (0..count).filter(|other| *other != one && !is_linked(one, *other)) {
            stage.cluster.network.set(ids[one], ids[other], CUT);
        }
    }
    (format!("{name} of nodes {ids:?}"), has_majority)
}

/// Sets the links of one node, or all.
fn weather(stage: &Stage<'_>, rng: &mut Rng, weather: Weather) -> String {
    let everywhere = rng.percent(40);
    let node = stage.any(rng);
    for from in stage.cluster.nodes.iter().map(|node| node.id) {
        for to in others(stage, from) {
            if everywhere || from == node || to == node {
                stage.cluster.network.set(from, to, weather);
            }
        }
    }
    let time = Duration::from_millis(rng.range(3_000, 20_000));
    if weather.reset_per_mille == 0 {
        stage.hold_serving(time);
    } else {
        stage.hold(time);
    }
    stage.cluster.network.heal();
    if everywhere {
        "all links".to_owned()
    } else {
        format!("links of node {node}")
    }
}

pub(super) fn slow(stage: &Stage<'_>, rng: &mut Rng) -> Result<String> {
    let (delay_ms, bytes_per_second) = match rng.range(0, 3) {
        0 => ((20, 60), 0),
        1 => ((100, 300), 0),
        _ => ((5, 15), 125_000),
    };
    let wanted = Weather {
        delay_ms,
        bytes_per_second,
        ..Weather::default()
    };
    let where_to = weather(stage, rng, wanted);
    Ok(format!(
        "slow {where_to}: {delay_ms:?} ms late, {bytes_per_second} bytes a second"
    ))
}

pub(super) fn lossy(stage: &Stage<'_>, rng: &mut Rng) -> Result<String> {
    let reset_per_mille = *rng.pick(&[5, 30, 150]);
    let wanted = Weather {
        reset_per_mille,
        ..Weather::default()
    };
    let where_to = weather(stage, rng, wanted);
    Ok(format!(
        "lossy {where_to}: {reset_per_mille} of 1000 chunks reset"
    ))
}
