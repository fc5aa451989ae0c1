//! Tags: moved together, under preconditions, and how fresh they are read.

use metadata::command::Precondition;
use metadata::ids::NodeId;
use metadata::log::LogError;
use oci::Reference;

use super::fixture::*;
use crate::{Caller, RegistryError, RegistryOptions};

#[tokio::test]
async fn many_tags_move_together() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let old = push_image(registry, &repository(), "old", 1).await;
    let new = push_image(registry, &repository(), "new", 2).await;
    let digest = Reference::Digest(sha256(&new));
    let tags = vec![tag("a"), tag("b"), tag("a")];
    let (who, target) = (caller(), repository());
    let put_all = |tags, precondition| {
        registry.put_manifest(
            &who,
            &target,
            &digest,
            tags,
            None,
            new.clone(),
            precondition,
        )
    };
    let put = put_all(tags, Precondition::None).await.unwrap();
    assert_eq!(put.value.tags, [tag("a"), tag("b")]);
    // One tag that does not fit keeps all of them.
    let tags = vec![tag("c"), tag("old")];
    let answer = put_all(tags, Precondition::Absent).await;
    let Err(RegistryError::PreconditionFailed { current }) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(current, Some(sha256(&old)));
    let missing = registry
        .manifest_info(&caller(), &repository(), &by_tag("c"))
        .await;
    assert!(matches!(
        missing,
        Err(RegistryError::ManifestUnknown { .. })
    ));
}

#[tokio::test]
async fn preconditions_are_decided_by_the_log() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let first = push_image(registry, &repository(), "v1", 1).await;
    let second = push_image(registry, &repository(), "v2", 2).await;
    let v1 = by_tag("v1");
    let matches_second = || Precondition::Matches(vec![sha256(&second)]);
    for refused in [Precondition::Absent, matches_second()] {
        let answer = put_if(registry, &repository(), &v1, &second, refused.clone()).await;
        assert!(
            matches!(
                answer,
                Err(RegistryError::PreconditionFailed { current: Some(_) })
            ),
            "{refused:?}"
        );
    }
    let missing = by_tag("v3");
    for refused in [Precondition::Exists, matches_second()] {
        let answer = put_if(registry, &repository(), &missing, &second, refused.clone()).await;
        assert!(
            matches!(
                answer,
                Err(RegistryError::PreconditionFailed { current: None })
            ),
            "{refused:?}"
        );
    }
    put_if(
        registry,
        &repository(),
        &missing,
        &second,
        Precondition::Absent,
    )
    .await
    .unwrap();
    let matches_first = Precondition::Matches(vec![sha256(b"x"), sha256(&first)]);
    put_if(registry, &repository(), &v1, &second, matches_first)
        .await
        .unwrap();
    let info = registry
        .manifest_info(&caller(), &repository(), &v1)
        .await
        .unwrap();
    assert_eq!(info.value.digest, sha256(&second));
    let stale = Precondition::Matches(vec![sha256(&first)]);
    let answer = registry
        .delete_tag(&caller(), &repository(), &tag("v1"), stale)
        .await;
    assert!(matches!(
        answer,
        Err(RegistryError::PreconditionFailed { .. })
    ));
    registry
        .delete_tag(&caller(), &repository(), &tag("v1"), matches_second())
        .await
        .unwrap();
}

