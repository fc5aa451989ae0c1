//! Cases that need a cluster of their own: how it forms, grows, and wants fewer copies.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::bench::{self, Bench, plan};
use super::case::{self, Outcome};
use super::points::{Action, Point, Reach};
use crate::cluster::Cluster;
use crate::report::Report;

const READY_TIME: Duration = Duration::from_secs(60);
const FIRE_TIME: Duration = Duration::from_secs(20);

/// Where and how such clusters are made.
pub(crate) struct Fresh<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) port_base: u16,
    pub(crate) seed: u64,
    pub(crate) report: &'a Arc<Report>,
}

impl Fresh<'_> {
    /// Runs one case in a cluster that lives no longer. What both the leader and the new member reach is tried on each.
    pub(crate) fn run(&self, number: usize, point: Point, action: Action) -> Result<Outcome> {
        if point.reach == Reach::GrowBoth {
            self.run_on(2, number, point, action)?;
        }
        self.run_on(1, number, point, action)
    }

    fn run_on(&self, victim: u64, number: usize, point: Point, action: Action) -> Result<Outcome> {
        let directory = self.directory.join(format!("fresh-{number}"));
        std::fs::create_dir_all(&directory)?;
        let mut plan = plan(3, self.port_base, &directory, self.seed);
        if matches!(point.reach, Reach::Grow | Reach::GrowBoth) {
            (plan.nodes, plan.grows) = (2, true);
            plan.settings = plan
                .settings
                .replace("[replication]\ncopies = 3\nwrite_copies = 2\n", "");
        }
        let text = format!("{}=1*{}", point.name, action.text());
        let outcome = match point.reach {
            Reach::Trim => self.trim(plan, &text, point, action)?,
            Reach::Shrink => self.shrink(plan, &text, point, action)?,
            _ => self.begin(plan, victim, &text, point, action)?,
        };
        std::fs::remove_dir_all(&directory)?;
        Ok(outcome)
    }

    /// One node has the point set from its first start on, or until the first has added another member.
    fn begin(
        &self,
        plan: crate::cluster::Plan,
        victim: u64,
        text: &str,
        point: Point,
        action: Action,
    ) -> Result<Outcome> {
        let grows = plan.grows;
        let cluster = Cluster::prepare(plan)?;
        let victim = cluster.node(victim);
        victim.set_failpoints(text)?;
        for node in &cluster.nodes {
            node.start()?;
        }
        if grows {
            cluster.wait_ready_of(1, READY_TIME)?;
            // It may fail: that is what it is for.
            let _ = cluster.add_member(1, 2);
        }
        let outcome = self.watch(&cluster, victim.id, 0, point, action)?;
        victim.kill();
        victim.set_failpoints("# off")?;
        victim.start()?;
        if grows {
            cluster.wait_ready_of(1, READY_TIME)?;
            let deadline = Instant::now() + READY_TIME;
            while let Err(error) = cluster.add_member(1, 2) {
                ensure!(
                    Instant::now() < deadline,
                    "no member could be added: {error:#}"
                );
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        cluster.wait_ready(READY_TIME)?;
        let bench = Bench::over(cluster, self.report, self.seed)?;
        self.finish(bench)?;
        Ok(outcome)
    }

    /// The leader is configured to want fewer copies than there are, for a while.
    fn trim(
        &self,
        plan: crate::cluster::Plan,
        text: &str,
        point: Point,
        action: Action,
    ) -> Result<Outcome> {
        let (fewer, more) = ("\ncopies = 2", "\ncopies = 3");
        let bench = Bench::start(plan, self.report)?;
        let cluster = &bench.cluster;
        let victim = cluster.node(2);
        victim.kill();
        victim.edit_configuration(more, fewer)?;
        victim.set_failpoints(text)?;
        let from = victim.printed_bytes();
        victim.start()?;
        cluster.wait_ready(READY_TIME)?;
        let is_wanted = |leader| leader == victim.id;
        lead(cluster, is_wanted)?;
        let outcome = self.watch(cluster, victim.id, from, point, action)?;
        victim.kill();
        victim.edit_configuration(fewer, more)?;
        victim.set_failpoints("# off")?;
        victim.start()?;
        cluster.wait_ready(READY_TIME)?;
        self.finish(bench)?;
        Ok(outcome)
    }

    /// The third node leaves, and the leader has the point set.
    fn shrink(
        &self,
        plan: crate::cluster::Plan,
        text: &str,
        point: Point,
        action: Action,
    ) -> Result<Outcome> {
        let mut bench = Bench::start(plan, self.report)?;
        let cluster = &bench.cluster;
        let leaving = 3;
        let leader = lead(cluster, |leader| leader != leaving)?;
        let until = |what: &str, attempt: &dyn Fn() -> Result<bool>| {
            let deadline = Instant::now() + READY_TIME;
            loop {
                match attempt() {
                    Ok(true) => return Ok(()),
                    outcome if Instant::now() > deadline => {
                        anyhow::bail!("{what}: {outcome:?}");
                    }
                    _ => std::thread::sleep(Duration::from_millis(200)),
                }
            }
        };
        until("node 3 does not drain", &|| {
            Ok(cluster.drain(leader, leaving)?.needed_blobs == 0)
        })?;
        let victim = cluster.node(leader);
        let from = victim.printed_bytes();
        bench::set(victim, text)?;
        // It may fail: that is what it is for.
        let _ = cluster.remove_member(leader, leaving);
        let outcome = self.watch(cluster, leader, from, point, action)?;
        victim.kill();
        victim.set_failpoints("# off")?;
        victim.start()?;
        cluster.wait_ready_of(leader, READY_TIME)?;
        until("node 3 is not removed", &|| {
            cluster.remove_member(leader, leaving).map(|()| true)
        })?;
        let members = |id| cluster.status(id).map(|status| status.members.len());
        until("the others do not agree who is left", &|| {
            Ok(members(1) == Some(2) && members(2) == Some(2))
        })?;
        cluster.node(leaving).kill();
        bench.cluster.nodes.pop();
        bench.world.nodes.pop();
        bench.cluster.wait_ready(READY_TIME)?;
        self.finish(bench)?;
        Ok(outcome)
    }

    /// Waits until the point has fired, and judges it.
    fn watch(
        &self,
        cluster: &Cluster,
        id: u64,
        from: u64,
        point: Point,
        action: Action,
    ) -> Result<Outcome> {
        let node = cluster.node(id);
        let deadline = Instant::now() + FIRE_TIME;
        while case::count(node, from, point.name)? == 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let fired = case::count(node, from, point.name)?;
        let ended = case::ended(node, action, fired);
        case::judge(self.report, point, action, fired, ended.as_deref());
        Ok(Outcome {
            victim: id,
            was_leader: id == 1 || matches!(point.reach, Reach::Trim | Reach::Shrink),
            ended,
            fired,
        })
    }

    /// Works, reads, compares, and checks the directories.
    fn finish(&self, bench: Bench) -> Result<()> {
        let mut images = Vec::new();
        bench.work(1, 0, &mut images);
        bench.check(&images, 0);
        bench.check_directories()?;
        bench::check_logs(&bench.cluster, self.report)?;
        bench.world.history.close()?;
        Ok(())
    }
}

/// Moves leadership on until the wanted node has it.
fn lead(cluster: &Cluster, is_wanted: impl Fn(u64) -> bool) -> Result<u64> {
    let deadline = Instant::now() + READY_TIME;
    loop {
        let leader = cluster.leader().context("nobody leads")?;
        if is_wanted(leader) {
            return Ok(leader);
        }
        ensure!(Instant::now() < deadline, "no wanted node gets to lead");
        cluster.node(leader).stop()?;
        cluster.node(leader).start()?;
        cluster.wait_ready(READY_TIME)?;
    }
}
