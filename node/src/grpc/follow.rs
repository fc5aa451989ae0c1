//! Calls that another node makes on behalf of a request carry its id: what they log here belongs to it.

use std::time::Instant;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use runtime::{REQUEST_ID_HEADER, RequestScope};

use crate::scoped;

/// Serves a call, within the scope of the request that it names, if it names one.
pub(super) async fn follow(call: Request, next: Next) -> Response {
    let id = call.headers().get(REQUEST_ID_HEADER);
    let scope = id.and_then(|id| RequestScope::named(id.to_str().ok()?));
    let Some(scope) = scope else {
        return next.run(call).await;
    };
    let started = Instant::now();
    let path = call.uri().path().to_owned();
    let response = scoped::answer(scope.clone(), call, next).await;
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    scope.enter(|| tracing::debug!(path, elapsed_ms, "call of a node"));
    response
}
