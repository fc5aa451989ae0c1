//! Routes: which operation of the distribution spec a request asks for.
//!
//! Repository names contain slashes and may contain the words of the API (`x/blobs`, `x/tags/list`). The path is
//! therefore read from the right, where every endpoint is told apart by its last two or three segments.

use thiserror::Error;

use crate::digest::{Algorithm, Digest};
use crate::error::ParseError;
use crate::page::Page;
use crate::reference::Reference;
use crate::repository::RepositoryName;
use crate::tag::Tag;

mod parse;

/// The most `?tag=` parameters one manifest push may carry (end-7b asks for at least ten).
pub const MAX_TAGS: usize = 10;

/// The longest path and query together, in bytes. RFC 9110, section 4.1 asks for at least 8000.
pub const MAX_URI_BYTES: usize = 8192;

/// One operation of the distribution spec, with its arguments checked.
///
/// `HEAD` is its own variant where answering it is cheaper than `GET`; elsewhere it is the same route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `GET /v2/` (end-1).
    Base,
    /// `GET /v2/<name>/blobs/<digest>` (end-2).
    GetBlob {
        /// Where the blob must be linked.
        repository: RepositoryName,
        /// Which blob.
        digest: Digest,
    },
    /// `HEAD /v2/<name>/blobs/<digest>` (end-2).
    HeadBlob {
        /// Where the blob must be linked.
        repository: RepositoryName,
        /// Which blob.
        digest: Digest,
    },
    /// `DELETE /v2/<name>/blobs/<digest>` (end-10).
    DeleteBlob {
        /// Where the blob is linked.
        repository: RepositoryName,
        /// Which blob.
        digest: Digest,
    },
    /// `POST /v2/<name>/blobs/uploads/` (end-4a, end-4b, end-4c, end-11).
    StartUpload {
        /// Where the blob shall be linked.
        repository: RepositoryName,
        /// The blob may be taken from elsewhere instead of being uploaded.
        mount: Option<Mount>,
        /// The body is the whole blob, with this digest.
        digest: Option<Digest>,
        /// The algorithm the client will finish with.
        algorithm: Option<Algorithm>,
    },
    /// `GET /v2/<name>/blobs/uploads/<id>` (end-13).
    UploadStatus {
        /// The repository of the session.
        repository: RepositoryName,
        /// The session, as in the URL.
        upload_id: String,
    },
    /// `PATCH /v2/<name>/blobs/uploads/<id>` (end-5).
    AppendUpload {
        /// The repository of the session.
        repository: RepositoryName,
        /// The session, as in the URL.
        upload_id: String,
    },
    /// `PUT /v2/<name>/blobs/uploads/<id>?digest=<digest>` (end-6).
    FinishUpload {
        /// The repository of the session.
        repository: RepositoryName,
        /// The session, as in the URL.
        upload_id: String,
        /// What the content must hash to.
        digest: Digest,
    },
    /// `DELETE /v2/<name>/blobs/uploads/<id>` (end-14).
    CancelUpload {
        /// The repository of the session.
        repository: RepositoryName,
        /// The session, as in the URL.
        upload_id: String,
    },
    /// `GET /v2/<name>/manifests/<reference>` (end-3).
    GetManifest {
        /// Where the manifest is.
        repository: RepositoryName,
        /// Which manifest.
        reference: Reference,
    },
    /// `HEAD /v2/<name>/manifests/<reference>` (end-3).
    HeadManifest {
        /// Where the manifest is.
        repository: RepositoryName,
        /// Which manifest.
        reference: Reference,
    },
    /// `PUT /v2/<name>/manifests/<reference>` (end-7a, end-7b).
    PutManifest {
        /// Where the manifest shall be.
        repository: RepositoryName,
        /// The tag to set, or the digest the body must have.
        reference: Reference,
        /// Further tags to set, without repeats, at most [`MAX_TAGS`].
        tags: Vec<Tag>,
    },
    /// `DELETE /v2/<name>/manifests/<reference>` (end-9).
    DeleteManifest {
        /// Where the manifest is.
        repository: RepositoryName,
        /// The tag to delete, or the manifest.
        reference: Reference,
    },
    /// `GET /v2/<name>/tags/list` (end-8a, end-8b).
    ListTags {
        /// Whose tags.
        repository: RepositoryName,
        /// Which part of the list.
        page: Page,
    },
    /// `GET /v2/<name>/referrers/<digest>` (end-12a, end-12b).
    ListReferrers {
        /// Where to look.
        repository: RepositoryName,
        /// The subject.
        digest: Digest,
        /// List only this artifact type. Any text: what matches nothing lists nothing.
        artifact_type: Option<String>,
        /// Which part of the list; `last` is what our own `Link` said.
        page: Page,
    },
    /// `GET /v2/_catalog` (distribution, not in the spec).
    Catalog {
        /// Which part of the list.
        page: Page,
    },
}

/// The mount half of a [`Route::StartUpload`] (end-11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The blob to link.
    pub digest: Digest,
    /// Where it is; anywhere the caller may read when absent.
    pub from: Option<RepositoryName>,
}

/// Why a request has no route.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RouteError {
    /// No endpoint has this path: 404.
    #[error("no such endpoint")]
    NotFound,
    /// Not a repository name: 400 NAME_INVALID.
    #[error(transparent)]
    NameInvalid(ParseError),
    /// A digest is missing, malformed or of an unsupported algorithm: 400 DIGEST_INVALID.
    #[error(transparent)]
    DigestInvalid(ParseError),
    /// Not a tag: 400 TAG_INVALID.
    #[error(transparent)]
    TagInvalid(ParseError),
    /// No upload session can have this id: 404 BLOB_UPLOAD_UNKNOWN.
    #[error("no upload session can have this id")]
    UploadInvalid,
    /// The endpoint exists but not with this method: 405 with `Allow`.
    #[error("method not allowed")]
    MethodNotAllowed {
        /// The methods for the `Allow` header.
        allow: &'static [&'static str],
    },
    /// `n` is not a number at or above zero: 400 PAGINATION_NUMBER_INVALID.
    #[error(transparent)]
    PageInvalid(ParseError),
    /// More than [`MAX_TAGS`] `?tag=` parameters: 414.
    #[error("more than {MAX_TAGS} tag parameters")]
    TooManyTags,
    /// A known query parameter is unreadable: 400.
    #[error("query parameter {parameter} is invalid: {reason}")]
    QueryInvalid {
        /// The name of the parameter.
        parameter: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Path and query are longer than [`MAX_URI_BYTES`]: 414.
    #[error("path and query are longer than {MAX_URI_BYTES} bytes")]
    UriTooLong,
}

impl Route {
    /// The repository the route acts on; none for the base and the catalog.
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Route::Base | Route::Catalog { .. } => None,
            Route::GetBlob { repository, .. }
            | Route::HeadBlob { repository, .. }
            | Route::DeleteBlob { repository, .. }
            | Route::StartUpload { repository, .. }
            | Route::UploadStatus { repository, .. }
            | Route::AppendUpload { repository, .. }
            | Route::FinishUpload { repository, .. }
            | Route::CancelUpload { repository, .. }
            | Route::GetManifest { repository, .. }
            | Route::HeadManifest { repository, .. }
            | Route::PutManifest { repository, .. }
            | Route::DeleteManifest { repository, .. }
            | Route::ListTags { repository, .. }
            | Route::ListReferrers { repository, .. } => Some(repository),
        }
    }
}

#[cfg(test)]
mod tests;
