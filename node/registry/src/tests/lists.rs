//! Tags and catalog, page by page.

use metadata::command::Precondition;
use oci::{Page, RepositoryName, Tag};

use super::fixture::*;
use crate::{ListPage, PageOf, RegistryError, RegistryOptions};

/// The names in a page, and whether there are more.
fn names(page: &ListPage, of: &str) -> PageOf<String> {
    let body: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
    let names = body[of].as_array().unwrap();
    let items: Vec<String> = names
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    if let Some(last) = &page.last {
        assert_eq!(items.last(), Some(last));
    }
    PageOf {
        items,
        more: page.last.is_some(),
    }
}

fn tags(page: &ListPage) -> PageOf<Tag> {
    let page = names(page, "tags");
    PageOf {
        items: page.items.iter().map(|name| tag(name)).collect(),
        more: page.more,
    }
}

fn repositories(page: &ListPage) -> PageOf<RepositoryName> {
    let page = names(page, "repositories");
    let parse = |name: &String| RepositoryName::parse(name).unwrap();
    PageOf {
        items: page.items.iter().map(parse).collect(),
        more: page.more,
    }
}

fn page(limit: Option<usize>, last: Option<&str>) -> Page {
    Page {
        limit,
        last: last.map(str::to_owned),
    }
}

#[tokio::test]
async fn tags_come_in_byte_order_without_gaps() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let body = push_image(registry, &repository(), "b", 1).await;
    for text in ["A", "a", "10", "2", "_x", "B"] {
        put(registry, &repository(), &by_tag(text), &body)
            .await
            .unwrap();
    }
    let sorted = ["10", "2", "A", "B", "_x", "a", "b"];
    let list = |limit, last: Option<&str>| {
        let page = page(limit, last);
        async move {
            let seen = registry.tags(&caller(), &repository(), &page).await;
            tags(&seen.unwrap().value)
        }
    };
    let all = list(None, None).await;
    assert_eq!(all.items, sorted.map(tag));
    assert!(!all.more);
    let mut last: Option<String> = None;
    let mut walked = Vec::new();
    loop {
        let page = list(Some(3), last.as_deref()).await;
        assert!(page.items.len() <= 3);
        last = page.items.last().map(ToString::to_string);
        walked.extend(page.items);
        if !page.more {
            break;
        }
    }
    assert_eq!(walked, sorted.map(tag));
    // A marker need not exist, nor be a tag at all.
    assert_eq!(list(Some(1), Some("AA")).await.items, [tag("B")]);
    assert_eq!(list(None, Some("~~")).await.items, []);
    assert_eq!(list(None, Some("")).await.items.len(), 7);
    let exact = list(Some(7), None).await;
    assert!((exact.items.len(), exact.more) == (7, false));
    let none = list(Some(0), None).await;
    assert!(
        (none.items.len(), none.more) == (0, false),
        "no link after a page of none"
    );
}

#[tokio::test]
async fn a_repository_without_tags_is_not_an_unknown_one() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let unknown = registry
        .tags(&caller(), &repository(), &Page::default())
        .await;
    assert!(matches!(unknown, Err(RegistryError::RepositoryUnknown)));
    push_image(registry, &repository(), "v1", 1).await;
    registry
        .delete_tag(&caller(), &repository(), &tag("v1"), Precondition::None)
        .await
        .unwrap();
    let known = registry
        .tags(&caller(), &repository(), &Page::default())
        .await
        .unwrap();
    assert_eq!(known.value.body, r#"{"name":"team/app","tags":[]}"#);
    assert_eq!(known.revision, cluster.applied());
}

