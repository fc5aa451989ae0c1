//! One point that does one thing once, on the cluster that cases share.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::bench::{self, Bench};
use super::points::{Action, Point, Reach, Role};
use crate::checks::fsck;
use crate::client::push::Image;
use crate::cluster::node::Node;
use crate::report::Check;

/// Until a point has fired that was reached.
const FIRE_TIME: Duration = Duration::from_secs(12);
/// Until a process has ended that said it would.
const END_TIME: Duration = Duration::from_secs(5);
/// Rounds of work until a point has fired that depends on which copy is quicker.
const ROUNDS: usize = 5;
/// More entries than the leader keeps behind its snapshot.
const LONG_ENTRIES: usize = 240;
/// So many that a snapshot is due, and with it a purge.
const ENTRIES: usize = 130;

/// A node whose copies come after the commit.
const SLOW: &str = "push_before_commit=return(delay 150)\n";

/// What is known of a case while it runs.
pub(crate) struct Case<'a> {
    bench: &'a Bench,
    point: Point,
    action: Action,
    victim: &'a Node,
    /// Where the log of the victim was when the point was set.
    printed_bytes: u64,
}

/// What became of it.
pub(crate) struct Outcome {
    pub(crate) victim: u64,
    pub(crate) was_leader: bool,
    /// How the process ended, if it did.
    pub(crate) ended: Option<String>,
    pub(crate) fired: usize,
}

/// Runs one case.
pub(crate) fn run(bench: &mut Bench, point: Point, action: Action) -> Result<Outcome> {
    bench.number += 1;
    let from = bench.world.history.operations().len();
    let mut images = Vec::new();
    let outcome = disturb(bench, point, action, &mut images)?;
    let victim = bench.cluster.node(outcome.victim);
    // What a crash leaves must be sound before anything mends it.
    victim.kill();
    if !point.reach.damages() {
        fsck::check_directories(&[&victim.data], &bench.world.report)?;
    }
    bench.start_all()?;
    bench.world.end_disk_trouble();
    if point.reach.damages() {
        bench.mend();
    }
    bench.worker(outcome.victim).collect(&bench.cluster);
    let read: Vec<Arc<Image>> = images.iter().chain(&bench.last).cloned().collect();
    bench.check(&read, from);
    bench.last = images;
    Ok(outcome)
}

/// Sets the point, works, and unsets it.
fn disturb(
    bench: &Bench,
    point: Point,
    action: Action,
    images: &mut Vec<Arc<Image>>,
) -> Result<Outcome> {
    let leader = bench.cluster.leader().context("nobody leads")?;
    let id = match point.role {
        Role::Leader => leader,
        Role::Follower => bench.other(leader, false),
        Role::Any => bench.number as u64 % bench.world.nodes.len() as u64 + 1,
    };
    if action.fails() {
        bench.world.mark_disk_trouble();
    }
    let mut case = Case {
        bench,
        point,
        action,
        victim: bench.cluster.node(id),
        printed_bytes: 0,
    };
    case.reach()?;
    for round in 0..ROUNDS {
        bench.work(id, round, images);
        let patience = match point.reach {
            Reach::Work | Reach::Late | Reach::Straggler => FIRE_TIME / 4,
            _ => FIRE_TIME,
        };
        let may_take_rounds = matches!(point.reach, Reach::Work | Reach::Late | Reach::Straggler);
        if case.has_fired_soon(patience)? || !may_take_rounds {
            break;
        }
    }
    let outcome = case.outcome(id == leader)?;
    for node in &bench.cluster.nodes {
        bench::set(node, &format!("# {} off", bench.number))?;
    }
    Ok(outcome)
}

