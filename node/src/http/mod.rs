//! The HTTP front: translates between the distribution API and the registry, decides nothing.
//!
//! `Route::parse` finds the operation; each handler reads headers, calls one registry operation and writes
//! headers. Bodies are streams in both directions.

mod access;
mod blobs;
mod error;
mod headers;
mod lists;
mod manifests;
mod refuse;
mod request;
mod send_file;
mod serve;
mod trace;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, StatusCode};
use oci::{Route, RouteError};
use registry::{Registry, SeenState};
use runtime::Clients;

pub use access::warn_about_open_access;
pub use serve::{ServeOptions, serve};

use crate::carried::carry;
use error::HttpError;
use request::Head;

/// What the front needs to know of the node's configuration.
#[derive(Clone, Debug)]
pub struct FrontOptions {
    /// Larger manifests get 413.
    pub manifest_max_bytes: u64,
    /// Lists are cut at this many entries.
    pub page_max: usize,
    /// Names and values of a request's headers; more get 431.
    pub header_max_bytes: usize,
    /// How long a request waits for consensus.
    pub request_deadline: Duration,
    /// A body that brings nothing for this long is cut off.
    pub body_idle: Duration,
    /// Announced as `OCI-Chunk-Min-Length` when not 0.
    pub chunk_min_bytes: u64,
}

/// Says whether this node can serve, and if not, why.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Writes what `/metrics` answers, or says why it cannot.
pub type Metrics =
    Arc<dyn Fn() -> futures::future::BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// The front, shared by all connections.
pub struct Front {
    registry: Arc<Registry>,
    options: FrontOptions,
    ready: Readiness,
    metrics: Metrics,
    clients: Clients,
}

impl Front {
    /// A front for `registry`, which notes whom it serves in `clients`.
    pub fn new(
        registry: Arc<Registry>,
        options: FrontOptions,
        ready: Readiness,
        metrics: Metrics,
        clients: Clients,
    ) -> Arc<Front> {
        Arc::new(Front {
            registry,
            options,
            ready,
            metrics,
            clients,
        })
    }

    /// Everything the front answers. Names with slashes are not the router's business: one fallback takes `/v2`.
    pub fn router(self: Arc<Front>) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .fallback(distribution)
            .layer(axum::middleware::from_fn(trace::trace))
            .with_state(self)
    }
}

async fn readyz(State(front): State<Arc<Front>>) -> Response {
    match (front.ready)() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(front): State<Arc<Front>>) -> Response {
    let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4")];
    match (front.metrics)().await {
        Ok(page) => (kind, page).into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

/// The distribution API.
async fn distribution(State(front): State<Arc<Front>>, request: Request<Body>) -> Response {
    let visit = front.clients.enter();
    let (parts, mut body) = request.into_parts();
    // A client that waits for `100 Continue` has not sent the body; asking for it only to drop it helps nobody.
    let waits_to_send = parts.headers.contains_key(http::header::EXPECT);
    let seen = SeenState::default();
    let outcome = front.answer(parts, &mut body, seen.clone()).await;
    if outcome.is_err() && !waits_to_send && !http_body::Body::is_end_stream(&body) {
        request::drain(body);
    }
    let mut response = outcome.unwrap_or_else(|error| {
        trace::log_error(&error);
        error.into_response(&trace::request_id())
    });
    let answered = response.headers_mut();
    if let Some(revision) = seen.revision() {
        // An answer that names the very state it was read from knows better.
        answered
            .entry(headers::ARGOSY_REVISION)
            .or_insert_with(|| HeaderValue::from(revision.0));
    }
    let version = HeaderValue::from_static("registry/2.0");
    answered.insert(headers::DOCKER_API_VERSION, version);
    carry(visit, response)
}

impl Front {
    /// Takes `body` when the operation has one; what is left in it afterwards was not wanted.
    async fn answer(
        &self,
        parts: http::request::Parts,
        body: &mut Body,
        seen: SeenState,
    ) -> Result<Response, HttpError> {
        request::check_headers(&parts.headers, self.options.header_max_bytes)?;
        let route = Route::parse(parts.method.as_str(), parts.uri.path(), parts.uri.query())?;
        let head = Head::new(parts, self.options.request_deadline, seen)?;
        match route {
            Route::Base => Ok(base()),
            Route::GetBlob { repository, digest } => {
                self.get_blob(&head, &repository, &digest).await
            }
            Route::HeadBlob { repository, digest } => {
                self.head_blob(&head, &repository, &digest).await
            }
            Route::DeleteBlob { repository, digest } => {
                self.delete_blob(&head, &repository, &digest).await
            }
            route @ (Route::StartUpload { .. }
            | Route::UploadStatus { .. }
            | Route::AppendUpload { .. }
            | Route::FinishUpload { .. }
            | Route::CancelUpload { .. }) => self.answer_upload(&head, route, body).await,
            Route::GetManifest {
                repository,
                reference,
            } => self.get_manifest(&head, &repository, &reference).await,
            Route::HeadManifest {
                repository,
                reference,
            } => self.head_manifest(&head, &repository, &reference).await,
            Route::PutManifest {
                repository,
                reference,
                tags,
            } => {
                self.put_manifest(&head, &repository, &reference, tags, body)
                    .await
            }
            Route::DeleteManifest {
                repository,
                reference,
            } => self.delete_manifest(&head, &repository, &reference).await,
            Route::ListTags { repository, page } => self.list_tags(&head, &repository, &page).await,
            Route::ListReferrers {
                repository,
                digest,
                artifact_type,
                page,
            } => {
                self.list_referrers(&head, &repository, &digest, artifact_type, &page)
                    .await
            }
            Route::Catalog { page } => self.catalog(&head, &page).await,
        }
    }

    /// The uploads among the routes.
    async fn answer_upload(
        &self,
        head: &Head,
        route: Route,
        body: &mut Body,
    ) -> Result<Response, HttpError> {
        match route {
            // The announced algorithm was checked; the digest of the closing PUT decides.
            Route::StartUpload {
                repository,
                mount,
                digest,
                algorithm: _,
            } => {
                let start = uploads::Start { mount, digest };
                self.start_upload(head, &repository, start, body).await
            }
            Route::UploadStatus {
                repository,
                upload_id,
            } => self.upload_status(head, &repository, &upload_id).await,
            Route::AppendUpload {
                repository,
                upload_id,
            } => {
                self.append_upload(head, &repository, &upload_id, body)
                    .await
            }
            Route::FinishUpload {
                repository,
                upload_id,
                digest,
            } => {
                self.finish_upload(head, &repository, &upload_id, &digest, body)
                    .await
            }
            Route::CancelUpload {
                repository,
                upload_id,
            } => self.cancel_upload(head, &repository, &upload_id).await,
            // `answer` hands on nothing else.
            _ => Err(RouteError::NotFound.into()),
        }
    }
}

fn base() -> Response {
    lists::json_response(
        http::Response::builder(),
        "application/json",
        b"{}".to_vec(),
    )
}

#[cfg(test)]
mod tests;
