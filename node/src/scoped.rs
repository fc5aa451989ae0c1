//! Answering within the scope of a request, for both fronts.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use runtime::RequestScope;

/// Runs what is behind `next`, and later the body of its answer, as part of the request.
pub(crate) async fn answer(scope: RequestScope, request: Request, next: Next) -> Response {
    let response = scope.clone().run(next.run(request)).await;
    response.map(|body| {
        if body.is_end_stream() {
            return body;
        }
        Body::new(Scoped { body, scope })
    })
}

/// A body whose frames are made within the scope; they are handed on as they are.
struct Scoped {
    body: Body,
    scope: RequestScope,
}

impl HttpBody for Scoped {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Scoped { body, scope } = &mut *self;
        scope.enter(|| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
