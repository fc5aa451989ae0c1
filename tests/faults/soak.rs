//! The soak of garbage collection: pushers that share a pool of layers, deletes, pushes again, mounts, and kills,
//! while garbage is collected several times a second.
//!
//! With the default grace no push of a client that did everything right is refused, and none has to give up. Without grace a refusal is legal,
//! a broken image is not: whatever manifest is served has all its blobs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::checks::{content, fsck, logs, state};
use crate::client::push::Stage as ImageStage;
use crate::client::{Client, World, verify};
use crate::cluster::{Cluster, Plan, node};
use crate::cycles::Cycles;
use crate::history::History;
use crate::nemesis::{Kind, Stage};
use crate::report::{Check, Report};
use crate::run::{self, Workspace};

const PUSHERS: usize = 16;
/// Names that are pushed again and again.
const REPOSITORIES: u64 = 8;
/// Images that are kept alive; beyond, deletes come first.
const LIVE_MAX: usize = 400;
/// Longer than any fault, and what a node needs to be ready again on a busy machine.
const PATIENCE: Duration = Duration::from_secs(150);
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
    /// Milliseconds between two rounds of collection.
    #[arg(long, default_value_t = 200)]
    interval: u64,
    /// Rounds that must have ended, in all.
    #[arg(long, default_value_t = 1)]
    cycles: u64,
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
             [gc]\ninterval_ms = {}\nundelete_ms = 1000\nverify_interval_ms = 1000\n{grace}\n\
             [limits]\nstop_notice_ms = 200\n",
            self.interval
        )
    }

    fn reproduce(&self, seed: u64) -> String {
        let grace = self
            .grace
            .map_or_else(String::new, |grace| format!(" --grace {grace}"));
        let calm = if self.calm { " --calm" } else { "" };
        format!(
            "./tests/soak --minutes {} --interval {} --cycles {} --seed {seed}{grace}{calm}",
            self.minutes, self.interval, self.cycles
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
        grows: false,
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
    world.patience = PATIENCE;
    let stage = Stage::new(&cluster, &world, report.clone());
    let cycles = work(&stage, arguments.calm);
    settle(&stage)?;
    cycles.judge(arguments.cycles, &report);
    run::finish(cluster, &world, &workspace, &report, &reproduce, started)
}

/// Clients and kills, until the time is over; returns what was collected meanwhile.
fn work(stage: &Stage<'_>, is_calm: bool) -> Cycles {
    let world = stage.world;
    let mut cycles = Cycles::default();
    let numbers = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for number in 0..PUSHERS {
            let numbers = &numbers;
            scope.spawn(move || Client::new(number, world).soak(numbers));
        }
        if !is_calm {
            scope.spawn(|| stage.run(&[Kind::Kill, Kind::Collect, Kind::Pause], world.seed));
        }
        scope.spawn(|| cycles.watch(stage.cluster, world));
        run::wait(world);
    });
    cycles
}

fn settle(stage: &Stage<'_>) -> Result<()> {
    let (world, report) = (stage.world, &stage.report);
    stage.recover();
    world.stop.store(false, Ordering::Relaxed);
    state::check_alive(world, report);
    verify::read_everything(world);
    state::check_equal(stage.cluster, report);
    report.made(Check::Answers);
    if !world.may_be_rejected {
        report.made(Check::Rejections);
    }
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
    fsck::check_settled(stage.cluster, report, |_| Ok(()))?;
    fsck::check(stage.cluster, report)?;
    logs::check(stage.cluster, false, report)?;
    run::summarize(&operations);
    let stages = |wanted| {
        images
            .iter()
            .filter(|image| image.stage() == wanted)
            .count()
    };
    let (again, rejections) = (&world.pushes_again, &world.rejections);
    println!(
        "{} images pushed, {} pushed again after their delete, {} deleted at the end, {} pushes rejected",
        stages(ImageStage::Acknowledged) + stages(ImageStage::Deleted),
        again.load(Ordering::Relaxed),
        stages(ImageStage::Deleted),
        rejections.load(Ordering::Relaxed)
    );
    Ok(())
}

impl Client<'_> {
    /// Pushes, deletes, pushes again and reads images of shared layers until the world is over.
    fn soak(&mut self, numbers: &AtomicU64) {
        while !self.world.is_over() {
            match self.rng.range(0, 100) {
                0..40 if self.world.count(ImageStage::Acknowledged) < LIVE_MAX => {
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    let repository = format!("soak/r{}", self.rng.range(0, REPOSITORIES));
                    let shared = *self.rng.pick(&[40, 100]);
                    self.push_image_of(&repository, &format!("i{number}"), shared);
                }
                40..55 => {
                    let deleted = self.world.some_image_at(ImageStage::Deleted, &mut self.rng);
                    if let Some(image) = deleted
                        && self.push_again(&image)
                    {
                        self.world.pushes_again.fetch_add(1, Ordering::Relaxed);
                    }
                }
                0..85 => {
                    let live = ImageStage::Acknowledged;
                    if let Some(image) = self.world.some_image_at(live, &mut self.rng)
                        && image.advance(live, ImageStage::Deleting)
                    {
                        self.delete_image(&image);
                    }
                }
                _ => self.pull_some_image(),
            }
            self.pause(0, 30);
        }
    }
}
