use super::*;

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
