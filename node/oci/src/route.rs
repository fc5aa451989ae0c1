//! Routes: which operation of the distribution spec a request asks for.
//!
//! Repository names contain slashes and may contain the words of the API (`x/blobs`, `x/tags/list`). The path is
//! therefore read from the right, where every endpoint is told apart by its last two or three segments.

use std::borrow::Cow;

use thiserror::Error;

use crate::digest::{Algorithm, Digest};
use crate::error::{ParseError, excerpt};
use crate::page::Page;
use crate::percent;
use crate::query::Query;
use crate::reference::Reference;
use crate::repository::RepositoryName;
use crate::tag::Tag;

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
    /// Finds the route of a request from its method, its path and its query, both still percent-encoded.
    ///
    /// The path is split first and each segment decoded exactly once afterwards, so an encoded slash can never
    /// become a separator.
    ///
    /// # Errors
    /// The first thing found wrong, see [`RouteError`].
    pub fn parse(method: &str, path: &str, query: Option<&str>) -> Result<Route, RouteError> {
        if path.len() + query.map_or(0, str::len) > MAX_URI_BYTES {
            return Err(RouteError::UriTooLong);
        }
        let query = Query::new(query);
        let segments: Vec<&str> = match path.strip_prefix("/v2") {
            Some("" | "/") => return base(method),
            Some(rest) => rest
                .strip_prefix('/')
                .ok_or(RouteError::NotFound)?
                .split('/')
                .collect(),
            None => return Err(RouteError::NotFound),
        };
        match segments.as_slice() {
            ["_catalog"] => catalog(method, query),
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
                uploads(method, name, query)
            }
            [name @ .., "blobs", "uploads", id] => upload(method, name, id, query),
            [name @ .., "blobs", digest] => blob(method, name, digest),
            [name @ .., "manifests", reference] => manifest(method, name, reference, query),
            [name @ .., "tags", "list"] => tags(method, name, query),
            [name @ .., "referrers", digest] => referrers(method, name, digest, query),
            _ => Err(RouteError::NotFound),
        }
    }

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

fn base(method: &str) -> Result<Route, RouteError> {
    only_get(method)?;
    Ok(Route::Base)
}

fn catalog(method: &str, query: Query<'_>) -> Result<Route, RouteError> {
    only_get(method)?;
    Ok(Route::Catalog { page: page(query)? })
}

fn uploads(method: &str, name: &[&str], query: Query<'_>) -> Result<Route, RouteError> {
    let repository = repository(name)?;
    if method != "POST" {
        return Err(RouteError::MethodNotAllowed { allow: &["POST"] });
    }
    let digest_of = |name| query.one(name)?.map(|text| digest(&text)).transpose();
    let from = query.one("from")?.filter(|from| !from.is_empty());
    let from = from
        .map(|from| RepositoryName::parse(&from))
        .transpose()
        .map_err(RouteError::NameInvalid)?;
    let algorithm = query
        .one("digest-algorithm")?
        .map(|text| text.parse::<Algorithm>());
    Ok(Route::StartUpload {
        repository,
        mount: digest_of("mount")?.map(|digest| Mount { digest, from }),
        digest: digest_of("digest")?,
        algorithm: algorithm.transpose().map_err(RouteError::DigestInvalid)?,
    })
}

fn upload(method: &str, name: &[&str], id: &str, query: Query<'_>) -> Result<Route, RouteError> {
    let repository = repository(name)?;
    let upload_id = percent::decode(id)
        .ok_or(RouteError::UploadInvalid)?
        .into_owned();
    // What the id means is for others; here it must only be harmless in logs, headers and paths.
    if !upload_id
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    {
        return Err(RouteError::UploadInvalid);
    }
    match method {
        "GET" | "HEAD" => Ok(Route::UploadStatus {
            repository,
            upload_id,
        }),
        "PATCH" => Ok(Route::AppendUpload {
            repository,
            upload_id,
        }),
        "PUT" => {
            let text = query.one("digest")?;
            let missing = || ParseError::Digest {
                text: String::new(),
                reason: "the digest parameter is missing",
            };
            let text = text.ok_or_else(|| RouteError::DigestInvalid(missing()))?;
            Ok(Route::FinishUpload {
                repository,
                upload_id,
                digest: digest(&text)?,
            })
        }
        "DELETE" => Ok(Route::CancelUpload {
            repository,
            upload_id,
        }),
        _ => Err(RouteError::MethodNotAllowed {
            allow: &["GET", "HEAD", "PATCH", "PUT", "DELETE"],
        }),
    }
}

