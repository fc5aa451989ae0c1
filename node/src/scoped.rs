//! Answering within the scope of a request, for both fronts.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use runtime::RequestScope;

use crate::carried::carry;

/// Runs what is behind `next`, and later the body of its answer, as part of the request.
pub(crate) async fn answer(scope: RequestScope, request: Request, next: Next) -> Response {
    let response = scope.clone().run(next.run(request)).await;
    carry(scope, response)
}
