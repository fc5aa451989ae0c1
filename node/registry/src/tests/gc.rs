//! Garbage collection, stage by stage, and what an operator asks of it.

use std::time::Duration;

use bytes::Bytes;
use metadata::key::{self, Table};
use metadata::query;
use oci::{Digest, Reference};

use super::fixture::*;
use crate::gc::{Candidate, GcError, GcRound, RepositoryPattern, UntaggedRule};
use crate::{GcOptions, RegistryError, RegistryOptions};

const HOUR_MS: u64 = 60 * 60 * 1000;

/// Everything is due at once; the sweepers look often.
pub(super) fn at_once() -> RegistryOptions {
    RegistryOptions {
        gc: GcOptions {
            grace_ms: 0,
            quarantine_ms: 0,
            undelete_ms: 0,
            ..times(Duration::ZERO)
        },
        ..RegistryOptions::default()
    }
}

fn times(verify_interval: Duration) -> GcOptions {
    GcOptions {
        interval: Duration::from_millis(10),
        verify_interval,
        ..GcOptions::default()
    }
}

fn with_default_times() -> RegistryOptions {
    RegistryOptions {
        gc: times(Duration::from_secs(3600)),
        ..RegistryOptions::default()
    }
}

/// Config and layer of the image that `push_image` pushes.
pub(super) fn blobs_of(seed: u64) -> [Bytes; 2] {
    [pattern(100, seed), pattern(3000, seed + 1_000_000)]
}

pub(super) async fn delete_manifest(cluster: &Cluster, body: &Bytes) {
    let registry = cluster.registry(1);
    registry
        .delete_manifest(&caller(), &repository(), &sha256(body))
        .await
        .unwrap();
}

pub(super) async fn gone_from_disks(cluster: &Cluster, digests: &[Digest]) {
    for node in &cluster.nodes {
        eventually("the copies are unlinked", || async {
            let mut is_gone = true;
            for digest in digests {
                is_gone &= node.blobs.stat(digest).await.unwrap().is_none();
            }
            is_gone
        })
        .await;
    }
}

async fn run(cluster: &Cluster) -> GcRound {
    cluster.registry(1).gc_run().await.unwrap()
}

#[tokio::test]
async fn what_a_deleted_image_needed_passes_every_stage_in_its_time() {
    let cluster = Cluster::with_options(3, 3, 3, with_default_times());
    let registry = cluster.registry(1);
    let body = push_image(registry, &repository(), "v1", 1).await;
    let digests: Vec<Digest> = blobs_of(1).iter().map(|blob| sha256(blob)).collect();
    let kept = push_image(registry, &repository(), "v2", 2).await;
    delete_manifest(&cluster, &body).await;
    assert_eq!(
        run(&cluster).await,
        GcRound::default(),
        "it can be restored"
    );
    cluster.log.advance_ms(24 * HOUR_MS).unwrap();
    let purged = run(&cluster).await;
    // A deleted manifest needs its blobs as a live one does, and they had their grace meanwhile.
    let expected = GcRound {
        purged_manifests: 1,
        removed_links: 2,
        condemned_blobs: 2,
        ..GcRound::default()
    };
    assert_eq!(purged, expected);
    let missing = registry
        .blob_info(&caller(), &repository(), &digests[0])
        .await;
    assert!(matches!(missing, Err(RegistryError::BlobUnknown(_))));
    for node in &cluster.nodes {
        assert!(node.blobs.stat(&digests[0]).await.unwrap().is_some());
    }
    cluster.log.advance_ms(HOUR_MS).unwrap();
    let expected = GcRound {
        deleted_blobs: 2,
        blob_bytes: 3100,
        copy_bytes: 3 * 3100,
        verified_manifests: 1,
        ..GcRound::default()
    };
    assert_eq!(run(&cluster).await, expected);
    assert_eq!(run(&cluster).await, GcRound::default());
    gone_from_disks(&cluster, &digests).await;
    let status = registry.gc_status().await.unwrap();
    assert_eq!(status.cluster.collected.copy_bytes, 3 * 3100);
    let by_tag = by_tag("v2");
    let still = registry.manifest(&caller(), &repository(), &by_tag).await;
    assert_eq!(still.unwrap().value.1, kept);
    for blob in blobs_of(2) {
        let found = read(registry, &repository(), &sha256(&blob)).await;
        assert_eq!(found.unwrap(), blob);
    }
}

