//! The cluster that most cases share, and what is checked after each of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::work::{Address, Pushed, Worker};
use crate::checks::{content, fsck, state};
use crate::client::push::Image;
use crate::client::verify::VERIFIER;
use crate::client::{Client, World, digest_of};
use crate::cluster::node::Node;
use crate::cluster::{Cluster, Plan};
use crate::history::{Content, History, Outcome};
use crate::report::{Check, Report};

/// Debug builds on a busy machine.
const START_TIME: Duration = Duration::from_secs(90);
/// How long a node may take to see what its points are set to.
const SET_TIME: Duration = Duration::from_secs(10);
/// Until a damaged copy is whole again.
const MEND_TIME: Duration = Duration::from_secs(30);
/// Layers that are mounted, and damaged in turn.
const BASE_LAYERS: usize = 6;

/// A cluster with someone who works on it.
pub(crate) struct Bench {
    pub(crate) cluster: Cluster,
    pub(crate) world: World,
    pub(crate) base: Pushed,
    /// Images of the last case, to be deleted in the next.
    pub(crate) last: Vec<Arc<Image>>,
    /// Cases so far.
    pub(crate) number: usize,
}

/// Everything soon: collection, trash, expiry, repair, snapshots.
pub(crate) const SETTINGS: &str = "\
[raft]\nheartbeat_ms = 100\nelection_min_ms = 400\nelection_max_ms = 800\nsnapshot_entries = 100\nkeep_entries = 5\n\
tick_ms = 250\n\n\
[storage]\ntrash_ttl_ms = 200\nreserve_bytes = 1048576\n\n\
[replication]\ncopies = 3\nwrite_copies = 2\n\n\
[repair]\ninterval_ms = 200\nsuspect_after_ms = 1000\ndown_after_ms = 3000\ntrim_delay_ms = 0\ncheck_interval_ms = 500\n\n\
[registry]\nupload_ttl_ms = 3000\n\n\
[gc]\nenabled = false\ninterval_ms = 200\ngrace_ms = 0\nundelete_ms = 0\nquarantine_ms = 0\nverify_interval_ms = 0\n\
walk_interval_ms = 1000\n\n\
[limits]\nstop_notice_ms = 0\n";

/// How a cluster of `nodes` is made in `directory`.
pub(crate) fn plan(nodes: u64, port_base: u16, directory: &Path, seed: u64) -> Plan {
    Plan {
        nodes,
        port_base,
        directory: directory.to_owned(),
        disk_bytes: None,
        has_fake_clock: false,
        grows: false,
        settings: SETTINGS.to_owned(),
        seed,
    }
}

/// A world over a cluster, with a history of its own.
pub(crate) fn world_of(cluster: &Cluster, report: &Arc<Report>, seed: u64) -> Result<World> {
    let nodes = cluster.nodes.iter().map(|node| (node.id, node.http));
    let history = History::create(&cluster.plan.directory.join("history.jsonl"))?;
    let mut world = World::new(nodes.collect(), history, report.clone(), seed, START_TIME);
    // Without grace a blob that no manifest names yet may be collected, and is pushed again.
    world.may_be_rejected = true;
    Ok(world)
}

impl Bench {
    /// A cluster that serves.
    pub(crate) fn start(plan: Plan, report: &Arc<Report>) -> Result<Bench> {
        let seed = plan.seed;
        let cluster = Cluster::start(plan)?;
        cluster.wait_ready(START_TIME)?;
        Bench::over(cluster, report, seed)
    }

    /// The same over nodes that serve already.
    pub(crate) fn over(cluster: Cluster, report: &Arc<Report>, seed: u64) -> Result<Bench> {
        let world = world_of(&cluster, report, seed)?;
        let base = Worker {
            client: Client::new(0, &world),
            nodes: world.nodes.clone(),
        }
        .push_base(BASE_LAYERS);
        let base = base.context("nothing could be pushed before the first case")?;
        Ok(Bench {
            cluster,
            world,
            base,
            last: Vec::new(),
            number: 0,
        })
    }

