//! A push over gRPC, resumed when its stream breaks.

use std::time::Duration;

use metadata::ids::NodeId;
use oci::Algorithm;
use proto::blob as wire;
use proto::blob::push_blob_reply::Part as Reply;
use proto::blob::push_blob_request::Part as Request;
use runtime::Backoff;
use storage::blob::StagedReader;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::connection::Connection;
use super::{GrpcPeers, outcome, unexpected};
use crate::convert;
use crate::error::PeerError;
use crate::follow::{Follower, Step};
use crate::peers::{BlobPeers, PushEnd};

/// Streams in a row that get no further than the ones before them, after which the push fails. With the delays below
/// a dead peer is given up after some three seconds, and replaced by whoever spreads the blob.
const FRUITLESS_STREAMS_MAX: u32 = 5;

/// The same for a peer that hangs, where every stream takes long to fail.
const FRUITLESS_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a peer may take to say where it stands.
const STANDING_TIMEOUT: Duration = Duration::from_secs(5);

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

pub(super) struct Push<'a> {
    peers: &'a GrpcPeers,
    node: NodeId,
    /// Names this push when a further stream resumes it.
    name: String,
    algorithm: Algorithm,
    follower: Follower,
    /// Where the peer stood when the last stream began.
    standing_bytes: u64,
}

impl Push<'_> {
    pub(super) fn new(
        peers: &GrpcPeers,
        node: NodeId,
        source: StagedReader,
        algorithm: Algorithm,
        end: watch::Receiver<Option<PushEnd>>,
    ) -> Push<'_> {
        let name = format!("{:032x}", rand::random::<u128>());
        let follower = Follower::new(source, end);
        Push {
            peers,
            node,
            name,
            algorithm,
            follower,
            standing_bytes: 0,
        }
    }

    pub(super) async fn run(mut self) -> Result<(), PeerError> {
        let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY);
        let mut fruitless = 0;
        let mut stuck_since = None;
        loop {
            let before = self.standing_bytes;
            let error = match self.stream().await {
                Ok(()) => return Ok(()),
                Err(error @ PeerError::Unreachable { .. }) => error,
                Err(error) => return Err(error),
            };
            if self.standing_bytes > before {
                fruitless = 0;
                stuck_since = None;
                backoff.reset();
            }
            fruitless += 1;
            let stuck_since = stuck_since.get_or_insert_with(Instant::now);
            if fruitless == FRUITLESS_STREAMS_MAX || stuck_since.elapsed() > FRUITLESS_TIME_MAX {
                return Err(error);
            }
            tracing::debug!(peer = %self.node, standing_bytes = self.standing_bytes, %error, "a push broke and is resumed");
            tokio::select! {
                () = sleep(backoff.next_delay()) => {}
                () = self.follower.abandoned() => return Err(PeerError::Abandoned),
            }
            // The stream may have broken after the peer stored everything.
            if let Some(end) = self.follower.end()
                && let Ok(true) = self.peers.pin(self.node, &end.digest, end.ticket).await
            {
                return Ok(());
            }
        }
    }

    /// One stream, from where the peer stands to its acknowledgement.
    async fn stream(&mut self) -> Result<(), PeerError> {
        let connection = self.peers.connection(self.node)?;
        // One message waits here and one is being read: together with the one in the encoder that is all the memory
        // of a push, besides the windows of the connection.
        let (requests, outgoing) = mpsc::channel(1);
        let start = wire::PushStart {
            name: self.name.clone(),
            algorithm: self.algorithm.to_string(),
        };
        send(&requests, Request::Start(start)).await;
        let standing = begin(&connection, ReceiverStream::new(outgoing));
        let (mut replies, standing_bytes) = tokio::select! {
            standing = timeout(STANDING_TIMEOUT, standing) => standing.map_err(|_| silent(&connection))??,
            () = self.follower.abandoned() => return Err(PeerError::Abandoned),
        };
        self.standing_bytes = standing_bytes;
        self.follower.seek(standing_bytes);
        // The peer says nothing more until it has stored everything, unless it fails.
        tokio::select! {
            sent = feed(&mut self.follower, &requests) => sent?,
            reply = next_reply(&connection, &mut replies) => {
                return Err(reply.err().unwrap_or_else(|| unexpected(self.node)));
            }
        }
        match next_reply(&connection, &mut replies).await? {
            Reply::Stored(_) => Ok(()),
            Reply::Standing(_) => Err(unexpected(self.node)),
        }
    }
}

/// Opens the stream and learns where the peer stands.
async fn begin(
    connection: &Connection,
    requests: ReceiverStream<wire::PushBlobRequest>,
) -> Result<(Streaming<wire::PushBlobReply>, u64), PeerError> {
    let replies = connection.bulk().push_blob(requests).await;
    let mut replies = outcome(connection, replies)?.into_inner();
    match next_reply(connection, &mut replies).await? {
        Reply::Standing(standing) => Ok((replies, standing.offset_bytes)),
        Reply::Stored(_) => Err(unexpected(connection.node)),
    }
}

fn silent(connection: &Connection) -> PeerError {
    connection.failed();
    PeerError::Unreachable {
        node: connection.node,
        reason: "it does not answer".into(),
    }
}

async fn feed(
    follower: &mut Follower,
    requests: &mpsc::Sender<wire::PushBlobRequest>,
) -> Result<(), PeerError> {
    loop {
        match follower.next().await? {
            Step::Data {
                offset_bytes,
                bytes,
            } => {
                send(
                    requests,
                    Request::Data(wire::Data {
                        offset_bytes,
                        bytes,
                    }),
                )
                .await;
            }
            Step::End(end) => {
                send(requests, Request::End(convert::push_end_to_wire(&end))).await;
                return Ok(());
            }
        }
    }
}

/// When the stream is broken its reply says so, better than this end of it can.
async fn send(requests: &mpsc::Sender<wire::PushBlobRequest>, part: Request) {
    if requests
        .send(wire::PushBlobRequest { part: Some(part) })
        .await
        .is_err()
    {
        std::future::pending::<()>().await;
    }
}

async fn next_reply(
    connection: &Connection,
    replies: &mut Streaming<wire::PushBlobReply>,
) -> Result<Reply, PeerError> {
    let node = connection.node;
    let reply = outcome(connection, replies.message().await)?;
    let reply = reply.ok_or_else(|| PeerError::Unreachable {
        node,
        reason: "the stream ended".into(),
    })?;
    reply.part.ok_or_else(|| unexpected(node))
}
