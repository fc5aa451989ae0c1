use proptest::prelude::*;

use super::*;
use crate::page::link_next;

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

#[test]
fn every_endpoint_has_its_route() {
    let (repository, digest) = (name("a/b"), digest());
    let blob = format!("/v2/a/b/blobs/{digest}");
    let reference = Reference::parse("latest").unwrap();
    let upload_id = "Ab-_9".to_owned();
    let finish = format!("digest={digest}");
    let cases = [
        (
            "GET",
            blob.as_str(),
            None,
            Route::GetBlob {
                repository: repository.clone(),
                digest,
            },
        ),
        (
            "HEAD",
            &blob,
            None,
            Route::HeadBlob {
                repository: repository.clone(),
                digest,
            },
        ),
        (
            "DELETE",
            &blob,
            None,
            Route::DeleteBlob {
                repository: repository.clone(),
                digest,
            },
        ),
        (
            "POST",
            "/v2/a/b/blobs/uploads/",
            None,
            Route::StartUpload {
                repository: repository.clone(),
                mount: None,
                digest: None,
                algorithm: None,
            },
        ),
        (
            "GET",
            "/v2/a/b/blobs/uploads/Ab-_9",
            None,
            Route::UploadStatus {
                repository: repository.clone(),
                upload_id: upload_id.clone(),
            },
        ),
        (
            "PATCH",
            "/v2/a/b/blobs/uploads/Ab-_9",
            None,
            Route::AppendUpload {
                repository: repository.clone(),
                upload_id: upload_id.clone(),
            },
        ),
        (
            "PUT",
            "/v2/a/b/blobs/uploads/Ab-_9",
            Some(finish.as_str()),
            Route::FinishUpload {
                repository: repository.clone(),
                upload_id: upload_id.clone(),
                digest,
            },
        ),
        (
            "DELETE",
            "/v2/a/b/blobs/uploads/Ab-_9",
            None,
            Route::CancelUpload {
                repository: repository.clone(),
                upload_id,
            },
        ),
        (
            "GET",
            "/v2/a/b/manifests/latest",
            Some("ns=docker.io&x=%zz"),
            Route::GetManifest {
                repository: repository.clone(),
                reference: reference.clone(),
            },
        ),
        (
            "HEAD",
            "/v2/a/b/manifests/latest",
            None,
            Route::HeadManifest {
                repository: repository.clone(),
                reference: reference.clone(),
            },
        ),
        (
            "PUT",
            "/v2/a/b/manifests/latest",
            None,
            Route::PutManifest {
                repository: repository.clone(),
                reference: reference.clone(),
                tags: vec![],
            },
        ),
        (
            "DELETE",
            "/v2/a/b/manifests/latest",
            None,
            Route::DeleteManifest {
                repository: repository.clone(),
                reference,
            },
        ),
        (
            "GET",
            "/v2/a/b/tags/list",
            Some("n=2&last=b"),
            Route::ListTags {
                repository: repository.clone(),
                page: Page {
                    limit: Some(2),
                    last: Some("b".to_owned()),
                },
            },
        ),
        (
            "GET",
            "/v2/_catalog",
            Some("n="),
            Route::Catalog {
                page: Page::default(),
            },
        ),
    ];
    for (method, path, query, expected) in cases {
        assert_eq!(
            Route::parse(method, path, query).as_ref(),
            Ok(&expected),
            "{method} {path}"
        );
        let without = matches!(expected, Route::Catalog { .. });
        assert_eq!(expected.repository(), (!without).then_some(&repository));
    }
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
fn methods_an_endpoint_lacks_are_answered_with_those_it_has() {
    let digest = digest_text();
    let blob = format!("/v2/a/blobs/{digest}");
    let referrers = format!("/v2/a/referrers/{digest}");
    let cases: [(&str, &[&str]); 9] = [
        ("/v2/", &["GET", "HEAD"]),
        ("/v2/_catalog", &["GET", "HEAD"]),
        ("/v2/a/blobs/uploads/", &["POST"]),
        ("/v2/a/blobs/uploads", &["POST"]),
        (
            "/v2/a/blobs/uploads/id",
            &["GET", "HEAD", "PATCH", "PUT", "DELETE"],
        ),
        (&blob, &["GET", "HEAD", "DELETE"]),
        ("/v2/a/manifests/x", &["GET", "HEAD", "PUT", "DELETE"]),
        ("/v2/a/tags/list", &["GET", "HEAD"]),
        (&referrers, &["GET", "HEAD"]),
    ];
    let methods = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "FOO",
        "get", "",
    ];
    for (path, allow) in cases {
        for method in methods {
            let found = Route::parse(method, path, Some(&format!("digest={digest}")));
            let expected = if allow.contains(&method) {
                None
            } else {
                Some(RouteError::MethodNotAllowed { allow })
            };
            assert_eq!(found.err(), expected, "{method} {path}");
        }
    }
}

