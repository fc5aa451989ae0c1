//! Nothing acknowledged is lost, nothing deleted comes back, no byte is wrong: from the history alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::client::push::{Image, Stage};
use crate::client::verify::VERIFIER;
use crate::history::{Action, Content, Operation, Outcome};
use crate::report::{Check, Report};

/// What was done with one content.
#[derive(Default)]
struct Story<'a> {
    puts: Vec<&'a Operation>,
    deletes: Vec<&'a Operation>,
    pulls: Vec<&'a Operation>,
}

/// Judges every read of every content.
pub(crate) fn check(operations: &[Operation], report: &Report) {
    for check in [Check::Durable, Check::Deleted, Check::Bytes] {
        report.made(check);
    }
    let mut stories: BTreeMap<&Content, Story<'_>> = BTreeMap::new();
    for operation in operations {
        match &operation.action {
            Action::Put(content) => stories.entry(content).or_default().puts.push(operation),
            Action::Delete(content) => stories.entry(content).or_default().deletes.push(operation),
            Action::Pull(content) => stories.entry(content).or_default().pulls.push(operation),
            Action::GetTag { .. }
            | Action::PutTag { .. }
            | Action::SwapTag { .. }
            | Action::DeleteTag { .. } => {}
        }
    }
    for (content, story) in &stories {
        for pull in &story.pulls {
            if let Some((check, text)) = judge(content, story, pull) {
                report.found(check, text);
            }
        }
    }
}

fn judge(content: &Content, story: &Story<'_>, pull: &Operation) -> Option<(Check, String)> {
    let Outcome::Seen(seen) = pull.outcome() else {
        return None;
    };
    let path = content.path();
    let (node, id) = (pull.node, pull.id);
    let done = |operation: &&&Operation| *operation.outcome() == Outcome::Done;
    let happened = |operation: &&&Operation| {
        !matches!(operation.outcome(), Outcome::NotDone | Outcome::Refused)
    };
    match seen {
        Some(digest) if *digest != content.digest => Some((
            Check::Bytes,
            format!("node {node} sent bytes of {digest} for {path} (#{id})"),
        )),
        Some(_) => {
            // A put that may have taken effect after the delete explains it.
            let gone = story.deletes.iter().filter(done).find(|delete| {
                let again = story.puts.iter().filter(happened);
                delete.returned_at_ns < pull.called_at_ns
                    && again.clone().all(|put| put.end_ns() < delete.called_at_ns)
            })?;
            Some((
                Check::Deleted,
                format!(
                    "node {node} served {path} (#{id}) after its delete (#{})",
                    gone.id
                ),
            ))
        }
        None => {
            // Only a delete that may have taken effect after the put and before the pull explains it.
            let may_be_deleted_after = |put: &Operation| {
                story.deletes.iter().filter(happened).any(|delete| {
                    delete.end_ns() >= put.called_at_ns && delete.called_at_ns < pull.returned_at_ns
                })
            };
            let put =
                story.puts.iter().filter(done).find(|put| {
                    put.returned_at_ns < pull.called_at_ns && !may_be_deleted_after(put)
                })?;
            let text = format!(
                "LOST {path}: acknowledged by node {} (#{}), missing on node {node} (#{id})",
                put.node, put.id
            );
            Some((Check::Durable, text))
        }
    }
}

