//! Answers that count as a client's visit until their last byte is sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use http_body::{Frame, SizeHint};
use runtime::Visit;

/// `response`, whose body holds the visit.
pub(super) fn hold(visit: Visit, response: Response) -> Response {
    response.map(|body| {
        if body.is_end_stream() {
            return body;
        }
        Body::new(Served {
            body,
            _visit: visit,
        })
    })
}

/// A body that hands its frames on as they are: placeholders of files are known by their address.
struct Served {
    body: Body,
    _visit: Visit,
}

impl HttpBody for Served {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
