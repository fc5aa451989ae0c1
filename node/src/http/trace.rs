//! Request ids, one span for each request, one line when it is answered.

use std::time::Instant;

use axum::body::Body;
use axum::middleware::Next;
use axum::response::Response;
use http::Request;
use runtime::RequestScope;

use super::error::HttpError;
use super::headers::{REQUEST_ID, value};
use crate::scoped;

/// So much of an upload's id is logged: owner and ticket, by which the lines of one upload are found. Who knows the
/// whole id may write to the upload.
const UPLOAD_ID_SHOWN: usize = 20;

/// Gives the request an id (the client's, when it is harmless), a span, and an access line.
pub(super) async fn trace(request: Request<Body>, next: Next) -> Response {
    let named = request.headers().get(REQUEST_ID);
    let scope = named
        .and_then(|id| RequestScope::named(id.to_str().ok()?))
        .unwrap_or_else(RequestScope::fresh);
    let started = Instant::now();
    let method = request.method().clone();
    let path = loggable(request.uri().path());
    let mut response = scoped::answer(scope.clone(), request, next).await;
    let status = response.status().as_u16();
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    scope.enter(|| tracing::debug!(%method, path, status, elapsed_ms, "request"));
    response.headers_mut().insert(REQUEST_ID, value(scope.id()));
    response
}

/// A path without the secret part of an upload's id. Otherwise it names repositories, tags and digests. The query is
/// never logged.
fn loggable(path: &str) -> String {
    const UPLOADS: &str = "/blobs/uploads/";
    let Some((before, rest)) = path.rsplit_once(UPLOADS) else {
        return path.to_owned();
    };
    let id = rest.split('/').next().unwrap_or("");
    match id.char_indices().nth(UPLOAD_ID_SHOWN) {
        Some((end, _)) => format!("{before}{UPLOADS}{}…{}", &id[..end], &rest[id.len()..]),
        None => path.to_owned(),
    }
}

/// The id that [`trace`] gave.
pub(super) fn request_id() -> String {
    RequestScope::current().map_or_else(String::new, |scope| scope.id().to_owned())
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

#[cfg(test)]
mod tests {
    use super::loggable;

    #[test]
    fn the_id_of_an_upload_is_not_logged_whole() {
        let id = "AAAAAAAAAAMAAAAAAAASZwcHBwcHBwcHBwcHBwcHBwcRu4lhthZ61LvREkEZnM-D";
        let shown = "/v2/team/app/blobs/uploads/AAAAAAAAAAMAAAAAAAAS…";
        assert_eq!(loggable(&format!("/v2/team/app/blobs/uploads/{id}")), shown);
        let malformed = loggable(&format!("/v2/team/app/blobs/uploads/{id}/x"));
        assert_eq!(malformed, format!("{shown}/x"));
        for path in [
            "/v2/",
            "/v2/team/app/blobs/uploads/",
            "/v2/team/app/blobs/uploads/short",
            "/v2/blobs/uploads/app/manifests/sha256:0123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(loggable(path), path);
        }
    }
}