#[test]
fn hostile_paths_never_find_a_route() {
    let parts = [
        "..",
        ".",
        "",
        "%2e%2e",
        "%252e%252e",
        "..%2f",
        "%2f",
        "%2F..%2F",
        "%5c",
        "..;",
        "%00",
        "a%00",
        "%c0%ae%c0%ae",
        "%e0%80%ae",
        "%",
        "%2",
        "%zz",
        "a%2Fb",
        "A",
        "a b",
        "a%20b",
        "é",
        "%C3%A9",
        "ａ",
        "a\n",
        "a%0d%0ab",
        "_catalog",
        "a.",
        "-a",
        "~root",
        "a:b",
        "a@b",
    ];
    for part in parts {
        for path in [
            format!("/v2/{part}/manifests/x"),
            format!("/v2/a/{part}/b/blobs/uploads/"),
            format!("/v2/a/{part}/tags/list"),
        ] {
            let method = if path.ends_with('/') { "POST" } else { "GET" };
            let found = Route::parse(method, &path, None);
            assert!(
                matches!(found, Err(RouteError::NameInvalid(_))),
                "{path}: {found:?}"
            );
        }
        let found = get(&format!("/v2/a/blobs/{part}"));
        assert!(
            matches!(found, Err(RouteError::DigestInvalid(_))),
            "{part}: {found:?}"
        );
    }
    for part in [
        "..",
        "%2e%2e",
        "%2e%2e%2fx",
        "..%2fx",
        "%00",
        "a.b",
        "a%20",
        "%ff",
        "a:b",
        "..\\x",
    ] {
        let found = Route::parse("PATCH", &format!("/v2/a/blobs/uploads/{part}"), None);
        assert_eq!(found, Err(RouteError::UploadInvalid), "{part}");
    }
}

#[test]
fn paths_without_an_endpoint_are_not_found() {
    let paths = [
        "",
        "/",
        "v2/",
        "/v1/",
        "/v22",
        "/v2x/",
        "//v2/",
        "/v2//",
        "/V2/",
        "/v2/nosuch-endpoint",
        "/v2/a",
        "/v2/a/b/c",
        "/v2/_catalog/",
        "/v2/manifests/x",
        "/v2/blobs/uploads/",
        "/v2/tags/list",
        "/v2/a/tags",
        "/v2/a/tags/list/",
        "/v2/a/manifests/x/",
        "/v2/a/blobs/uploads/id/",
        "/v2/a/blobs/uploads/../x",
        "/v2/a/%62lobs/uploads/",
    ];
    for path in paths {
        assert_eq!(get(path), Err(RouteError::NotFound), "{path}");
    }
}

#[test]
fn bad_references_say_whether_tag_or_digest() {
    for text in [".x", "-x", "a+b", "a%2Fb", "%00", "%ff", &"t".repeat(129)] {
        let found = get(&format!("/v2/a/manifests/{text}"));
        assert!(
            matches!(found, Err(RouteError::TagInvalid(_))),
            "{text}: {found:?}"
        );
    }
    for text in [
        "sha256:baddigeststring",
        "sha256%3Abad",
        "md5:00",
        ":",
        "latest:x",
    ] {
        let found = get(&format!("/v2/a/manifests/{text}"));
        assert!(
            matches!(found, Err(RouteError::DigestInvalid(_))),
            "{text}: {found:?}"
        );
    }
}

#[test]
fn long_requests_are_refused_before_they_are_read() {
    let path = format!("/v2/a/manifests/{}", "t".repeat(4096));
    let Err(RouteError::TagInvalid(error)) = get(&path) else {
        panic!("not a tag")
    };
    assert!(
        error.to_string().len() < 200,
        "the answer must not echo the request"
    );
    assert_eq!(
        get(&format!("/v2/{}/manifests/x", "a/".repeat(5000))),
        Err(RouteError::UriTooLong)
    );
    assert_eq!(
        Route::parse("GET", "/v2/", Some(&"x".repeat(MAX_URI_BYTES))),
        Err(RouteError::UriTooLong)
    );
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
