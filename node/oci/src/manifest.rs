//! Manifests: the one strict reading of a body that everything else in the registry relies on.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::descriptor::Descriptor;
use crate::error::{EXCERPT_CHARS, ParseError, shorten};
use crate::media_type::{
    DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, MediaType, OCI_INDEX, OCI_MANIFEST,
};
use crate::strict::{Fields, StringMap};

/// What a manifest is, whoever defined its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ManifestKind {
    /// A config and layers: an OCI image manifest or Docker schema 2.
    Image,
    /// A list of manifests: an OCI image index or a Docker manifest list.
    Index,
}

/// A parsed manifest. The bytes themselves are kept elsewhere: they are what the digest covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    media_type: MediaType,
    kind: ManifestKind,
    config: Option<Descriptor>,
    /// The layers of an image, or the entries of an index.
    entries: Vec<Descriptor>,
    subject: Option<Descriptor>,
    artifact_type: Option<MediaType>,
    annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads a body under the `Content-Type` it came with.
    ///
    /// The media type is the one of the body, else the `Content-Type`; where both speak they must agree.
    ///
    /// # Errors
    /// [`ParseError::ManifestSchemaOne`] for Docker schema 1, [`ParseError::Manifest`] for everything else that
    /// is not a manifest of a known type, and for bodies that two readers could understand differently.
    pub fn parse(content_type: Option<&MediaType>, body: &[u8]) -> Result<Manifest, ParseError> {
        if content_type.is_some_and(MediaType::is_schema_one) {
            return Err(ParseError::ManifestSchemaOne);
        }
        let text = std::str::from_utf8(body).map_err(|_| invalid("not UTF-8"))?;
        let fields: Body = serde_json::from_str(text).map_err(|error| unreadable(&error))?;
        let declared = fields
            .media_type
            .as_deref()
            .map(MediaType::parse_bare)
            .transpose()
            .map_err(in_manifest)?;
        if fields.schema_version == Some(1)
            || declared.as_ref().is_some_and(MediaType::is_schema_one)
        {
            return Err(ParseError::ManifestSchemaOne);
        }
        if fields.schema_version != Some(2) {
            return Err(invalid("schemaVersion is not 2"));
        }
        let media_type = agree(content_type, declared)?;
        match kind_of(&media_type)? {
            ManifestKind::Image => fields.into_image(media_type),
            ManifestKind::Index => fields.into_index(media_type),
        }
    }

    /// The media type to store and serve the manifest with.
    pub fn media_type(&self) -> &MediaType {
        &self.media_type
    }

    /// Image or index.
    pub fn kind(&self) -> ManifestKind {
        self.kind
    }

    /// The blobs that must be in the repository before this manifest: the config and the layers of an image,
    /// except layers that clients fetch from elsewhere; and the entries of an index that are not manifests,
    /// which is how build caches list their layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let needed = |entry: &&Descriptor| match self.kind {
            ManifestKind::Image => !entry.media_type.is_nondistributable(),
            ManifestKind::Index => !entry.media_type.is_manifest(),
        };
        self.config.iter().chain(self.entries.iter().filter(needed))
    }

    /// The manifests an index lists; none for an image.
    pub fn manifests(&self) -> impl Iterator<Item = &Descriptor> {
        let kind = self.kind;
        self.entries
            .iter()
            .filter(move |entry| kind == ManifestKind::Index && entry.media_type.is_manifest())
    }

    /// The config of an image; none for an index.
    pub fn config(&self) -> Option<&Descriptor> {
        self.config.as_ref()
    }

    /// Every layer of an image, with those that are fetched from elsewhere; empty for an index.
    pub fn layers(&self) -> &[Descriptor] {
        match self.kind {
            ManifestKind::Image => &self.entries,
            ManifestKind::Index => &[],
        }
    }

    /// The manifest this one refers to. It need not exist.
    pub fn subject(&self) -> Option<&Descriptor> {
        self.subject.as_ref()
    }

    /// The type under which referrers are listed (distribution spec, "Listing Referrers"): `artifactType`, else
    /// the media type of the config; nothing for an index without `artifactType`.
    pub fn artifact_type(&self) -> Option<&MediaType> {
        self.artifact_type
            .as_ref()
            .or(self.config.as_ref().map(|config| &config.media_type))
    }

    /// The annotations of the manifest itself.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }
}

