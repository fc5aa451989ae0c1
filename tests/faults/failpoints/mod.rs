//! Every failpoint, with an error, a full disk, a panic and a delay: what is left is sound, and everything acknowledged
//! is there and whole on every node.

mod bench;
mod case;
mod fresh;
mod points;
mod work;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::cluster::node;
use crate::report::{Check, Report};
use crate::run::{self, Workspace};
use bench::Bench;
use fresh::Fresh;
use points::{Action, Point};

/// Cases between two checks of all directories together.
const DIRECTORIES_EVERY: usize = 4;

/// How to run it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only a fixed selection, about three minutes of it.
    #[arg(long)]
    quick: bool,
    /// Only points whose name contains one of these words, separated by commas.
    #[arg(long, value_delimiter = ',')]
    point: Vec<String>,
    /// Only these actions, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    action: Vec<Action>,
    /// The bytes that are pushed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// First of 1000 ports on loopback.
    #[arg(long, default_value_t = 27000)]
    port_base: u16,
    /// Where the data goes; a directory for temporary files otherwise.
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Arguments {
    fn cases(&self) -> Vec<(Point, Action)> {
        let points = points::all();
        let cases = if self.quick {
            points::quick(&points)
        } else {
            let pairs = points
                .iter()
                .flat_map(|point| Action::ALL.map(|action| (*point, action)));
            pairs.collect()
        };
        let wanted = |(point, action): &(Point, Action)| {
            (self.point.is_empty()
                || self
                    .point
                    .iter()
                    .any(|word| point.name.contains(word.as_str())))
                && (self.action.is_empty() || self.action.contains(action))
        };
        cases.into_iter().filter(wanted).collect()
    }
}

/// Runs it. False when something was found.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let started = Instant::now();
    node::binary()?;
    let cases = arguments.cases();
    ensure!(!cases.is_empty(), "no case is left");
    let points = cases.iter().map(|(point, _)| point.name);
    let points = points.collect::<std::collections::BTreeSet<_>>().len();
    println!("{} cases, {points} points", cases.len());
    let workspace = Workspace::create(arguments.dir.as_deref())?;
    let report = Arc::new(Report::default());
    report.made(Check::Failpoints);
    report.made(Check::Ready);
    let plan = bench::plan(3, arguments.port_base, &workspace.path, arguments.seed);
    let mut bench = Bench::start(plan, &report)?;
    let fresh = Fresh {
        directory: &workspace.path,
        port_base: arguments.port_base + 500,
        seed: arguments.seed,
        report: &report,
    };
    let mut failed = 0;
    for (number, (point, action)) in cases.iter().enumerate() {
        if !run_case(&mut bench, &fresh, number, *point, *action)? {
            failed += 1;
        }
        if (number + 1) % DIRECTORIES_EVERY == 0 {
            bench.check_directories()?;
            bench.start_all()?;
        }
    }
    finish(&bench)?;
    bench.world.history.close()?;
    bench.cluster.destroy();
    workspace.close(&report)?;
    println!(
        "{} cases, {} of them failed, {} s in all",
        cases.len(),
        failed,
        started.elapsed().as_secs()
    );
    report.print();
    Ok(!report.has_failed())
}

/// Runs one case and prints a line. False when something was found.
fn run_case(
    bench: &mut Bench,
    fresh: &Fresh<'_>,
    number: usize,
    point: Point,
    action: Action,
) -> Result<bool> {
    let (started, before) = (Instant::now(), fresh.report.findings());
    let outcome = if point.reach.is_fresh() {
        fresh.run(number, point, action)
    } else {
        case::run(bench, point, action)
    };
    let name = point.name;
    let what = match outcome {
        Ok(outcome) => format!(
            "node {}{}, {}{}",
            outcome.victim,
            if outcome.was_leader { " (leader)" } else { "" },
            if outcome.fired > 0 {
                "fired"
            } else {
                "not reached"
            },
            outcome
                .ended
                .map_or_else(String::new, |ended| format!(", {ended}"))
        ),
        Err(error) => {
            let text = format!("{name} {}: {error:#}", action.name());
            fresh.report.found(Check::Ready, text.clone());
            // The next case deserves a cluster that serves.
            for node in &bench.cluster.nodes {
                node.set_failpoints("# off")?;
            }
            bench.cluster.heal()?;
            bench.start_all()?;
            text
        }
    };
    let is_good = fresh.report.findings() == before;
    println!(
        "{} {name} {}: {what} ({:.1} s)",
        if is_good { "ok    " } else { "FAILED" },
        action.name(),
        started.elapsed().as_secs_f64()
    );
    Ok(is_good)
}

/// Reads whatever was acknowledged in the whole run from every node, and judges all of it.
fn finish(bench: &Bench) -> Result<()> {
    let report = &bench.world.report;
    crate::client::verify::read_everything(&bench.world);
    let images = bench.world.images.lock();
    let images = images.unwrap_or_else(PoisonError::into_inner).clone();
    bench::judge(&images, bench.world.history.operations(), report);
    bench.check_directories()?;
    bench::check_logs(&bench.cluster, report)?;
    run::summarize(&bench.world.history.operations());
    Ok(())
}
