//! Manifests and tags.

use bytes::Bytes;
use metadata::command::Precondition;
use metadata::ids::NodeId;
use oci::{Algorithm, Digest, MediaType, Reference, media_type};

use super::fixture::*;
use crate::{RegistryError, RegistryOptions};

#[tokio::test]
async fn a_manifest_comes_back_as_it_was_pushed() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let (config, layer) = (pattern(10, 1), pattern(20, 2));
    push(registry, &repository(), &config).await.unwrap();
    push(registry, &repository(), &layer).await.unwrap();
    let body: Bytes = format!(
        "  {}\n",
        String::from_utf8_lossy(&image(&config, &[&layer], r#" , "x" : 1 "#))
    )
    .into();
    let put = put(registry, &repository(), &by_tag("v1"), &body)
        .await
        .unwrap();
    let digest = sha256(&body);
    assert_eq!(
        (put.value.digest, put.value.tags, put.value.subject),
        (digest, vec![tag("v1")], None)
    );
    assert_eq!(put.revision, cluster.applied());
    for reference in [by_tag("v1"), Reference::Digest(digest)] {
        let seen = registry
            .manifest(&caller(), &repository(), &reference)
            .await
            .unwrap();
        assert_eq!(seen.revision, cluster.applied());
        let (info, bytes) = seen.value;
        assert_eq!(bytes, body);
        assert_eq!((info.digest, info.size_bytes), (digest, body.len() as u64));
        assert_eq!(info.media_type.as_str(), media_type::OCI_MANIFEST);
        assert_eq!(
            registry
                .manifest_info(&caller(), &repository(), &reference)
                .await
                .unwrap()
                .value,
            info
        );
    }
}

#[tokio::test]
async fn what_is_not_there_is_unknown() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let digest = Reference::Digest(sha256(b"none"));
    for reference in [by_tag("v1"), digest.clone()] {
        let answer = registry
            .manifest(&caller(), &repository(), &reference)
            .await
            .map(drop);
        assert!(matches!(answer, Err(RegistryError::RepositoryUnknown)));
    }
    push_image(registry, &repository(), "v1", 1).await;
    for missing in [by_tag("v2"), digest] {
        let answer = registry
            .manifest_info(&caller(), &repository(), &missing)
            .await
            .map(drop);
        let expected = missing.to_string();
        assert!(
            matches!(answer, Err(RegistryError::ManifestUnknown { reference }) if reference == expected)
        );
    }
}

#[tokio::test]
async fn every_missing_reference_is_named() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let (here, elsewhere, nowhere) = (pattern(10, 1), pattern(20, 2), pattern(30, 3));
    push(registry, &repository(), &here).await.unwrap();
    push(registry, &other_repository(), &elsewhere)
        .await
        .unwrap();
    let body = image(&nowhere, &[&here, &elsewhere], "");
    let answer = put(registry, &repository(), &by_tag("v1"), &body).await;
    let expected = vec![sha256(&nowhere), sha256(&elsewhere)];
    assert!(
        matches!(answer, Err(RegistryError::ReferencesUnknown(missing)) if missing == expected)
    );
    let list = index(&[&body], "");
    let answer = put(registry, &repository(), &by_tag("v1"), &list).await;
    assert!(
        matches!(answer, Err(RegistryError::ReferencesUnknown(missing)) if missing == [sha256(&body)])
    );
    let wrong =
        String::from_utf8_lossy(&image(&here, &[], "")).replace("\"size\":10", "\"size\":11");
    let answer = put(registry, &repository(), &by_tag("v1"), &wrong.into()).await;
    let Err(RegistryError::ReferenceSizeInvalid {
        digest,
        claimed_bytes,
        actual_bytes,
    }) = answer
    else {
        panic!("{answer:?}")
    };
    assert_eq!(
        (digest, claimed_bytes, actual_bytes),
        (sha256(&here), 11, 10)
    );
    let tags = registry
        .tags(&caller(), &repository(), &oci::Page::default())
        .await
        .unwrap();
    assert_eq!(tags.value.body, r#"{"name":"team/app","tags":[]}"#);
}