fn invalid(reason: impl Into<String>) -> ParseError {
    ParseError::Manifest {
        reason: reason.into(),
    }
}

/// The reader quotes what it stumbled over, which may be the whole body; the position must survive the cut.
fn unreadable(error: &serde_json::Error) -> ParseError {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let cause = text.strip_suffix(&position).unwrap_or(&text);
    invalid(shorten(cause, 2 * EXCERPT_CHARS) + &position)
}

fn in_manifest(error: ParseError) -> ParseError {
    ParseError::Manifest {
        reason: error.to_string(),
    }
}

/// One media type from what the request and the body say.
fn agree(
    content_type: Option<&MediaType>,
    declared: Option<MediaType>,
) -> Result<MediaType, ParseError> {
    match (content_type, declared) {
        (Some(sent), Some(declared)) if *sent != declared => {
            Err(invalid("mediaType differs from the Content-Type"))
        }
        (_, Some(declared)) => Ok(declared),
        (Some(sent), None) => Ok(sent.clone()),
        (None, None) => Err(invalid(
            "neither mediaType nor Content-Type says what this is",
        )),
    }
}

fn kind_of(media_type: &MediaType) -> Result<ManifestKind, ParseError> {
    match media_type.as_str() {
        OCI_MANIFEST | DOCKER_MANIFEST => Ok(ManifestKind::Image),
        OCI_INDEX | DOCKER_MANIFEST_LIST => Ok(ManifestKind::Index),
        other => Err(invalid(format!("{other:?} is not a manifest media type"))),
    }
}

/// The fields as they stand in the body. The outer option of the lists is "the key was there": Go writes an
/// empty list as `null`.
#[derive(Default)]
struct Body {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: BTreeMap<String, String>,
}

impl Body {
    fn into_image(self, media_type: MediaType) -> Result<Manifest, ParseError> {
        if self.manifests.is_some() {
            return Err(invalid("an image manifest has no manifests"));
        }
        let config = self.config.ok_or_else(|| invalid("config is missing"))?;
        let entries = self.layers.ok_or_else(|| invalid("layers is missing"))?;
        Ok(Manifest {
            media_type,
            kind: ManifestKind::Image,
            config: Some(config),
            entries,
            subject: self.subject,
            artifact_type: artifact_type(self.artifact_type)?,
            annotations: self.annotations,
        })
    }

    fn into_index(self, media_type: MediaType) -> Result<Manifest, ParseError> {
        if self.layers.is_some() || self.config.is_some() {
            return Err(invalid("an index has neither config nor layers"));
        }
        Ok(Manifest {
            media_type,
            kind: ManifestKind::Index,
            config: None,
            entries: self
                .manifests
                .ok_or_else(|| invalid("manifests is missing"))?,
            subject: self.subject,
            artifact_type: artifact_type(self.artifact_type)?,
            annotations: self.annotations,
        })
    }
}

/// Go tools write an absent artifact type as an empty string.
fn artifact_type(text: Option<String>) -> Result<Option<MediaType>, ParseError> {
    let text = text.filter(|text| !text.is_empty());
    text.as_deref()
        .map(MediaType::parse_bare)
        .transpose()
        .map_err(in_manifest)
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Body, D::Error> {
        deserializer.deserialize_map(BodyVisitor)
    }
}

struct BodyVisitor;

const BODY_FIELDS: &[&str] = &[
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
];

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = Body;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a manifest object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
        let mut body = Body::default();
        let mut fields = Fields::new(BODY_FIELDS);
        while let Some(name) = fields.next(&mut map)? {
            match name {
                "schemaVersion" => body.schema_version = Some(map.next_value()?),
                "mediaType" => body.media_type = Some(map.next_value()?),
                "artifactType" => body.artifact_type = map.next_value()?,
                "config" => body.config = map.next_value()?,
                "layers" => body.layers = Some(map.next_value::<Option<_>>()?.unwrap_or_default()),
                "manifests" => {
                    body.manifests = Some(map.next_value::<Option<_>>()?.unwrap_or_default())
                }
                "subject" => body.subject = map.next_value()?,
                _ => {
                    let annotations = map.next_value::<Option<StringMap>>()?;
                    body.annotations = annotations
                        .map(|StringMap(strings)| strings)
                        .unwrap_or_default();
                }
            }
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests;
