//! The soak of garbage collection: pushers that share a pool of layers, deletes, pushes again, mounts, and kills,
//! while garbage is collected every second.
//!
//! With the default grace no push of a client that did everything right is refused. Without grace a refusal is legal,
//! a broken image is not: whatever manifest is served has all its blobs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::checks::{content, fsck, logs, state};
use crate::client::push::Stage as ImageStage;
use crate::client::{Client, World, verify};
use crate::cluster::{Cluster, Plan, node};
use crate::history::History;
use crate::nemesis::{Kind, Stage};
use crate::report::{Check, Report};
use crate::run::{self, Workspace};

const PUSHERS: usize = 16;
/// Names that are pushed again and again.
const REPOSITORIES: u64 = 8;
/// Images that are kept alive; beyond, deletes come first.
const LIVE_MAX: usize = 400;
const START_TIME: Duration = Duration::from_secs(120);

/// How to run it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How long it pushes and deletes; reading everything back comes on top.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Milliseconds of log time for which an unreferenced blob is kept; without it the default of the product.
    #[arg(long)]
    grace: Option<u64>,
    #[arg(long)]
    seed: Option<u64>,
    /// First of 500 ports on loopback.
    #[arg(long, default_value_t = 26500)]
    port_base: u16,
    /// Where the data goes; a directory for temporary files otherwise.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Without kills.
    #[arg(long)]
    calm: bool,
}

impl Arguments {
    fn settings(&self) -> String {
        let grace = match self.grace {
            None => String::new(),
            Some(grace) => format!("grace_ms = {grace}\nquarantine_ms = {grace}\n"),
        };
        // Deleted manifests can be restored for a while, and that holds their blobs: here for one second.
        format!(
            "[raft]\ntick_ms = 500\nsnapshot_entries = 2000\nkeep_entries = 500\n\n\
             [gc]\ninterval_ms = 1000\nundelete_ms = 1000\nverify_interval_ms = 1000\n{grace}\n\
             [limits]\nstop_notice_ms = 200\n"
        )
    }

    fn reproduce(&self, seed: u64) -> String {
        let grace = self
            .grace
            .map_or_else(String::new, |grace| format!(" --grace {grace}"));
        format!(
            "./tests/soak --minutes {} --seed {seed}{grace}",
            self.minutes
        )
    }
}

/// Runs it. False when something was found.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let started = Instant::now();
    node::binary()?;
    ensure!(arguments.minutes > 0.0, "--minutes must be more than 0");
    let seed = arguments.seed.unwrap_or_else(run::seed_of_today);
    let reproduce = arguments.reproduce(seed);
    println!("seed {seed}; {reproduce}");
    let workspace = Workspace::create(arguments.dir.as_deref())?;
    let cluster = Cluster::start(Plan {
        nodes: 3,
        port_base: arguments.port_base,
        directory: workspace.path.clone(),
        disk_bytes: None,
        has_fake_clock: false,
        settings: arguments.settings(),
        seed,
    })?;
    cluster.wait_ready(START_TIME)?;
    let report = Arc::new(Report::default());
    let nodes = cluster.nodes.iter().map(|node| (node.id, node.http));
    let mut world = World::new(
        nodes.collect(),
        History::create(&workspace.path.join("history.jsonl"))?,
        report.clone(),
        seed,
        Duration::from_secs_f64(arguments.minutes * 60.0),
    );
    world.may_be_rejected = arguments.grace == Some(0);
    let stage = Stage {
        cluster: &cluster,
        world: &world,
        report: report.clone(),
        made: Mutex::default(),
    };
    work(&stage, arguments.calm);
    settle(&stage)?;
    run::finish(cluster, &world, &workspace, &report, &reproduce, started)
}

fn work(stage: &Stage<'_>, is_calm: bool) {
    let world = stage.world;
    let numbers = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for number in 0..PUSHERS {
            let numbers = &numbers;
            scope.spawn(move || Client::new(number, world).soak(numbers));
        }
        if !is_calm {
            scope.spawn(|| stage.run(&[Kind::Kill, Kind::Pause], world.seed));
        }
        run::wait(world);
    });
}

fn settle(stage: &Stage<'_>) -> Result<()> {
    let (world, report) = (stage.world, &stage.report);
    stage.recover();
    world.stop.store(false, Ordering::Relaxed);
    state::check_alive(world, report);
    verify::read_everything(world);
    state::check_equal(stage.cluster, report);
    report.made(Check::Answers);
    report.made(Check::Rejections);
    let operations = world.history.operations();
    let images = world.images.lock();
    let images = images.unwrap_or_else(PoisonError::into_inner).clone();
    // A blob by itself may be collected; a manifest may not, and neither may its blobs.
    let of_manifests = operations
        .iter()
        .filter(|operation| !operation.is_of_blob());
    let of_manifests: Vec<_> = of_manifests.cloned().collect();
    content::check(&of_manifests, report);
    content::check_whole(&images, &operations, report);
    for node in &stage.cluster.nodes {
        if let Err(error) = node.stop() {
            report.found(Check::Ready, format!("{error:#}"));
        }
    }
    fsck::check(stage.cluster, report)?;
    logs::check(stage.cluster, false, report)?;
    run::summarize(&operations);
    let stages = |wanted| {
        images
            .iter()
            .filter(|image| image.stage() == wanted)
            .count()
    };
    println!(
        "{} images pushed, {} of them deleted again, {} pushes rejected",
        stages(ImageStage::Acknowledged) + stages(ImageStage::Deleted),
        stages(ImageStage::Deleted),
        world.rejections.load(Ordering::Relaxed)
    );
    Ok(())
}

impl Client<'_> {
    /// Pushes, deletes and reads images of shared layers until the world is over.
    fn soak(&mut self, numbers: &AtomicU64) {
        while !self.world.is_over() {
            let live = {
                let images = self.world.images.lock();
                let images = images.unwrap_or_else(PoisonError::into_inner);
                let live = images
                    .iter()
                    .filter(|image| image.stage() == ImageStage::Acknowledged);
                live.count()
            };
            match self.rng.range(0, 100) {
                0..50 if live < LIVE_MAX => {
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    let repository = format!("soak/r{}", self.rng.range(0, REPOSITORIES));
                    self.push_image(&repository, &format!("i{number}"));
                }
                0..85 => self.delete_some_image(),
                _ => self.pull_some_image(),
            }
            self.pause(0, 30);
        }
    }
}