#[tokio::test]
async fn a_round_that_the_clock_starts_scans_no_more_often_than_allowed() {
    let mut options = at_once();
    options.gc.verify_interval = Duration::from_secs(3600);
    let cluster = Cluster::with_options(1, 1, 1, options);
    let registry = cluster.registry(1);
    let mut memory = crate::gc::stepper::Memory::default();
    let mut seen = Vec::new();
    for seed in 1..3 {
        push(registry, &repository(), &pattern(500, seed))
            .await
            .unwrap();
        let round = registry.round(&mut memory, false).await.unwrap();
        seen.push((round.deleted_blobs, round.unverified_blobs));
    }
    assert_eq!(seen, [(1, 0), (0, 1)]);
    assert_eq!(run(&cluster).await.deleted_blobs, 1, "an operator may");
}

/// Nothing else may be due for a long time.
#[tokio::test]
async fn a_deleted_blob_is_forgotten_in_its_time() {
    let cluster = Cluster::with_options(1, 1, 1, at_once());
    push(cluster.registry(1), &repository(), &pattern(500, 1))
        .await
        .unwrap();
    run(&cluster).await;
    let remembered = || query::deleted_blobs(&cluster.log.snapshot(), None, 9).unwrap();
    assert_eq!(remembered().len(), 1);
    cluster.log.advance_ms(24 * HOUR_MS).unwrap();
    run(&cluster).await;
    assert_eq!(remembered().len(), 0);
}

#[tokio::test]
async fn an_idle_round_writes_nothing_to_the_log() {
    let cluster = Cluster::with_options(1, 1, 1, at_once());
    push_image(cluster.registry(1), &repository(), "v1", 1).await;
    let before = cluster.applied();
    let mut memory = crate::gc::stepper::Memory::default();
    let round = cluster.registry(1).round(&mut memory, false).await.unwrap();
    assert_eq!((round, cluster.applied()), (GcRound::default(), before));
}

#[tokio::test]
async fn a_pause_holds_on_every_node_until_it_ends() {
    let cluster = Cluster::with_options(2, 1, 1, at_once());
    push(cluster.registry(1), &repository(), &pattern(500, 1))
        .await
        .unwrap();
    cluster
        .registry(2)
        .gc_pause("looking", "bob")
        .await
        .unwrap();
    let paused = cluster.registry(1).gc_run().await;
    assert!(matches!(paused, Err(GcError::Paused(reason)) if reason == "looking"));
    let elsewhere = cluster.registry(2).gc_run().await;
    assert!(matches!(elsewhere, Err(GcError::NotLeader)));
    cluster.registry(2).gc_resume("bob").await.unwrap();
    assert_eq!(run(&cluster).await.deleted_blobs, 1);
}

#[tokio::test]
async fn a_manifest_that_the_indexes_forgot_stops_everything() {
    let cluster = Cluster::with_options(1, 1, 1, at_once());
    let registry = cluster.registry(1);
    push_image(registry, &repository(), "v1", 1).await;
    let layer = sha256(&blobs_of(1)[1]);
    let (edge, _) = cluster.first_record(&key::of_digest(Table::Edge, &layer));
    cluster.log.damage(edge, None);
    // The log believes now that nothing needs the layer.
    registry
        .delete_blob(&caller(), &repository(), &layer)
        .await
        .unwrap();
    push(registry, &repository(), &pattern(500, 9))
        .await
        .unwrap();
    let round = run(&cluster).await;
    let reason = round.disagreement.unwrap();
    assert!(reason.contains(&layer.to_string()), "{reason}");
    assert_eq!((round.condemned_blobs, round.deleted_blobs), (2, 0));
    let paused = registry.gc_status().await.unwrap().cluster.paused.unwrap();
    assert!(paused.contains("team/app"), "{paused}");
    assert!(matches!(registry.gc_run().await, Err(GcError::Paused(_))));
    assert!(
        query::blob(&cluster.log.snapshot(), &layer)
            .unwrap()
            .is_some()
    );
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(cluster.nodes[0].blobs.stat(&layer).await.unwrap().is_some());
}

#[tokio::test]
async fn a_blob_that_a_deleted_manifest_names_waits_for_it() {
    let mut options = at_once();
    options.gc.undelete_ms = HOUR_MS;
    let cluster = Cluster::with_options(1, 1, 1, options);
    let registry = cluster.registry(1);
    let body = push_image(registry, &repository(), "v1", 1).await;
    let layer = sha256(&blobs_of(1)[1]);
    delete_manifest(&cluster, &body).await;
    // Deleted by the client as well: the log may condemn it, but it must not go before the manifest.
    let deleted = registry.delete_blob(&caller(), &repository(), &layer).await;
    deleted.unwrap();
    assert_eq!(run(&cluster).await.deleted_blobs, 0);
    assert!(registry.gc_status().await.unwrap().cluster.paused.is_none());
    cluster.log.advance_ms(HOUR_MS).unwrap();
    assert_eq!(run(&cluster).await.deleted_blobs, 2);
}

