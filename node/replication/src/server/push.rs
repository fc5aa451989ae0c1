//! Receiving a push, and keeping what arrived when its stream breaks.
//!
//! Each stream is served by a task. When the stream breaks, the task keeps the staged bytes until another stream of
//! the same name asks for them, or the resume timeout passes. A second stream may come before the first is known to
//! be broken; it takes over.

use std::pin::pin;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use oci::Algorithm;
use proto::blob as wire;
use proto::blob::push_blob_reply::Part as Reply;
use proto::blob::push_blob_request::Part as Request;
use storage::blob::StagedBlob;
use storage::failpoints::blob_hit;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{Shared, blob_status, turn};
use crate::convert::{self, malformed};
use crate::discard_staged;
use crate::peers::PushEnd;

/// Staged names of pushes start with this.
const STAGED_PREFIX: &str = "push-";

/// Staged names of small pushes. They never outlive their task, except through a restart.
const SMALL_PREFIX: &str = "push-small-";

type Replies = mpsc::Sender<Result<wire::PushBlobReply, Status>>;

/// A push whose task is alive.
pub(super) struct Running {
    /// Tells the streams of one push apart.
    stream: u64,
    /// Tells the task to give the staged bytes away.
    take_over: CancellationToken,
    staged: oneshot::Receiver<StagedBlob>,
}

/// The task of one stream.
pub(super) struct Push {
    shared: Arc<Shared>,
    name: String,
    algorithm: Algorithm,
    stream: u64,
    take_over: CancellationToken,
    /// Where the bytes go when another stream takes over.
    heir: oneshot::Sender<StagedBlob>,
    /// Given back while the push is idle: its client may send nothing for as long as it likes.
    turn: Option<OwnedSemaphorePermit>,
}

/// 32 lower-case hexadecimal digits: a name becomes part of a path.
fn is_name(name: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    name.len() == 32 && name.bytes().all(is_digit)
}

/// Why receiving stopped before the blob was stored.
enum Stop {
    /// The stream broke, or another one takes over.
    Broken,
    /// The sender gave up.
    Abandoned,
    /// It cannot go on.
    Failed(Status),
}

impl Push {
    /// Checks the start, takes over a broken stream of the same name, and starts the task.
    pub(super) fn start(
        shared: Arc<Shared>,
        start: &wire::PushStart,
        requests: Streaming<wire::PushBlobRequest>,
    ) -> Result<mpsc::Receiver<Result<wire::PushBlobReply, Status>>, Status> {
        if !is_name(&start.name) {
            return Err(malformed("name"));
        }
        let algorithm = start
            .algorithm
            .parse()
            .map_err(|_| malformed("algorithm"))?;
        let turn = turn(&shared.push_turns)?;
        let name = format!("{STAGED_PREFIX}{}", start.name);
        let take_over = CancellationToken::new();
        let (heir, staged) = oneshot::channel();
        let stream = rand::random();
        let running = Running {
            stream,
            take_over: take_over.clone(),
            staged,
        };
        let earlier = shared.with_pushes(|pushes| pushes.insert(name.clone(), running));
        let (replies, outgoing) = mpsc::channel(2);
        let push = Push {
            shared: shared.clone(),
            name,
            algorithm,
            stream,
            take_over,
            heir,
            turn: Some(turn),
        };
        shared
            .shutdown
            .spawn("push from peer", push.run(earlier, requests, replies));
        Ok(outgoing)
    }