#[tokio::test]
async fn deleting_a_tag_keeps_the_manifest_and_deleting_the_manifest_takes_its_tags() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let body = push_image(registry, &repository(), "v1", 1).await;
    put(registry, &repository(), &by_tag("v2"), &body)
        .await
        .unwrap();
    let digest = sha256(&body);
    let deleted = registry
        .delete_tag(&caller(), &repository(), &tag("v1"), Precondition::None)
        .await
        .unwrap();
    assert_eq!(deleted.revision, cluster.applied());
    let again = registry
        .delete_tag(&caller(), &repository(), &tag("v1"), Precondition::None)
        .await;
    assert!(
        matches!(again, Err(RegistryError::ManifestUnknown { reference }) if reference == "v1")
    );
    assert!(
        registry
            .manifest(&caller(), &repository(), &Reference::Digest(digest))
            .await
            .is_ok()
    );
    registry
        .delete_manifest(&caller(), &repository(), &digest)
        .await
        .unwrap();
    for reference in [by_tag("v2"), Reference::Digest(digest)] {
        let gone = registry
            .manifest(&caller(), &repository(), &reference)
            .await;
        assert!(matches!(
            gone.map(drop),
            Err(RegistryError::ManifestUnknown { .. })
        ));
    }
    let again = registry
        .delete_manifest(&caller(), &repository(), &digest)
        .await;
    assert!(matches!(again, Err(RegistryError::ManifestUnknown { .. })));
    let nowhere = registry
        .delete_manifest(&caller(), &other_repository(), &digest)
        .await;
    assert!(matches!(nowhere, Err(RegistryError::RepositoryUnknown)));
    put(registry, &repository(), &by_tag("v1"), &body)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_history_knows_who_moved_a_tag() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    push_image(registry, &repository(), "v1", 1).await;
    let history =
        metadata::query::tag_history(&cluster.log.snapshot(), &repository(), &tag("v1"), 10)
            .unwrap();
    assert_eq!(history[0].subject, "alice");
}

/// I11: the others may delete it meanwhile.
#[tokio::test]
async fn without_a_quorum_no_manifest_is_served_by_tag_or_by_digest() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let body = push_image(registry, &repository(), "v1", 1).await;
    let by_digest = Reference::Digest(sha256(&body));
    let read = async || {
        registry
            .manifest(&caller(), &repository(), &by_digest)
            .await
    };
    assert_eq!(read().await.unwrap().value.1, body);
    cluster.log.set_failure(Some(LogError::QuorumLost));
    for result in [
        read().await.map(drop),
        registry
            .manifest(&caller(), &repository(), &by_tag("v1"))
            .await
            .map(drop),
        registry
            .manifest(&caller(), &repository(), &by_tag("nope"))
            .await
            .map(drop),
        put(registry, &repository(), &by_tag("v1"), &body)
            .await
            .map(drop),
        registry
            .delete_manifest(&caller(), &repository(), &sha256(&body))
            .await
            .map(drop),
    ] {
        assert!(matches!(
            result,
            Err(RegistryError::Unavailable(LogError::QuorumLost))
        ));
    }
}

#[tokio::test]
async fn an_operator_may_accept_older_tags() {
    let options = RegistryOptions {
        linearizable_tags: false,
        ..RegistryOptions::default()
    };
    let cluster = Cluster::with_options(1, 1, 1, options);
    let registry = cluster.registry(1);
    let body = push_image(registry, &repository(), "v1", 1).await;
    cluster.log.set_failure(Some(LogError::QuorumLost));
    assert_eq!(
        registry
            .manifest(&caller(), &repository(), &by_tag("v1"))
            .await
            .unwrap()
            .value
            .1,
        body
    );
    // What the caller knows of is never left out.
    let informed = Caller {
        min_revision: Some(cluster.applied()),
        ..caller()
    };
    let answer = registry
        .manifest(&informed, &repository(), &by_tag("v1"))
        .await;
    assert!(matches!(
        answer.map(drop),
        Err(RegistryError::Unavailable(_))
    ));
}

#[tokio::test]
async fn a_tag_read_sees_what_another_node_acknowledged() {
    let mut cluster = Cluster::memory(1, 1, 1);
    let lagging = LaggingLog::new(cluster.log.on_node(NodeId(2)));
    let blobs = std::sync::Arc::new(storage::blob::MemoryBlobs::new());
    let node = cluster.assemble(NodeId(2), lagging.clone(), blobs);
    cluster.nodes.push(node);
    let old = push_image(cluster.registry(1), &repository(), "v1", 1).await;
    lagging.freeze();
    let new = push_image(cluster.registry(1), &repository(), "v1", 2).await;
    let seen = cluster
        .registry(2)
        .manifest(&caller(), &repository(), &by_tag("v1"))
        .await
        .unwrap();
    assert_eq!((seen.value.1, seen.revision), (new, cluster.applied()));
    assert_ne!(seen.value.0.digest, sha256(&old));
}
