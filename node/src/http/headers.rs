//! Every header the front reads or writes, and how values are formed.

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, response};
use metadata::ids::LogIndex;
use oci::{Digest, RepositoryName};

/// Digest of the content a request named or made.
pub(super) const DOCKER_CONTENT_DIGEST: HeaderName =
    HeaderName::from_static("docker-content-digest");
/// Tells Docker that this is a registry.
pub(super) const DOCKER_API_VERSION: HeaderName =
    HeaderName::from_static("docker-distribution-api-version");
/// The upload id once more, for old clients.
pub(super) const DOCKER_UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
/// The subject of a pushed manifest was understood (spec end-7a).
pub(super) const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// One for each tag that a push set (spec end-7b).
pub(super) const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
/// Names the filters that were applied to a list of referrers (spec end-12b).
pub(super) const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// The smallest chunk a client should send.
pub(super) const OCI_CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");
/// The log index of the state that an answer saw or made.
pub(super) const ARGOSY_REVISION: HeaderName = HeaderName::from_static("argosy-revision");
/// The log index that the answering node must have.
pub(super) const ARGOSY_MIN_REVISION: HeaderName = HeaderName::from_static("argosy-min-revision");
/// Names a request in the log of the node.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static(runtime::REQUEST_ID_HEADER);

/// A header value from text that cannot hold anything but visible ASCII by construction (digests, names, numbers).
pub(super) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("invalid"))
}

/// The one value of a header; `None` when absent or not text.
pub(super) fn text(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Adds `Docker-Content-Digest` and the matching `ETag`.
pub(super) fn with_digest(builder: response::Builder, digest: &Digest) -> response::Builder {
    let digest = digest.to_string();
    builder
        .header(http::header::ETAG, value(&format!("\"{digest}\"")))
        .header(DOCKER_CONTENT_DIGEST, value(&digest))
}

/// Adds `Argosy-Revision`.
pub(super) fn with_revision(builder: response::Builder, revision: LogIndex) -> response::Builder {
    builder.header(ARGOSY_REVISION, HeaderValue::from(revision.0))
}

/// Path of a blob, as `Location` names it: relative, so that it holds behind every proxy.
pub(super) fn blob_path(repository: &RepositoryName, digest: &Digest) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

/// Path of a manifest.
pub(super) fn manifest_path(repository: &RepositoryName, digest: &Digest) -> String {
    format!("/v2/{repository}/manifests/{digest}")
}

/// Path of an upload session.
pub(super) fn upload_path(repository: &RepositoryName, id: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

/// `Range` of an upload session that has `offset_bytes` bytes. An empty one is written `0-0`, as Docker's
/// registry does; clients know it.
pub(super) fn upload_range(offset_bytes: u64) -> String {
    format!("0-{}", offset_bytes.saturating_sub(1))
}

/// The entity tags of an `If-Match` or `If-None-Match` header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EntityTags {
    /// `*`
    Any,
    /// The listed tags that are digests; others match nothing.
    Digests(Vec<Digest>),
}

impl EntityTags {
    /// Reads all fields of the header; `None` when it is absent. Weak tags compare like strong ones: the content
    /// of a digest has one representation.
    pub(super) fn read(headers: &HeaderMap, name: &HeaderName) -> Option<EntityTags> {
        let fields: Vec<&str> = headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().unwrap_or(""))
            .collect();
        if fields.is_empty() {
            return None;
        }
        if fields.iter().any(|field| field.trim() == "*") {
            return Some(EntityTags::Any);
        }
        let tags = fields
            .iter()
            .flat_map(|field| field.split(','))
            .filter_map(|tag| {
                let tag = tag.trim().trim_start_matches("W/");
                // Without quotes it is no entity tag, but distribution's clients write it so.
                Digest::parse(tag.trim_matches('"')).ok()
            });
        Some(EntityTags::Digests(tags.collect()))
    }

    /// Whether existing content with `digest` matches.
    pub(super) fn matches(&self, digest: &Digest) -> bool {
        match self {
            EntityTags::Any => true,
            EntityTags::Digests(digests) => digests.contains(digest),
        }
    }
}
