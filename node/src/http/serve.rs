//! Accepting connections and speaking HTTP on them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::refuse::Refusals;
use super::send_file::{FileQueue, FileStream};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Bounds of the connections.
#[derive(Clone, Copy, Debug)]
pub struct ServeOptions {
    /// More connections are refused with 503.
    pub connections_max: usize,
    /// Largest head of a request.
    pub header_max_bytes: usize,
    /// A head must be complete within this time.
    pub header_timeout: Duration,
    /// How long requests in flight may go on after `stop`.
    pub drain: Duration,
}

/// hyper refuses more headers than this by itself.
const HEADERS_MAX: usize = 128;
/// Read buffer of one connection: large enough that an upload arrives in few, large frames.
const READ_BUFFER_BYTES: usize = 512 * 1024;
/// Concurrent requests on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// Pause after a failed accept, which means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop`, then lets requests in flight finish within the drain time.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    options: ServeOptions,
    stop: CancellationToken,
) {
    let builder = Arc::new(connection_builder(options));
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(options.connections_max));
    let refusals = Refusals::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            refusals.refuse(stream).await;
            continue;
        };
        let connection = connection(&builder, stream, router.clone());
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    let drained = tokio::time::timeout(options.drain, graceful.shutdown()).await;
    if drained.is_err() {
        tracing::warn!("requests were still in flight when the drain time ended");
    }
}

fn connection_builder(options: ServeOptions) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(READ_BUFFER_BYTES.max(options.header_max_bytes))
        .half_close(true)
        // `send_file` depends on it: hyper must never copy what it is given to write. (`pipeline_flush` would make it.)
        .writev(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(options.header_max_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(Duration::from_secs(30));
    builder
}

/// One connection; `into_owned`, so that it can be watched and spawned.
fn connection(
    builder: &Builder<TokioExecutor>,
    stream: TcpStream,
    router: Router,
) -> impl GracefulConnection<Error = BoxError> + Send + 'static {
    // Small answers must not wait for a full segment.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "setting TCP_NODELAY failed");
    }
    let queue = FileQueue::default();
    let stream = FileStream::new(stream, queue.clone());
    let service =
        TowerToHyperService::new(router.map_request(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(queue.clone());
            request
        }));
    builder
        .serve_connection(TokioIo::new(stream), service)
        .into_owned()
}