impl Case<'_> {
    /// Sets the point of a node that runs.
    fn arm(&mut self) -> Result<()> {
        self.printed_bytes = self.victim.printed_bytes();
        bench::set(self.victim, &self.text())
    }

    fn text(&self) -> String {
        let (number, name) = (self.bench.number, self.point.name);
        let slow = match self.point.reach {
            Reach::Late => SLOW,
            _ => "",
        };
        format!("# {number}\n{slow}{name}=1*{}", self.action.text())
    }

    fn fired(&self) -> Result<usize> {
        count(self.victim, self.printed_bytes, self.point.name)
    }

    fn has_fired_soon(&self, time: Duration) -> Result<bool> {
        let deadline = Instant::now() + time;
        loop {
            if self.fired()? > 0 {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Repeats something until the point has fired.
    fn until_fired(&self, mut act: impl FnMut(usize) -> Result<()>) -> Result<()> {
        let deadline = Instant::now() + FIRE_TIME;
        let mut number = 0;
        while Instant::now() < deadline {
            act(number)?;
            if self.has_fired_soon(Duration::from_millis(200))? {
                break;
            }
            number += 1;
        }
        Ok(())
    }

    /// Sets the point and does what reaches it, if the work does not.
    fn reach(&mut self) -> Result<()> {
        let (bench, id) = (self.bench, self.victim.id);
        let layer = &bench.base.layers[bench.number % bench.base.layers.len()];
        match self.point.reach {
            Reach::Lag => return self.lag(),
            Reach::Reserve => {
                self.victim.kill();
                fs::remove_file(self.victim.data.join("raft/reserve"))?;
                self.start_armed()?;
                return self.has_fired_soon(FIRE_TIME).map(drop);
            }
            Reach::Send => return self.send(),
            _ => self.arm()?,
        }
        match self.point.reach {
            Reach::Churn => self.until_fired(|_| {
                bench.churn(bench.other(id, false), ENTRIES);
                Ok(())
            }),
            Reach::Election => {
                let leader = bench.cluster.leader().context("nobody leads")?;
                self.without(leader)
            }
            Reach::Absent => self.without(bench.other(id, true)),
            Reach::Damage => {
                bench.damage(id, &layer.1)?;
                self.until_fired(|_| {
                    bench.pull_base(id, &layer.1);
                    Ok(())
                })
            }
            Reach::Serve => self.serve(),
            Reach::Straggler => {
                let number = bench.number;
                let slow = bench.cluster.node(bench.other(id, false));
                bench::set(slow, &format!("# {number}\n{SLOW}"))
            }
            Reach::Scrub => self.until_fired(|_| bench.cluster.scrub(id).or(Ok(()))),
            Reach::Repair => self.lose(&layer.1),
            Reach::Orphan => {
                self.lose(&layer.1)?;
                let part = self.victim.data.join("orphan");
                fs::write(&part, &layer.0)?;
                Ok(fs::rename(&part, bench.file_of(id, &layer.1))?)
            }
            Reach::Renew => {
                let mut worker = bench.worker(id);
                self.until_fired(|_| {
                    let node = bench.address(id);
                    let _ = worker.open(node, "failpoints/slow", b"some bytes");
                    Ok(())
                })
            }
            Reach::Work
            | Reach::Late
            | Reach::Lag
            | Reach::Reserve
            | Reach::Send
            | Reach::Form
            | Reach::Grow
            | Reach::GrowBoth
            | Reach::Shrink
            | Reach::Trim => Ok(()),
        }
    }

    /// Ends another node until the point has fired.
    fn without(&self, other: u64) -> Result<()> {
        let other = self.bench.cluster.node(other);
        other.kill();
        self.has_fired_soon(FIRE_TIME)?;
        // The work needs two of three, and the one with the point may be gone.
        other.start()
    }

    /// It is away for so long that it needs a snapshot.
    fn lag(&mut self) -> Result<()> {
        let (bench, id) = (self.bench, self.victim.id);
        // The leader may keep what it was about to send when the node went away: then once more.
        for _ in 0..ROUNDS {
            self.victim.kill();
            bench.churn(bench.other(id, true), LONG_ENTRIES);
            self.start_armed()?;
            if self.has_fired_soon(FIRE_TIME / 4)? {
                break;
            }
        }
        Ok(())
    }

    /// Another node was away for so long that it needs a snapshot of this one.
    fn send(&mut self) -> Result<()> {
        let (bench, id) = (self.bench, self.victim.id);
        let behind = bench.cluster.node(bench.other(id, true));
        for round in 0..ROUNDS {
            behind.kill();
            // Two of three are needed to go on: while one is away the point does nothing.
            bench::set(self.victim, &format!("# {} round {round}", bench.number))?;
            if round > 0 && self.fired()? > 0 {
                return behind.start();
            }
            bench.churn(id, LONG_ENTRIES);
            self.arm()?;
            behind.start()?;
            if self.has_fired_soon(FIRE_TIME)? {
                break;
            }
        }
        Ok(())
    }

    /// Starts the node with its point set.
    fn start_armed(&mut self) -> Result<()> {
        self.printed_bytes = self.victim.printed_bytes();
        self.victim.set_failpoints(&self.text())?;
        self.victim.start()
    }

    /// Another node asks for blobs whose copies it finds damaged, and nobody else is there to send them.
    fn serve(&self) -> Result<()> {
        let (bench, id) = (self.bench, self.victim.id);
        let other = bench.other(id, false);
        let mut nodes = bench.cluster.nodes.iter();
        let third = nodes.find(|node| node.id != id && node.id != other);
        let third = third.context("three nodes are needed")?;
        third.kill();
        self.until_fired(|number| {
            if let Some((_, digest)) = bench.base.layers.get(number) {
                bench.damage(other, digest)?;
            }
            for (_, digest) in bench.base.layers.iter().take(number + 1) {
                bench.pull_base(other, digest);
            }
            Ok(())
        })?;
        third.start()
    }

    /// Takes a copy away from the node, so that the cluster knows.
    fn lose(&self, digest: &str) -> Result<()> {
        let (bench, id) = (self.bench, self.victim.id);
        bench.damage(id, digest)?;
        bench.cluster.scrub(id)?;
        let deadline = Instant::now() + FIRE_TIME;
        loop {
            let status = bench.cluster.status(id);
            let totals = status.and_then(|status| status.totals);
            if totals.is_some_and(|totals| totals.missing_copies > 0) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the damage was not reported by node {id}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Judges how the point and its node behaved.
    fn outcome(&self, was_leader: bool) -> Result<Outcome> {
        let fired = self.fired()?;
        let ended = ended(self.victim, self.action, fired);
        judge(
            &self.bench.world.report,
            self.point,
            self.action,
            fired,
            ended.as_deref(),
        );
        Ok(Outcome {
            victim: self.victim.id,
            was_leader,
            ended,
            fired,
        })
    }
}

/// How often `name` fired on `node` since its log was so long.
pub(crate) fn count(node: &Node, from_bytes: u64, name: &str) -> Result<usize> {
    let said = format!("failpoint {name} fired: ");
    Ok(node.printed_since(from_bytes)?.matches(&said).count())
}

/// How the process ended, if it did; waits where it must.
pub(crate) fn ended(node: &Node, action: Action, fired: usize) -> Option<String> {
    let deadline = Instant::now() + END_TIME;
    loop {
        let ended = node.ended();
        let must_end = action == Action::Panic && fired > 0;
        if ended.is_some() || !must_end || Instant::now() > deadline {
            return ended;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What every case promises of its point, whatever it is.
pub(crate) fn judge(
    report: &crate::report::Report,
    point: Point,
    action: Action,
    fired: usize,
    ended: Option<&str>,
) {
    let name = point.name;
    if fired == 0 {
        report.found(Check::Failpoints, format!("{name} was never reached"));
        return;
    }
    match (action, ended) {
        (Action::Panic, None) => {
            report.found(
                Check::Failpoints,
                format!("{name} panicked and the node went on"),
            );
        }
        (Action::Delay, Some(ended)) => {
            report.found(Check::Ready, format!("{name} took longer, and {ended}"));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;

    #[test]
    fn a_point_that_is_not_reached_fails_and_so_does_a_wrong_end() {
        let point = Point {
            name: "p",
            role: Role::Any,
            reach: Reach::Work,
        };
        let found = |action, fired, ended| {
            let report = Report::default();
            judge(&report, point, action, fired, ended);
            report.failed()
        };
        for action in Action::ALL {
            assert_eq!(found(action, 0, None), [Check::Failpoints]);
        }
        assert_eq!(found(Action::Panic, 1, None), [Check::Failpoints]);
        assert_eq!(found(Action::Panic, 1, Some("SIGABRT")), []);
        assert_eq!(found(Action::Delay, 1, Some("SIGABRT")), [Check::Ready]);
        assert_eq!(found(Action::Error, 1, Some("exit code 1")), []);
    }
}
