//! What every handler knows of its request.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use futures::Stream;
use http::StatusCode;
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt;
use metadata::ids::LogIndex;
use oci::{ContentRange, ErrorCode};
use registry::{BodyError, BodyStream, Caller, Chunk, SeenState};

use super::access;
use super::error::HttpError;
use super::headers::{self, ARGOSY_MIN_REVISION};
use super::send_file::FileQueue;

/// Refuses headers that are longer than allowed, all of them together. hyper bounds what it reads of a head only by its
/// buffer, which is as large as uploads want it.
pub(super) fn check_headers(headers: &http::HeaderMap, max_bytes: usize) -> Result<(), HttpError> {
    let lengths = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    if lengths.sum::<usize>() <= max_bytes {
        return Ok(());
    }
    Err(HttpError::new(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        ErrorCode::Unsupported,
        "the headers are too long",
    ))
}

/// The head of a request, and its caller.
pub(super) struct Head {
    pub(super) parts: Parts,
    pub(super) caller: Caller,
}

impl Head {
    /// Reads who asks and what the answer must have seen.
    pub(super) fn new(
        parts: Parts,
        deadline: Duration,
        seen: SeenState,
    ) -> Result<Head, HttpError> {
        let min_revision = match parts.headers.get(ARGOSY_MIN_REVISION) {
            None => None,
            Some(value) => {
                let number = value.to_str().ok().and_then(|text| text.parse().ok());
                Some(LogIndex(number.ok_or_else(|| {
                    HttpError::new(
                        StatusCode::BAD_REQUEST,
                        ErrorCode::Unsupported,
                        "Argosy-Min-Revision is not a log index",
                    )
                })?))
            }
        };
        let caller = Caller {
            subject: access::subject(&parts.headers).0,
            min_revision,
            deadline: Instant::now() + deadline,
            seen,
        };
        Ok(Head { parts, caller })
    }

    /// `Content-Length`, when the client says one.
    pub(super) fn content_length(&self) -> Option<u64> {
        headers::text(&self.parts.headers, http::header::CONTENT_LENGTH)?
            .parse()
            .ok()
    }

    /// Where the connection takes parts of files from, when it can send them.
    pub(super) fn file_queue(&self) -> Option<FileQueue> {
        let is_plain = self.parts.version <= http::Version::HTTP_11;
        self.parts
            .extensions
            .get::<FileQueue>()
            .filter(|_| is_plain)
            .cloned()
    }

    /// The body as a chunk of an upload.
    pub(super) fn chunk(&self, body: Body, idle: Duration) -> Result<Chunk, HttpError> {
        let range = match self.parts.headers.get(http::header::CONTENT_RANGE) {
            None => None,
            Some(value) => Some(ContentRange::parse(value.to_str().unwrap_or("?"))?),
        };
        Ok(Chunk {
            range,
            length_bytes: self.content_length(),
            body: body_stream(body, idle),
        })
    }
}

/// The data of a body. Ends with an error when nothing arrives for `idle`. What the registry does not read is
/// drained when the stream is dropped.
pub(super) fn body_stream(body: Body, idle: Duration) -> BodyStream {
    Box::pin(IdleLimited {
        body,
        idle,
        timer: Box::pin(tokio::time::sleep(idle)),
        finished: false,
    })
}

struct IdleLimited {
    body: Body,
    idle: Duration,
    timer: Pin<Box<tokio::time::Sleep>>,
    finished: bool,
}

impl Drop for IdleLimited {
    fn drop(&mut self) {
        if !self.finished && !self.body.is_end_stream() {
            drain(std::mem::take(&mut self.body));
        }
    }
}

impl Stream for IdleLimited {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match http_body::Body::poll_frame(Pin::new(&mut this.body), context) {
                Poll::Ready(Some(Ok(frame))) => {
                    let reset = tokio::time::Instant::now() + this.idle;
                    this.timer.as_mut().reset(reset);
                    // Trailers carry nothing we use.
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    this.finished = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Ready(None) => {
                    this.finished = true;
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    return match this.timer.as_mut().poll(context) {
                        Poll::Ready(()) => {
                            this.finished = true;
                            Poll::Ready(Some(Err("no byte arrived in time".into())))
                        }
                        Poll::Pending => Poll::Pending,
                    };
                }
            }
        }
    }
}

/// The whole body, when it is at most `limit_bytes` long; `None` when it is longer.
pub(super) async fn collect(
    body: &mut Body,
    limit_bytes: u64,
    idle: Duration,
) -> Result<Option<Bytes>, BodyError> {
    let mut first: Option<Bytes> = None;
    let mut joined: Vec<u8> = Vec::new();
    loop {
        let frame = tokio::time::timeout(idle, body.frame())
            .await
            .map_err(|_| "no byte arrived in time")?;
        let Some(frame) = frame else { break };
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        let length = joined.len().max(first.as_ref().map_or(0, Bytes::len)) + data.len();
        if length as u64 > limit_bytes {
            return Ok(None);
        }
        match first.take() {
            // Most manifests arrive in one frame, which then needs no copy.
            None if joined.is_empty() => first = Some(data),
            None => joined.extend_from_slice(&data),
            Some(start) => {
                joined.extend_from_slice(&start);
                joined.extend_from_slice(&data);
            }
        }
    }
    Ok(Some(first.unwrap_or_else(|| Bytes::from(joined))))
}

/// How much of an unwanted body is read, so that a client which only listens after it has sent everything hears why it
/// was refused.
const DRAIN_MAX_BYTES: usize = 16 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Reads and forgets what is left of a refused body, within bounds. The answer does not wait for it: a proxy whose node
/// answers and ends the connection at once may never pass the answer on.
pub(super) fn drain(mut body: Body) {
    tokio::spawn(async move {
        let all = async {
            let mut seen = 0;
            while let Some(Ok(frame)) = body.frame().await {
                seen += frame.data_ref().map_or(0, Bytes::len);
                if seen > DRAIN_MAX_BYTES {
                    break;
                }
            }
        };
        // Out of time is as good as done: the connection is closed then.
        let _ = tokio::time::timeout(DRAIN_TIME, all).await;
    });
}
