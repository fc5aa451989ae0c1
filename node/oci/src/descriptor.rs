//! Descriptors: how one piece of content names another.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::media_type::MediaType;
use crate::strict::{Fields, StringMap};

/// A content descriptor (image spec, "OCI Content Descriptors"). Serializes as the spec writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The type of the content.
    pub media_type: MediaType,
    /// The content address.
    pub digest: Digest,
    /// The length of the content in bytes, never above `i64::MAX`, the largest size other tools can hold.
    #[serde(rename = "size")]
    pub size_bytes: u64,
    /// Where else the content can be had. Never fetched by a registry.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free key-value pairs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The artifact type, when the content is an artifact manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<MediaType>,
    /// What an image in an index runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// A descriptor with only the three required properties.
    pub fn new(media_type: MediaType, digest: Digest, size_bytes: u64) -> Descriptor {
        let (urls, annotations) = (Vec::new(), BTreeMap::new());
        Descriptor {
            media_type,
            digest,
            size_bytes,
            urls,
            annotations,
            artifact_type: None,
            platform: None,
        }
    }
}

/// The platform of an image in an index (image spec, "Image Index Property Descriptions").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Platform {
    /// CPU architecture, a `GOARCH` value.
    pub architecture: String,
    /// Operating system, a `GOOS` value.
    pub os: String,
    /// Version of the operating system.
    #[serde(rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Required features of the operating system.
    #[serde(rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Variant of the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Descriptor, D::Error> {
        deserializer.deserialize_map(DescriptorVisitor)
    }
}

struct DescriptorVisitor;

const DESCRIPTOR_FIELDS: &[&str] = &[
    "mediaType",
    "digest",
    "size",
    "urls",
    "annotations",
    "artifactType",
    "platform",
    "data",
];

impl<'de> Visitor<'de> for DescriptorVisitor {
    type Value = Descriptor;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a descriptor object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Descriptor, A::Error> {
        let (mut media_type, mut digest, mut size_bytes) = (None, None, None);
        let (mut urls, mut annotations, mut artifact_type, mut platform) = (None, None, None, None);
        let mut fields = Fields::new(DESCRIPTOR_FIELDS);
        while let Some(name) = fields.next(&mut map)? {
            match name {
                "mediaType" => media_type = Some(map.next_value::<MediaType>()?),
                "digest" => digest = Some(map.next_value::<Digest>()?),
                "size" => size_bytes = Some(map.next_value::<u64>()?),
                "urls" => urls = map.next_value::<Option<Vec<String>>>()?,
                "annotations" => annotations = map.next_value::<Option<StringMap>>()?,
                "artifactType" => artifact_type = map.next_value::<Option<MediaType>>()?,
                "platform" => platform = map.next_value::<Option<Platform>>()?,
                // Embedded content is a hint to clients; the registry never serves it in place of the blob.
                _ => drop(map.next_value::<Option<String>>()?),
            }
        }
        let size_bytes = size_bytes.ok_or_else(|| A::Error::missing_field("size"))?;
        if i64::try_from(size_bytes).is_err() {
            return Err(A::Error::custom(
                "descriptor size does not fit a signed 64-bit number",
            ));
        }
        Ok(Descriptor {
            media_type: media_type.ok_or_else(|| A::Error::missing_field("mediaType"))?,
            digest: digest.ok_or_else(|| A::Error::missing_field("digest"))?,
            size_bytes,
            urls: urls.unwrap_or_default(),
            annotations: annotations
                .map(|StringMap(strings)| strings)
                .unwrap_or_default(),
            artifact_type,
            platform,
        })
    }
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Platform, D::Error> {
        deserializer.deserialize_map(PlatformVisitor)
    }
}

struct PlatformVisitor;

const PLATFORM_FIELDS: &[&str] = &["architecture", "os", "os.version", "os.features", "variant"];

impl<'de> Visitor<'de> for PlatformVisitor {
    type Value = Platform;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a platform object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Platform, A::Error> {
        let mut platform = Platform::default();
        let mut fields = Fields::new(PLATFORM_FIELDS);
        while let Some(name) = fields.next(&mut map)? {
            match name {
                "architecture" => {
                    platform.architecture = map.next_value::<Option<String>>()?.unwrap_or_default()
                }
                "os" => platform.os = map.next_value::<Option<String>>()?.unwrap_or_default(),
                "os.version" => platform.os_version = map.next_value()?,
                "os.features" => {
                    platform.os_features =
                        map.next_value::<Option<Vec<String>>>()?.unwrap_or_default()
                }
                _ => platform.variant = map.next_value()?,
            }
        }
        Ok(platform)
    }
}