#[tokio::test]
async fn deleted_tags_and_manifests_come_back_within_their_time() {
    let mut options = at_once();
    options.gc.undelete_ms = HOUR_MS;
    let cluster = Cluster::with_options(2, 2, 2, options);
    let registry = cluster.registry(2);
    let body = push_image(registry, &repository(), "v1", 1).await;
    let digest = sha256(&body);
    let whole = || async {
        let by_tag = by_tag("v1");
        let found = registry.manifest(&caller(), &repository(), &by_tag).await;
        assert_eq!(found.unwrap().value.1, body);
        for blob in blobs_of(1) {
            let found = read(registry, &repository(), &sha256(&blob)).await;
            assert_eq!(found.unwrap(), blob);
        }
    };
    delete_manifest(&cluster, &body).await;
    run(&cluster).await;
    let deleted = registry.deleted_manifests(None, None, 10).await.unwrap();
    let names: Vec<(String, Digest)> = deleted
        .items
        .iter()
        .map(|(name, deleted)| (name.to_string(), deleted.digest))
        .collect();
    assert_eq!(names, [("team/app".to_owned(), digest)]);
    let name = repository();
    let restored = registry.restore_manifest(&name, &digest, "bob");
    assert_eq!(restored.await.unwrap(), [tag("v1")]);
    whole().await;
    run(&cluster).await;
    whole().await;

    registry
        .delete_tag(&caller(), &repository(), &tag("v1"), Default::default())
        .await
        .unwrap();
    delete_manifest(&cluster, &body).await;
    run(&cluster).await;
    let text = tag("v1");
    let restored = registry.restore_tag(&name, &text, None, "bob");
    assert_eq!(restored.await.unwrap(), (digest, true));
    run(&cluster).await;
    whole().await;
    let history = registry.tag_history(&repository(), &tag("v1"), 10).await;
    assert_eq!(history.unwrap().first().unwrap().digest, Some(digest));

    delete_manifest(&cluster, &body).await;
    cluster.log.advance_ms(HOUR_MS).unwrap();
    assert_eq!(run(&cluster).await.deleted_blobs, 2);
    let late = registry.restore_manifest(&name, &digest, "bob");
    assert!(matches!(late.await, Err(GcError::Refused(_))));
}

#[tokio::test]
async fn lists_of_deleted_manifests_have_pages_over_repositories() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let mut deleted = Vec::new();
    for name in [repository(), other_repository()] {
        for seed in 1..4 {
            let body = push_image(registry, &name, "v1", seed).await;
            registry
                .delete_manifest(&caller(), &name, &sha256(&body))
                .await
                .unwrap();
            deleted.push((name.clone(), sha256(&body)));
        }
    }
    deleted.sort();
    for limit in 1..8 {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = registry.deleted_manifests(None, after.as_deref(), limit);
            let page = page.await.unwrap();
            assert!(page.items.len() <= limit);
            let items = page.items.into_iter();
            found.extend(items.map(|(name, deleted)| (name, deleted.digest)));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, deleted, "pages of {limit}");
    }
    let name = repository();
    let one = registry.deleted_manifests(Some(&name), None, 10);
    assert_eq!(one.await.unwrap().items.len(), 3);
    let odd = registry.deleted_manifests(None, Some(b"odd"), 10).await;
    assert!(matches!(odd, Err(GcError::Refused(_))));
}

