//! Media types, and the ones a registry must know by name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{ParseError, excerpt};

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI empty descriptor, the config of an artifact without one.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker schema 1, unsigned. Recognised so that it can be refused with a clear message.
pub const DOCKER_SCHEMA_ONE: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// Docker schema 1, signed. Recognised so that it can be refused with a clear message.
pub const DOCKER_SCHEMA_ONE_SIGNED: &str =
    "application/vnd.docker.distribution.manifest.v1+prettyjws";
/// Bytes of unknown meaning: the type every blob is served with.
pub const OCTET_STREAM: &str = "application/octet-stream";

/// Layers that clients fetch from the `urls` of their descriptor (image spec, "Non-Distributable Layers").
const NONDISTRIBUTABLE_LAYERS: [&str; 5] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// A media type without parameters, spelled as it was sent. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MediaType(Arc<str>);

impl MediaType {
    /// The longest media type in bytes: two names of 127 and the slash (RFC 6838, section 4.2).
    pub const MAX_BYTES: usize = 255;

    /// Parses `type/subtype`, dropping parameters such as `; charset=utf-8`.
    ///
    /// # Errors
    /// [`ParseError::MediaType`] when what is left does not match RFC 6838, section 4.2. No control
    /// character can pass, so a media type is always safe in a header.
    pub fn parse(text: &str) -> Result<MediaType, ParseError> {
        let essence = text.split_once(';').map_or(text, |(essence, _)| essence);
        MediaType::parse_bare(essence.trim_matches([' ', '\t']))
    }

    /// Parses `type/subtype` where parameters have no place: inside a manifest.
    ///
    /// # Errors
    /// [`ParseError::MediaType`], also for parameters and surrounding space.
    pub fn parse_bare(text: &str) -> Result<MediaType, ParseError> {
        match check(text) {
            Ok(()) => Ok(MediaType(Arc::from(text))),
            Err(reason) => Err(ParseError::MediaType {
                text: excerpt(text),
                reason,
            }),
        }
    }

    /// The media type as sent, without parameters.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `application/octet-stream`.
    pub fn octet_stream() -> MediaType {
        MediaType(Arc::from(OCTET_STREAM))
    }

    /// `application/vnd.oci.image.index.v1+json`, the type of a referrers answer.
    pub fn oci_index() -> MediaType {
        MediaType(Arc::from(OCI_INDEX))
    }

    /// `application/vnd.oci.image.manifest.v1+json`.
    pub fn oci_manifest() -> MediaType {
        MediaType(Arc::from(OCI_MANIFEST))
    }

    /// True for the media types this registry stores as manifests.
    pub fn is_manifest(&self) -> bool {
        [
            OCI_MANIFEST,
            OCI_INDEX,
            DOCKER_MANIFEST,
            DOCKER_MANIFEST_LIST,
        ]
        .contains(&self.as_str())
    }

    /// True for Docker schema 1, signed or not.
    pub fn is_schema_one(&self) -> bool {
        [DOCKER_SCHEMA_ONE, DOCKER_SCHEMA_ONE_SIGNED].contains(&self.as_str())
    }

    /// True for layers that a registry need not hold.
    pub fn is_nondistributable(&self) -> bool {
        NONDISTRIBUTABLE_LAYERS.contains(&self.as_str())
    }
}

fn check(essence: &str) -> Result<(), &'static str> {
    if essence.len() > MediaType::MAX_BYTES {
        return Err("longer than 255 characters");
    }
    let (kind, subtype) = essence.split_once('/').ok_or("not type/subtype")?;
    if is_restricted_name(kind) && is_restricted_name(subtype) {
        Ok(())
    } else {
        Err("not a name of RFC 6838")
    }
}

