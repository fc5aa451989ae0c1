//! How nodes are connected: windows, keepalive, limits.

use std::time::Duration;

use proto::blob::blob_service_client::BlobServiceClient;
use runtime::{REQUEST_ID_HEADER, RequestScope};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Status};

/// Largest message; tonic's own default of 4 MiB is less than one legal manifest (protocols.md 10.6).
pub(crate) const MESSAGE_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Bytes a peer may send on one stream before they are taken: what a round trip of 10 ms needs at 400 MB/s.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// The same for all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// A data message in few frames instead of sixteen.
const FRAME_MAX_BYTES: u32 = 256 * 1024;

/// Streams per connection. Every open upload (4,096 by default) may hold one push, idle as long as its client is; as
/// many again, and more, are left for those that finish and for fetches.
const STREAMS_MAX: u32 = 16_384;

/// A peer that does not answer a keepalive for this long is gone, and its streams with it.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Sets windows, frame size and keepalive of a server as the clients here expect them. Dead connections are found
/// by the keepalive alone: a push may be silent for as long as the client of the upload is.
pub fn tune(server: Server) -> Server {
    server
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_MAX_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .tcp_nodelay(true)
}

/// Looks at every call before it is sent.
type BeforeCall = fn(Request<()>) -> Result<Request<()>, Status>;

/// Calls one peer, on behalf of the request that the caller belongs to.
pub(crate) type Client = BlobServiceClient<InterceptedService<Channel, BeforeCall>>;

/// A client over a connection of its own, made on first use and again whenever it breaks.
pub(crate) fn client(address: &str) -> Result<Client, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_MAX_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let channel = InterceptedService::new(endpoint.connect_lazy(), name_request as BeforeCall);
    Ok(Client::new(channel)
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES))
}

/// The peer's log lines shall carry the same id.
fn name_request(mut call: Request<()>) -> Result<Request<()>, Status> {
    if let Some(id) = RequestScope::current().and_then(|request| request.id().parse().ok()) {
        call.metadata_mut().insert(REQUEST_ID_HEADER, id);
    }
    Ok(call)
}
