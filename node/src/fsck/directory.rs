//! One data directory for itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use metadata::fingerprint::{Fingerprint, fingerprint};
use metadata::ids::{LogIndex, NodeId};
use metadata::{invariants, query};
use oci::Digest;
use storage::blob::offline::OfflineBlobs;
use storage::blob::{BlobStat, Verified};
use storage::offline::OfflineDir;
use storage::rocks::offline::{LogSummary, OfflineState};

use super::FsckOptions;
use super::report::Report;
use super::unaccounted::Unaccounted;

/// Blobs looked at between two reads of the index.
const PAGE: usize = 1000;

/// Findings of one kind that are listed; then only their number.
pub(super) const LISTED: usize = 100;

/// What was learnt of a directory, for comparing it with others. Holds its lock.
pub(super) struct Checked {
    pub(super) directory: OfflineDir,
    pub(super) state: OfflineState,
    pub(super) applied: LogIndex,
    /// The log has entries that the state lacks.
    pub(super) is_behind: bool,
    pub(super) fingerprint: Fingerprint,
    /// Blobs of this node that are here and whole.
    pub(super) whole: BTreeSet<Digest>,
}

impl Checked {
    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().to_path_buf()
    }

    pub(super) fn node_id(&self) -> NodeId {
        self.directory.node_id()
    }
}

/// Checks a directory; `None` when it cannot be compared with others.
pub(super) fn check(path: &Path, options: &FsckOptions, report: &mut Report) -> Option<Checked> {
    let directory = match OfflineDir::open(path) {
        Ok(directory) => directory,
        Err(error) => {
            report.unchecked(path, error.to_string());
            return None;
        }
    };
    identify(path, &directory, report);
    let log = directory
        .log()
        .map_err(|error| report.error(path, format!("log: {error}")))
        .ok();
    let state = directory
        .state()
        .map_err(|error| report.error(path, format!("state: {error}")))
        .ok()?;
    let applied = match state.applied() {
        Ok(applied) => applied.index,
        Err(error) => {
            report.error(path, format!("state: {error}"));
            return None;
        }
    };
    let taken_over = state
        .taken_over()
        .map_err(|error| report.error(path, format!("state: {error}")))
        .ok()?;
    let is_behind = log.is_some_and(|log| against_log(path, &log, applied, taken_over, report));
    let fingerprint = laws(path, &state, report)?;
    let blobs = directory
        .blobs()
        .map_err(|error| report.error(path, format!("blobs: {error}")))
        .ok()?;
    let whole = copies(path, &blobs, options.quick, report)?;
    let counted = counted(path, directory.node_id(), &state, &whole, is_behind, report)?;
    let unaccounted = Unaccounted {
        path,
        state: &state,
        blobs: &blobs,
        whole: &whole,
        counted: &counted,
    };
    unaccounted.check(options.settled, report);
    leftovers(path, &blobs, report);
    Some(Checked {
        directory,
        state,
        applied,
        is_behind,
        fingerprint,
        whole,
    })
}

/// Whose directory it is, and whether it is a copy.
fn identify(path: &Path, directory: &OfflineDir, report: &mut Report) {
    let cluster = directory.cluster_id().unwrap_or("none yet");
    report.note(
        path,
        format!(
            "node {} of cluster {cluster}, disk {}",
            directory.node_id(),
            directory.disk_id()
        ),
    );
    match directory.copy_of() {
        Ok(None) => {}
        Ok(Some(original)) => report.warning(
            path,
            format!(
                "it is a copy of {}: no node starts on it before `argosy accept-copy`",
                original.display()
            ),
        ),
        Err(error) => report.error(path, error.to_string()),
    }
}

/// Compares the state with the log; says whether the log has entries that the state lacks.
fn against_log(
    path: &Path,
    log: &LogSummary,
    applied: LogIndex,
    taken_over: Option<LogIndex>,
    report: &mut Report,
) -> bool {
    let purged = log.purged_through.unwrap_or(0);
    if applied.0 < purged {
        report.error(
            path,
            format!(
                "the state has applied entries through {applied}, and the log was purged through {purged}: what is in \
                 between is gone; replace this node"
            ),
        );
        return false;
    }
    report.note(
        path,
        format!(
            "log: ends before entry {}, applied through {applied}",
            log.end
        ),
    );
    // An empty log ends before entry 0, and then nothing was applied.
    let behind = (log.end.saturating_sub(1)).checked_sub(applied.0);
    match behind {
        // It ends there until the next start: a state is taken over first, and the log begins behind it then.
        None if taken_over == Some(applied) => report.note(
            path,
            format!("the state was taken over through entry {applied}, and nothing was written since"),
        ),
        None => report.error(
            path,
            format!(
                "the log ends before entry {}, and the state has applied entries through {applied}: the log is an old \
                 copy; replace this node",
                log.end
            ),
        ),
        Some(0) => {}
        // A node that was killed leaves a few. Many mean that the state lost its end.
        Some(behind) => report.warning(
            path,
            format!(
                "the state is {behind} entries behind the log: what follows is checked as of entry {applied}, and the \
                 next start applies those that were committed"
            ),
        ),
    }
    behind > Some(0)
}