fn blob(method: &str, name: &[&str], text: &str) -> Result<Route, RouteError> {
    let repository = repository(name)?;
    let digest = path_digest(text)?;
    match method {
        "GET" => Ok(Route::GetBlob { repository, digest }),
        "HEAD" => Ok(Route::HeadBlob { repository, digest }),
        "DELETE" => Ok(Route::DeleteBlob { repository, digest }),
        _ => Err(RouteError::MethodNotAllowed {
            allow: &["GET", "HEAD", "DELETE"],
        }),
    }
}

fn manifest(
    method: &str,
    name: &[&str],
    text: &str,
    query: Query<'_>,
) -> Result<Route, RouteError> {
    let repository = repository(name)?;
    let reference = reference(text)?;
    match method {
        "GET" => Ok(Route::GetManifest {
            repository,
            reference,
        }),
        "HEAD" => Ok(Route::HeadManifest {
            repository,
            reference,
        }),
        "PUT" => Ok(Route::PutManifest {
            repository,
            reference,
            tags: further_tags(query)?,
        }),
        "DELETE" => Ok(Route::DeleteManifest {
            repository,
            reference,
        }),
        _ => Err(RouteError::MethodNotAllowed {
            allow: &["GET", "HEAD", "PUT", "DELETE"],
        }),
    }
}

fn tags(method: &str, name: &[&str], query: Query<'_>) -> Result<Route, RouteError> {
    let repository = repository(name)?;
    only_get(method)?;
    Ok(Route::ListTags {
        repository,
        page: page(query)?,
    })
}

fn referrers(
    method: &str,
    name: &[&str],
    text: &str,
    query: Query<'_>,
) -> Result<Route, RouteError> {
    let repository = repository(name)?;
    let digest = path_digest(text)?;
    only_get(method)?;
    let artifact_type = query
        .one("artifactType")?
        .filter(|text| !text.is_empty())
        .map(Cow::into_owned);
    Ok(Route::ListReferrers {
        repository,
        digest,
        artifact_type,
        page: page(query)?,
    })
}

fn only_get(method: &str) -> Result<(), RouteError> {
    match method {
        "GET" | "HEAD" => Ok(()),
        _ => Err(RouteError::MethodNotAllowed {
            allow: &["GET", "HEAD"],
        }),
    }
}

/// The name from its raw segments. A segment that decodes to something with a slash is refused before joining:
/// joined, `a%2Fb` would pass for `a/b`.
fn repository(segments: &[&str]) -> Result<RepositoryName, RouteError> {
    if segments.is_empty() {
        return Err(RouteError::NotFound);
    }
    let invalid = |reason| ParseError::RepositoryName {
        text: excerpt(&segments.join("/")),
        reason,
    };
    let mut decoded = Vec::with_capacity(segments.len());
    for segment in segments {
        match percent::decode(segment) {
            None => return Err(RouteError::NameInvalid(invalid("bad percent-encoding"))),
            Some(segment) if segment.contains('/') => {
                return Err(RouteError::NameInvalid(invalid("encoded slash")));
            }
            Some(segment) => decoded.push(segment),
        }
    }
    RepositoryName::parse(&decoded.join("/")).map_err(RouteError::NameInvalid)
}

fn reference(raw: &str) -> Result<Reference, RouteError> {
    let invalid = || ParseError::Tag {
        text: excerpt(raw),
        reason: "bad percent-encoding",
    };
    let text = percent::decode(raw).ok_or_else(|| RouteError::TagInvalid(invalid()))?;
    Reference::parse(&text).map_err(|error| match error {
        ParseError::Tag { .. } => RouteError::TagInvalid(error),
        _ => RouteError::DigestInvalid(error),
    })
}

fn path_digest(raw: &str) -> Result<Digest, RouteError> {
    let invalid = || ParseError::Digest {
        text: excerpt(raw),
        reason: "bad percent-encoding",
    };
    digest(&percent::decode(raw).ok_or_else(|| RouteError::DigestInvalid(invalid()))?)
}

fn digest(text: &str) -> Result<Digest, RouteError> {
    Digest::parse(text).map_err(RouteError::DigestInvalid)
}

fn page(query: Query<'_>) -> Result<Page, RouteError> {
    let (n, last) = (query.one("n")?, query.one("last")?);
    Page::parse(n.as_deref(), last.as_deref()).map_err(RouteError::PageInvalid)
}

fn further_tags(query: Query<'_>) -> Result<Vec<Tag>, RouteError> {
    if query.count("tag") > MAX_TAGS {
        return Err(RouteError::TooManyTags);
    }
    let mut tags = Vec::new();
    for text in query.all("tag") {
        let tag = Tag::parse(&text?).map_err(RouteError::TagInvalid)?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(tags)
}
