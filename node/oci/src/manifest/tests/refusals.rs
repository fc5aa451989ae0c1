use super::*;
use crate::media_type::{DOCKER_SCHEMA_ONE, DOCKER_SCHEMA_ONE_SIGNED};

#[test]
fn schema_one_is_refused_by_name() {
    let body = r#"{"schemaVersion":1,"name":"n","tag":"t","fsLayers":[{"blobSum":"x"}],"history":[],"signatures":[]}"#;
    let by_body = image(&format!(r#","mediaType":"{DOCKER_SCHEMA_ONE}""#));
    for (content_type, body) in [
        (DOCKER_SCHEMA_ONE, "not even json"),
        (DOCKER_SCHEMA_ONE_SIGNED, body),
        (OCI_MANIFEST, body),
        ("", body),
        ("", &by_body),
    ] {
        assert_eq!(
            parse(content_type, body),
            Err(ParseError::ManifestSchemaOne),
            "{content_type}: {body}"
        );
    }
}

#[test]
fn what_is_not_one_json_object_is_refused() {
    let good = image("");
    let truncated = &good[..good.len() - 1];
    let bodies = [
        "".to_owned(),
        " ".to_owned(),
        "[]".to_owned(),
        format!("[{good}]"),
        "null".to_owned(),
        "\"x\"".to_owned(),
        "{}".to_owned(),
        truncated.to_owned(),
        format!("{good}x"),
        format!("{good}{good}"),
        format!("\u{feff}{good}"),
        image(r#","x":NaN"#),
        image(r#","x":'y'"#),
        image(","),
        image(" // comment"),
        image(r#","x":"\ud800""#),
        image(",\"x\":\"\n\""),
    ];
    for body in bodies {
        reason(OCI_MANIFEST, &body);
    }
    let mut raw = image(r#","x":"?""#).into_bytes();
    let mark = raw.iter().position(|b| *b == b'?').unwrap();
    for byte in [0xff, 0xc0, 0x80] {
        raw[mark] = byte;
        let found = Manifest::parse(Some(&MediaType::oci_manifest()), &raw);
        assert!(
            matches!(found, Err(ParseError::Manifest { .. })),
            "{found:?}"
        );
    }
}

#[test]
fn schema_version_must_be_the_number_two() {
    for version in ["3", "0", "-2", "2.0", "\"2\"", "null", "[2]"] {
        reason(
            OCI_MANIFEST,
            &image("").replacen(":2,", &format!(":{version},"), 1),
        );
    }
    reason(
        OCI_MANIFEST,
        &image("").replacen("\"schemaVersion\":2,", "", 1),
    );
}

#[test]
fn an_image_and_an_index_exclude_each_other() {
    let both = image(r#","manifests":[]"#);
    for media_type in [
        OCI_MANIFEST,
        OCI_INDEX,
        DOCKER_MANIFEST,
        DOCKER_MANIFEST_LIST,
    ] {
        reason(media_type, &both);
        reason(media_type, &image(r#","manifests":null"#));
        reason(media_type, r#"{"schemaVersion":2}"#);
    }
    reason(OCI_INDEX, &index(r#","layers":[]"#));
    reason(OCI_INDEX, &image(""));
    reason(OCI_MANIFEST, &index(""));
    let config = descriptor(OCI_CONFIG, "{}");
    reason(OCI_INDEX, &index(&format!(r#","config":{config}"#)));
    reason(OCI_MANIFEST, r#"{"schemaVersion":2,"layers":[]}"#);
    reason(
        OCI_MANIFEST,
        &format!(r#"{{"schemaVersion":2,"config":{config}}}"#),
    );
}

#[test]
fn repeated_and_respelled_keys_are_refused() {
    let more = [
        r#","layers":[]"#,
        r#","schemaVersion":2"#,
        r#","l\u0061yers":[]"#,
        r#","x":1,"x":1"#,
        r#","Layers":[]"#,
        r#","MANIFESTS":[]"#,
        r#","mediatype":"application/x""#,
        r#","manifest\u017f":[]"#,
        r#","Subject":null"#,
        r#","annotations":{"a":"1","a":"2"}"#,
    ];
    for more in more {
        let reason = reason(OCI_MANIFEST, &image(more));
        assert!(
            reason.contains("repeated") || reason.contains("only by case"),
            "{more}: {reason}"
        );
    }
    let changes = [
        (r#""size":2"#, r#""size":2,"size":2"#),
        (r#""size":2"#, r#""size":2,"Size":3"#),
        (r#""size":2"#, r#""size":2,"\u017fize":3"#),
        (r#""size":2"#, r#""size":2,"DIGEST":"x""#),
        (r#""size":2"#, r#""size":2,"y":1,"y":2"#),
        (r#""size":2"#, r#""size":2,"annotations":{"a":"1","a":"1"}"#),
        (r#""size":2"#, r#""size":2,"platform":{"os":"a","os":"b"}"#),
        (r#""size":2"#, r#""size":2,"platform":{"OS":"a"}"#),
    ];
    for (from, to) in changes {
        let reason = reason(OCI_MANIFEST, &image("").replacen(from, to, 1));
        assert!(
            reason.contains("repeated") || reason.contains("only by case"),
            "{to}: {reason}"
        );
    }
}

#[test]
fn bad_descriptors_are_refused() {
    let changes = [
        (r#""size":2"#, r#""size":-1"#),
        (r#""size":2"#, r#""size":1.5"#),
        (r#""size":2"#, r#""size":"2""#),
        (r#""size":2"#, r#""size":null"#),
        (r#""size":2"#, r#""size":9223372036854775808"#),
        (r#""size":2"#, r#""size":18446744073709551616"#),
        (r#""size":2"#, r#""nosize":2"#),
        (r#""size":2"#, r#""size":2,"urls":[1]"#),
        (r#""size":2"#, r#""size":2,"annotations":{"a":1}"#),
        (r#""size":2"#, r#""size":2,"annotations":[]"#),
        (r#""size":2"#, r#""size":2,"data":{}"#),
        ("\"digest\"", "\"nodigest\""),
        ("\"mediaType\"", "\"nomediaType\""),
        ("sha256:", "SHA256:"),
        ("sha256:", "md5:"),
        ("sha256:", "sha256:0"),
        (OCI_CONFIG, ""),
        (OCI_CONFIG, "application"),
        (OCI_CONFIG, "application/"),
        (OCI_CONFIG, r"application/x\r\nSet-Cookie: a"),
        (OCI_CONFIG, r"application/x\u0000"),
    ];
    for (from, to) in changes {
        let body = image("");
        assert!(body.contains(from));
        reason(OCI_MANIFEST, &body.replacen(from, to, 1));
    }
    parse(
        OCI_MANIFEST,
        &image("").replacen(r#""size":2"#, r#""size":9223372036854775807"#, 1),
    )
    .unwrap();
}

#[test]
fn control_characters_cannot_reach_a_header() {
    for text in [
        r"a/b\r",
        r"a/b\n",
        r"a/b\r\nx: y",
        r"a/b\u0000",
        r"a/b\u007f",
        "a/b; c=d",
        " a/b",
        "a b/c",
    ] {
        reason(
            OCI_MANIFEST,
            &image(&format!(r#","artifactType":"{text}""#)),
        );
        reason("", &image(&format!(r#","mediaType":"{text}""#)));
        reason(
            "",
            &image(&format!(
                r#","mediaType":"{OCI_MANIFEST}{}""#,
                &text[3.min(text.len())..]
            )),
        );
    }
}

#[test]
fn deep_nesting_is_refused_everywhere() {
    for depth in [200, 100_000] {
        let (arrays, objects) = ("[".repeat(depth), r#"{"a":"#.repeat(depth));
        let closed = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for bomb in [arrays.as_str(), &objects, &closed] {
            reason(OCI_MANIFEST, bomb);
            reason(OCI_MANIFEST, &image(&format!(r#","x":{bomb}"#)));
            reason(OCI_MANIFEST, &image(&format!(r#","layers":{bomb}"#)));
            reason(
                OCI_MANIFEST,
                &image("").replacen(r#""size":2"#, &format!(r#""size":2,"x":{bomb}"#), 1),
            );
            reason(
                OCI_MANIFEST,
                &image("").replacen(
                    r#""size":2"#,
                    &format!(r#""size":2,"platform":{{"x":{bomb}}}"#),
                    1,
                ),
            );
        }
    }
}

#[test]
fn a_refusal_says_where_and_never_echoes_the_body() {
    let long = "x".repeat(100_000);
    let reason = reason(
        OCI_MANIFEST,
        &image(&format!(r#","schemaversion":"{long}","x":"{long}""#)),
    );
    assert!(
        reason.len() < 300 && reason.contains("line 1 column"),
        "{reason}"
    );
    let found = parse(
        OCI_MANIFEST,
        &image("").replacen(r#""size":2"#, &format!(r#""size":"{long}""#), 1),
    )
    .unwrap_err();
    assert!(
        found.to_string().len() < 300 && found.to_string().contains("line 1 column"),
        "{found}"
    );
}
