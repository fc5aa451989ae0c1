//! What the nodes printed.

use std::fs;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::report::{Check, Report};

/// Never printed, whatever happens.
const FORBIDDEN: [&str; 3] = [
    "panicked at",
    "fatal runtime error",
    "pthread lock: Invalid argument",
];
/// What a full or dead disk explains.
const DISK: [&str; 9] = [
    "No space left",
    "Input/output error",
    "Read-only file system",
    "Structure needs cleaning",
    "takes no more writes",
    "the disk is full, the reserve is given up",
    "cannot go on",
    "request failed",
    "os error 5",
];

/// Errors in the logs of all nodes that nothing explains.
pub(crate) fn check(cluster: &Cluster, had_disk_faults: bool, report: &Report) -> Result<()> {
    report.made(Check::Logs);
    for node in &cluster.nodes {
        let text = fs::read(node.log())?;
        for line in unexpected(&String::from_utf8_lossy(&text), had_disk_faults) {
            report.found(Check::Logs, format!("node {}: {line}", node.id));
        }
    }
    Ok(())
}

fn unexpected(text: &str, had_disk_faults: bool) -> Vec<&str> {
    let is_bad = |line: &&str| {
        let is_explained = had_disk_faults && DISK.iter().any(|known| line.contains(known));
        FORBIDDEN.iter().any(|word| line.contains(word)) || line.contains("ERROR") && !is_explained
    };
    text.lines().filter(is_bad).collect()
}

#[cfg(test)]
mod tests {
    use super::unexpected;

    #[test]
    fn errors_need_an_explanation() {
        let full = "12:00 ERROR storage: failed error=No space left on device";
        let text = format!("12:00 INFO fine\n{full}\nthread main panicked at No space left");
        assert_eq!(unexpected(&text, false).len(), 2);
        assert_eq!(
            unexpected(&text, true),
            ["thread main panicked at No space left"]
        );
        assert_eq!(unexpected("12:00 WARN no ERR", false).len(), 0);
    }
}