#[tokio::test]
async fn a_page_is_never_longer_than_the_maximum() {
    let options = RegistryOptions {
        page_max: 2,
        ..RegistryOptions::default()
    };
    let cluster = Cluster::with_options(1, 1, 1, options);
    let registry = cluster.registry(1);
    let body = push_image(registry, &repository(), "a", 1).await;
    for text in ["b", "c"] {
        put(registry, &repository(), &by_tag(text), &body)
            .await
            .unwrap();
    }
    for limit in [None, Some(100), Some(usize::MAX)] {
        let seen = registry
            .tags(&caller(), &repository(), &page(limit, None))
            .await
            .unwrap();
        let tags = tags(&seen.value);
        assert_eq!((tags.items, tags.more), (vec![tag("a"), tag("b")], true));
    }
}

#[tokio::test]
async fn the_catalog_lists_every_repository_in_order() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    let names =
        ["a", "a-b", "a/b", "a/b/c", "ab", "b"].map(|name| RepositoryName::parse(name).unwrap());
    for name in names.iter().rev() {
        push(registry, name, &pattern(10, 1)).await.unwrap();
    }
    let all = registry.catalog(&caller(), &Page::default()).await.unwrap();
    assert_eq!(all.revision, cluster.applied());
    let all = repositories(&all.value);
    assert_eq!((all.items, all.more), (names.to_vec(), false));
    let middle = registry
        .catalog(&caller(), &page(Some(2), Some("a-b")))
        .await
        .unwrap();
    let middle = repositories(&middle.value);
    assert_eq!((middle.items, middle.more), (names[2..4].to_vec(), true));
    let none = registry
        .catalog(&caller(), &page(Some(0), None))
        .await
        .unwrap();
    let none = repositories(&none.value);
    assert!(none.items.is_empty() && !none.more);
}

/// Every page is asked for twice, so that what is kept is used; what is kept must never outlive a change, whichever
/// node it is made through and asked from.
#[tokio::test]
async fn a_kept_page_is_never_older_than_the_list() {
    let cluster = Cluster::memory(3, 3, 2);
    let body = push_image(cluster.registry(1), &repository(), "v1", 1).await;
    let all_see = |expected: &'static [&'static str]| {
        let cluster = &cluster;
        async move {
            for node in [1, 2, 3, 1, 2, 3] {
                let registry = cluster.registry(node);
                let seen = registry
                    .tags(&caller(), &repository(), &Page::default())
                    .await
                    .unwrap();
                assert_eq!(names(&seen.value, "tags").items, expected, "node {node}");
                assert_eq!(seen.revision, cluster.applied());
                let page = page(Some(1), None);
                let seen = registry.tags(&caller(), &repository(), &page).await;
                let first = names(&seen.unwrap().value, "tags");
                assert_eq!(first.items, expected[..expected.len().min(1)]);
                assert_eq!(first.more, expected.len() > 1);
            }
        }
    };
    all_see(&["v1"]).await;
    put(cluster.registry(2), &repository(), &by_tag("v2"), &body)
        .await
        .unwrap();
    all_see(&["v1", "v2"]).await;
    cluster
        .registry(3)
        .delete_tag(&caller(), &repository(), &tag("v1"), Precondition::None)
        .await
        .unwrap();
    all_see(&["v2"]).await;
    let digest = oci::Digest::of(oci::Algorithm::Sha256, &body);
    cluster
        .registry(1)
        .delete_manifest(&caller(), &repository(), &digest)
        .await
        .unwrap();
    all_see(&[]).await;
}

#[tokio::test]
async fn a_page_is_rendered_once_while_the_list_is_the_same() {
    let cluster = Cluster::single();
    let registry = cluster.registry(1);
    push_image(registry, &repository(), "v1", 1).await;
    let tags = async || {
        let seen = registry
            .tags(&caller(), &repository(), &Page::default())
            .await;
        seen.unwrap().value.body
    };
    let first = tags().await;
    // The tag moves, another repository gets one: the bytes are still those very same.
    push_image(registry, &repository(), "v1", 2).await;
    push_image(registry, &other_repository(), "v2", 3).await;
    assert_eq!(tags().await.as_ptr(), first.as_ptr());
    push_image(registry, &repository(), "v2", 2).await;
    assert_ne!(tags().await, first);
}
