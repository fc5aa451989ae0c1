//! The nodes themselves, after everything is healed: ready, equal, complete, and working.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proto::admin::CheckReply;

use crate::client::{Client, World};
use crate::cluster::Cluster;
use crate::report::{Check, Report};

/// How long nodes are asked until they stand at one index; ticks of log time go on.
const COMPARE_TIME: Duration = Duration::from_secs(60);
/// How long missing copies may take, on a busy machine.
const COPY_TIME: Duration = Duration::from_secs(180);
/// Pushes and pulls that must work at the end.
const LAST_WORKS: u64 = 10;

/// Pushes and pulls some images: all of it must work now.
pub(crate) fn check_alive(world: &World, report: &Report) {
    report.made(Check::Alive);
    let mut client = Client::new(5_000, world);
    let rejections = || world.rejections.load(Ordering::Relaxed);
    for number in 0..LAST_WORKS {
        let before = rejections();
        let pushed = client.push_image("chaos/last", &format!("last{number}"));
        // Without grace a push may be rejected, and that is an answer.
        if pushed.is_none() && !(world.may_be_rejected && rejections() > before) {
            report.found(
                Check::Alive,
                format!("push {number} after the faults failed"),
            );
        }
        client.pull_some_image();
    }
}

/// Compares the nodes at one index.
pub(crate) fn check_equal(cluster: &Cluster, report: &Report) {
    report.made(Check::State);
    let deadline = Instant::now() + COMPARE_TIME;
    let mut last = String::new();
    while Instant::now() < deadline {
        let replies: Result<Vec<CheckReply>, _> = std::thread::scope(|scope| {
            let asked: Vec<_> = cluster
                .nodes
                .iter()
                .map(|node| scope.spawn(|| cluster.check(node.id)))
                .collect();
            asked
                .into_iter()
                .map(|asked| {
                    asked
                        .join()
                        .unwrap_or_else(|_| Err(anyhow::anyhow!("panicked")))
                })
                .collect()
        });
        match replies {
            Ok(replies) if is_one_index(&replies) => {
                return judge(&replies).into_iter().for_each(|text| {
                    report.found(Check::State, text);
                });
            }
            Ok(replies) => {
                let indexes: Vec<u64> = replies.iter().map(|reply| reply.applied_index).collect();
                last = format!("the nodes stand at {indexes:?}");
            }
            Err(error) => last = error.to_string(),
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    report.found(Check::State, format!("could not be compared: {last}"));
}

fn is_one_index(replies: &[CheckReply]) -> bool {
    replies
        .windows(2)
        .all(|pair| pair[0].applied_index == pair[1].applied_index)
}

fn judge(replies: &[CheckReply]) -> Vec<String> {
    let mut found = Vec::new();
    for reply in replies {
        if let Some(violation) = reply.violations.first() {
            let count = reply.violations.len();
            found.push(format!(
                "node {}: {count} laws broken, first: {violation}",
                reply.node_id
            ));
        }
    }
    for pair in replies.windows(2) {
        if pair[0].fingerprint != pair[1].fingerprint {
            found.push(format!(
                "nodes {} and {} differ at index {}",
                pair[0].node_id, pair[1].node_id, pair[0].applied_index
            ));
        }
    }
    found
}

/// Waits until no copy is missing.
pub(crate) fn check_copies(cluster: &Cluster, report: &Report) {
    report.made(Check::Copies);
    let deadline = Instant::now() + COPY_TIME;
    loop {
        let missing = cluster.nodes.iter().map(|node| {
            let totals = cluster.status(node.id)?.totals?;
            Some(totals.missing_copies)
        });
        let missing: Vec<Option<u64>> = missing.collect();
        if missing.iter().all(|missing| *missing == Some(0)) {
            return;
        }
        if Instant::now() >= deadline {
            let text = format!(
                "after {} s copies are missing: {missing:?} as the nodes see it",
                COPY_TIME.as_secs()
            );
            return report.found(Check::Copies, text);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_states_and_broken_laws_are_found() {
        let reply = |node_id, fingerprint: &str| CheckReply {
            node_id,
            applied_index: 9,
            fingerprint: fingerprint.into(),
            violations: Vec::new(),
        };
        assert_eq!(judge(&[reply(1, "a"), reply(2, "a")]).len(), 0);
        assert_eq!(
            judge(&[reply(1, "a"), reply(2, "a"), reply(3, "b")]).len(),
            1
        );
        let mut broken = reply(1, "a");
        broken.violations.push("law".into());
        assert_eq!(judge(&[broken]).len(), 1);
    }
}