    async fn run(
        mut self,
        earlier: Option<Running>,
        mut requests: Streaming<wire::PushBlobRequest>,
        replies: Replies,
    ) {
        let mut staged = match self.stage(earlier).await {
            Ok(staged) => staged,
            Err(status) => {
                self.forget();
                let _ = replies.send(Err(status)).await;
                return;
            }
        };
        match self.receive(&mut staged, &mut requests, &replies).await {
            Ok(end) => {
                let stored = commit(&self.shared, staged, &end).await;
                self.forget();
                let reply = stored.map(|()| reply(Reply::Stored(wire::Stored {})));
                // A sender that is gone asks again, and finds the blob pinned.
                let _ = replies.send(reply).await;
            }
            Err(Stop::Broken) => {
                // Ends the reply stream, so that the transport lets go of it.
                drop((requests, replies, self.turn.take()));
                self.wait_for_heir(staged).await;
            }
            Err(Stop::Abandoned) => {
                discard(&self.shared, staged).await;
                self.forget();
            }
            Err(Stop::Failed(status)) => {
                discard(&self.shared, staged).await;
                self.forget();
                let _ = replies.send(Err(status)).await;
            }
        }
    }

    /// The bytes of the earlier stream, or what is staged on disk, or nothing yet.
    async fn stage(&self, earlier: Option<Running>) -> Result<StagedBlob, Status> {
        if let Some(earlier) = earlier {
            earlier.take_over.cancel();
            // An error means that the earlier task has stored or discarded them.
            if let Ok(staged) = earlier.staged.await {
                return Ok(staged);
            }
        }
        let staged = self.shared.blobs.stage(&self.name).await;
        let mut staged = staged.map_err(|error| blob_status(&error))?;
        staged.set_algorithm(self.algorithm);
        Ok(staged)
    }

    /// Receives until the end is named and all bytes are there.
    async fn receive(
        &mut self,
        staged: &mut StagedBlob,
        requests: &mut Streaming<wire::PushBlobRequest>,
        replies: &Replies,
    ) -> Result<PushEnd, Stop> {
        let mut received_bytes = staged.len_bytes();
        let standing = wire::Standing {
            offset_bytes: received_bytes,
        };
        replies
            .send(Ok(reply(Reply::Standing(standing))))
            .await
            .map_err(|_| Stop::Broken)?;
        loop {
            let request = self.next_request(staged, requests).await?;
            match request.map(|request| request.part) {
                None => return Err(Stop::Abandoned),
                Some(Some(Request::Data(data))) => {
                    if data.offset_bytes != received_bytes {
                        return Err(Stop::Failed(Status::failed_precondition(
                            "bytes out of order",
                        )));
                    }
                    received_bytes += data.bytes.len() as u64;
                    staged
                        .append(data.bytes)
                        .await
                        .map_err(|error| Stop::Failed(blob_status(&error)))?;
                }
                Some(Some(Request::End(end))) => {
                    let end = convert::push_end(&end).map_err(Stop::Failed)?;
                    if end.size_bytes != received_bytes {
                        return Err(Stop::Failed(Status::failed_precondition(
                            "bytes are missing",
                        )));
                    }
                    return Ok(end);
                }
                Some(Some(Request::Start(_)) | None) => {
                    return Err(Stop::Failed(malformed("data or end")));
                }
            }
        }
    }

    /// Waits for the next message. A push that is idle meanwhile has no turn and nothing in memory.
    async fn next_request(
        &mut self,
        staged: &mut StagedBlob,
        requests: &mut Streaming<wire::PushBlobRequest>,
    ) -> Result<Option<wire::PushBlobRequest>, Stop> {
        let stop = self.shared.shutdown.token();
        let take_over = self.take_over.clone();
        let broken = async {
            tokio::select! {
                () = take_over.cancelled() => {}
                () = stop.cancelled() => {}
            }
        };
        let (mut broken, mut message) = (pin!(broken), pin!(requests.message()));
        tokio::select! {
            biased;
            () = &mut broken => return Err(Stop::Broken),
            request = &mut message => return request.map_err(|_| Stop::Broken),
            () = sleep(self.shared.options.idle_after) => {}
        }
        let flushed = staged.flush().await;
        flushed.map_err(|error| Stop::Failed(blob_status(&error)))?;
        self.turn = None;
        let resumed = async {
            let request = message.await.map_err(|_| Stop::Broken)?;
            let turns = self.shared.push_turns.clone();
            let turn = match &request {
                Some(_) => Some(turns.acquire_owned().await.map_err(|_| Stop::Broken)?),
                None => None,
            };
            Ok((request, turn))
        };
        tokio::select! {
            biased;
            () = &mut broken => Err(Stop::Broken),
            resumed = resumed => {
                let (request, turn) = resumed?;
                self.turn = turn;
                Ok(request)
            }
        }
    }