/// Every image that a node serves at the end has its blobs there.
pub(crate) fn check_whole(images: &[Arc<Image>], operations: &[Operation], report: &Report) {
    report.made(Check::Whole);
    let mut present: BTreeSet<(u64, &Content)> = BTreeSet::new();
    let mut absent: BTreeSet<(u64, &Content)> = BTreeSet::new();
    let last = operations
        .iter()
        .filter(|operation| operation.client >= VERIFIER);
    for operation in last {
        let Action::Pull(content) = &operation.action else {
            continue;
        };
        match operation.outcome() {
            Outcome::Seen(Some(_)) => present.insert((operation.node, content)),
            Outcome::Seen(None) => absent.insert((operation.node, content)),
            Outcome::Done | Outcome::Refused | Outcome::NotDone | Outcome::Unknown => false,
        };
    }
    for image in images
        .iter()
        .filter(|image| image.stage() != Stage::Deleted)
    {
        let nodes = present
            .iter()
            .filter(|(_, content)| **content == image.manifest);
        for (node, _) in nodes {
            for blob in image
                .blobs
                .iter()
                .filter(|blob| absent.contains(&(*node, *blob)))
            {
                let text = format!(
                    "node {node}: {} has no {}",
                    image.manifest.path(),
                    blob.digest
                );
                report.found(Check::Whole, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Content {
        Content {
            repository: "r".into(),
            digest: "sha256:a".into(),
            is_blob: false,
        }
    }

    fn operation(id: usize, action: Action, outcome: Outcome, times: (u64, u64)) -> Operation {
        Operation {
            id,
            client: 0,
            node: 1,
            action,
            called_at_ns: times.0,
            returned_at_ns: times.1,
            outcome: Some(outcome),
            revision: None,
            answer: String::new(),
        }
    }

    fn put(outcome: Outcome, times: (u64, u64)) -> Operation {
        operation(0, Action::Put(content()), outcome, times)
    }

    fn delete(outcome: Outcome, times: (u64, u64)) -> Operation {
        operation(1, Action::Delete(content()), outcome, times)
    }

    fn pull(seen: Option<&str>, times: (u64, u64)) -> Operation {
        let outcome = Outcome::Seen(seen.map(str::to_owned));
        operation(2, Action::Pull(content()), outcome, times)
    }

    fn found(operations: &[Operation]) -> Option<Check> {
        let report = Report::default();
        check(operations, &report);
        let failed = report.failed();
        assert!(failed.len() < 2, "{failed:?}");
        failed.first().copied()
    }

    const GOOD: Option<&str> = Some("sha256:a");

    #[test]
    fn a_lost_manifest_is_found() {
        let acknowledged = put(Outcome::Done, (0, 10));
        assert_eq!(
            found(&[acknowledged.clone(), pull(None, (11, 12))]),
            Some(Check::Durable)
        );
        // Not yet acknowledged, or perhaps never carried out, or deleted by somebody meanwhile.
        assert_eq!(found(&[acknowledged.clone(), pull(None, (9, 12))]), None);
        assert_eq!(
            found(&[put(Outcome::Unknown, (0, 10)), pull(None, (11, 12))]),
            None
        );
        let deleting = delete(Outcome::Unknown, (12, 20));
        assert_eq!(
            found(&[acknowledged.clone(), deleting.clone(), pull(None, (11, 13))]),
            None
        );
        assert_eq!(
            found(&[acknowledged.clone(), deleting, pull(None, (10 + 1, 11))]),
            Some(Check::Durable)
        );
        // A refused delete explains nothing.
        let refused = delete(Outcome::NotDone, (10, 11));
        assert_eq!(
            found(&[acknowledged, refused, pull(None, (12, 13))]),
            Some(Check::Durable)
        );
    }

    #[test]
    fn a_manifest_that_is_lost_after_it_was_pushed_again_is_found() {
        let story = |deleted: Outcome, times| {
            [
                put(Outcome::Done, (0, 10)),
                delete(deleted, times),
                put(Outcome::Done, (21, 30)),
                pull(None, (31, 32)),
            ]
        };
        // The delete was over before the second push began: it explains nothing.
        assert_eq!(found(&story(Outcome::Done, (11, 20))), Some(Check::Durable));
        assert_eq!(found(&story(Outcome::Done, (11, 22))), None);
        assert_eq!(found(&story(Outcome::Unknown, (11, 20))), None);
    }

    #[test]
    fn a_resurrection_is_found() {
        let story = [
            put(Outcome::Done, (0, 10)),
            delete(Outcome::Done, (11, 20)),
            pull(GOOD, (21, 22)),
        ];
        assert_eq!(found(&story), Some(Check::Deleted));
        let mut concurrent = story.clone();
        concurrent[2] = pull(GOOD, (19, 22));
        assert_eq!(found(&concurrent), None);
        // A try of unknown outcome may take effect late.
        let mut late = story.to_vec();
        late.push(put(Outcome::Unknown, (1, 5)));
        assert_eq!(found(&late), None);
        let mut again = story.to_vec();
        again.push(put(Outcome::Done, (20, 21)));
        assert_eq!(found(&again), None);
    }

    #[test]
    fn wrong_bytes_are_found() {
        let story = [
            put(Outcome::Done, (0, 10)),
            pull(Some("sha256:b"), (11, 12)),
        ];
        assert_eq!(found(&story), Some(Check::Bytes));
    }

    #[test]
    fn a_broken_image_is_found() {
        let blob = Content {
            digest: "sha256:b".into(),
            is_blob: true,
            ..content()
        };
        let image = Arc::new(Image::new(
            "t".into(),
            content(),
            vec![blob.clone()],
            Vec::new(),
        ));
        let mut served = pull(GOOD, (11, 12));
        served.client = VERIFIER;
        let outcome = Outcome::Seen(None);
        let mut missing = operation(3, Action::Pull(blob), outcome, (13, 14));
        missing.client = VERIFIER;
        let failed = |operations: &[Operation]| {
            let report = Report::default();
            check_whole(std::slice::from_ref(&image), operations, &report);
            report.failed()
        };
        assert_eq!(failed(&[served.clone(), missing.clone()]), [Check::Whole]);
        // On another node it says nothing about this one.
        missing.node = 2;
        assert_eq!(failed(&[served, missing]), []);
    }
}
