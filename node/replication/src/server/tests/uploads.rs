//! Requests to upload sessions, passed from one node to another.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use oci::{ContentRange, Digest, RepositoryName};
use tokio::time::timeout;

use super::{MIB, PEER, stop, wire};
use crate::error::PeerError;
use crate::peers::{BlobPeers, UploadAction, UploadAnswer, UploadChunk, UploadRequest};
use crate::server::{ServerOptions, UploadHandler};
use crate::testing::{noise, sha256};

/// What the owner saw of the last request.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    upload: String,
    subject: String,
    range: Option<ContentRange>,
    length_bytes: Option<u64>,
    digest: Option<Digest>,
    body: Vec<u8>,
    interrupted: bool,
}

fn recording(seen: Arc<Mutex<Seen>>, answer: UploadAnswer) -> UploadHandler {
    Arc::new(move |request| {
        let (seen, answer) = (seen.clone(), answer.clone());
        async move {
            assert!(request.deadline > Instant::now() + Duration::from_secs(15));
            assert_eq!(request.repository.as_str(), "a/blobs/b");
            let (digest, chunk) = match request.action {
                UploadAction::Append(chunk) => (None, Some(chunk)),
                UploadAction::Finish(digest, chunk) => (Some(digest), Some(chunk)),
                UploadAction::Status | UploadAction::Cancel => (None, None),
            };
            let mut saw = Seen {
                upload: request.upload,
                subject: request.subject,
                digest,
                ..Seen::default()
            };
            if let Some(mut chunk) = chunk {
                (saw.range, saw.length_bytes) = (chunk.range, chunk.length_bytes);
                while let Some(bytes) = chunk.bytes.next().await {
                    match bytes {
                        Ok(bytes) => saw.body.extend_from_slice(&bytes),
                        Err(_) => saw.interrupted = true,
                    }
                }
            }
            *seen.lock().unwrap() = saw;
            answer
        }
        .boxed()
    })
}

fn request(action: UploadAction) -> UploadRequest {
    UploadRequest {
        upload: "opaque".into(),
        repository: RepositoryName::parse("a/blobs/b").unwrap(),
        subject: "alice".into(),
        deadline: Instant::now() + Duration::from_secs(20),
        action,
    }
}

fn chunk(pieces: Vec<Result<Bytes, PeerError>>) -> UploadChunk {
    UploadChunk {
        range: Some(ContentRange {
            start: 5,
            end_inclusive: 9,
        }),
        length_bytes: Some(5),
        bytes: stream::iter(pieces).boxed(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upload_requests_reach_their_owner_whole() {
    let answers = [
        UploadAnswer::Open { offset_bytes: 1 },
        UploadAnswer::Finished {
            size_bytes: 2,
            revision: 3,
        },
        UploadAnswer::Cancelled,
        UploadAnswer::Unknown,
        UploadAnswer::OutOfOrder { offset_bytes: 4 },
        UploadAnswer::SizeMismatch { offset_bytes: 5 },
        UploadAnswer::DigestMismatch,
        UploadAnswer::BodyInterrupted,
        UploadAnswer::Busy { offset_bytes: 6 },
        UploadAnswer::NoSpace,
        UploadAnswer::Overloaded,
        UploadAnswer::ReadOnly,
        UploadAnswer::TooLarge { limit_bytes: 7 },
        UploadAnswer::Unavailable {
            reason: "no quorum".into(),
        },
    ];
    for answer in answers {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let wire = wire(
            ServerOptions::default(),
            recording(seen.clone(), answer.clone()),
        )
        .await;
        let pieces = vec![Ok(Bytes::from_static(b"one ")), Ok(noise(MIB, 1))];
        let body = [&b"one "[..], &noise(MIB, 1)].concat();
        let append = request(UploadAction::Append(chunk(pieces)));
        assert_eq!(wire.peers.upload(PEER, append).await.unwrap(), answer);
        let expected = Seen {
            upload: "opaque".into(),
            subject: "alice".into(),
            range: Some(ContentRange {
                start: 5,
                end_inclusive: 9,
            }),
            length_bytes: Some(5),
            body,
            ..Seen::default()
        };
        assert!(*seen.lock().unwrap() == expected);
        let finish = request(UploadAction::Finish(sha256(b"x"), chunk(Vec::new())));
        assert_eq!(wire.peers.upload(PEER, finish).await.unwrap(), answer);
        let expected = Seen {
            digest: Some(sha256(b"x")),
            body: Vec::new(),
            ..expected
        };
        assert_eq!(*seen.lock().unwrap(), expected);
        stop(wire).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_body_is_not_taken_for_a_complete_one() {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let answer = UploadAnswer::BodyInterrupted;
    let wire = wire(
        ServerOptions::default(),
        recording(seen.clone(), answer.clone()),
    )
    .await;
    let pieces = vec![
        Ok(Bytes::from_static(b"half")),
        Err(PeerError::BodyInterrupted),
    ];
    let append = request(UploadAction::Append(chunk(pieces)));
    assert_eq!(wire.peers.upload(PEER, append).await.unwrap(), answer);
    let seen = seen.lock().unwrap().clone();
    assert!(seen.interrupted);
    assert_eq!(seen.body, b"half");
    stop(wire).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_without_a_body_need_none() {
    for action in [UploadAction::Status, UploadAction::Cancel] {
        let answer = UploadAnswer::Open { offset_bytes: 7 };
        let seen = Arc::new(Mutex::new(Seen::default()));
        let wire = wire(ServerOptions::default(), recording(seen, answer.clone())).await;
        let asked = timeout(
            Duration::from_secs(10),
            wire.peers.upload(PEER, request(action)),
        );
        assert_eq!(asked.await.unwrap().unwrap(), answer);
        stop(wire).await;
    }
}
