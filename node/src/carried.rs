//! Answers that carry something until the last byte of their body is sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use http_body::{Frame, SizeHint};
use runtime::{RequestScope, Visit};

/// What a body can carry.
pub(crate) trait Carried: Unpin + Send + 'static {
    /// Has a frame made.
    fn around<T>(&self, make: impl FnOnce() -> T) -> T;
}

/// The client is served for as long as the body lives.
impl Carried for Visit {
    fn around<T>(&self, make: impl FnOnce() -> T) -> T {
        make()
    }
}

/// Frames are made as part of the request.
impl Carried for RequestScope {
    fn around<T>(&self, make: impl FnOnce() -> T) -> T {
        self.enter(make)
    }
}

/// `response`, whose body carries `carried`.
pub(crate) fn carry(carried: impl Carried, response: Response) -> Response {
    response.map(|body| {
        if body.is_end_stream() {
            return body;
        }
        Body::new(Carrying { body, carried })
    })
}

/// A body that hands its frames on as they are: placeholders of files are known by their address.
struct Carrying<C> {
    body: Body,
    carried: C,
}

impl<C: Carried> HttpBody for Carrying<C> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Carrying { body, carried } = &mut *self;
        carried.around(|| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
