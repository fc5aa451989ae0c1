//! THE mapping from what can go wrong to HTTP: status, code of the spec, message, detail, headers.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use oci::{Digest, ErrorCode, ParseError, RouteError};
use registry::error::RegistryError;
use serde_json::{Value, json};

use super::headers::{DOCKER_CONTENT_DIGEST, value};

/// Seconds a client should wait before it tries again.
const RETRY_AFTER_SECONDS: u64 = 1;

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct HttpError {
    status: StatusCode,
    errors: Vec<(ErrorCode, String, Value)>,
    headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// What only the log may know.
    internal: Option<String>,
}

impl HttpError {
    /// One error without detail.
    pub(super) fn new(
        status: StatusCode,
        code: ErrorCode,
        message: impl Into<String>,
    ) -> HttpError {
        HttpError {
            status,
            errors: vec![(code, message.into(), Value::Null)],
            headers: Vec::new(),
            internal: None,
        }
    }

    fn detail(mut self, detail: Value) -> HttpError {
        if let Some(first) = self.errors.first_mut() {
            first.2 = detail;
        }
        self
    }

    /// Adds a header to the answer.
    pub(super) fn header(mut self, name: http::HeaderName, text: &str) -> HttpError {
        self.headers.push((name, value(text)));
        self
    }

    fn retry_later(self) -> HttpError {
        self.header(RETRY_AFTER, &RETRY_AFTER_SECONDS.to_string())
    }

    /// Where the upload stands, when this error tells that it goes on from there.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The text for the log, when there is more than the client may see.
    pub(super) fn internal(&self) -> Option<&str> {
        self.internal.as_deref()
    }

    /// The errors as the specification writes them. 5xx carry the request id and nothing of the inside.
    pub(super) fn body(&self, request_id: &str) -> String {
        let errors: Vec<Value> = self
            .errors
            .iter()
            .map(|(code, message, detail)| {
                let mut error = json!({ "code": code.as_str(), "message": message });
                if self.status.is_server_error() {
                    error["detail"] = json!({ "request_id": request_id });
                } else if !detail.is_null() {
                    error["detail"] = detail.clone();
                }
                error
            })
            .collect();
        json!({ "errors": errors }).to_string()
    }

    /// The answer.
    pub(super) fn into_response(self, request_id: &str) -> Response {
        let mut response = Response::new(Body::from(self.body(request_id)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            http::HeaderValue::from_static("application/json"),
        );
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }
}

impl From<RouteError> for HttpError {
    fn from(error: RouteError) -> HttpError {
        let message = error.to_string();
        let bad = StatusCode::BAD_REQUEST;
        match error {
            RouteError::NotFound => {
                HttpError::new(StatusCode::NOT_FOUND, ErrorCode::Unsupported, message)
            }
            RouteError::NameInvalid(_) => HttpError::new(bad, ErrorCode::NameInvalid, message),
            RouteError::DigestInvalid(_) => HttpError::new(bad, ErrorCode::DigestInvalid, message),
            RouteError::TagInvalid(_) => HttpError::new(bad, ErrorCode::TagInvalid, message),
            RouteError::UploadInvalid => {
                HttpError::new(StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown, message)
            }
            RouteError::MethodNotAllowed { allow } => HttpError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                ErrorCode::Unsupported,
                message,
            )
            .header(ALLOW, &allow.join(", ")),
            RouteError::PageInvalid(_) => {
                HttpError::new(bad, ErrorCode::PaginationNumberInvalid, message)
            }
            RouteError::TooManyTags => {
                HttpError::new(StatusCode::URI_TOO_LONG, ErrorCode::TagInvalid, message)
            }
            RouteError::QueryInvalid { .. } => HttpError::new(bad, ErrorCode::Unsupported, message),
            RouteError::UriTooLong => {
                HttpError::new(StatusCode::URI_TOO_LONG, ErrorCode::NameInvalid, message)
            }
        }
    }
}

/// A header that cannot be read.
impl From<ParseError> for HttpError {
    fn from(error: ParseError) -> HttpError {
        let message = error.to_string();
        let code = match error {
            ParseError::Algorithm { .. } | ParseError::Digest { .. } => ErrorCode::DigestInvalid,
            ParseError::RepositoryName { .. } => ErrorCode::NameInvalid,
            ParseError::Tag { .. } => ErrorCode::TagInvalid,
            ParseError::MediaType { .. }
            | ParseError::Manifest { .. }
            | ParseError::ManifestSchemaOne => ErrorCode::ManifestInvalid,
            ParseError::UploadId => ErrorCode::BlobUploadUnknown,
            ParseError::ContentRange { .. } => ErrorCode::BlobUploadInvalid,
            ParseError::Page { .. } => ErrorCode::PaginationNumberInvalid,
        };
        HttpError::new(StatusCode::BAD_REQUEST, code, message)
    }
}