    /// A worker that asks `first` first.
    pub(crate) fn worker(&self, first: u64) -> Worker<'_> {
        let mut nodes = self.world.nodes.clone();
        let start = nodes.iter().position(|node| node.0 == first);
        nodes.rotate_left(start.unwrap_or(0));
        Worker {
            client: Client::new(4_500 + self.number, &self.world),
            nodes,
        }
    }

    pub(crate) fn address(&self, id: u64) -> Address {
        (id, self.cluster.node(id).http)
    }

    /// Some node that is not `id`, and not the leader when `follower`.
    pub(crate) fn other(&self, id: u64, follower: bool) -> u64 {
        let leader = follower.then(|| self.cluster.leader()).flatten();
        let ids = self.cluster.nodes.iter().map(|node| node.id);
        let mut others = ids.filter(|other| *other != id && Some(*other) != leader);
        others.next().unwrap_or(id)
    }

    /// The work of every case, beginning at `first`. Adds the images it pushed to `images`.
    pub(crate) fn work(&self, first: u64, round: usize, images: &mut Vec<Arc<Image>>) {
        let repository = format!("failpoints/r{}", self.number % 4);
        let mut worker = self.worker(first);
        // Rounds of one case push different bytes.
        worker.client = Client::new(1_000 + self.number * 10 + round, &self.world);
        let base = &self.base.layers[1];
        for number in 0..worker.nodes.len() {
            let tag = format!("c{}-{round}-{number}", self.number);
            images.extend(worker.push_image(&repository, &tag, base));
            worker.nodes.rotate_left(1);
        }
        worker.spoil(&repository);
        for (number, image) in self.last.iter().enumerate() {
            match number {
                0 => worker.delete(image),
                1 => worker.delete_tag(image),
                _ => {}
            }
        }
        worker.collect(&self.cluster);
        for image in images.iter() {
            for node in &worker.nodes {
                worker.client.pull(&image.manifest, *node);
            }
        }
    }

    /// Makes log entries, with several clients.
    pub(crate) fn churn(&self, first: u64, entries: usize) {
        const CLIENTS: usize = 4;
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let mut worker = self.worker(first);
                    worker.churn(&self.base.image, &self.base.body, entries / CLIENTS);
                });
            }
        });
    }

    /// Starts what does not run and waits for everybody.
    pub(crate) fn start_all(&self) -> Result<()> {
        for node in &self.cluster.nodes {
            // One that ended by itself counts as not running from now on.
            let _ = node.ended();
            node.start()?;
        }
        self.cluster.wait_ready(START_TIME)
    }

    /// Reads `images` and the base from every node, and compares the nodes. `from` is the first operation judged.
    pub(crate) fn check(&self, images: &[Arc<Image>], from: usize) {
        let report = &self.world.report;
        let mut reader = Client::new(VERIFIER + self.number, &self.world);
        let images: Vec<Arc<Image>> = images.iter().chain([&self.base.image]).cloned().collect();
        for image in &images {
            for content in image.blobs.iter().chain([&image.manifest]) {
                for node in &self.world.nodes {
                    reader.read_back(content, *node);
                }
            }
        }
        state::check_copies(&self.cluster, report);
        state::check_equal(&self.cluster, report);
        let operations = self.world.history.operations().split_off(from);
        judge(&images, operations, report);
    }

    /// Stops everything, checks the directories together, and starts again.
    pub(crate) fn check_directories(&self) -> Result<()> {
        let report = &self.world.report;
        std::thread::scope(|scope| {
            for node in &self.cluster.nodes {
                scope.spawn(|| {
                    if let Err(error) = node.stop() {
                        report.found(Check::Ready, format!("{error:#}"));
                    }
                });
            }
        });
        fsck::check(&self.cluster, report)
    }

    /// Where a node keeps a blob.
    pub(crate) fn file_of(&self, id: u64, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let blobs = self.cluster.node(id).data.join("blobs/sha256");
        blobs.join(&hex[..2]).join(hex)
    }

    /// Flips a bit in the middle of a copy.
    pub(crate) fn damage(&self, id: u64, digest: &str) -> Result<()> {
        let path = self.file_of(id, digest);
        let mut bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Ok(fs::write(&path, bytes)?)
    }

    /// Pulls a blob through a node; the bytes are judged with everything else.
    pub(crate) fn pull_base(&self, id: u64, digest: &str) -> Outcome {
        let content = Content {
            repository: self.base.image.manifest.repository.clone(),
            digest: digest.to_owned(),
            is_blob: true,
        };
        let client = Client::new(9_000 + self.number, &self.world);
        client.pull(&content, self.address(id))
    }

    /// Waits until every copy of the base is whole on every node; reading it tells a node that it is not.
    pub(crate) fn mend(&self) {
        for node in &self.cluster.nodes {
            for (_, digest) in &self.base.layers {
                let deadline = Instant::now() + MEND_TIME;
                let is_whole = || {
                    let bytes = fs::read(self.file_of(node.id, digest));
                    bytes.is_ok_and(|bytes| digest_of(&bytes) == *digest)
                };
                while !is_whole() {
                    if Instant::now() > deadline {
                        let text = format!("node {}: {digest} is not mended", node.id);
                        self.world.report.found(Check::Copies, text);
                        break;
                    }
                    self.pull_base(node.id, digest);
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }
}

/// Sets the points of a node, and waits until it knows when it runs.
pub(crate) fn set(node: &Node, text: &str) -> Result<()> {
    let from = node.printed_bytes();
    let said = node.set_failpoints(text)?;
    let deadline = Instant::now() + SET_TIME;
    while node.is_running() && node.ended().is_none() {
        if node.printed_since(from)?.contains(&said) {
            return Ok(());
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "node {} does not follow its failpoints: build it with --features failpoints",
            node.id
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Words of errors that a failing disk, a damaged copy or a failpoint explains.
const EXPLAINED: [&str; 9] = [
    "failpoint",
    "no storage space",
    "takes no more writes",
    "cannot go on",
    "request failed",
    "goes to quarantine",
    "a copy is missing",
    "a copy of this node is bad",
    "a stored blob is damaged",
];

/// Errors in the logs that nothing explains.
pub(crate) fn check_logs(cluster: &Cluster, report: &Report) -> Result<()> {
    report.made(Check::Logs);
    for node in &cluster.nodes {
        for line in node.printed_since(0)?.lines() {
            let is_explained = EXPLAINED.iter().any(|words| line.contains(words));
            let is_bad = line.contains("ERROR") || line.contains("panicked at");
            if is_bad && !is_explained {
                report.found(Check::Logs, format!("node {}: {line}", node.id));
            }
        }
    }
    Ok(())
}

/// Judges operations on manifests, and whether images that are served are whole. A blob by itself may be collected.
pub(crate) fn judge(
    images: &[Arc<Image>],
    operations: Vec<crate::history::Operation>,
    report: &Report,
) {
    report.made(Check::Answers);
    content::check_whole(images, &operations, report);
    let of_manifests = operations
        .into_iter()
        .filter(|operation| !operation.is_of_blob());
    content::check(&of_manifests.collect::<Vec<_>>(), report);
}
