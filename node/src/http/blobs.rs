//! Blobs: pull, look up, delete (spec end-2, end-10).

use axum::body::Body;
use axum::response::Response;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_NONE_MATCH,
    IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, StatusCode, response};
use metadata::ids::LogIndex;
use oci::{Digest, ErrorCode, RangeOutcome, RangeRequest, RepositoryName};

use super::Front;
use super::error::HttpError;
use super::headers::{self, EntityTags, value, with_digest, with_revision};
use super::request::Head;

/// Content of a digest never changes.
const FOREVER: HeaderValue = HeaderValue::from_static("max-age=31536000");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const BYTES: HeaderValue = HeaderValue::from_static("bytes");
/// Browsers must not guess that a blob is a page.
pub(super) const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

fn blob_headers(status: StatusCode, digest: &Digest, revision: LogIndex) -> response::Builder {
    let builder = http::Response::builder()
        .status(status)
        .header(ACCEPT_RANGES, BYTES)
        .header(CACHE_CONTROL, FOREVER)
        .header(CONTENT_TYPE, OCTETS)
        .header(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    with_revision(with_digest(builder, digest), revision)
}

/// Finishes an answer whose headers are valid by construction.
pub(super) fn finish(builder: response::Builder, body: Body) -> Result<Response, HttpError> {
    builder.body(body).map_err(|error| {
        let error =
            registry::error::RegistryError::Internal(format!("building the answer: {error}"));
        HttpError::from(error)
    })
}

/// Whether the client already has this content.
pub(super) fn not_modified(head: &Head, digest: &Digest) -> bool {
    EntityTags::read(&head.parts.headers, &IF_NONE_MATCH).is_some_and(|tags| tags.matches(digest))
}

/// What part of the blob the client asks for. `If-Range` with another validator means: everything.
fn wanted(head: &Head, digest: &Digest, size_bytes: u64) -> RangeOutcome {
    let headers = &head.parts.headers;
    let Some(range) = headers::text(headers, RANGE) else {
        return RangeOutcome::Full;
    };
    if let Some(validator) = headers::text(headers, IF_RANGE)
        && validator.trim().trim_matches('"') != digest.to_string()
    {
        return RangeOutcome::Full;
    }
    RangeRequest::parse(range).resolve(size_bytes)
}

impl Front {
    pub(super) async fn get_blob(
        &self,
        head: &Head,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Response, HttpError> {
        let found = self
            .registry
            .open_blob(&head.caller, repository, digest)
            .await?;
        let size_bytes = found.value.info.size_bytes;
        if not_modified(head, digest) {
            let builder = blob_headers(StatusCode::NOT_MODIFIED, digest, found.revision);
            return finish(builder, Body::empty());
        }
        let (status, start, end) = match wanted(head, digest, size_bytes) {
            RangeOutcome::Full => (StatusCode::OK, 0, size_bytes),
            RangeOutcome::Partial {
                start,
                end_inclusive,
            } => (StatusCode::PARTIAL_CONTENT, start, end_inclusive + 1),
            RangeOutcome::Unsatisfiable => {
                let status = StatusCode::RANGE_NOT_SATISFIABLE;
                let message = "the range lies outside the blob";
                return Err(HttpError::new(status, ErrorCode::SizeInvalid, message)
                    .header(CONTENT_RANGE, &format!("bytes */{size_bytes}")));
            }
        };
        let mut builder = blob_headers(status, digest, found.revision)
            .header(CONTENT_LENGTH, HeaderValue::from(end - start));
        if status == StatusCode::PARTIAL_CONTENT {
            let range = format!("bytes {start}-{}/{size_bytes}", end - 1);
            builder = builder.header(CONTENT_RANGE, value(&range));
        }
        let body = match head.file_queue() {
            Some(queue) => queue.body(found.value.pieces(start, end)),
            None => Body::from_stream(found.value.stream(start, end)),
        };
        finish(builder, body)
    }

    pub(super) async fn head_blob(
        &self,
        head: &Head,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Response, HttpError> {
        let found = self
            .registry
            .blob_info(&head.caller, repository, digest)
            .await?;
        if not_modified(head, digest) {
            let builder = blob_headers(StatusCode::NOT_MODIFIED, digest, found.revision);
            return finish(builder, Body::empty());
        }
        let builder = blob_headers(StatusCode::OK, digest, found.revision)
            .header(CONTENT_LENGTH, HeaderValue::from(found.value.size_bytes));
        finish(builder, Body::empty())
    }

    pub(super) async fn delete_blob(
        &self,
        head: &Head,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Response, HttpError> {
        let done = self
            .registry
            .delete_blob(&head.caller, repository, digest)
            .await?;
        accepted(done.revision)
    }
}

/// 202 without a body.
pub(super) fn accepted(revision: LogIndex) -> Result<Response, HttpError> {
    let builder = http::Response::builder()
        .status(StatusCode::ACCEPTED)
        .header(CONTENT_LENGTH, HeaderValue::from(0));
    finish(with_revision(builder, revision), Body::empty())
}
