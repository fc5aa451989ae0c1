//! Counts the rounds of garbage collection that really ended, over all nodes and all their lives.
//!
//! Every node counts the rounds that it led since it started, so the counter of a new leader goes on beside that of the
//! old one, and that of a restarted node begins again. What a node did between the last look and its death is lost: the
//! sum is a lower bound.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::World;
use crate::cluster::Cluster;
use crate::http::{self, Request};
use crate::report::{Check, Report};

const INTERVAL: Duration = Duration::from_millis(500);

/// What one process has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rounds {
    all: u64,
    busy: u64,
}

/// The last known counters of each process: by node, and by which of its lives it was.
#[derive(Default)]
pub(crate) struct Cycles(BTreeMap<(u64, u64), Rounds>);

impl Cycles {
    /// Looks at all nodes now and then until the world is over, and once more at its end.
    pub(crate) fn watch(&mut self, cluster: &Cluster, world: &World) {
        while !world.is_over() {
            self.look(cluster);
            std::thread::sleep(INTERVAL);
        }
        self.look(cluster);
    }

    fn look(&mut self, cluster: &Cluster) {
        for node in &cluster.nodes {
            let life = node.lives();
            // The process may have been another one than the one before.
            if let Some(rounds) = ask(node.http).filter(|_| node.lives() == life) {
                self.saw((node.id, life), rounds);
            }
        }
    }

    fn saw(&mut self, process: (u64, u64), rounds: Rounds) {
        let known = self.0.entry(process).or_default();
        known.all = known.all.max(rounds.all);
        known.busy = known.busy.max(rounds.busy);
    }

    fn total(&self) -> Rounds {
        self.0.values().fold(Rounds::default(), |sum, one| Rounds {
            all: sum.all + one.all,
            busy: sum.busy + one.busy,
        })
    }

    /// Prints what was counted; fewer than `wanted` is a finding.
    pub(crate) fn judge(&self, wanted: u64, report: &Report) {
        let Rounds { all, busy } = self.total();
        let leaders = self.0.values().filter(|rounds| rounds.all > 0).count();
        println!(
            "{all} cycles of collection by {leaders} processes, {busy} of them found something to do"
        );
        report.made(Check::Cycles);
        if all < wanted {
            report.found(Check::Cycles, format!("{all} cycles, wanted {wanted}"));
        }
    }
}

fn ask(http: std::net::SocketAddr) -> Option<Rounds> {
    let request = Request {
        method: "GET",
        path: "/metrics",
        ..Request::default()
    };
    let answer = http::send(http, &request).ok()?;
    parse(&String::from_utf8_lossy(&answer.body))
}

/// The two counters of a page of metrics.
fn parse(page: &str) -> Option<Rounds> {
    let value = |name: &str| {
        let mut lines = page.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = lines.find(|(known, _)| *known == name)?;
        value.parse().ok()
    };
    Some(Rounds {
        all: value("argosy_gc_rounds")?,
        busy: value("argosy_gc_busy_rounds")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_lives_are_added_once() {
        let mut cycles = Cycles::default();
        let report = Report::default();
        cycles.judge(1, &report);
        assert_eq!(report.failed(), [Check::Cycles], "no cycle at all");
        for (process, all) in [((1, 1), 5), ((1, 1), 7), ((2, 1), 3), ((1, 2), 1)] {
            cycles.saw(process, Rounds { all, busy: 1 });
        }
        assert_eq!(cycles.total(), Rounds { all: 11, busy: 3 });
        let report = Report::default();
        cycles.judge(11, &report);
        assert!(!report.has_failed());
        cycles.judge(12, &report);
        assert!(report.has_failed());
    }

    #[test]
    fn the_counters_are_read_from_the_metrics() {
        let page =
            "# TYPE argosy_gc_rounds counter\nargosy_gc_rounds 12\nargosy_gc_busy_rounds 3\n";
        assert_eq!(parse(page), Some(Rounds { all: 12, busy: 3 }));
        assert_eq!(parse("argosy_gc_rounds 12\n"), None);
    }
}
