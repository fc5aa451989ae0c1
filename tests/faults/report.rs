//! What was found, and the total.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Findings printed of one check.
const SHOWN: usize = 10;

/// What is held against a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Check {
    /// Everything acknowledged and not deleted is there, on every node (I1).
    Durable,
    /// Every manifest that is served has its blobs.
    Whole,
    /// Bytes hash to their digest (I6).
    Bytes,
    /// Deleted content is served by nobody (I11).
    Deleted,
    /// Tags are linearizable (I4).
    Tags,
    /// A list of tags shows what was acknowledged before it was asked for, and nothing deleted before.
    Lists,
    /// No push of a client that did everything right is refused, and none gives up.
    Rejections,
    /// Garbage was collected, in so many rounds as were wanted.
    Cycles,
    /// No answer that no specification knows, and no 500.
    Answers,
    /// A majority that can work does.
    Progress,
    /// Every node is ready in time after a fault is over (I12), and none ends by itself.
    Ready,
    /// Reads and writes work after everything is over.
    Alive,
    /// All nodes hold the same state at one index (I5), and its laws hold.
    State,
    /// Every blob has all its copies again.
    Copies,
    /// No node logged an error that no fault explains.
    Logs,
    /// Every failpoint did what it was set to.
    Failpoints,
    /// Offline check of the data directories.
    Fsck,
    /// After a while no file is left without a reason.
    Settled,
    /// The faults could be made.
    Nemesis,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Check::Durable => "everything acknowledged is on every node",
            Check::Whole => "no manifest without its blobs",
            Check::Bytes => "bytes match their digest",
            Check::Deleted => "nothing deleted is served",
            Check::Tags => "tags are linearizable",
            Check::Lists => "lists of tags are current",
            Check::Rejections => "no well-behaved push fails",
            Check::Cycles => "garbage was collected in rounds",
            Check::Answers => "no unexpected answer",
            Check::Progress => "a majority goes on serving",
            Check::Ready => "nodes are ready in time",
            Check::Alive => "it serves after everything",
            Check::State => "all nodes hold the same lawful state",
            Check::Copies => "every blob has its copies",
            Check::Logs => "no unexpected error in the logs",
            Check::Failpoints => "every failpoint fired",
            Check::Fsck => "data directories are sound",
            Check::Settled => "no file is left without a reason",
            Check::Nemesis => "the faults were made",
        })
    }
}

/// Checks made and what they found.
#[derive(Default)]
pub(crate) struct Report {
    found: Mutex<BTreeMap<Check, Vec<String>>>,
}

impl Report {
    /// Counts `check` as made.
    pub(crate) fn made(&self, check: Check) {
        self.found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(check)
            .or_default();
    }

    /// Counts `check` as failed.
    pub(crate) fn found(&self, check: Check, text: impl Into<String>) {
        let text = text.into();
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let list = found.entry(check).or_default();
        if list.len() < SHOWN {
            println!("FOUND  {check}: {text}");
        }
        list.push(text);
    }

    /// How much was found so far.
    pub(crate) fn findings(&self) -> usize {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.values().map(Vec::len).sum()
    }

    pub(crate) fn has_failed(&self) -> bool {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.values().any(|list| !list.is_empty())
    }

    /// The checks that failed.
    #[cfg(test)]
    pub(crate) fn failed(&self) -> Vec<Check> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = found.iter().filter(|(_, list)| !list.is_empty());
        failed.map(|(check, _)| *check).collect()
    }

    /// Ends a run in which something was broken on purpose: true when one of `wanted` failed, and nothing that is neither
    /// among them nor in `explained`.
    pub(crate) fn print_expected(&self, wanted: &[Check], explained: &[Check]) -> bool {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |check: &Check| found.get(check).is_some_and(|list| !list.is_empty());
        let is_seen = wanted.iter().any(failed);
        let is_known = |check: &Check| wanted.contains(check) || explained.contains(check);
        let mut others = found.keys().filter(|check| !is_known(check));
        let other = others.find(|check| failed(check));
        match (is_seen, other) {
            (true, None) => {
                println!("ok     what was broken on purpose was found\n1 passed, 0 failed")
            }
            (true, Some(other)) => {
                println!("FAILED {other}: it was not broken\n0 passed, 1 failed")
            }
            (false, _) => {
                println!("FAILED what was broken on purpose was not found\n0 passed, 1 failed");
            }
        }
        is_seen && other.is_none()
    }

    /// Prints each check and the total that `tests/run` counts.
    pub(crate) fn print(&self) {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failed = 0;
        for (check, list) in found.iter() {
            if list.is_empty() {
                println!("ok     {check}");
            } else {
                failed += 1;
                println!("FAILED {check}: {} times", list.len());
            }
        }
        println!("{} passed, {failed} failed", found.len() - failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_finding_fails_the_run() {
        let report = Report::default();
        report.made(Check::Tags);
        report.made(Check::Durable);
        assert!(!report.has_failed());
        report.found(Check::Tags, "wrong");
        report.made(Check::Tags);
        assert!(report.has_failed());
        assert!(report.print_expected(&[Check::Tags], &[]));
        assert!(report.print_expected(&[Check::Durable, Check::Tags], &[]));
        assert!(!report.print_expected(&[Check::Durable], &[Check::Tags]));
        assert!(!report.print_expected(&[Check::Bytes], &[]));
        report.found(Check::Bytes, "wrong, too");
        assert!(!report.print_expected(&[Check::Tags], &[]));
        assert!(report.print_expected(&[Check::Tags], &[Check::Bytes]));
    }
}