/// `restricted-name` of RFC 6838, section 4.2.
fn is_restricted_name(name: &str) -> bool {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(b);
    name.len() <= 127
        && name
            .as_bytes()
            .first()
            .is_some_and(u8::is_ascii_alphanumeric)
        && name.as_bytes().iter().all(allowed)
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for MediaType {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<MediaType, ParseError> {
        MediaType::parse(text)
    }
}

impl TryFrom<String> for MediaType {
    type Error = ParseError;

    fn try_from(text: String) -> Result<MediaType, ParseError> {
        MediaType::parse(&text)
    }
}

impl From<MediaType> for String {
    fn from(media_type: MediaType) -> String {
        media_type.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_corpus_is_sorted_rightly() {
        let long = format!("{}/{}", "a".repeat(127), "b".repeat(127));
        for text in [
            OCI_MANIFEST,
            DOCKER_CONFIG,
            OCTET_STREAM,
            "a/b",
            "X/Y",
            "9/9",
            "a!#$&-^_.+/b!#$&-^_.+",
            &long,
        ] {
            assert_eq!(
                MediaType::parse_bare(text).map(|media_type| media_type.to_string()),
                Ok(text.to_owned())
            );
        }
        let bad = [
            "",
            "/",
            "a",
            "a/",
            "/b",
            "a/b/c",
            "a b/c",
            "a/b c",
            "-a/b",
            "a/+b",
            "*/*",
            "a/*",
            "a/b\r\nx: y",
            "a/b\0",
            "a/b\n",
            "é/b",
            "a,b/c",
            "a/b,c/d",
            &"a/".repeat(200),
        ];
        for text in bad {
            assert!(MediaType::parse(text).is_err(), "{text:?}");
            assert!(MediaType::parse_bare(text).is_err(), "{text:?}");
        }
        assert!(MediaType::parse_bare(&format!("{long}b")).is_err());
        assert!(MediaType::parse_bare(&format!("a/{}", "b".repeat(128))).is_err());
    }

    #[test]
    fn parameters_are_dropped_where_they_may_stand() {
        for text in ["a/b; charset=utf-8", "a/b;", " a/b\t;x", "a/b ; q=\"a;b\""] {
            assert_eq!(
                MediaType::parse(text).map(|media_type| media_type.to_string()),
                Ok("a/b".to_owned())
            );
            assert!(MediaType::parse_bare(text).is_err());
        }
    }

    #[test]
    fn the_known_ones_are_told_apart() {
        let parse = |text: &str| MediaType::parse_bare(text).unwrap();
        assert!(
            [
                OCI_MANIFEST,
                OCI_INDEX,
                DOCKER_MANIFEST,
                DOCKER_MANIFEST_LIST
            ]
            .map(parse)
            .iter()
            .all(MediaType::is_manifest)
        );
        assert!(
            [DOCKER_SCHEMA_ONE, DOCKER_SCHEMA_ONE_SIGNED]
                .map(parse)
                .iter()
                .all(MediaType::is_schema_one)
        );
        assert!(
            NONDISTRIBUTABLE_LAYERS
                .map(parse)
                .iter()
                .all(MediaType::is_nondistributable)
        );
        let plain = [
            OCI_CONFIG,
            OCI_EMPTY,
            DOCKER_CONFIG,
            OCTET_STREAM,
            "application/vnd.oci.image.layer.v1.tar",
        ]
        .map(parse);
        assert!(
            !plain
                .iter()
                .any(|it| it.is_manifest() || it.is_schema_one() || it.is_nondistributable())
        );
        assert!(!parse(DOCKER_SCHEMA_ONE).is_manifest());
        for made in [
            MediaType::octet_stream(),
            MediaType::oci_index(),
            MediaType::oci_manifest(),
        ] {
            assert_eq!(parse(made.as_str()), made);
        }
    }

    proptest! {
        #[test]
        fn what_passes_is_safe_in_a_header(text in "[ -~\\x00-\\x20]{0,6}/.{0,6}") {
            if let Ok(media_type) = MediaType::parse(&text) {
                prop_assert!(media_type.as_str().bytes().all(|b| b.is_ascii_graphic()));
                prop_assert_eq!(MediaType::parse_bare(media_type.as_str()), Ok(media_type));
            }
        }

        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = MediaType::parse(&text);
        }
    }
}
