//! Referrers, from subjects and from the index under the fallback tag.

use std::sync::Arc;

use bytes::Bytes;
use metadata::command::Precondition;
use oci::{Digest, MediaType, Reference, media_type};

use super::fixture::*;
use crate::{PageOf, Referrer, Registry, RegistryOptions};

async fn config(registry: &Arc<Registry>) -> Bytes {
    let config = Bytes::from_static(b"{}");
    push(registry, &repository(), &config).await.unwrap();
    config
}

/// Pushes a manifest that refers to `subject`; its digest.
async fn refer(
    registry: &Arc<Registry>,
    subject: &Bytes,
    artifact_type: &str,
    note: &str,
) -> Digest {
    let config = config(registry).await;
    let extra = format!(
        r#","artifactType":"{artifact_type}","annotations":{{"note":"{note}"}},"subject":{}"#,
        descriptor(media_type::OCI_MANIFEST, subject)
    );
    let body = image(&config, &[], &extra);
    let reference = Reference::Digest(sha256(&body));
    let put = put(registry, &repository(), &reference, &body)
        .await
        .unwrap();
    assert_eq!(put.value.subject, Some(sha256(subject)));
    put.value.digest
}

async fn list(registry: &Arc<Registry>, subject: &Digest, only: Option<&str>) -> PageOf<Referrer> {
    let only = only.map(|only| MediaType::parse(only).unwrap());
    registry
        .referrers(&caller(), &repository(), subject, only.as_ref(), None)
        .await
        .unwrap()
        .value
}

fn digests(page: &PageOf<Referrer>) -> Vec<Digest> {
    page.items.iter().map(|referrer| referrer.digest).collect()
}

#[tokio::test]
async fn referrers_are_listed_by_digest_and_filtered_by_type() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let subject = Bytes::from_static(b"not pushed");
    let digest = sha256(&subject);
    assert!(
        list(registry, &digest, None).await.items.is_empty(),
        "nothing is known yet"
    );
    let mut expected = Vec::new();
    for (artifact_type, note) in [("a/sbom", "1"), ("a/sig", "2"), ("a/sbom", "3")] {
        expected.push(refer(registry, &subject, artifact_type, note).await);
    }
    let filtered: Vec<Digest> = {
        let mut filtered = vec![expected[0], expected[2]];
        filtered.sort();
        filtered
    };
    expected.sort();
    let all = list(registry, &digest, None).await;
    assert_eq!((digests(&all), all.more), (expected.clone(), false));
    let sbom = list(registry, &digest, Some("a/sbom")).await;
    assert_eq!(digests(&sbom), filtered);
    let one = &sbom.items[0];
    assert_eq!(one.artifact_type.as_ref().unwrap().as_str(), "a/sbom");
    assert!(
        one.annotations.contains_key("note") && one.media_type.as_str() == media_type::OCI_MANIFEST
    );
    assert!(
        list(registry, &digest, Some("a/none"))
            .await
            .items
            .is_empty()
    );
    let elsewhere = registry
        .referrers(&caller(), &other_repository(), &digest, None, None)
        .await
        .unwrap();
    assert!(elsewhere.value.items.is_empty());
    assert_eq!(elsewhere.revision, cluster.applied());
    registry
        .delete_manifest(&caller(), &repository(), &expected[0])
        .await
        .unwrap();
    assert_eq!(digests(&list(registry, &digest, None).await), expected[1..]);
}

#[tokio::test]
async fn pages_end_by_count_and_go_on_after_a_digest() {
    let options = RegistryOptions {
        page_max: 2,
        ..RegistryOptions::default()
    };
    let cluster = Cluster::with_options(1, 1, 1, options);
    let registry = cluster.registry(1);
    let subject = Bytes::from_static(b"subject");
    let mut expected = Vec::new();
    for note in 0..5 {
        expected.push(refer(registry, &subject, "a/b", &note.to_string()).await);
    }
    expected.sort();
    assert_eq!(
        walk(registry, &sha256(&subject), &[2, 2, 1]).await,
        expected
    );
}

/// All pages in a row.
async fn walk(registry: &Arc<Registry>, subject: &Digest, lengths: &[usize]) -> Vec<Digest> {
    let mut walked: Vec<Digest> = Vec::new();
    for (number, length) in lengths.iter().enumerate() {
        let after = walked.last().copied();
        let page = registry
            .referrers(&caller(), &repository(), subject, None, after.as_ref())
            .await
            .unwrap()
            .value;
        assert_eq!(
            (page.items.len(), page.more),
            (*length, number + 1 < lengths.len()),
            "page {number}"
        );
        walked.extend(digests(&page));
    }
    walked
}

