//! The chaos run.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;

use crate::checks::{content, fsck, logs, state, tags};
use crate::client::{Client, World, verify};
use crate::cluster::{Cluster, Plan, disk, node};
use crate::history::History;
use crate::nemesis::{ELECTION, Kind, Stage};
use crate::report::{Check, Report};
use crate::run::{self, Workspace};

/// Clients at once: few enough that the order of operations on one tag can be searched.
const CLIENTS: usize = 8;
/// Debug builds on a busy machine.
const START_TIME: Duration = Duration::from_secs(120);
/// The file system of one node.
const DISK_BYTES: u64 = 6 << 30;

/// How to run it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How long faults are made; reading everything back comes on top.
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// What is done, and when; without it a new one is taken and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Kinds of faults, separated by commas; without it all.
    #[arg(long, value_enum, value_delimiter = ',')]
    nemesis: Vec<Kind>,
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=5))]
    nodes: u64,
    /// First of 500 ports on loopback.
    #[arg(long, default_value_t = 26000)]
    port_base: u16,
    /// Where the data goes; a directory for temporary files otherwise.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Break something on purpose: the run succeeds when the check that has to see it does, and no other.
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
}

/// Ways to prove that the checks see something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sabotage {
    /// Reads by tag may be stale (`registry.linearizable_tags = false`).
    StaleTags,
    /// The blob files of all nodes are removed before everything is read back.
    LoseBlobs,
    /// A file that no record knows is put among the blobs of a stopped node.
    StrayFile,
}

impl Sabotage {
    /// Of what at least one has to fail, and what may fail with it.
    fn explains(self) -> (&'static [Check], &'static [Check]) {
        match self {
            // A node that lags may list what it saw last, and serve what was deleted since; it asks before a 404. Which
            // of the two a client meets while a node is cut off is chance.
            Sabotage::StaleTags => (&[Check::Tags, Check::Lists], &[Check::Deleted]),
            Sabotage::StrayFile => (&[Check::Settled], &[]),
            Sabotage::LoseBlobs => (
                &[Check::Durable],
                &[
                    Check::Whole,
                    Check::Alive,
                    Check::Answers,
                    Check::Logs,
                    Check::Fsck,
                ],
            ),
        }
    }
}

impl Arguments {
    fn kinds(&self) -> Vec<Kind> {
        if self.nemesis.is_empty() {
            Kind::value_variants().to_vec()
        } else {
            self.nemesis.clone()
        }
    }

    fn reproduce(&self, seed: u64) -> String {
        let names: Vec<String> = self
            .kinds()
            .iter()
            .filter_map(|kind| Some(kind.to_possible_value()?.get_name().to_owned()))
            .collect();
        format!(
            "./tests/chaos --minutes {} --seed {seed} --nodes {} --nemesis {}",
            self.minutes,
            self.nodes,
            names.join(",")
        )
    }

    fn settings(&self) -> String {
        let election_ms = ELECTION.as_millis();
        let linearizable = self.sabotage != Some(Sabotage::StaleTags);
        // Frequent snapshots, and few entries behind them: most returning nodes need one.
        format!(
            "[raft]\nheartbeat_ms = 200\nelection_min_ms = {}\nelection_max_ms = {election_ms}\n\
             snapshot_entries = 500\nkeep_entries = 100\n\n\
             [limits]\nstop_notice_ms = 200\nrequest_deadline_ms = 8000\n\n\
             [registry]\nlinearizable_tags = {linearizable}\n",
            election_ms / 2
        )
    }
}

/// What these faults need and this machine does not have.
fn check_requirements(kinds: &[Kind]) -> Result<()> {
    node::binary()?;
    if kinds.iter().any(|kind| kind.needs_disks())
        && let Some(reason) = disk::unavailable()
    {
        bail!("disk, power: {reason}; leave them out with --nemesis");
    }
    if kinds.contains(&Kind::Clock) {
        node::faketime()?;
    }
    Ok(())
}

