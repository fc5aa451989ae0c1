//! Requests, blobs and manifests for tests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream;
use metadata::command::Precondition;
use oci::{Algorithm, ContentRange, Digest, MediaType, Reference, RepositoryName, Tag, media_type};

use super::fixture::Cluster;
use crate::{
    BlobInfo, BodyError, BodyStream, Caller, Chunk, ManifestPut, Registry, Result, Seen, SeenState,
};

pub(super) fn caller() -> Caller {
    Caller {
        subject: "alice".into(),
        min_revision: None,
        deadline: Instant::now() + Duration::from_secs(20),
        seen: SeenState::default(),
    }
}

pub(super) fn repository() -> RepositoryName {
    RepositoryName::parse("team/app").unwrap()
}

pub(super) fn other_repository() -> RepositoryName {
    RepositoryName::parse("team/other").unwrap()
}

pub(super) fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

pub(super) fn by_tag(text: &str) -> Reference {
    Reference::Tag(tag(text))
}

pub(super) fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// Bytes that do not repeat within a chunk.
pub(super) fn pattern(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A chunk with `Content-Length` whose body comes in pieces.
pub(super) fn chunk(bytes: &Bytes) -> Chunk {
    let pieces: Vec<std::result::Result<Bytes, BodyError>> = bytes
        .chunks(1000)
        .map(|piece| Ok(bytes.slice_ref(piece)))
        .collect();
    Chunk {
        range: None,
        length_bytes: Some(bytes.len() as u64),
        body: Box::pin(stream::iter(pieces)),
    }
}

pub(super) fn empty() -> Chunk {
    chunk(&Bytes::new())
}

pub(super) fn ranged(start: u64, bytes: &Bytes) -> Chunk {
    let range = ContentRange {
        start,
        end_inclusive: start + bytes.len() as u64 - 1,
    };
    Chunk {
        range: Some(range),
        ..chunk(bytes)
    }
}

/// A chunk of which only `bytes` arrive.
pub(super) fn torn(bytes: &Bytes, length_bytes: Option<u64>) -> Chunk {
    let lost: BodyError = "the connection broke".into();
    let body: BodyStream = Box::pin(stream::iter([Ok(bytes.clone()), Err(lost)]));
    Chunk {
        range: None,
        length_bytes,
        body,
    }
}

pub(super) async fn push(
    registry: &Arc<Registry>,
    repository: &RepositoryName,
    bytes: &Bytes,
) -> Result<Seen<BlobInfo>> {
    registry
        .push_blob(&caller(), repository, &sha256(bytes), chunk(bytes))
        .await
}

/// The whole blob as a client would read it.
pub(super) async fn read(
    registry: &Arc<Registry>,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Bytes> {
    read_range(registry, repository, digest, 0, u64::MAX).await
}

pub(super) async fn read_range(
    registry: &Arc<Registry>,
    repository: &RepositoryName,
    digest: &Digest,
    start: u64,
    end: u64,
) -> Result<Bytes> {
    let open = registry.open_blob(&caller(), repository, digest).await?;
    let pieces: Vec<Bytes> =
        futures::TryStreamExt::try_collect(open.value.stream(start, end)).await?;
    Ok(pieces.concat().into())
}

/// An image manifest over blobs.
pub(super) fn image(config: &Bytes, layers: &[&Bytes], extra: &str) -> Bytes {
    let layers: Vec<String> = layers
        .iter()
        .map(|layer| descriptor("application/x-layer", layer))
        .collect();
    let body = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]{extra}}}"#,
        media_type::OCI_MANIFEST,
        descriptor(media_type::OCI_CONFIG, config),
        layers.join(","),
    );
    body.into()
}

pub(super) fn index(manifests: &[&Bytes], extra: &str) -> Bytes {
    let manifests: Vec<String> = manifests
        .iter()
        .map(|manifest| descriptor(media_type::OCI_MANIFEST, manifest))
        .collect();
    let list = manifests.join(",");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{list}]{extra}}}"#,
        media_type::OCI_INDEX
    )
    .into()
}

pub(super) fn descriptor(media_type: &str, content: &[u8]) -> String {
    format!(
        r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#,
        sha256(content),
        content.len()
    )
}

pub(super) async fn put(
    registry: &Arc<Registry>,
    repository: &RepositoryName,
    reference: &Reference,
    body: &Bytes,
) -> Result<Seen<ManifestPut>> {
    put_if(registry, repository, reference, body, Precondition::None).await
}

pub(super) async fn put_if(
    registry: &Arc<Registry>,
    repository: &RepositoryName,
    reference: &Reference,
    body: &Bytes,
    precondition: Precondition,
) -> Result<Seen<ManifestPut>> {
    let none: Option<&MediaType> = None;
    registry
        .put_manifest(
            &caller(),
            repository,
            reference,
            Vec::new(),
            none,
            body.clone(),
            precondition,
        )
        .await
}

/// Pushes config, layer and manifest of an image and tags it; the manifest.
pub(super) async fn push_image(
    registry: &Arc<Registry>,
    repository: &RepositoryName,
    text: &str,
    seed: u64,
) -> Bytes {
    let (config, layer) = (pattern(100, seed), pattern(3000, seed + 1_000_000));
    push(registry, repository, &config).await.unwrap();
    push(registry, repository, &layer).await.unwrap();
    let body = image(&config, &[&layer], "");
    put(registry, repository, &by_tag(text), &body)
        .await
        .unwrap();
    body
}

/// Starts an upload; its id.
pub(super) async fn begin(registry: &Arc<Registry>) -> String {
    let started = registry.start_upload(&caller(), &repository()).await;
    started.unwrap().value.id
}

/// Starts an upload on the first node; its id.
pub(super) async fn start(cluster: &Cluster) -> String {
    begin(cluster.registry(1)).await
}
