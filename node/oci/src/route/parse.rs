//! From method, path and query to a [`Route`].

use std::borrow::Cow;

use crate::digest::{Algorithm, Digest};
use crate::error::{ParseError, excerpt};
use crate::page::Page;
use crate::percent;
use crate::query::Query;
use crate::reference::Reference;
use crate::repository::RepositoryName;
use crate::route::{MAX_TAGS, MAX_URI_BYTES, Mount, Route, RouteError};
use crate::tag::Tag;

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
