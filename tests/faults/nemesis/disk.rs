//! Disks that are full.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Stage;
use crate::rng::Rng;

pub(super) fn fill(stage: &Stage<'_>, rng: &mut Rng) -> Result<String> {
    let (name, victims) = stage.victims(rng);
    // Nothing at all, or only what small writes still find.
    let left_bytes = *rng.pick(&[0, 1 << 20, 24 << 20]);
    stage.world.mark_disk_trouble();
    let disk = |id: u64| stage.cluster.node(id).disk.as_ref().context("no disk");
    for id in &victims {
        disk(*id)?.fill(left_bytes)?;
    }
    stage.hold(Duration::from_millis(rng.range(3_000, 12_000)));
    stage.world.mark_disk_trouble();
    for id in &victims {
        disk(*id)?.empty()?;
    }
    Ok(format!("disk of {name} full but for {left_bytes} bytes"))
}
