//! What every kind of run has: a directory, an end, and a summary.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::client::World;
use crate::cluster::Cluster;
use crate::history::{Action, Operation, Outcome};
use crate::report::Report;

/// How often progress is printed.
const PROGRESS: Duration = Duration::from_secs(30);

/// A directory of one run. It goes away unless something failed; then the logs, the history and the configuration
/// stay.
pub(crate) struct Workspace {
    pub(crate) path: PathBuf,
}

impl Workspace {
    /// A new directory, below `parent` when it is given.
    pub(crate) fn create(parent: Option<&Path>) -> Result<Workspace> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        fs::create_dir_all(&parent)?;
        let made = tempfile::Builder::new()
            .prefix("argosy-faults-")
            .tempdir_in(&parent)
            .with_context(|| format!("cannot make a directory in {}", parent.display()))?;
        Ok(Workspace { path: made.keep() })
    }

    /// Ends the run: keeps what explains a failure, drops the data.
    pub(crate) fn close(&self, report: &Report) -> Result<()> {
        if report.has_failed() {
            let keep = std::env::var_os("ARGOSY_TEST_LOGS").map(PathBuf::from);
            let keep = keep.unwrap_or_else(std::env::temp_dir);
            let name = self.path.file_name().unwrap_or_default().to_string_lossy();
            let keep = keep.join(format!("kept-{name}"));
            fs::create_dir_all(&keep)?;
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.file_type()?.is_file() {
                    fs::copy(entry.path(), keep.join(name))?;
                } else {
                    for file in ["log", "config.toml"] {
                        let from = entry.path().join(file);
                        if from.exists() {
                            fs::copy(from, keep.join(format!("{name}.{file}")))?;
                        }
                    }
                }
            }
            println!("logs and history are kept in {}", keep.display());
        }
        Ok(fs::remove_dir_all(&self.path)?)
    }
}

/// A seed that differs from day to day, for runs that were not given one.
pub(crate) fn seed_of_today() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |since| since.as_secs())
}

/// Lets the run go on for its time, printing how it goes.
pub(crate) fn wait(world: &World) {
    let mut next = PROGRESS;
    while world.started.elapsed() < world.duration && !world.is_over() {
        std::thread::sleep(Duration::from_millis(100));
        if world.started.elapsed() >= next {
            next += PROGRESS;
            let operations = world.history.count();
            println!(
                "{:>6} s  {operations} operations",
                world.started.elapsed().as_secs()
            );
        }
    }
    world.stop.store(true, std::sync::atomic::Ordering::Relaxed);
}

/// What was asked, what was acknowledged, how long it took.
pub(crate) fn summarize(operations: &[Operation]) {
    let mut kinds: BTreeMap<&str, (usize, usize, usize, Vec<u64>)> = BTreeMap::new();
    for operation in operations {
        let name = match &operation.action {
            Action::Put(content) if content.is_blob => "push of a blob",
            Action::Put(_) => "push of a manifest",
            Action::Pull(content) if content.is_blob => "pull of a blob",
            Action::Pull(_) => "pull of a manifest",
            Action::Delete(_) => "delete of a manifest",
            Action::GetTag { .. } => "read of a tag",
            Action::PutTag { .. } => "move of a tag",
            Action::SwapTag { .. } => "conditional move",
            Action::DeleteTag { .. } => "delete of a tag",
        };
        let (all, good, unknown, times) = kinds.entry(name).or_default();
        *all += 1;
        match operation.outcome() {
            Outcome::Unknown => *unknown += 1,
            Outcome::NotDone => {}
            Outcome::Done | Outcome::Seen(_) | Outcome::Refused => {
                *good += 1;
                times.push(
                    operation
                        .returned_at_ns
                        .saturating_sub(operation.called_at_ns),
                );
            }
        }
    }
    for (name, (all, good, unknown, mut times)) in kinds {
        times.sort_unstable();
        let at = |per_mille: usize| {
            let position = (times.len() * per_mille / 1000).min(times.len().saturating_sub(1));
            times.get(position).copied().unwrap_or(0) / 1_000_000
        };
        println!(
            "{name:<21} {all:>7} asked {good:>7} answered {unknown:>6} unknown   p50 {} ms, p99 {} ms",
            at(500),
            at(990)
        );
    }
}

/// The end of every run: waits for the end of `what` on all nodes and closes everything.
pub(crate) fn finish(
    cluster: Cluster,
    world: &World,
    workspace: &Workspace,
    report: &Arc<Report>,
    reproduce: &str,
    started: Instant,
) -> Result<bool> {
    world.history.close()?;
    cluster.destroy();
    drop(cluster);
    workspace.close(report)?;
    println!("{} s in all", started.elapsed().as_secs());
    if report.has_failed() {
        println!("to run it again: {reproduce}");
    }
    report.print();
    Ok(!report.has_failed())
}
