//! Lists: tags, repositories, referrers (spec end-8, end-12; `_catalog` as distribution has it).

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderValue, StatusCode, response};
use oci::{Digest, ErrorCode, MediaType, Page, RepositoryName, link_next, media_type};
use registry::{ListPage, Referrer, Seen};
use serde_json::{Value, json};

use super::Front;
use super::error::HttpError;
use super::headers::{OCI_FILTERS_APPLIED, value, with_revision};
use super::request::Head;

/// A page of referrers ends when its JSON is about this long: annotations can be large.
const REFERRERS_PAGE_BYTES: usize = 4 << 20;

/// An answer with a JSON body.
pub(super) fn json_response(
    builder: response::Builder,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response {
    let mut response = builder.body(body.into()).unwrap_or_default();
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Parameters of the next page: the same `n`, and everything after the last entry.
fn with_link(
    builder: response::Builder,
    path: &str,
    page: &Page,
    last: Option<&str>,
    filter: Option<(&str, &str)>,
) -> response::Builder {
    let Some(last) = last else { return builder };
    let n = page.limit.map(|limit| limit.to_string());
    let mut parameters: Vec<(&str, &str)> = filter.into_iter().collect();
    parameters.extend(n.as_deref().map(|n| ("n", n)));
    parameters.push(("last", last));
    builder.header(LINK, value(&link_next(path, &parameters)))
}

fn list_page(found: Seen<ListPage>, path: &str, page: &Page) -> Response {
    let builder = with_revision(http::Response::builder(), found.revision);
    let builder = with_link(builder, path, page, found.value.last.as_deref(), None);
    json_response(builder, "application/json", found.value.body)
}

impl Front {
    pub(super) async fn list_tags(
        &self,
        head: &Head,
        repository: &RepositoryName,
        page: &Page,
    ) -> Result<Response, HttpError> {
        let found = self.registry.tags(&head.caller, repository, page).await?;
        Ok(list_page(
            found,
            &format!("/v2/{repository}/tags/list"),
            page,
        ))
    }

    pub(super) async fn catalog(&self, head: &Head, page: &Page) -> Result<Response, HttpError> {
        let found = self.registry.catalog(&head.caller, page).await?;
        Ok(list_page(found, "/v2/_catalog", page))
    }

    pub(super) async fn list_referrers(
        &self,
        head: &Head,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<String>,
        page: &Page,
    ) -> Result<Response, HttpError> {
        let after = match &page.last {
            None => None,
            Some(last) => Some(Digest::parse(last)?),
        };
        // Text that is no media type can match nothing, which is an empty list, not an error.
        let filter = artifact_type.as_deref().map(MediaType::parse_bare);
        let found = match &filter {
            Some(Err(_)) => None,
            Some(Ok(filter)) => {
                let filter = Some(filter);
                let found = self.registry.referrers(
                    &head.caller,
                    repository,
                    subject,
                    filter,
                    after.as_ref(),
                );
                Some(found.await?)
            }
            None => {
                let found = self.registry.referrers(
                    &head.caller,
                    repository,
                    subject,
                    None,
                    after.as_ref(),
                );
                Some(found.await?)
            }
        };
        let mut builder = http::Response::builder();
        let mut entries = Vec::new();
        let mut last = None;
        if let Some(found) = found {
            builder = with_revision(builder, found.revision);
            (entries, last) = referrers_page(&found.value.items, found.value.more, page);
        }
        if artifact_type.is_some() {
            builder = builder.header(
                OCI_FILTERS_APPLIED,
                HeaderValue::from_static("artifactType"),
            );
        }
        let path = format!("/v2/{repository}/referrers/{subject}");
        let filter = artifact_type.as_deref().map(|text| ("artifactType", text));
        builder = with_link(builder, &path, page, last.as_deref(), filter);
        let body = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_INDEX,
            "manifests": entries,
        });
        let body = serde_json::to_vec(&body).map_err(|error| {
            let message = error.to_string();
            HttpError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                ErrorCode::Internal,
                message,
            )
        })?;
        Ok(json_response(builder, media_type::OCI_INDEX, body))
    }
}

/// As many descriptors as fit a page, and the last digest when more follow.
fn referrers_page(found: &[Referrer], more: bool, page: &Page) -> (Vec<Value>, Option<String>) {
    let limit = page.limit.unwrap_or(usize::MAX);
    let mut entries = Vec::new();
    let mut bytes = 0;
    for (position, referrer) in found.iter().enumerate() {
        if position >= limit || (bytes > REFERRERS_PAGE_BYTES && position > 0) {
            let last = position
                .checked_sub(1)
                .map(|last| found[last].digest.to_string());
            return (entries, last);
        }
        let entry = descriptor(referrer);
        bytes += entry.to_string().len();
        entries.push(entry);
    }
    let last = found
        .last()
        .filter(|_| more)
        .map(|referrer| referrer.digest.to_string());
    (entries, last)
}

fn descriptor(referrer: &Referrer) -> Value {
    let mut entry = json!({
        "mediaType": referrer.media_type.as_str(),
        "digest": referrer.digest.to_string(),
        "size": referrer.size_bytes,
    });
    if let Some(artifact_type) = &referrer.artifact_type {
        entry["artifactType"] = json!(artifact_type.as_str());
    }
    if !referrer.annotations.is_empty() {
        entry["annotations"] = json!(referrer.annotations);
    }
    entry
}
