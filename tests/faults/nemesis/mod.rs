//! The one who breaks things: a seeded schedule of faults, each begun, held and healed.

mod clock;
mod collection;
mod disk;
mod network;
mod power;
mod process;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;

use crate::client::World;
use crate::cluster::Cluster;
use crate::report::{Check, Report};
use crate::rng::Rng;

/// A node that was killed replays its log; the machine may be busy.
const READY_TIME: Duration = Duration::from_secs(120);
/// What the majority may need until it serves again, on a busy machine.
const SETTLE_TIME: Duration = Duration::from_secs(10);
/// The shortest time in which it must then be seen to serve.
const SERVING_TIME: Duration = Duration::from_secs(5);
/// The longest a follower waits before it stands for election; the configuration of the nodes.
pub(crate) const ELECTION: Duration = Duration::from_millis(1600);

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// SIGKILL of one node, the leader, or all.
    Kill,
    /// SIGKILL of the leader in the middle of a round of garbage collection.
    Collect,
    /// SIGSTOP for half to ten election timeouts, then SIGCONT.
    Pause,
    /// SIGSTOP of the leader every two seconds, each time for a little more than an election timeout.
    Churn,
    /// SIGTERM and start, one node or one after the other.
    Restart,
    /// One node cut off, the leader cut off, one direction, or one pair.
    Partition,
    /// Links that are late or narrow.
    Slow,
    /// Links that reset their connections.
    Lossy,
    /// The wall clock jumps by years (libfaketime).
    Clock,
    /// A full disk on one node, the leader, or all (root, loop devices).
    Disk,
    /// Power cuts of one node or all, and crash images (root, loop devices).
    Power,
}

impl Kind {
    /// Whether the nodes need file systems of their own.
    pub(crate) fn needs_disks(self) -> bool {
        matches!(self, Kind::Disk | Kind::Power)
    }

    fn is_of_the_network(self) -> bool {
        matches!(self, Kind::Partition | Kind::Slow | Kind::Lossy)
    }
}

