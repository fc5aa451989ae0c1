use proptest::prelude::*;

use super::*;
use crate::page::link_next;

mod refusals;

fn digest_text() -> String {
    format!("sha256:{}", "ab".repeat(32))
}

fn digest() -> Digest {
    Digest::parse(&digest_text()).unwrap()
}

fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

fn get(path: &str) -> Result<Route, RouteError> {
    Route::parse("GET", path, None)
}

#[test]
fn the_base_answers_with_and_without_a_slash() {
    for path in ["/v2", "/v2/"] {
        assert_eq!(get(path), Ok(Route::Base));
        assert_eq!(
            Route::parse("HEAD", path, Some("ns=docker.io")),
            Ok(Route::Base)
        );
    }
}

fn route(method: &str, path: &str) -> Route {
    Route::parse(method, path, None).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

#[test]
fn blob_routes() {
    let (repository, digest) = (name("a/b"), digest());
    let path = format!("/v2/a/b/blobs/{digest}");
    assert_eq!(
        route("GET", &path),
        Route::GetBlob {
            repository: repository.clone(),
            digest
        }
    );
    assert_eq!(
        route("HEAD", &path),
        Route::HeadBlob {
            repository: repository.clone(),
            digest
        }
    );
    assert_eq!(
        route("DELETE", &path),
        Route::DeleteBlob { repository, digest }
    );
}

#[test]
fn upload_routes() {
    let (repository, upload_id) = (name("a/b"), "Ab-_9".to_owned());
    let start = Route::StartUpload {
        repository: repository.clone(),
        mount: None,
        digest: None,
        algorithm: None,
    };
    assert_eq!(route("POST", "/v2/a/b/blobs/uploads/"), start);
    let path = "/v2/a/b/blobs/uploads/Ab-_9";
    let status = Route::UploadStatus {
        repository: repository.clone(),
        upload_id: upload_id.clone(),
    };
    assert_eq!(route("GET", path), status);
    assert_eq!(route("HEAD", path), status);
    let append = Route::AppendUpload {
        repository: repository.clone(),
        upload_id: upload_id.clone(),
    };
    assert_eq!(route("PATCH", path), append);
    let cancel = Route::CancelUpload {
        repository: repository.clone(),
        upload_id: upload_id.clone(),
    };
    assert_eq!(route("DELETE", path), cancel);
    let query = format!("digest={}", digest_text());
    let finish = Route::FinishUpload {
        repository,
        upload_id,
        digest: digest(),
    };
    assert_eq!(Route::parse("PUT", path, Some(&query)), Ok(finish));
}

#[test]
fn manifest_routes() {
    for text in ["latest", &digest_text()] {
        let (repository, reference) = (name("a/b"), Reference::parse(text).unwrap());
        let path = format!("/v2/a/b/manifests/{text}");
        let get = Route::GetManifest {
            repository: repository.clone(),
            reference: reference.clone(),
        };
        assert_eq!(
            Route::parse("GET", &path, Some("ns=docker.io&x=%zz")),
            Ok(get)
        );
        let head = Route::HeadManifest {
            repository: repository.clone(),
            reference: reference.clone(),
        };
        assert_eq!(route("HEAD", &path), head);
        let delete = Route::DeleteManifest {
            repository: repository.clone(),
            reference: reference.clone(),
        };
        assert_eq!(route("DELETE", &path), delete);
        assert_eq!(
            route("PUT", &path),
            Route::PutManifest {
                repository,
                reference,
                tags: vec![]
            }
        );
    }
}

#[test]
fn list_routes() {
    let page = Page {
        limit: Some(2),
        last: Some("b".to_owned()),
    };
    for method in ["GET", "HEAD"] {
        let tags = Route::parse(method, "/v2/a/b/tags/list", Some("n=2&last=b"));
        assert_eq!(
            tags,
            Ok(Route::ListTags {
                repository: name("a/b"),
                page: page.clone()
            })
        );
        let catalog = Route::parse(method, "/v2/_catalog", Some("last=b&n=2"));
        assert_eq!(catalog, Ok(Route::Catalog { page: page.clone() }));
    }
    assert_eq!(route("GET", "/v2/_catalog").repository(), None);
}

#[test]
fn names_may_contain_the_words_of_the_api() {
    let words = [
        "blobs",
        "manifests",
        "tags",
        "referrers",
        "uploads",
        "list",
        "v2",
    ];
    let mut names: Vec<String> = words.iter().map(|word| format!("x/{word}")).collect();
    names.extend(words.map(str::to_owned));
    names.extend(
        [
            "x/tags/list",
            "x/blobs/uploads",
            "blobs/uploads",
            "a/manifests/b",
            "tags/list",
            "x/referrers/y",
        ]
        .map(str::to_owned),
    );
    for text in names {
        let expected = name(&text);
        let digest = digest_text();
        let paths = [
            ("GET", format!("/v2/{text}/tags/list")),
            ("PUT", format!("/v2/{text}/manifests/list")),
            ("GET", format!("/v2/{text}/manifests/{digest}")),
            ("GET", format!("/v2/{text}/blobs/{digest}")),
            ("POST", format!("/v2/{text}/blobs/uploads/")),
            ("POST", format!("/v2/{text}/blobs/uploads")),
            ("PATCH", format!("/v2/{text}/blobs/uploads/uploads")),
            ("GET", format!("/v2/{text}/referrers/{digest}")),
        ];
        for (method, path) in paths {
            let route =
                Route::parse(method, &path, None).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(route.repository(), Some(&expected), "{path}");
        }
    }
}

#[test]
fn starting_an_upload_reads_mount_digest_and_algorithm() {
    let query = format!(
        "mount={0}&from=c%2Fd&digest={0}&digest-algorithm=sha512",
        digest_text().replace(':', "%3A")
    );
    let Ok(Route::StartUpload {
        mount,
        digest: whole,
        algorithm,
        ..
    }) = Route::parse("POST", "/v2/a/blobs/uploads/", Some(&query))
    else {
        panic!("no upload")
    };
    assert_eq!(
        mount,
        Some(Mount {
            digest: digest(),
            from: Some(name("c/d"))
        })
    );
    assert_eq!(whole, Some(digest()));
    assert_eq!(algorithm, Some(Algorithm::Sha512));

    let post = |query: &str| Route::parse("POST", "/v2/a/blobs/uploads/", Some(query));
    let anonymous = post(&format!("mount={}&from=", digest_text()));
    assert!(matches!(
        anonymous,
        Ok(Route::StartUpload {
            mount: Some(Mount { from: None, .. }),
            ..
        })
    ));
    assert!(matches!(
        post("digest-algorithm=nonsense"),
        Err(RouteError::DigestInvalid(ParseError::Algorithm { .. }))
    ));
    assert!(matches!(
        post("mount=sha256:short&from=b"),
        Err(RouteError::DigestInvalid(_))
    ));
    assert!(matches!(
        post(&format!("mount={}&from=../b", digest_text())),
        Err(RouteError::NameInvalid(_))
    ));
}

#[test]
fn finishing_an_upload_needs_one_good_digest() {
    let put = |query| Route::parse("PUT", "/v2/a/blobs/uploads/id", query);
    let upper = format!("digest=sha256:{}", "AB".repeat(32));
    let bad = [
        "",
        "digest=",
        "digest=md5:d41d8cd98f00b204e9800998ecf8427e",
        "digest=sha256:short",
        &upper,
        "digest=abc",
    ];
    for query in bad {
        assert!(
            matches!(put(Some(query)), Err(RouteError::DigestInvalid(_))),
            "{query}"
        );
    }
    assert!(matches!(put(None), Err(RouteError::DigestInvalid(_))));
    let twice = format!("digest={0}&digest={0}", digest_text());
    assert!(matches!(
        put(Some(&twice)),
        Err(RouteError::QueryInvalid {
            parameter: "digest",
            ..
        })
    ));
    assert!(matches!(
        put(Some("digest=%zz")),
        Err(RouteError::QueryInvalid {
            parameter: "digest",
            ..
        })
    ));
}

#[test]
fn a_manifest_push_takes_up_to_ten_more_tags() {
    let put = |query: &str| Route::parse("PUT", "/v2/a/manifests/x", Some(query));
    let tags = |count| {
        (0..count)
            .map(|i| format!("tag=t{i}"))
            .collect::<Vec<_>>()
            .join("&")
    };
    let Ok(Route::PutManifest { tags: found, .. }) = put(&tags(10)) else {
        panic!("ten are allowed")
    };
    assert_eq!(found.len(), 10);
    assert_eq!(put(&tags(11)), Err(RouteError::TooManyTags));
    let Ok(Route::PutManifest { tags: found, .. }) = put("tag=a&tag=b&tag=a") else {
        panic!("repeats are one")
    };
    assert_eq!(
        found.iter().map(Tag::as_str).collect::<Vec<_>>(),
        ["a", "b"]
    );
    for query in ["tag=", "tag=.x", "tag=a%2Fb", "tag=a%00"] {
        assert!(
            matches!(put(query), Err(RouteError::TagInvalid(_))),
            "{query}"
        );
    }
}

#[test]
fn referrers_are_filtered_by_any_text() {
    let path = format!("/v2/a/referrers/{}", digest_text());
    let filter = |query| match Route::parse("GET", &path, Some(query)) {
        Ok(Route::ListReferrers { artifact_type, .. }) => artifact_type,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        filter("artifactType=application%2Fx%2Bjson").as_deref(),
        Some("application/x+json")
    );
    assert_eq!(
        filter("artifactType=application/x+json").as_deref(),
        Some("application/x+json")
    );
    assert_eq!(filter("artifactType=nothing").as_deref(), Some("nothing"));
    assert_eq!(filter("artifactType=&other=1"), None);
    assert!(matches!(
        get("/v2/a/referrers/latest"),
        Err(RouteError::DigestInvalid(_))
    ));
    assert!(matches!(
        get("/v2/a/referrers/sha256:short"),
        Err(RouteError::DigestInvalid(_))
    ));
}

#[test]
fn page_sizes_must_be_numbers() {
    for n in ["-1", "foo", "1.5", "+1", "%2B1", "0x10", "1e3", "%20"] {
        let found = Route::parse("GET", "/v2/a/tags/list", Some(&format!("n={n}")));
        assert!(
            matches!(found, Err(RouteError::PageInvalid(_))),
            "{n}: {found:?}"
        );
    }
}

proptest! {
    #[test]
    fn a_name_and_a_reference_survive_any_encoding(
        text in "[a-z0-9]{1,8}([._-][a-z0-9]{1,4})?(/(blobs|manifests|tags|list|uploads|[a-z0-9]{1,8})){0,5}",
        tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}",
        encode_all: bool,
    ) {
        let spell = |text: &str| match encode_all {
            true => text.bytes().map(|b| if b == b'/' { "/".to_owned() } else { format!("%{b:02x}") }).collect(),
            false => text.to_owned(),
        };
        let route = get(&format!("/v2/{}/manifests/{}", spell(&text), spell(&tag)));
        let expected = Route::GetManifest { repository: name(&text), reference: Reference::parse(&tag).unwrap() };
        prop_assert_eq!(route, Ok(expected));
    }

    #[test]
    fn a_next_link_leads_to_the_page_it_was_written_for(n in 1..100_000_usize, last in "[ -~é]{1,40}") {
        let link = link_next("/v2/a/tags/list", &[("n", &n.to_string()), ("last", &last)]);
        let target = link.strip_prefix('<').and_then(|rest| rest.strip_suffix(">; rel=\"next\"")).unwrap();
        let (path, query) = target.split_once('?').unwrap();
        let page = Page { limit: Some(n), last: Some(last) };
        prop_assert_eq!(Route::parse("GET", path, Some(query)), Ok(Route::ListTags { repository: name("a"), page }));
    }

    #[test]
    fn parsing_never_panics(method in "(GET|HEAD|POST|PUT|PATCH|DELETE|.*)", path in ".*", query in ".*") {
        let _ = Route::parse(&method, &path, Some(&query));
        let _ = Route::parse(&method, &format!("/v2/a/{path}"), Some(&query));
    }

    #[test]
    fn parsing_never_panics_near_the_grammar(
        path in "/v2(/(a|blobs|uploads|manifests|tags|list|referrers|%2[ef0g]|\\.\\.|sha256:[0-9a-f]{0,3}|)){0,7}/?",
        query in "((n|last|digest|mount|from|tag|artifactType)=?[%a-f0-9:]{0,6}&?){0,4}",
    ) {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let _ = Route::parse(method, &path, Some(&query));
        }
    }
}
