//! Request ids, one span for each request, one line when it ends.

use std::time::Instant;

use axum::body::Body;
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, Request};
use tracing::Instrument;

use super::error::HttpError;
use super::headers::REQUEST_ID;

/// Longest request id taken from a client.
const REQUEST_ID_MAX_BYTES: usize = 64;

/// The id of a request, kept in its extensions.
#[derive(Clone)]
struct RequestId(HeaderValue);

/// Gives the request an id (the client's, when it is harmless), a span, and an access line.
pub(super) async fn trace(mut request: Request<Body>, next: Next) -> Response {
    let id = request
        .headers()
        .get(REQUEST_ID)
        .filter(|id| is_harmless(id.as_bytes()))
        .cloned()
        .unwrap_or_else(fresh);
    request.extensions_mut().insert(RequestId(id.clone()));
    let text = id.to_str().unwrap_or("");
    let span = tracing::info_span!("request", request_id = text);
    let started = Instant::now();
    let method = request.method().clone();
    // The path names repositories and digests, never secrets; the query may hold an upload's state.
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status().as_u16();
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    span.in_scope(|| tracing::debug!(%method, path, status, elapsed_ms, "request"));
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn is_harmless(id: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    !id.is_empty() && id.len() <= REQUEST_ID_MAX_BYTES && id.iter().all(allowed)
}

fn fresh() -> HeaderValue {
    let text = format!("{:016x}", rand::random::<u64>());
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// The id that [`trace`] gave.
pub(super) fn request_id(parts: &Parts) -> String {
    let id = parts.extensions.get::<RequestId>();
    id.and_then(|id| id.0.to_str().ok())
        .unwrap_or("")
        .to_owned()
}

/// Logs what the client may not see. Where an error is answered is where it is handled.
pub(super) fn log_error(error: &HttpError) {
    let status = error.status().as_u16();
    match error.internal() {
        Some(reason) if status == 500 => tracing::error!(status, error = reason, "request failed"),
        Some(reason) => tracing::warn!(status, error = reason, "request refused"),
        None => {}
    }
}
