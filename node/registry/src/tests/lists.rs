//! Tags and catalog, page by page.

use metadata::command::Precondition;
use oci::{Page, RepositoryName};

use super::fixture::*;
use crate::{RegistryError, RegistryOptions};

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
            registry
                .tags(&caller(), &repository(), &page)
                .await
                .unwrap()
                .value
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
    assert!(known.value.items.is_empty());
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
        let tags = registry
            .tags(&caller(), &repository(), &page(limit, None))
            .await
            .unwrap()
            .value;
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
    assert_eq!((all.value.items, all.value.more), (names.to_vec(), false));
    assert_eq!(all.revision, cluster.applied());
    let middle = registry
        .catalog(&caller(), &page(Some(2), Some("a-b")))
        .await
        .unwrap()
        .value;
    assert_eq!((middle.items, middle.more), (names[2..4].to_vec(), true));
    let none = registry
        .catalog(&caller(), &page(Some(0), None))
        .await
        .unwrap()
        .value;
    assert!(none.items.is_empty() && !none.more);
}
