//! Receiving a request to an upload session of this node.

use futures::{StreamExt, stream};
use proto::blob as wire;
use proto::blob::upload_request::Part;
use tonic::{Status, Streaming};

use crate::convert::{self, malformed};
use crate::error::PeerError;
use crate::peers::{ByteStream, UploadRequest};

pub(super) async fn receive(
    mut requests: Streaming<wire::UploadRequest>,
) -> Result<UploadRequest, Status> {
    match requests.message().await?.and_then(|request| request.part) {
        Some(Part::Header(header)) => convert::upload(header, body(requests)),
        _ => Err(malformed("an upload begins with its header")),
    }
}

/// A stream that stops without its end is a client that went away, or a node that did.
fn body(requests: Streaming<wire::UploadRequest>) -> ByteStream {
    stream::unfold(Some(requests), |requests| async move {
        let mut requests = requests?;
        match requests.message().await {
            Ok(Some(wire::UploadRequest {
                part: Some(Part::Data(data)),
            })) => Some((Ok(data), Some(requests))),
            Ok(Some(wire::UploadRequest {
                part: Some(Part::End(_)),
            })) => None,
            Ok(_) | Err(_) => Some((Err(PeerError::BodyInterrupted), None)),
        }
    })
    .boxed()
}
