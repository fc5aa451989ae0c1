use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::digest::{Algorithm, Digest};
use crate::media_type::{OCI_CONFIG, OCI_EMPTY};

mod refusals;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
const NONDISTRIBUTABLE: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";

fn digest(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

fn descriptor(media_type: &str, content: &str) -> String {
    let (digest, size) = (digest(content), content.len());
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
}

/// An image manifest with `more` between the braces.
fn image(more: &str) -> String {
    let (config, layer) = (descriptor(OCI_CONFIG, "{}"), descriptor(LAYER, "layer"));
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]{more}}}"#)
}

fn index(more: &str) -> String {
    let child = descriptor(OCI_MANIFEST, "child");
    format!(r#"{{"schemaVersion":2,"manifests":[{child}]{more}}}"#)
}

fn parse(content_type: &str, body: &str) -> Result<Manifest, ParseError> {
    let content_type = (!content_type.is_empty()).then(|| MediaType::parse(content_type).unwrap());
    Manifest::parse(content_type.as_ref(), body.as_bytes())
}

fn reason(content_type: &str, body: &str) -> String {
    match parse(content_type, body) {
        Err(ParseError::Manifest { reason }) => reason,
        other => panic!("{body}: {other:?}"),
    }
}

fn digests<'a>(descriptors: impl Iterator<Item = &'a Descriptor>) -> Vec<Digest> {
    descriptors.map(|descriptor| descriptor.digest).collect()
}

#[test]
fn an_image_names_its_config_and_layers() {
    for media_type in [OCI_MANIFEST, DOCKER_MANIFEST] {
        let manifest = parse(media_type, &image(r#","annotations":{"k":"v"}"#)).unwrap();
        assert_eq!(manifest.kind(), ManifestKind::Image);
        assert_eq!(manifest.media_type().as_str(), media_type);
        assert_eq!(digests(manifest.blobs()), [digest("{}"), digest("layer")]);
        assert_eq!(manifest.manifests().count(), 0);
        assert_eq!(manifest.config().map(|config| config.size_bytes), Some(2));
        assert_eq!(manifest.layers().len(), 1);
        assert_eq!(manifest.subject(), None);
        assert_eq!(manifest.annotations()["k"], "v");
    }
}

#[test]
fn an_index_names_its_manifests() {
    for media_type in [OCI_INDEX, DOCKER_MANIFEST_LIST] {
        let manifest = parse(media_type, &index("")).unwrap();
        assert_eq!(manifest.kind(), ManifestKind::Index);
        assert_eq!(digests(manifest.manifests()), [digest("child")]);
        assert_eq!(manifest.blobs().count(), 0);
        assert_eq!((manifest.config(), manifest.layers().len()), (None, 0));
    }
}

#[test]
fn a_platform_is_read_in_full() {
    let platform = r#""platform":{"architecture":"arm64","os":"linux","os.version":"1","os.features":["f"],"variant":"v8","features":["x"]}"#;
    let child = descriptor(OCI_MANIFEST, "child").replace('}', &format!(",{platform}}}"));
    let manifest = parse(
        OCI_INDEX,
        &format!(r#"{{"schemaVersion":2,"manifests":[{child}]}}"#),
    )
    .unwrap();
    let platform = manifest
        .manifests()
        .next()
        .and_then(|child| child.platform.clone())
        .unwrap();
    assert_eq!(
        (platform.architecture.as_str(), platform.os.as_str()),
        ("arm64", "linux")
    );
    assert_eq!(
        (platform.os_version.as_deref(), platform.variant.as_deref()),
        (Some("1"), Some("v8"))
    );
    assert_eq!(platform.os_features, ["f"]);
}

#[test]
fn an_index_of_a_build_cache_lists_blobs() {
    let body = format!(
        r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#,
        descriptor(LAYER, "layer"),
        descriptor(OCI_MANIFEST, "child")
    );
    let manifest = parse(OCI_INDEX, &body).unwrap();
    assert_eq!(digests(manifest.blobs()), [digest("layer")]);
    assert_eq!(digests(manifest.manifests()), [digest("child")]);
}

#[test]
fn layers_held_elsewhere_need_not_be_here() {
    for media_type in [FOREIGN, NONDISTRIBUTABLE] {
        let layer =
            descriptor(media_type, "far").replace('}', r#","urls":["https://example.com/far"]}"#);
        let body = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{layer},{}]}}"#,
            descriptor(OCI_CONFIG, "{}"),
            descriptor(LAYER, "near")
        );
        let manifest = parse(OCI_MANIFEST, &body).unwrap();
        assert_eq!(digests(manifest.blobs()), [digest("{}"), digest("near")]);
        assert_eq!(manifest.layers()[0].urls, ["https://example.com/far"]);
    }
    // urls alone change nothing: the layer is distributable and must be here.
    let layer = descriptor(LAYER, "near").replace('}', r#","urls":["https://example.com/near"]}"#);
    let body = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{layer}]}}"#,
        descriptor(OCI_CONFIG, "{}")
    );
    assert_eq!(parse(OCI_MANIFEST, &body).unwrap().blobs().count(), 2);
}