    /// Keeps the bytes for the next stream of this push, for a while.
    async fn wait_for_heir(self, staged: StagedBlob) {
        let stop = self.shared.shutdown.token();
        tokio::select! {
            () = self.take_over.cancelled() => {}
            () = sleep(self.shared.options.resume_timeout) => {}
            // What is durable stays on disk and can be resumed after the restart.
            () = stop.cancelled() => return,
        }
        if self.forget() {
            return discard(&self.shared, staged).await;
        }
        // Another stream has taken the entry and waits.
        if let Err(staged) = self.heir.send(staged) {
            discard(&self.shared, staged).await;
        }
    }

    /// Removes the entry of this task; false when another stream has replaced it.
    fn forget(&self) -> bool {
        self.shared.with_pushes(|pushes| {
            let own = pushes
                .get(&self.name)
                .is_some_and(|running| running.stream == self.stream);
            if own {
                pushes.remove(&self.name);
            }
            own
        })
    }
}

impl Shared {
    fn with_pushes<T>(
        &self,
        body: impl FnOnce(&mut std::collections::HashMap<String, Running>) -> T,
    ) -> T {
        // Every change of the map is one call; a panic elsewhere leaves it whole.
        body(&mut self.pushes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Stores a small blob that came in one message.
pub(super) async fn store_small(shared: &Shared, end: PushEnd, body: Bytes) -> Result<(), Status> {
    if body.len() as u64 != end.size_bytes {
        return Err(malformed("size"));
    }
    let name = format!("{SMALL_PREFIX}{:032x}", rand::random::<u128>());
    let mut staged = shared
        .blobs
        .stage(&name)
        .await
        .map_err(|error| blob_status(&error))?;
    if let Err(error) = staged.append(body).await {
        discard(shared, staged).await;
        return Err(blob_status(&error));
    }
    commit(shared, staged, &end).await
}

/// Verifies, makes durable, pins.
async fn commit(shared: &Shared, staged: StagedBlob, end: &PushEnd) -> Result<(), Status> {
    if let Err(error) = blob_hit("push_before_commit") {
        discard(shared, staged).await;
        return Err(blob_status(&error));
    }
    match shared.blobs.commit(staged, &end.digest, end.ticket).await {
        Ok(_) => blob_hit("push_before_reply").map_err(|error| blob_status(&error)),
        Err((error, staged)) => {
            if let Some(staged) = staged {
                discard(shared, staged).await;
            }
            Err(blob_status(&error))
        }
    }
}

async fn discard(shared: &Shared, staged: StagedBlob) {
    if let Err(error) = shared.blobs.discard(staged).await {
        tracing::warn!(%error, "the bytes of a push could not be discarded");
    }
}

fn reply(part: Reply) -> wire::PushBlobReply {
    wire::PushBlobReply { part: Some(part) }
}

/// Discards what pushes staged before a restart and nobody resumed since.
pub(super) async fn discard_leftovers(shared: Arc<Shared>) {
    let names = shared.blobs.staged_names().await.unwrap_or_default();
    let leftovers: Vec<String> = names
        .into_iter()
        .filter(|name| name.starts_with(STAGED_PREFIX))
        .collect();
    if leftovers.is_empty() {
        return;
    }
    let stop = shared.shutdown.token();
    tokio::select! {
        () = sleep(shared.options.resume_timeout) => {}
        () = stop.cancelled() => return,
    }
    let alive = |name: &str| shared.with_pushes(|pushes| pushes.contains_key(name));
    discard_staged(shared.blobs.as_ref(), |name| {
        leftovers.iter().any(|leftover| leftover == name) && !alive(name)
    })
    .await;
}