/// Runs it. False when something was found.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let started = Instant::now();
    let kinds = arguments.kinds();
    check_requirements(&kinds)?;
    ensure!(arguments.minutes > 0.0, "--minutes must be more than 0");
    let seed = arguments.seed.unwrap_or_else(run::seed_of_today);
    let reproduce = arguments.reproduce(seed);
    println!("seed {seed}; {reproduce}");
    let workspace = Workspace::create(arguments.dir.as_deref())?;
    let has_disk_faults = kinds.iter().any(|kind| kind.needs_disks());
    let cluster = Cluster::start(Plan {
        nodes: arguments.nodes,
        port_base: arguments.port_base,
        directory: workspace.path.clone(),
        disk_bytes: has_disk_faults.then_some(DISK_BYTES),
        has_fake_clock: kinds.contains(&Kind::Clock),
        grows: false,
        settings: arguments.settings(),
        seed,
    })?;
    cluster.wait_ready(START_TIME)?;
    let report = Arc::new(Report::default());
    let nodes = cluster.nodes.iter().map(|node| (node.id, node.http));
    let world = World::new(
        nodes.collect(),
        History::create(&workspace.path.join("history.jsonl"))?,
        report.clone(),
        seed,
        Duration::from_secs_f64(arguments.minutes * 60.0),
    );
    let stage = Stage::new(&cluster, &world, report.clone());
    work(&stage, &kinds)?;
    settle(&stage, arguments.sabotage)?;
    judge(&stage, has_disk_faults, arguments.sabotage)?;
    let made = stage
        .made
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let made: Vec<String> = made
        .iter()
        .map(|(kind, count)| format!("{kind:?} {count}"))
        .collect();
    println!("faults: {}", made.join(", "));
    if let Some(sabotage) = arguments.sabotage {
        drop(cluster);
        world.history.close()?;
        std::fs::remove_dir_all(&workspace.path)?;
        let (wanted, explained) = sabotage.explains();
        return Ok(report.print_expected(wanted, explained));
    }
    run::finish(cluster, &world, &workspace, &report, &reproduce, started)
}

/// Clients and nemesis, until the time is over.
fn work(stage: &Stage<'_>, kinds: &[Kind]) -> Result<()> {
    let world = stage.world;
    ensure!(
        Client::new(CLIENTS, world).prepare_tags(),
        "nothing could be pushed before the first fault"
    );
    let numbers = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let numbers = &numbers;
            scope.spawn(move || Client::new(number, world).mix(numbers));
        }
        for (number, node) in (CLIENTS + 1..).zip(&world.nodes) {
            scope.spawn(move || Client::new(number, world).write_through(*node));
        }
        scope.spawn(|| stage.run(kinds, world.seed));
        run::wait(world);
    });
    Ok(())
}

/// Ends every fault, and reads everything back.
fn settle(stage: &Stage<'_>, sabotage: Option<Sabotage>) -> Result<()> {
    stage.recover();
    // The world is not over for those who check it.
    let world = stage.world;
    world
        .stop
        .store(false, std::sync::atomic::Ordering::Relaxed);
    state::check_alive(world, &stage.report);
    state::check_copies(stage.cluster, &stage.report);
    if sabotage == Some(Sabotage::LoseBlobs) {
        lose_blobs(stage.cluster)?;
    }
    verify::read_everything(world);
    state::check_equal(stage.cluster, &stage.report);
    Ok(())
}

/// Three blobs that node 1 has, on every node. All of them would be read for minutes, again and again, before that is said.
fn lose_blobs(cluster: &Cluster) -> Result<()> {
    let blobs = cluster.node(1).data.join("blobs");
    let mut lost = Vec::new();
    for directory in std::fs::read_dir(blobs.join("sha256"))? {
        for file in std::fs::read_dir(directory?.path())? {
            lost.push(file?.path().strip_prefix(&blobs)?.to_owned());
        }
    }
    lost.truncate(3);
    anyhow::ensure!(!lost.is_empty(), "node 1 has no blob to lose");
    for node in &cluster.nodes {
        for file in &lost {
            // A node may have no copy of it.
            let _ = std::fs::remove_file(node.data.join("blobs").join(file));
        }
    }
    Ok(())
}

/// Under a name that no blob has: all zeros are the digest of nothing known.
fn plant_stray_file(cluster: &Cluster) -> Result<()> {
    let name = "0".repeat(64);
    let directory = cluster.node(1).data.join("blobs/sha256").join(&name[..2]);
    std::fs::create_dir_all(&directory)?;
    Ok(std::fs::write(directory.join(name), b"nobody's")?)
}

/// Judges the history, and the directories of the stopped nodes.
fn judge(stage: &Stage<'_>, has_disk_faults: bool, sabotage: Option<Sabotage>) -> Result<()> {
    let report = &stage.report;
    report.made(Check::Answers);
    report.made(Check::Rejections);
    let operations = stage.world.history.operations();
    let images = stage.world.images.lock();
    let images = images.unwrap_or_else(PoisonError::into_inner).clone();
    content::check(&operations, report);
    content::check_whole(&images, &operations, report);
    tags::check(&operations, report);
    fsck::check_settled(stage.cluster, report, |cluster| match sabotage {
        Some(Sabotage::StrayFile) => plant_stray_file(cluster),
        _ => Ok(()),
    })?;
    fsck::check(stage.cluster, report)?;
    logs::check(stage.cluster, has_disk_faults, report)?;
    run::summarize(&operations);
    Ok(())
}