#[tokio::test]
async fn bodies_are_checked_before_anything_is_proposed() {
    let options = RegistryOptions {
        manifest_max_bytes: 1000,
        ..RegistryOptions::default()
    };
    let cluster = Cluster::with_options(1, 1, 1, options);
    let registry = cluster.registry(1);
    let before = cluster.applied();
    let large = Bytes::from(vec![b' '; 1001]);
    let answer = put(registry, &repository(), &by_tag("v1"), &large).await;
    assert!(matches!(
        answer,
        Err(RegistryError::ManifestTooLarge { limit_bytes: 1000 })
    ));
    for body in ["", "[]", "{}", "not json", r#"{"schemaVersion":1}"#] {
        let answer = put(registry, &repository(), &by_tag("v1"), &body.into()).await;
        assert!(
            matches!(answer, Err(RegistryError::ManifestInvalid(_))),
            "{body}"
        );
    }
    let body = image(&pattern(1, 1), &[], "");
    let other = Reference::Digest(sha256(b"other"));
    let answer = put(registry, &repository(), &other, &body).await;
    assert!(matches!(answer, Err(RegistryError::DigestInvalid)));
    let content_type = MediaType::parse(media_type::OCI_INDEX).unwrap();
    let answer = registry
        .put_manifest(
            &caller(),
            &repository(),
            &by_tag("v1"),
            vec![],
            Some(&content_type),
            body,
            Precondition::None,
        )
        .await;
    assert!(matches!(answer, Err(RegistryError::ManifestInvalid(_))));
    assert_eq!(cluster.applied(), before);
}

#[tokio::test]
async fn the_largest_manifest_passes_and_one_byte_more_does_not() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let config = pattern(10, 1);
    push(registry, &repository(), &config).await.unwrap();
    let limit = 4 * 1024 * 1024;
    let mut body = image(&config, &[], "").to_vec();
    body.resize(limit, b' ');
    let body = Bytes::from(body);
    put(registry, &repository(), &by_tag("v1"), &body)
        .await
        .unwrap();
    assert_eq!(
        registry
            .manifest(&caller(), &repository(), &by_tag("v1"))
            .await
            .unwrap()
            .value
            .1,
        body
    );
    let longer = Bytes::from([&body[..], b" "].concat());
    let answer = put(registry, &repository(), &by_tag("v2"), &longer).await;
    assert!(matches!(
        answer,
        Err(RegistryError::ManifestTooLarge { .. })
    ));
}

#[tokio::test]
async fn an_index_and_its_manifests_may_use_sha512() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let config = pattern(10, 1);
    push(registry, &repository(), &config).await.unwrap();
    let body = image(&config, &[], "");
    let digest = Digest::of(Algorithm::Sha512, &body);
    let put_child = put(registry, &repository(), &Reference::Digest(digest), &body)
        .await
        .unwrap();
    assert_eq!(put_child.value.digest, digest);
    assert!(put_child.value.tags.is_empty());
    let list = String::from_utf8_lossy(&index(&[&body], ""))
        .replace(&sha256(&body).to_string(), &digest.to_string());
    let list = Bytes::from(list);
    let digest = Digest::of(Algorithm::Sha512, &list);
    put(registry, &repository(), &Reference::Digest(digest), &list)
        .await
        .unwrap();
    let (info, bytes) = registry
        .manifest(&caller(), &repository(), &Reference::Digest(digest))
        .await
        .unwrap()
        .value;
    assert_eq!((info.digest, bytes), (digest, list));
}

#[tokio::test]
async fn a_manifest_waits_for_the_copies_of_its_blobs() {
    let cluster = Cluster::memory(2, 2, 2);
    let registry = cluster.registry(1);
    let config = pattern(10, 1);
    push(registry, &repository(), &config).await.unwrap();
    let lost = metadata::command::ReportLost {
        node: NodeId(2),
        digest: sha256(&config),
        is_gone: true,
    };
    cluster
        .log
        .apply(metadata::command::Command::ReportLost(lost))
        .unwrap();
    let answer = put(
        registry,
        &repository(),
        &by_tag("v1"),
        &image(&config, &[], ""),
    )
    .await;
    assert!(matches!(
        answer,
        Err(RegistryError::TooFewCopies {
            reached: 1,
            wanted: 2
        })
    ));
    // Pushing the blob again brings them back.
    push(registry, &repository(), &config).await.unwrap();
    put(
        registry,
        &repository(),
        &by_tag("v1"),
        &image(&config, &[], ""),
    )
    .await
    .unwrap();
}
