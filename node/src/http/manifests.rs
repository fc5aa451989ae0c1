//! Manifests and tags: pull, push, delete (spec end-3, end-7, end-9), and conditional writes.

use axum::body::Body;
use axum::response::Response;
use http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH, LOCATION, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode, response};
use metadata::command::Precondition;
use oci::{Digest, ErrorCode, MediaType, Reference, RepositoryName, Tag};
use registry::error::RegistryError;
use registry::{ManifestInfo, Seen};

use super::Front;
use super::blobs::{NOSNIFF, accepted, finish, not_modified};
use super::error::HttpError;
use super::headers::{
    DOCKER_CONTENT_DIGEST, EntityTags, OCI_SUBJECT, OCI_TAG, manifest_path, value, with_digest,
    with_revision,
};
use super::request::{self, Head};

/// What a write demands of the tag. `If-Match` and `If-None-Match` together have no use here and are refused, as
/// is `If-None-Match` with a digest: silently ignoring a condition would break the promise it asks for.
fn precondition(headers: &HeaderMap) -> Result<Precondition, HttpError> {
    match (
        EntityTags::read(headers, &IF_MATCH),
        EntityTags::read(headers, &IF_NONE_MATCH),
    ) {
        (None, None) => Ok(Precondition::None),
        (Some(EntityTags::Any), None) => Ok(Precondition::Exists),
        (Some(EntityTags::Digests(digests)), None) => Ok(Precondition::Matches(digests)),
        (None, Some(EntityTags::Any)) => Ok(Precondition::Absent),
        (None, Some(EntityTags::Digests(_))) => unusable("If-None-Match takes only * on a write"),
        (Some(_), Some(_)) => unusable("If-Match and If-None-Match cannot be combined"),
    }
}

fn unusable<T>(message: &str) -> Result<T, HttpError> {
    let bad = StatusCode::BAD_REQUEST;
    Err(HttpError::new(bad, ErrorCode::Unsupported, message))
}

/// Content under its digest has nothing to compare with but the digest itself.
fn condition_on_digest(headers: &HeaderMap, digest: &Digest) -> Result<(), HttpError> {
    if headers.contains_key(IF_NONE_MATCH) {
        return unusable("If-None-Match is about a tag, and the request names none");
    }
    match EntityTags::read(headers, &IF_MATCH) {
        Some(tags) if !tags.matches(digest) => Err(RegistryError::PreconditionFailed {
            current: Some(*digest),
        }
        .into()),
        _ => Ok(()),
    }
}

fn manifest_headers(status: StatusCode, found: &Seen<ManifestInfo>) -> response::Builder {
    let info = &found.value;
    let builder = http::Response::builder()
        .status(status)
        .header(CONTENT_TYPE, value(info.media_type.as_str()))
        .header(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    with_revision(with_digest(builder, &info.digest), found.revision)
}

impl Front {
    pub(super) async fn get_manifest(
        &self,
        head: &Head,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Response, HttpError> {
        let found = self
            .registry
            .manifest(&head.caller, repository, reference)
            .await?;
        let (info, body) = found.value;
        let info = Seen {
            revision: found.revision,
            value: info,
        };
        if not_modified(head, &info.value.digest) {
            return finish(
                manifest_headers(StatusCode::NOT_MODIFIED, &info),
                Body::empty(),
            );
        }
        finish(manifest_headers(StatusCode::OK, &info), Body::from(body))
    }

    pub(super) async fn head_manifest(
        &self,
        head: &Head,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Response, HttpError> {
        let found = self
            .registry
            .manifest_info(&head.caller, repository, reference)
            .await?;
        if not_modified(head, &found.value.digest) {
            return finish(
                manifest_headers(StatusCode::NOT_MODIFIED, &found),
                Body::empty(),
            );
        }
        let length = HeaderValue::from(found.value.size_bytes);
        let builder = manifest_headers(StatusCode::OK, &found).header(CONTENT_LENGTH, length);
        finish(builder, Body::empty())
    }

    pub(super) async fn put_manifest(
        &self,
        head: &Head,
        repository: &RepositoryName,
        reference: &Reference,
        tags: Vec<Tag>,
        body: &mut Body,
    ) -> Result<Response, HttpError> {
        let precondition = precondition(&head.parts.headers)?;
        if precondition != Precondition::None && reference.tag().is_none() && tags.is_empty() {
            return unusable(
                "If-Match and If-None-Match are about tags, and the request names none",
            );
        }
        let content_type = match head.parts.headers.get(CONTENT_TYPE) {
            None => None,
            Some(text) => Some(MediaType::parse(text.to_str().unwrap_or("?"))?),
        };
        let limit_bytes = self.options.manifest_max_bytes;
        if head
            .content_length()
            .is_some_and(|length| length > limit_bytes)
        {
            return Err(RegistryError::ManifestTooLarge { limit_bytes }.into());
        }
        let bytes = request::collect(body, limit_bytes, self.options.body_idle)
            .await
            .map_err(|_| RegistryError::BodyInterrupted)?
            .ok_or(RegistryError::ManifestTooLarge { limit_bytes })?;
        let put = self
            .registry
            .put_manifest(
                &head.caller,
                repository,
                reference,
                tags,
                content_type.as_ref(),
                bytes,
                precondition,
            )
            .await?;
        let digest = &put.value.digest;
        let mut builder = http::Response::builder()
            .status(StatusCode::CREATED)
            .header(LOCATION, value(&manifest_path(repository, digest)))
            .header(DOCKER_CONTENT_DIGEST, value(&digest.to_string()))
            .header(CONTENT_LENGTH, HeaderValue::from(0));
        if let Some(subject) = &put.value.subject {
            builder = builder.header(OCI_SUBJECT, value(&subject.to_string()));
        }
        for tag in &put.value.tags {
            builder = builder.header(OCI_TAG, value(tag.as_str()));
        }
        finish(with_revision(builder, put.revision), Body::empty())
    }

    pub(super) async fn delete_manifest(
        &self,
        head: &Head,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Response, HttpError> {
        let done = match reference {
            Reference::Digest(digest) => {
                condition_on_digest(&head.parts.headers, digest)?;
                self.registry
                    .delete_manifest(&head.caller, repository, digest)
                    .await?
            }
            Reference::Tag(tag) => {
                let precondition = precondition(&head.parts.headers)?;
                self.registry
                    .delete_tag(&head.caller, repository, tag, precondition)
                    .await?
            }
        };
        accepted(done.revision)
    }
}
