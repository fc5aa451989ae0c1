//! The offline check of data directories, as an operator would run it. A program without it fails the run.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::cluster::node::binary;
use crate::report::{Check, Report};

/// Looks at files without a reason; between two of them the nodes run.
const TRIES: usize = 3;
const READY_TIME: Duration = Duration::from_secs(120);
/// More than a node needs to walk over its files.
const WALK_TIME: Duration = Duration::from_secs(6);

/// Checks the directories of all nodes together. The nodes must not run.
pub(crate) fn check(cluster: &Cluster, report: &Report) -> Result<()> {
    let directories: Vec<&Path> = cluster
        .nodes
        .iter()
        .map(|node| node.data.as_path())
        .collect();
    check_directories(&directories, report)
}

/// The same for any directories.
pub(crate) fn check_directories(directories: &[&Path], report: &Report) -> Result<()> {
    report.made(Check::Fsck);
    if let Some(text) = complaint(directories, &[])? {
        report.found(Check::Fsck, text);
    }
    Ok(())
}

/// Stops the nodes and checks that nothing lies in their directories without a reason. A restart begins with a walk over
/// all files, so what a fault left is gone after one, or two when a ticket was still open; `plant` runs before each look.
pub(crate) fn check_settled(
    cluster: &Cluster,
    report: &Report,
    plant: impl Fn(&Cluster) -> Result<()>,
) -> Result<()> {
    report.made(Check::Settled);
    let directories: Vec<&Path> = cluster
        .nodes
        .iter()
        .map(|node| node.data.as_path())
        .collect();
    for tries_left in (0..TRIES).rev() {
        for node in &cluster.nodes {
            if let Err(error) = node.stop() {
                report.found(Check::Ready, format!("{error:#}"));
            }
        }
        plant(cluster)?;
        let found = complaint(&directories, &["--quick", "--settled"])?;
        // Whatever else is wrong is for the other check.
        let Some(text) = found.filter(|text| text.lines().any(is_unaccounted)) else {
            break;
        };
        if tries_left == 0 {
            report.found(Check::Settled, text);
            break;
        }
        for node in &cluster.nodes {
            node.start()?;
        }
        cluster.wait_ready(READY_TIME)?;
        std::thread::sleep(WALK_TIME);
    }
    Ok(())
}

fn is_unaccounted(line: &str) -> bool {
    line.starts_with("WRONG") && line.contains("have no reason to be here")
}

/// What the check says when something is wrong.
fn complaint(directories: &[&Path], options: &[&str]) -> Result<Option<String>> {
    let mut command = Command::new(binary()?);
    command.arg("fsck").args(options);
    for directory in directories {
        command.arg("--data").arg(directory);
    }
    let output = command.output()?;
    Ok((!output.status.success()).then(|| {
        format!(
            "{}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    }))
}