#[test]
fn the_artifact_type_is_the_one_of_the_spec() {
    let artifact = |content_type: &str, body: &str| {
        let manifest = parse(content_type, body).unwrap();
        manifest
            .artifact_type()
            .map(|artifact_type| artifact_type.as_str().to_owned())
    };
    assert_eq!(
        artifact(OCI_MANIFEST, &image("")).as_deref(),
        Some(OCI_CONFIG)
    );
    assert_eq!(
        artifact(
            OCI_MANIFEST,
            &image(r#","artifactType":"application/x+json""#)
        )
        .as_deref(),
        Some("application/x+json")
    );
    assert_eq!(
        artifact(OCI_MANIFEST, &image(r#","artifactType":"""#)).as_deref(),
        Some(OCI_CONFIG)
    );
    assert_eq!(artifact(OCI_INDEX, &index("")), None);
    assert_eq!(
        artifact(OCI_INDEX, &index(r#","artifactType":"application/x""#)).as_deref(),
        Some("application/x")
    );
}

#[test]
fn a_subject_is_read_on_images_and_indexes() {
    let subject = format!(r#","subject":{}"#, descriptor(OCI_MANIFEST, "subject"));
    for (media_type, body) in [
        (OCI_MANIFEST, image(&subject)),
        (OCI_INDEX, index(&subject)),
    ] {
        let manifest = parse(media_type, &body).unwrap();
        assert_eq!(
            manifest.subject().map(|subject| subject.digest),
            Some(digest("subject"))
        );
        assert!(
            !digests(manifest.blobs()).contains(&digest("subject")),
            "a subject need not exist"
        );
    }
}

#[test]
fn artifacts_and_unknown_types_are_accepted() {
    let empty = descriptor(OCI_EMPTY, "{}");
    let bodies = [
        format!(
            r#"{{"schemaVersion":2,"artifactType":"application/x","config":{empty},"layers":[{empty}]}}"#
        ),
        format!(r#"{{"schemaVersion":2,"config":{empty},"layers":[]}}"#),
        format!(
            r#"{{"schemaVersion":2,"config":{empty},"layers":null,"subject":null,"annotations":null,"artifactType":null}}"#
        ),
        format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
            descriptor("a/b", "1"),
            descriptor("x-y/z.w+q", "2")
        ),
        format!(
            r#"{{"schemaVersion":2,"config":{empty},"layers":[{}]}}"#,
            descriptor("text/plain; charset=utf-8", "3")
        ),
        image(
            r#","unknown":{"deep":[1,-1,1.5,true,null,"x",{"y":[]}]},"other":18446744073709551616"#,
        ),
        format!(" \r\n\t{} \n", image("")),
    ];
    for body in bodies {
        parse(OCI_MANIFEST, &body).unwrap_or_else(|error| panic!("{body}: {error}"));
    }
}

#[test]
fn the_media_type_comes_from_the_body_or_the_request() {
    let body = image(&format!(r#","mediaType":"{OCI_MANIFEST}""#));
    assert_eq!(
        parse("", &body).unwrap().media_type().as_str(),
        OCI_MANIFEST
    );
    assert_eq!(
        parse(&format!("{OCI_MANIFEST}; charset=utf-8"), &body)
            .unwrap()
            .media_type()
            .as_str(),
        OCI_MANIFEST
    );
    assert_eq!(
        parse(DOCKER_MANIFEST, &image(""))
            .unwrap()
            .media_type()
            .as_str(),
        DOCKER_MANIFEST
    );
    assert!(reason(DOCKER_MANIFEST, &body).contains("differs from the Content-Type"));
    assert!(reason(OCI_INDEX, &body).contains("differs from the Content-Type"));
    assert!(reason("", &image("")).contains("neither"));
    assert!(reason("text/plain", &image("")).contains("not a manifest media type"));
    assert!(
        reason("", &image(r#","mediaType":"application/x""#)).contains("not a manifest media type")
    );
}

/// The limits are loose because tests run unoptimised on a shared machine; a quadratic reader misses them by far.
#[test]
fn large_manifests_parse_fast() {
    let layers = (0..10_000)
        .map(|i| descriptor(LAYER, &i.to_string()))
        .collect::<Vec<_>>()
        .join(",");
    let many_layers = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{layers}]}}"#,
        descriptor(OCI_CONFIG, "{}")
    );
    let annotation = format!(r#","annotations":{{"a":"{}"}}"#, "x".repeat(4 << 20));
    let unknown = (0..300_000)
        .map(|i| format!(r#","k{i:06}":0"#))
        .collect::<String>();
    for (what, body) in [
        ("layers", many_layers),
        ("annotation", image(&annotation)),
        ("unknown fields", image(&unknown)),
    ] {
        let started = Instant::now();
        let manifest = parse(OCI_MANIFEST, &body).unwrap();
        let elapsed = started.elapsed();
        println!(
            "{what}: {} bytes, {} blobs in {elapsed:?}",
            body.len(),
            manifest.blobs().count()
        );
        assert!(elapsed < Duration::from_secs(2), "{what}: {elapsed:?}");
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Manifest::parse(Some(&MediaType::oci_manifest()), &body);
        let _ = Manifest::parse(None, &body);
    }

    #[test]
    fn damaged_manifests_never_panic(at in 0..1000_usize, byte: u8, cut in 0..1000_usize) {
        let mut body = image(r#","subject":null,"annotations":{"a":"b"},"x":[1,{"y":null}]"#).into_bytes();
        let at = at % body.len();
        body[at] = byte;
        let _ = Manifest::parse(Some(&MediaType::oci_manifest()), &body);
        body.truncate(cut);
        let _ = Manifest::parse(Some(&MediaType::oci_manifest()), &body);
    }

    #[test]
    fn a_descriptor_reads_back_as_written(
        media_type in "[a-z]{1,5}/[a-z.+]{0,8}[a-z]",
        size_bytes in 0..=i64::MAX as u64,
        content: Vec<u8>,
        urls in proptest::collection::vec(".{0,9}", 0..3),
        annotations in proptest::collection::btree_map(".{0,5}", ".{0,9}", 0..3),
        variant in proptest::option::of(".{0,5}"),
    ) {
        prop_assume!(!media_type.contains("/.") && !media_type.contains("/+"));
        let media_type = MediaType::parse(&media_type).unwrap();
        let descriptor = Descriptor {
            urls,
            annotations,
            artifact_type: Some(media_type.clone()),
            platform: Some(crate::Platform { os: "linux".to_owned(), variant, ..Default::default() }),
            ..Descriptor::new(media_type, Digest::of(Algorithm::Sha512, &content), size_bytes)
        };
        let text = serde_json::to_string(&descriptor).unwrap();
        prop_assert_eq!(serde_json::from_str::<Descriptor>(&text).unwrap(), descriptor);
    }
}
