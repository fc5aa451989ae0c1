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
/// What the operating system says of a full or dead disk, and what the blob store says after a sync failed on it.
const CAUSES: [&str; 5] = [
    "No space left on device",
    "Input/output error",
    "Read-only file system",
    "Structure needs cleaning",
    "the blob directory failed earlier and takes no writes",
];
/// Messages that such a disk explains when its cause stands in the line.
const DISK: [&str; 6] = [
    "the blob directory does not take bytes",
    "the blob directory failed, it takes no more writes",
    "a sync of the blob directory failed, it takes no more writes",
    "the log takes no more writes",
    "the node cannot go on",
    "request failed",
];
/// Whatever openraft says of such a disk, it says it before the node ends with one of the messages above.
const RAFT: &str = "ERROR openraft::";
/// This one says itself that the disk is full.
const FULL: &str = "the disk is full, the reserve is given up so that deletes can make room";

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
        let is_explained = had_disk_faults && is_of_disk(line);
        FORBIDDEN.iter().any(|word| line.contains(word))
            || line.contains(" ERROR ") && !is_explained
    };
    text.lines().filter(is_bad).collect()
}

/// Whether a full or dead disk explains an error: the message, right behind the module it comes from, and the cause.
fn is_of_disk(line: &str) -> bool {
    let says = |message: &str| line.contains(&format!(": {message} "));
    let has_cause = CAUSES.iter().any(|cause| line.contains(cause));
    let is_known = line.contains(RAFT) || DISK.iter().any(|message| says(message));
    says(FULL) || has_cause && is_known
}

#[cfg(test)]
mod tests {
    use super::{FULL, unexpected};

    #[test]
    fn errors_need_an_explanation() {
        let full = "12:00 ERROR node::http::trace: request failed status=500 error=\"append /d/log: No space left on device (os error 28)\"";
        let text = format!("12:00 INFO fine\n{full}\nthread main panicked at No space left");
        assert_eq!(unexpected(&text, false).len(), 2);
        assert_eq!(
            unexpected(&text, true),
            ["thread main panicked at No space left"]
        );
        assert_eq!(unexpected("12:00 WARN no ERR", false).len(), 0);
        let raft = "12:00 ERROR openraft::core::raft_core: RaftCore::main error: when Write Log: Input/output error";
        assert!(unexpected(raft, true).is_empty());
        let index = "12:00 ERROR storage::blob::space: the blob directory failed, it takes no more writes path=/d \
                     error=IO error: While fdatasync: /d/local/000044.log: Input/output error";
        assert!(unexpected(index, true).is_empty());
        let warning = "12:00 WARN openraft::replication: GoAway(b\"\", NO_ERROR, Remote)";
        assert!(
            unexpected(warning, false).is_empty(),
            "the level is what counts"
        );
        let given_up = format!("12:00 ERROR storage::reserve: {FULL} path=/d free_bytes=1");
        assert!(unexpected(&given_up, true).is_empty());
    }

    #[test]
    fn neither_a_known_message_nor_a_disk_error_alone_explains_one() {
        for line in [
            "12:00 ERROR openraft::core::raft_core: RaftCore::main error: when Write Log: refused",
            "12:00 ERROR node: the node cannot go on error=raft panicked",
            "12:00 ERROR node::http::trace: request failed status=500 error=\"the log refused\"",
            "12:00 ERROR storage::blob: a copy is missing error=Input/output error (os error 5)",
        ] {
            assert_eq!(unexpected(line, true), [line]);
        }
    }
}
