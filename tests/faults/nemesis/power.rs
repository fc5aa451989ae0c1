//! Power cuts, and what a crash at any moment would leave.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Stage;
use crate::checks::fsck;
use crate::cluster::disk::Disk;
use crate::cluster::node;
use crate::rng::Rng;

/// How long a node on a crash image is watched after it answers.
const WATCHED: Duration = Duration::from_secs(2);
const ANSWER_TIME: Duration = Duration::from_secs(60);

pub(super) fn cut(stage: &Stage<'_>, rng: &mut Rng) -> Result<String> {
    if rng.percent(30) {
        return crash_image(stage, rng);
    }
    let (name, victims) = if rng.percent(40) {
        let all = stage.cluster.nodes.iter().map(|node| node.id).collect();
        ("all nodes".to_owned(), all)
    } else {
        stage.victims(rng)
    };
    let disk = |id: u64| stage.cluster.node(id).disk.as_ref().context("no disk");
    stage.world.mark_disk_trouble();
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let cut = |id: u64| {
            disk(id)?.cut_power()?;
            stage.cluster.node(id).kill();
            Ok(())
        };
        let cuts: Vec<_> = victims
            .iter()
            .map(|id| scope.spawn(move || cut(*id)))
            .collect();
        cuts.into_iter()
            .map(|cut| {
                cut.join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("panicked")))
            })
            .collect()
    });
    results.into_iter().collect::<Result<()>>()?;
    for id in &victims {
        disk(*id)?.unmount()?;
        disk(*id)?.mount()?;
    }
    stage.world.mark_disk_trouble();
    stage.hold(Duration::from_millis(*rng.pick(&[0, 1_000, 5_000])));
    for id in &victims {
        stage.cluster.node(*id).start()?;
    }
    Ok(format!("power cut of {name}"))
}

/// Copies the image of a running node and starts a node on the copy, alone.
fn crash_image(stage: &Stage<'_>, rng: &mut Rng) -> Result<String> {
    let id = stage.any(rng);
    let directory = stage.cluster.plan.directory.join("crash");
    fs::create_dir_all(&directory)?;
    let victim = stage.cluster.node(id);
    // A copy takes time; the node must not write meanwhile, or the copy is of no moment at all.
    victim.pause();
    let disk = victim.disk.as_ref().context("no disk");
    let copied =
        disk.and_then(|disk| disk.copy(&directory.join("image"), &directory.join("mount")));
    victim.resume();
    let copy = copied?;
    let watched = watch(stage, id, &directory, &copy);
    copy.unmount()?;
    fs::remove_dir_all(&directory)?;
    let index = watched?;
    Ok(format!("crash image of node {id} starts at index {index}"))
}

/// Starts a node on the copy, checks what it says of itself, and ends it. Returns its applied index.
fn watch(stage: &Stage<'_>, id: u64, directory: &Path, copy: &Disk) -> Result<u64> {
    let data = copy.mount_point().join("data");
    fsck::check_directories(&[&data], &stage.report)?;
    let (text, grpc) = stage.cluster.plan.configuration_alone(id, &data);
    let config = directory.join("config.toml");
    fs::write(&config, text)?;
    let log = directory.join("log");
    let mut child = node::command(&config, &log)?.spawn()?;
    let said = || {
        let lines = fs::read_to_string(&log).unwrap_or_default();
        let from = lines.len().saturating_sub(2_000);
        lines.get(from..).unwrap_or("").to_owned()
    };
    let started = Instant::now();
    let answers = loop {
        if let Some(status) = child.try_wait()? {
            anyhow::bail!(
                "the node on a crash image of node {id} ended with {status}:\n{}",
                said()
            );
        }
        if stage.cluster.status_at(grpc).is_some() {
            break true;
        }
        if started.elapsed() > ANSWER_TIME {
            break false;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    std::thread::sleep(WATCHED);
    // Not its first answer: consensus reports the end of its log only a moment after it opened.
    let status = stage.cluster.status_at(grpc);
    let ended = child.try_wait()?;
    child.kill()?;
    child.wait()?;
    ensure!(answers, "no answer from a crash image:\n{}", said());
    ensure!(
        ended.is_none(),
        "the node on a crash image of node {id} ended:\n{}",
        said()
    );
    let status = status.context("the node on a crash image stopped answering")?;
    ensure!(
        status.applied_index <= status.last_log_index,
        "crash image of node {id}: applied {} is ahead of the log, {}",
        status.applied_index,
        status.last_log_index
    );
    ensure!(
        !said().contains("panicked at"),
        "a crash image of node {id} panics:\n{}",
        said()
    );
    Ok(status.applied_index)
}
