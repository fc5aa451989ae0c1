//! Sending parts of files from the page cache, without copying them through this process.
//!
//! hyper writes bytes and knows no files. So a body that wants to send part of a file hands hyper a placeholder of the
//! same length, a slice of one static region that is never read, and notes the file in the connection's queue. The
//! connection ([`FileStream`]) recognises slices of that region by their address and calls `sendfile` instead of `write`.
//! hyper keeps the order of what it is given and never copies what it can write vectored, so the queue and the
//! placeholders stay in step.
//!
//! Only for HTTP/1 without TLS: HTTP/2 cuts bodies into frames, TLS must see the bytes.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use registry::{Piece, RegistryError};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Longest placeholder; a piece is never longer.
const PLACEHOLDER_BYTES: usize = 1 << 20;

/// Zeroes that are never written and never read: they take address space, not memory.
static PLACEHOLDER: [u8; PLACEHOLDER_BYTES] = [0; PLACEHOLDER_BYTES];

fn is_placeholder(slice: &[u8]) -> bool {
    let region = PLACEHOLDER.as_ptr_range();
    !slice.is_empty() && region.contains(&slice.as_ptr())
}

/// Part of a file that is still to be sent.
struct FilePart {
    file: Arc<File>,
    offset: u64,
    left_bytes: usize,
}

/// What a connection will send in place of its placeholders, in order.
#[derive(Clone, Default)]
pub(super) struct FileQueue(Arc<Mutex<VecDeque<FilePart>>>);

impl FileQueue {
    fn lock(&self) -> MutexGuard<'_, VecDeque<FilePart>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn placeholder(&self, file: Arc<File>, offset: u64, length_bytes: usize) -> Bytes {
        self.lock().push_back(FilePart {
            file,
            offset,
            left_bytes: length_bytes,
        });
        Bytes::from_static(&PLACEHOLDER[..length_bytes])
    }

    /// A body whose file pieces the connection of this queue will send.
    pub(super) fn body(
        self,
        pieces: impl Stream<Item = Result<Piece, RegistryError>> + Send + 'static,
    ) -> Body {
        Body::from_stream(pieces.map(move |piece| {
            piece.map(|piece| match piece {
                Piece::Bytes(bytes) => bytes,
                Piece::File {
                    file,
                    offset,
                    length_bytes,
                } => self.placeholder(file, offset, length_bytes),
            })
        }))
    }
}

/// A TCP connection that sends files where hyper writes placeholders.
pub(super) struct FileStream {
    stream: TcpStream,
    queue: FileQueue,
}

impl FileStream {
    pub(super) fn new(stream: TcpStream, queue: FileQueue) -> FileStream {
        FileStream { stream, queue }
    }

    /// Sends up to `limit_bytes` of the file at the head of the queue.
    fn poll_send_file(
        &self,
        context: &mut Context<'_>,
        limit_bytes: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            let mut queue = self.queue.lock();
            let Some(part) = queue.front_mut() else {
                return Poll::Ready(Err(io::Error::other("a placeholder without a file")));
            };
            let wanted = limit_bytes.min(part.left_bytes);
            let mut offset = part.offset;
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                Ok(rustix::fs::sendfile(
                    &self.stream,
                    &part.file,
                    Some(&mut offset),
                    wanted,
                )?)
            });
            match sent {
                // The file is shorter than it was verified to be: end the connection, never the wrong bytes.
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(sent) => {
                    part.offset += sent as u64;
                    part.left_bytes -= sent;
                    if part.left_bytes == 0 {
                        queue.pop_front();
                    }
                    return Poll::Ready(Ok(sent));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncRead for FileStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for FileStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if is_placeholder(bytes) {
            return self.poll_send_file(context, bytes.len());
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let ordinary = slices
            .iter()
            .take_while(|slice| !is_placeholder(slice))
            .count();
        match slices.first() {
            // A placeholder comes first; what follows is written by the next call.
            Some(first) if ordinary == 0 => self.poll_send_file(context, first.len()),
            _ => Pin::new(&mut self.stream).poll_write_vectored(context, &slices[..ordinary]),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when it has written all it was given. A file that is still to be sent means that its
        // placeholder was copied: a bug that must end the connection, not go unnoticed.
        if !self.queue.lock().is_empty() {
            tracing::error!("a placeholder was written instead of its file");
            return Poll::Ready(Err(io::Error::other("a placeholder was copied")));
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Duration;

    use axum::Router;
    use axum::extract::Extension;
    use axum::routing::get;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::http::serve::{ServeOptions, serve};

    const OPTIONS: ServeOptions = ServeOptions {
        connections_max: 8,
        header_max_bytes: 8192,
        header_timeout: Duration::from_secs(5),
        drain: Duration::from_secs(5),
    };

    /// Answers with bytes, then a file in pieces, then bytes.
    fn router(file: Arc<File>, length: usize) -> Router {
        let handler = move |Extension(queue): Extension<FileQueue>| async move {
            let pieces = (0..length)
                .step_by(PLACEHOLDER_BYTES)
                .map(move |offset| Piece::File {
                    file: file.clone(),
                    offset: offset as u64,
                    length_bytes: PLACEHOLDER_BYTES.min(length - offset),
                });
            let before = std::iter::once(Piece::Bytes(Bytes::from_static(b"before")));
            let after = std::iter::once(Piece::Bytes(Bytes::from_static(b"after")));
            let pieces = before.chain(pieces).chain(after).map(Ok);
            http::Response::builder()
                .header("content-length", length + 11)
                .body(queue.body(futures::stream::iter(pieces)))
                .unwrap()
        };
        Router::new().route("/", get(handler))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_arrives_in_place_of_its_placeholders() {
        let length = 5 * PLACEHOLDER_BYTES + 4321;
        let content: Vec<u8> = (1..=251u8).cycle().take(length).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let expected: Vec<u8> = [b"before".as_slice(), &content, b"after"].concat();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(
            listener,
            router(Arc::new(file), length),
            OPTIONS,
            stop.clone(),
        ));
        let answers = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            // Two pipelined requests: the queue must stay in step across answers.
            let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
            let last = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            stream
                .write_all(format!("{request}{last}").as_bytes())
                .unwrap();
            let mut answers = Vec::new();
            stream.read_to_end(&mut answers).unwrap();
            answers
        });
        let mut rest = answers.await.unwrap();
        for _ in 0..2 {
            let head = rest.windows(4).position(|at| at == b"\r\n\r\n").unwrap() + 4;
            let body = &rest[head..head + expected.len()];
            assert!(body == expected, "the body is not the file");
            rest.drain(..head + expected.len());
        }
        assert!(rest.is_empty());
        stop.cancel();
        server.await.unwrap();
    }
}
