//! Sending a blob to another node.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use proto::blob as wire;
use proto::blob::fetch_blob_reply::Part;
use storage::blob::{BlobReader, CHUNK_BYTES};
use storage::failpoints::blob_hit;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use super::{Shared, blob_status};

/// Chunks read and verified ahead of the one being sent.
const READ_AHEAD: usize = 2;

const CHUNK: u64 = CHUNK_BYTES as u64;

/// The size, then the bytes from `offset` on, chunk by chunk; each is verified before it is sent.
pub(super) fn stream(
    shared: Arc<Shared>,
    reader: BlobReader,
    offset: u64,
    turn: OwnedSemaphorePermit,
) -> Result<BoxStream<'static, Result<wire::FetchBlobReply, Status>>, Status> {
    let size_bytes = reader.size_bytes();
    if offset > size_bytes {
        return Err(Status::out_of_range("the offset lies behind the end"));
    }
    let pieces = stream::iter(offset / CHUNK..size_bytes.div_ceil(CHUNK));
    let data = pieces
        .map(move |chunk| {
            let (start, end) = (
                offset.max(chunk * CHUNK),
                size_bytes.min((chunk + 1) * CHUNK),
            );
            let (reader, shared) = (reader.clone(), shared.clone());
            async move {
                let len = usize::try_from(end - start).unwrap_or(CHUNK_BYTES);
                blob_hit("fetch_before_send").map_err(|error| blob_status(&error))?;
                let data = reader
                    .read_at(start, len)
                    .await
                    .inspect_err(|_| shared.unreadable(&reader.digest()))
                    .map_err(|error| blob_status(&error))?;
                if data.len() == len {
                    Ok(reply(Part::Data(data)))
                } else {
                    shared.unreadable(&reader.digest());
                    Err(Status::data_loss(
                        "the stored blob is shorter than its size",
                    ))
                }
            }
        })
        .buffered(READ_AHEAD);
    let first = stream::iter([Ok(reply(Part::SizeBytes(size_bytes)))]);
    // The turn ends with the stream.
    Ok(first
        .chain(data)
        .inspect(move |_| {
            let _ = &turn;
        })
        .boxed())
}

fn reply(part: Part) -> wire::FetchBlobReply {
    wire::FetchBlobReply { part: Some(part) }
}