/// Status and code of each error.
fn status_and_code(error: &RegistryError) -> (StatusCode, ErrorCode) {
    match error {
        RegistryError::RepositoryUnknown => (StatusCode::NOT_FOUND, ErrorCode::NameUnknown),
        RegistryError::BlobUnknown(_) => (StatusCode::NOT_FOUND, ErrorCode::BlobUnknown),
        RegistryError::ManifestUnknown { .. } => {
            (StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown)
        }
        RegistryError::UploadUnknown => (StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown),
        RegistryError::RangeInvalid { .. } => (
            StatusCode::RANGE_NOT_SATISFIABLE,
            ErrorCode::BlobUploadInvalid,
        ),
        RegistryError::SizeInvalid { .. } => (StatusCode::BAD_REQUEST, ErrorCode::SizeInvalid),
        RegistryError::BlobTooLarge { .. } => {
            (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid)
        }
        RegistryError::DigestInvalid => (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid),
        RegistryError::BodyInterrupted => (StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid),
        RegistryError::ManifestInvalid(_) | RegistryError::ReferenceSizeInvalid { .. } => {
            (StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid)
        }
        RegistryError::ManifestTooLarge { .. } => {
            (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::ManifestInvalid)
        }
        RegistryError::ReferencesUnknown(_) => {
            (StatusCode::BAD_REQUEST, ErrorCode::ManifestBlobUnknown)
        }
        RegistryError::BlobReferenced { .. } => (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Denied),
        RegistryError::PreconditionFailed { .. } => {
            (StatusCode::PRECONDITION_FAILED, ErrorCode::Denied)
        }
        RegistryError::ReadOnly | RegistryError::DeletesDisabled => {
            (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported)
        }
        RegistryError::Overloaded => (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests),
        RegistryError::NoSpace => (StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Unavailable),
        RegistryError::Unwritable
        | RegistryError::TooFewCopies { .. }
        | RegistryError::OwnerUnreachable
        | RegistryError::Unavailable(_)
        | RegistryError::ContentUnavailable(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable)
        }
        RegistryError::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal),
    }
}

/// What a client may read of a status of 5xx; the rest is for the log.
fn public_message(status: StatusCode) -> &'static str {
    match status {
        StatusCode::SERVICE_UNAVAILABLE => "the cluster cannot answer now, try again",
        StatusCode::INSUFFICIENT_STORAGE => "the registry has no space left for this upload",
        _ => "an internal error occurred",
    }
}

impl From<RegistryError> for HttpError {
    fn from(error: RegistryError) -> HttpError {
        let (status, code) = status_and_code(&error);
        let mut answer = HttpError::new(status, code, error.to_string());
        if status.is_server_error() {
            answer = HttpError::new(status, code, public_message(status));
            answer.internal = Some(error.to_string());
        }
        let is_worth_a_retry = status == StatusCode::TOO_MANY_REQUESTS
            || (status.is_server_error() && status != StatusCode::INTERNAL_SERVER_ERROR);
        if is_worth_a_retry {
            answer = answer.retry_later();
        }
        match error {
            RegistryError::BlobUnknown(digest)
            | RegistryError::ReferenceSizeInvalid { digest, .. } => {
                answer.detail(json!({ "digest": digest.to_string() }))
            }
            RegistryError::ManifestUnknown { reference } => {
                answer.detail(json!({ "reference": reference }))
            }
            RegistryError::RangeInvalid { offset_bytes } => answer.header(
                http::header::RANGE,
                &super::headers::upload_range(offset_bytes),
            ),
            RegistryError::ReferencesUnknown(digests) => references_unknown(&digests),
            RegistryError::BlobReferenced { manifest } => answer
                .detail(json!({ "manifest": manifest.to_string() }))
                .header(ALLOW, "GET, HEAD"),
            RegistryError::PreconditionFailed {
                current: Some(digest),
            } => answer.header(DOCKER_CONTENT_DIGEST, &digest.to_string()),
            RegistryError::ReadOnly | RegistryError::DeletesDisabled => {
                answer.header(ALLOW, "GET, HEAD")
            }
            _ => answer,
        }
    }
}

/// One error for each missing reference, as the spec asks.
fn references_unknown(digests: &[Digest]) -> HttpError {
    let message = "the manifest names content that the repository does not have";
    HttpError {
        status: StatusCode::BAD_REQUEST,
        errors: digests
            .iter()
            .map(|digest| {
                let detail = json!({ "digest": digest.to_string() });
                (ErrorCode::ManifestBlobUnknown, message.to_owned(), detail)
            })
            .collect(),
        headers: Vec::new(),
        internal: None,
    }
}