/// The laws of the state, and its fingerprint.
fn laws(path: &Path, state: &OfflineState, report: &mut Report) -> Option<Fingerprint> {
    let read = state.read(|view| Ok((invariants::check(view)?, fingerprint(view)?)));
    let (violations, fingerprint) = read
        .map_err(|error| report.error(path, format!("state: {error}")))
        .ok()?;
    for violation in &violations {
        report.error(path, format!("state: a law is {violation}"));
    }
    if violations.is_empty() {
        report.note(
            path,
            format!("state: every law holds, fingerprint {fingerprint}"),
        );
    }
    Some(fingerprint)
}

/// Verifies every blob that is here; returns the whole ones.
fn copies(
    path: &Path,
    blobs: &OfflineBlobs,
    quick: bool,
    report: &mut Report,
) -> Option<BTreeSet<Digest>> {
    let mut whole = BTreeSet::new();
    let (mut bytes, mut bad) = (0, 0);
    let mut after = None;
    loop {
        let page = blobs
            .list(after.as_ref(), PAGE)
            .map_err(|error| report.error(path, format!("blobs: {error}")))
            .ok()?;
        let Some(last) = page.last() else { break };
        after = Some(last.digest);
        for BlobStat { digest, size_bytes } in page {
            let what = match blobs.verify(&digest, quick) {
                Ok(Verified::Sound(_)) => {
                    whole.insert(digest);
                    bytes += size_bytes;
                    continue;
                }
                Ok(Verified::Absent) => continue,
                Ok(Verified::Missing) => "its file is missing".to_owned(),
                Ok(Verified::Damaged(damage)) => format!("it is damaged: {damage}"),
                Err(error) => error.to_string(),
            };
            bad += 1;
            if bad <= LISTED {
                report.error(path, format!("blob {digest}: {what}"));
            }
        }
    }
    if bad > LISTED {
        report.error(path, format!("{bad} blobs are damaged or missing"));
    }
    let how = if quick {
        "have the right length"
    } else {
        "are whole"
    };
    report.note(
        path,
        format!("blobs: {} with {bytes} bytes {how}", whole.len()),
    );
    Some(whole)
}

/// Every copy that the state counts on this node must be here, unless what follows in the log may have removed it. Returns
/// them.
fn counted(
    path: &Path,
    node: NodeId,
    state: &OfflineState,
    whole: &BTreeSet<Digest>,
    is_behind: bool,
    report: &mut Report,
) -> Option<BTreeSet<Digest>> {
    let (mut counted, mut lost) = (BTreeSet::new(), 0);
    let mut after: Option<Digest> = None;
    loop {
        let page = state
            .read(|view| query::blobs_of_node(view, node, after.as_ref(), PAGE))
            .map_err(|error| report.error(path, format!("state: {error}")))
            .ok()?;
        let Some(last) = page.last() else { break };
        after = Some(*last);
        for digest in page {
            counted.insert(digest);
            if !whole.contains(&digest) {
                lost += 1;
                if lost <= LISTED {
                    let what = "the state counts this copy, and there is no whole one";
                    not_here(path, is_behind, format!("blob {digest}: {what}"), report);
                }
            }
        }
    }
    if lost > LISTED {
        not_here(
            path,
            is_behind,
            format!("{lost} counted copies are not here"),
            report,
        );
    }
    let count = counted.len();
    report.note(path, format!("copies: the state counts {count} here"));
    Some(counted)
}

fn not_here(path: &Path, is_behind: bool, what: String, report: &mut Report) {
    match is_behind {
        true => report.warning(path, format!("{what} (or the log removes it)")),
        false => report.error(path, what),
    }
}

/// What is no blob: nothing of it is wrong.
fn leftovers(path: &Path, blobs: &OfflineBlobs, report: &mut Report) {
    let counts = || -> Result<String, storage::error::BlobError> {
        let (trash, quarantine) = (blobs.trash(), blobs.quarantine()?);
        Ok(format!(
            "beside blobs: {} pins, {} in the trash ({} bytes), {} in quarantine ({} bytes)",
            blobs.pin_count()?,
            trash.files,
            trash.bytes,
            quarantine.files,
            quarantine.bytes,
        ))
    };
    match counts() {
        Ok(counts) => report.note(path, counts),
        Err(error) => report.error(path, format!("blobs: {error}")),
    }
}