#[tokio::test]
async fn long_annotations_end_a_page_early() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let subject = Bytes::from_static(b"subject");
    let mut expected = Vec::new();
    for number in 0..5 {
        let note = format!("{number}{}", "x".repeat(900_000));
        expected.push(refer(registry, &subject, "a/b", &note).await);
    }
    // One that is longer than a page by itself.
    expected.push(refer(registry, &subject, "a/b", &"y".repeat(3_000_000)).await);
    expected.sort();
    let mut walked: Vec<Digest> = Vec::new();
    loop {
        let after = walked.last().copied();
        let page = registry
            .referrers(
                &caller(),
                &repository(),
                &sha256(&subject),
                None,
                after.as_ref(),
            )
            .await;
        let page = page.unwrap().value;
        assert!(page.items.len() <= 2 && !page.items.is_empty());
        walked.extend(digests(&page));
        if !page.more {
            break;
        }
    }
    assert_eq!(walked, expected);
}

/// Stores an index under the tag where clients without the API keep their list.
async fn put_fallback(registry: &Arc<Registry>, subject: &Digest, entries: &[String]) {
    let body: Bytes = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#,
        media_type::OCI_INDEX,
        entries.join(",")
    )
    .into();
    let reference = by_tag(&format!("sha256-{}", subject.hex()));
    put(registry, &repository(), &reference, &body)
        .await
        .unwrap();
}

fn entry(manifest: &Bytes, artifact_type: &str) -> String {
    let descriptor = descriptor(media_type::OCI_MANIFEST, manifest);
    format!(
        r#"{},"artifactType":"{artifact_type}"}}"#,
        descriptor.trim_end_matches('}')
    )
}

/// A subject with one manifest that names it, and an index under the fallback tag that lists that one and four others,
/// one of them twice. The digests of all five, sorted, and of the first.
async fn listed_both_ways(registry: &Arc<Registry>, subject: &Bytes) -> (Vec<Digest>, Digest) {
    let native = refer(registry, subject, "a/native", "1").await;
    let reference = Reference::Digest(native);
    let seen = registry
        .manifest(&caller(), &repository(), &reference)
        .await
        .unwrap();
    let mut entries = vec![entry(&seen.value.1, "a/native")];
    let mut listed = vec![native];
    let config = config(registry).await;
    for number in 0..4 {
        let body = image(
            &config,
            &[],
            &format!(r#","annotations":{{"n":"{number}"}}"#),
        );
        let reference = Reference::Digest(sha256(&body));
        put(registry, &repository(), &reference, &body)
            .await
            .unwrap();
        entries.push(entry(&body, "a/old"));
        listed.push(sha256(&body));
    }
    entries.push(entries[1].clone());
    put_fallback(registry, &sha256(subject), &entries).await;
    listed.sort();
    (listed, native)
}

#[tokio::test]
async fn the_index_under_the_fallback_tag_is_listed_too() {
    let options = RegistryOptions {
        page_max: 3,
        ..RegistryOptions::default()
    };
    let cluster = Cluster::with_options(1, 1, 1, options);
    let registry = cluster.registry(1);
    let subject = Bytes::from_static(b"subject");
    let digest = sha256(&subject);
    let (mut expected, native) = listed_both_ways(registry, &subject).await;
    assert_eq!(
        walk(registry, &digest, &[3, 2]).await,
        expected,
        "each once, in order"
    );
    let old = list(registry, &digest, Some("a/old")).await;
    assert_eq!((old.items.len(), old.more), (3, true));
    let natives = list(registry, &digest, Some("a/native")).await;
    assert_eq!(digests(&natives), [native]);

    // A list never names what is not there.
    let gone = *expected.iter().find(|digest| **digest != native).unwrap();
    registry
        .delete_manifest(&caller(), &repository(), &gone)
        .await
        .unwrap();
    expected.retain(|digest| *digest != gone);
    assert_eq!(walk(registry, &digest, &[3, 1]).await, expected);
    let fallback = tag(&format!("sha256-{}", digest.hex()));
    registry
        .delete_tag(&caller(), &repository(), &fallback, Precondition::None)
        .await
        .unwrap();
    assert_eq!(digests(&list(registry, &digest, None).await), [native]);
}

#[tokio::test]
async fn something_else_under_the_fallback_tag_lists_nothing() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let subject = Bytes::from_static(b"subject");
    let digest = sha256(&subject);
    let native = refer(registry, &subject, "a/b", "1").await;
    push_image(
        registry,
        &repository(),
        &format!("sha256-{}", digest.hex()),
        1,
    )
    .await;
    assert_eq!(digests(&list(registry, &digest, None).await), [native]);
}

#[tokio::test]
async fn concurrent_referrers_are_all_listed() {
    let cluster = Cluster::memory(3, 3, 2);
    let subject = Bytes::from_static(b"subject");
    config(cluster.registry(1)).await;
    let pushes = (0..16).map(|number| {
        let registry = cluster.registry(1 + number % 3).clone();
        let subject = subject.clone();
        tokio::spawn(async move { refer(&registry, &subject, "a/b", &number.to_string()).await })
    });
    let mut expected: Vec<Digest> = futures::future::join_all(pushes)
        .await
        .into_iter()
        .map(|pushed| pushed.unwrap())
        .collect();
    expected.sort();
    assert_eq!(
        digests(&list(cluster.registry(2), &sha256(&subject), None).await),
        expected
    );
}
