//! Several data directories of one cluster together.

use std::collections::{BTreeMap, BTreeSet};

use metadata::ids::NodeId;
use metadata::query;
use metadata::view::{MetadataView, ViewError};
use oci::Digest;

use super::directory::{Checked, LISTED};
use super::report::Report;

/// Blobs looked up between two reads of a placement table.
const PAGE: usize = 1000;

/// Compares what the directories say of each other.
pub(super) fn check(checked: &[Checked], report: &mut Report) {
    same_cluster(checked, report);
    same_state(checked, report);
    // The directory that has applied the most knows best what should be where.
    let Some(latest) = checked.iter().max_by_key(|each| each.applied) else {
        return;
    };
    if let Err(error) = enough_copies(latest, checked, report) {
        report.error(&latest.path(), format!("state: {error}"));
    }
}

fn same_cluster(checked: &[Checked], report: &mut Report) {
    let clusters: BTreeSet<&str> = checked
        .iter()
        .filter_map(|each| each.directory.cluster_id())
        .collect();
    if clusters.len() > 1 {
        report.error_between("the directories belong to different clusters");
    }
    for (at, each) in checked.iter().enumerate() {
        for other in &checked[..at] {
            if each.node_id() == other.node_id() {
                report.error_between(format!(
                    "{} and {} both belong to node {}",
                    other.path().display(),
                    each.path().display(),
                    each.node_id()
                ));
            } else if each.directory.disk_id() == other.directory.disk_id() {
                report.error_between(format!(
                    "{} is a copy of {}",
                    each.path().display(),
                    other.path().display()
                ));
            }
        }
    }
}

/// Equal index, equal state (invariant I5).
fn same_state(checked: &[Checked], report: &mut Report) {
    let mut first: BTreeMap<_, &Checked> = BTreeMap::new();
    for each in checked {
        let other = first.entry(each.applied).or_insert(each);
        if other.fingerprint != each.fingerprint {
            report.error_between(format!(
                "{} and {} have applied the same entries, through {}, and have different states",
                other.path().display(),
                each.path().display(),
                each.applied
            ));
        }
    }
}

/// Every blob has W counted copies, and every counted copy of a directory given is there and whole.
fn enough_copies(
    latest: &Checked,
    checked: &[Checked],
    report: &mut Report,
) -> Result<(), ViewError> {
    let given: BTreeMap<NodeId, &Checked> =
        checked.iter().map(|each| (each.node_id(), each)).collect();
    let (blobs, poor) = latest.state.read(|view| {
        let nodes = query::nodes(view)?;
        let write_copies = query::cluster(view)?.map_or(0, |cluster| cluster.write_copies);
        let mut seen = BTreeSet::new();
        let mut poor = Vec::new();
        for node in nodes {
            visit_blobs(view, node.node, &mut |digest, holders| {
                if !seen.insert(digest) {
                    return;
                }
                let missing: Vec<NodeId> = holders
                    .iter()
                    .filter(|holder| {
                        given
                            .get(holder)
                            .is_some_and(|each| !each.whole.contains(&digest))
                    })
                    .copied()
                    .collect();
                // A holder whose directory was not given is believed.
                let good = holders.len() - missing.len();
                if good < write_copies as usize {
                    poor.push((digest, good));
                }
            })?;
        }
        // Blobs without any holder are in no placement.
        for blob in query::under_replicated(view, usize::MAX)? {
            if blob.copies == 0 && seen.insert(blob.digest) {
                poor.push((blob.digest, 0));
            }
        }
        Ok((seen.len(), poor))
    })?;
    for (digest, good) in poor.iter().take(LISTED) {
        let what = format!("blob {digest}: only {good} whole copies are left");
        match latest.is_behind {
            // What follows in the log may have removed it.
            true => report.warning(&latest.path(), what),
            false => report.error_between(what),
        }
    }
    if poor.is_empty() {
        report.note(
            &latest.path(),
            format!("together: each of {blobs} blobs has enough whole copies"),
        );
    } else if !latest.is_behind {
        report.error_between(format!(
            "{} of {blobs} blobs have too few whole copies",
            poor.len()
        ));
    }
    Ok(())
}

fn visit_blobs(
    view: &dyn MetadataView,
    node: NodeId,
    visit: &mut dyn FnMut(Digest, &[NodeId]),
) -> Result<(), ViewError> {
    let mut after: Option<Digest> = None;
    loop {
        let page = query::blobs_of_node(view, node, after.as_ref(), PAGE)?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(*last);
        for digest in page {
            if let Some(blob) = query::blob(view, &digest)? {
                visit(digest, &blob.holders);
            }
        }
    }
}