/// What a fault works on.
pub(crate) struct Stage<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) world: &'a World,
    pub(crate) report: Arc<Report>,
    /// How often each kind was made.
    pub(crate) made: Mutex<BTreeMap<Kind, usize>>,
    /// Whether the fault of the moment has no second one beside it.
    is_alone: AtomicBool,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(cluster: &'a Cluster, world: &'a World, report: Arc<Report>) -> Stage<'a> {
        Stage {
            cluster,
            world,
            report,
            made: Mutex::default(),
            is_alone: AtomicBool::new(true),
        }
    }

    /// Makes faults until the world is over.
    pub(crate) fn run(&self, kinds: &[Kind], seed: u64) {
        self.report.made(Check::Ready);
        self.report.made(Check::Nemesis);
        let mut rng = Rng::new(seed, 0xFA17);
        let network: Vec<Kind> = kinds
            .iter()
            .copied()
            .filter(|kind| kind.is_of_the_network())
            .collect();
        self.rest(&mut rng, 2_000, 4_000);
        let mut round = 0;
        // The first rounds go through all kinds, so that a short run has each.
        let mut order = kinds.to_vec();
        for last in (1..order.len()).rev() {
            order.swap(last, rng.index(last + 1));
        }
        while !self.world.is_over() {
            let kind = match order.get(round) {
                Some(kind) => *kind,
                None => *rng.pick(kinds),
            };
            let second = (!network.is_empty() && !kind.is_of_the_network() && rng.percent(30))
                .then(|| *rng.pick(&network));
            self.is_alone.store(second.is_none(), Ordering::SeqCst);
            let (mut one, mut other) = (Rng::new(rng.next(), 1), Rng::new(rng.next(), 2));
            std::thread::scope(|scope| {
                if let Some(second) = second {
                    scope.spawn(move || self.make(second, &mut other));
                }
                self.make(kind, &mut one);
            });
            self.recover();
            self.rest(&mut rng, 1_000, 5_000);
            round += 1;
        }
    }

    fn make(&self, kind: Kind, rng: &mut Rng) {
        let started = Instant::now();
        let result = match kind {
            Kind::Kill => process::kill(self, rng),
            Kind::Collect => collection::kill_in_round(self, rng),
            Kind::Pause => process::pause(self, rng),
            Kind::Churn => process::churn(self, rng),
            Kind::Restart => process::restart(self, rng),
            Kind::Partition => network::partition(self, rng),
            Kind::Slow => network::slow(self, rng),
            Kind::Lossy => network::lossy(self, rng),
            Kind::Clock => clock::jump(self, rng),
            Kind::Disk => disk::fill(self, rng),
            Kind::Power => power::cut(self, rng),
        };
        let at = self.world.started.elapsed().as_secs();
        match result {
            Ok(what) => {
                println!(
                    "{at:>6} s  {what} ({:.1} s)",
                    started.elapsed().as_secs_f64()
                );
                *self
                    .made
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .entry(kind)
                    .or_default() += 1;
            }
            Err(error) => self
                .report
                .found(Check::Nemesis, format!("at {at} s: {kind:?}: {error:#}")),
        }
    }

    /// Heals everything and waits until every node is ready. Deaths that a disk explains are forgiven.
    pub(crate) fn recover(&self) {
        let started = Instant::now();
        if let Err(error) = self.try_recover() {
            let at = self.world.started.elapsed().as_secs();
            self.report
                .found(Check::Ready, format!("at {at} s: {error:#}"));
            let _ = self.cluster.heal();
        }
        let took = started.elapsed();
        if took > Duration::from_secs(10) {
            println!("          ready again after {:.1} s", took.as_secs_f64());
        }
    }

    fn try_recover(&self) -> Result<()> {
        for node in &self.cluster.nodes {
            if node.is_running()
                && let Err(died) = node.check_alive()
                && !self.world.has_disk_trouble()
            {
                self.cluster.heal()?;
                return Err(died);
            }
        }
        self.cluster.heal()?;
        self.cluster.wait_ready(READY_TIME)
    }

    /// Waits, but not longer than the run takes.
    pub(crate) fn hold(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && !self.world.is_over() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits while a majority of the nodes can work: after the time that an election takes, writes must succeed.
    pub(crate) fn hold_serving(&self, time: Duration) {
        self.hold(time.min(SETTLE_TIME));
        let rest = time.saturating_sub(SETTLE_TIME);
        if rest < SERVING_TIME {
            self.hold(rest);
        } else {
            self.serving(|| self.hold(rest));
        }
    }

    /// Some writes must succeed while this goes on, unless it is cut short or another fault is made beside it.
    pub(crate) fn serving(&self, work: impl FnOnce()) {
        let done = || self.world.writes.load(Ordering::SeqCst);
        let (before, started) = (done(), Instant::now());
        work();
        if self.world.is_over() || !self.is_alone.load(Ordering::SeqCst) {
            return;
        }
        self.report.made(Check::Progress);
        if done() == before {
            let at = self.world.started.elapsed().as_secs();
            let time = started.elapsed().as_secs();
            let text = format!("at {at} s: not one write succeeded for {time} s");
            self.report.found(Check::Progress, text);
        }
    }

    fn rest(&self, rng: &mut Rng, low_ms: u64, high_ms: u64) {
        self.hold(Duration::from_millis(rng.range(low_ms, high_ms)));
    }

    /// Any node.
    pub(crate) fn any(&self, rng: &mut Rng) -> u64 {
        rng.pick(&self.cluster.nodes).id
    }

    /// The leader, or any node when none says that it leads.
    pub(crate) fn leader(&self, rng: &mut Rng) -> u64 {
        self.cluster.leader().unwrap_or_else(|| self.any(rng))
    }

    /// Whom to hit: one, the leader or all, and how to call them.
    pub(crate) fn victims(&self, rng: &mut Rng) -> (String, Vec<u64>) {
        match rng.range(0, 10) {
            0..4 => {
                let node = self.any(rng);
                (format!("node {node}"), vec![node])
            }
            4..8 => {
                let node = self.leader(rng);
                (format!("leader {node}"), vec![node])
            }
            _ => {
                let all = self.cluster.nodes.iter().map(|node| node.id).collect();
                ("all nodes".to_owned(), all)
            }
        }
    }
}
