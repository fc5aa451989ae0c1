//! Asking the owner of an upload session, and passing a client's body on to it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use proto::blob as wire;
use proto::blob::upload_request::Part;
use storage::blob::CHUNK_BYTES;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::connection::Connection;
use super::{outcome, unexpected};
use crate::convert;
use crate::error::PeerError;
use crate::peers::{ByteStream, UploadAnswer, UploadRequest};

/// How long the owner may think after a body has ended, when the deadline of the caller comes sooner: the body may
/// have taken all of it.
const ANSWER_PATIENCE: Duration = Duration::from_secs(40);

/// Sends the request and its body, returns the answer. The deadline runs only while the owner thinks: a body takes as
/// long as its client does.
pub(super) async fn ask(
    connection: &Connection,
    request: UploadRequest,
) -> Result<UploadAnswer, PeerError> {
    let deadline = request.deadline;
    let (header, body) = convert::upload_to_wire(request);
    let patience = body.as_ref().map_or(Duration::ZERO, |_| ANSWER_PATIENCE);
    let (sent, all_sent) = oneshot::channel();
    let first = stream::iter([message(Part::Header(header))]);
    let messages: BoxStream<'static, wire::UploadRequest> =
        first.chain(body_messages(body, sent)).boxed();
    let mut client = connection.bulk();
    let mut answer = client.upload(messages).boxed();
    let reply = tokio::select! {
        reply = &mut answer => reply,
        _ = all_sent => {
            let latest = deadline.max(Instant::now() + patience);
            timeout_at(latest.into(), &mut answer)
                .await
                .map_err(|_| PeerError::Timeout(connection.node))?
        }
    };
    let reply = outcome(connection, reply)?.into_inner();
    convert::answer(reply).ok_or_else(|| unexpected(connection.node))
}

/// The body in messages of at most 256 KiB, then its end. A body that breaks off ends the stream without an end, which
/// the owner takes for an interrupted body. `sent` is dropped when everything was handed to the transport.
fn body_messages(
    body: Option<ByteStream>,
    sent: oneshot::Sender<()>,
) -> BoxStream<'static, wire::UploadRequest> {
    let Some(body) = body else {
        drop(sent);
        return stream::empty().boxed();
    };
    stream::unfold(Some((body, Bytes::new(), sent)), |body| async move {
        let (mut body, mut rest, sent) = body?;
        while rest.is_empty() {
            rest = match body.next().await {
                Some(Ok(bytes)) => bytes,
                Some(Err(_)) => return None,
                None => return Some((message(Part::End(wire::UploadEnd {})), None)),
            };
        }
        let piece = rest.split_to(rest.len().min(CHUNK_BYTES));
        Some((message(Part::Data(piece)), Some((body, rest, sent))))
    })
    .boxed()
}

fn message(part: Part) -> wire::UploadRequest {
    wire::UploadRequest { part: Some(part) }
}