#[tokio::test]
async fn untagged_manifests_go_only_where_asked_and_never_what_is_needed() {
    let mut options = at_once();
    options.gc.untagged = vec![UntaggedRule {
        pattern: RepositoryPattern::parse("team/a*").unwrap(),
        min_age_ms: HOUR_MS,
    }];
    let cluster = Cluster::with_options(1, 1, 1, options);
    let registry = cluster.registry(1);
    let mut bodies = Vec::new();
    for name in [repository(), other_repository()] {
        let old = push_image(registry, &name, "v1", 1).await;
        let child = push_image(registry, &name, "v2", 2).await;
        let list = index(&[&child], "");
        put(registry, &name, &by_tag("list"), &list).await.unwrap();
        let subject = descriptor(oci::media_type::OCI_MANIFEST, &child);
        let [config, layer] = blobs_of(2);
        let referrer = image(&config, &[&layer], &format!(r#","subject":{subject}"#));
        let by_digest = Reference::Digest(sha256(&referrer));
        put(registry, &name, &by_digest, &referrer).await.unwrap();
        for text in ["v1", "v2"] {
            registry
                .delete_tag(&caller(), &name, &tag(text), Default::default())
                .await
                .unwrap();
        }
        bodies.push((name, old, vec![child, list, referrer]));
    }
    assert_eq!(run(&cluster).await.collected_manifests, 0, "too young");
    let listed = registry.gc_candidates(None, 100).await.unwrap();
    let untagged = listed.items.iter().filter(|item| {
        matches!(item, Candidate::Untagged { unneeded, .. } if unneeded.repository == repository())
    });
    assert_eq!((untagged.count(), listed.items.len()), (1, 1));
    cluster.log.advance_ms(HOUR_MS).unwrap();
    let round = run(&cluster).await;
    assert_eq!((round.collected_manifests, round.purged_manifests), (1, 1));
    for (name, old, needed) in bodies {
        let by_digest = Reference::Digest(sha256(&old));
        let found = registry.manifest(&caller(), &name, &by_digest).await;
        assert_eq!(found.is_ok(), name == other_repository(), "{name}");
        for body in needed {
            let by_digest = Reference::Digest(sha256(&body));
            let found = registry.manifest(&caller(), &name, &by_digest).await;
            assert_eq!(found.unwrap().value.1, body);
        }
    }
}

#[tokio::test]
async fn a_dry_run_tells_what_waits_and_changes_nothing() {
    let cluster = Cluster::with_options(1, 1, 1, with_default_times());
    let registry = cluster.registry(1);
    let body = push_image(registry, &repository(), "v1", 1).await;
    delete_manifest(&cluster, &body).await;
    let lone = pattern(700, 5);
    push(registry, &repository(), &lone).await.unwrap();
    let before = cluster.applied();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = registry.gc_candidates(after.as_deref(), 1).await.unwrap();
        seen.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let facts: Vec<(Option<Digest>, u64, u64)> = seen
        .iter()
        .map(|candidate| match candidate {
            Candidate::Due(due) => (due.digest, due.size_bytes, due.due_at.0),
            Candidate::Untagged { .. } => panic!("nobody asked for that"),
        })
        .collect();
    let day = 24 * HOUR_MS;
    let manifest = (Some(sha256(&body)), body.len() as u64, day);
    assert_eq!(facts, [manifest, (Some(sha256(&lone)), 700, day)]);
    assert_eq!(cluster.applied(), before);
}

#[tokio::test]
async fn it_can_say_why_something_is_kept_and_when_it_goes() {
    let mut options = with_default_times();
    options.gc.undelete_ms = HOUR_MS;
    let cluster = Cluster::with_options(1, 1, 1, options);
    let registry = cluster.registry(1);
    let body = push_image(registry, &repository(), "v1", 1).await;
    let layer = sha256(&blobs_of(1)[1]);
    let lines = |digest: Digest| async move {
        let explained = registry.gc_explain(&digest).await.unwrap();
        explained.lines.join("\n")
    };
    let expect = |text: String, words: &[&str]| {
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
    };
    expect(lines(sha256(&body)).await, &["team/app", "tagged v1"]);
    let manifest = sha256(&body).to_string();
    expect(lines(layer).await, &["3000 bytes", &manifest, "tagged v1"]);
    delete_manifest(&cluster, &body).await;
    expect(
        lines(sha256(&body)).await,
        &[
            "deleted 0 ms ago by",
            "tagged v1",
            "can be restored",
            "in 60 min",
        ],
    );
    expect(lines(layer).await, &["can be restored", &manifest]);
    cluster.log.advance_ms(24 * HOUR_MS).unwrap();
    run(&cluster).await;
    expect(
        lines(sha256(&body)).await,
        &[
            "manifest of",
            "team/app: deleted 24 h ago by",
            "tagged v1; purged 0 ms ago",
            "cannot be restored",
        ],
    );
    expect(lines(layer).await, &["condemned", "in 60 min"]);
    cluster.log.advance_ms(HOUR_MS).unwrap();
    run(&cluster).await;
    expect(lines(layer).await, &["deleted 0 ms ago"]);
    expect(lines(sha256(b"never")).await, &["knows no blob"]);
    registry.gc_pause("looking", "").await.unwrap();
    expect(lines(layer).await, &["paused", "looking"]);
}
