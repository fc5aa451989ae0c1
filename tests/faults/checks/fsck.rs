//! The offline check of data directories, as an operator would run it. A program without it fails the run.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::cluster::node::binary;
use crate::report::{Check, Report};

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
    let mut command = Command::new(binary()?);
    command.arg("fsck");
    for directory in directories {
        command.arg("--data").arg(directory);
    }
    let output = command.output()?;
    if !output.status.success() {
        let text = format!(
            "{}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        report.found(Check::Fsck, text);
    }
    Ok(())
}
