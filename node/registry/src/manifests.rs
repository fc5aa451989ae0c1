//! Manifests and the tags that point to them.

use std::sync::Arc;

use bytes::Bytes;
use metadata::command::{Command, DeleteManifest, DeleteTag, Precondition, PutManifest};
use metadata::query;
use metadata::view::{MetadataView, ViewError};
use oci::{Digest, MediaType, Reference, RepositoryName, Tag};

use crate::error::{About, RegistryError};
use crate::facts::{self, Parsed};
use crate::failpoints::hit;
use crate::{Caller, Registry, Result, Seen};

/// Bodies from this length on are parsed and hashed off the async threads: a few milliseconds per megabyte.
const LARGE_BODY_BYTES: usize = 128 * 1024;

/// What the headers of a manifest say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestInfo {
    /// Its content.
    pub digest: Digest,
    /// As pushed.
    pub media_type: MediaType,
    /// Its length.
    pub size_bytes: u64,
}

/// What became of a pushed manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestPut {
    /// Its content, in the algorithm of the reference it was pushed under.
    pub digest: Digest,
    /// The manifest it refers to, for `OCI-Subject`.
    pub subject: Option<Digest>,
    /// The tags that point to it now, for `OCI-Tag`.
    pub tags: Vec<Tag>,
}

impl Registry {
    /// What the headers of a manifest say (HEAD of end-3).
    ///
    /// # Errors
    /// `RepositoryUnknown`, `ManifestUnknown`, `Unavailable`.
    pub async fn manifest_info(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Seen<ManifestInfo>> {
        self.read_reference(caller, reference, |view| find(view, repository, reference))
            .await
    }

    /// A manifest, byte for byte as pushed (end-3). Tag, record and bytes are of one state.
    ///
    /// # Errors
    /// `RepositoryUnknown`, `ManifestUnknown`, `Unavailable`.
    pub async fn manifest(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Seen<(ManifestInfo, Bytes)>> {
        self.read_reference(caller, reference, |view| {
            let info = match find(view, repository, reference)? {
                Ok(info) => info,
                Err(error) => return Ok(Err(error)),
            };
            let body = query::manifest_body(view, repository, &info.digest)?;
            let lost = || RegistryError::Internal(format!("manifest {} has no body", info.digest));
            Ok(body.ok_or_else(lost).map(|body| (info, body)))
        })
        .await
    }

    /// Stores a manifest and moves tags to it (end-7): the reference, when it is a tag, and `tags`. All of them
    /// move, or none. `precondition` is decided by the log, for every tag.
    ///
    /// # Errors
    /// `ReadOnly`; `ManifestTooLarge`, `ManifestInvalid`; `DigestInvalid` when the body has not the digest it is pushed under;
    /// `ReferencesUnknown`, `ReferenceSizeInvalid`; `PreconditionFailed`; `TooFewCopies` while a blob it names has
    /// fewer than W; `Unavailable`.
    #[allow(clippy::too_many_arguments, reason = "one per part of the request")]
    pub async fn put_manifest(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &RepositoryName,
        reference: &Reference,
        tags: Vec<Tag>,
        content_type: Option<&MediaType>,
        body: Bytes,
        precondition: Precondition,
    ) -> Result<Seen<ManifestPut>> {
        self.require_writable()?;
        let limit_bytes = self.options.manifest_max_bytes;
        if body.len() as u64 > limit_bytes {
            return Err(RegistryError::ManifestTooLarge { limit_bytes });
        }
        let tags = all_tags(reference, tags);
        let (registry, caller, repository) = (self.clone(), caller.clone(), repository.clone());
        let (reference, content_type) = (reference.clone(), content_type.cloned());
        let task = async move {
            registry.catch_up(&caller).await?;
            let parsed = parse(reference.digest().copied(), content_type, body.clone()).await?;
            let put = ManifestPut {
                digest: parsed.digest,
                subject: parsed.facts.subject,
                tags: tags.clone(),
            };
            let command = PutManifest {
                repository,
                digest: parsed.digest,
                media_type: parsed.media_type,
                body,
                facts: parsed.facts,
                tags,
                precondition,
                allows_missing_manifests: registry.options.sparse_indexes,
            };
            let about = About::Manifest(&reference);
            hit("manifest_before_propose")?;
            let seen = registry
                .submit(Command::PutManifest(command), &caller, about)
                .await?;
            hit("manifest_before_reply")?;
            Ok(Seen {
                revision: seen.revision,
                value: put,
            })
        };
        self.run("put a manifest", task).await
    }

    /// Removes a manifest and every tag that points to it (end-9).
    ///
    /// # Errors
    /// `ReadOnly`, `DeletesDisabled`, `RepositoryUnknown`, `ManifestUnknown`, `Unavailable`.
    pub async fn delete_manifest(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Seen<()>> {
        let command = DeleteManifest {
            repository: repository.clone(),
            digest: *digest,
        };
        self.delete(
            caller,
            Command::DeleteManifest(command),
            Reference::Digest(*digest),
        )
        .await
    }

    /// Removes a tag (end-9). The manifest stays.
    ///
    /// # Errors
    /// `ReadOnly`, `DeletesDisabled`, `RepositoryUnknown`, `ManifestUnknown`, `PreconditionFailed`, `Unavailable`.
    pub async fn delete_tag(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &RepositoryName,
        tag: &Tag,
        precondition: Precondition,
    ) -> Result<Seen<()>> {
        let command = DeleteTag {
            repository: repository.clone(),
            tag: tag.clone(),
            precondition,
        };
        self.delete(
            caller,
            Command::DeleteTag(command),
            Reference::Tag(tag.clone()),
        )
        .await
    }

    async fn delete(
        self: &Arc<Self>,
        caller: &Caller,
        command: Command,
        reference: Reference,
    ) -> Result<Seen<()>> {
        self.require_deletes()?;
        let (registry, caller) = (self.clone(), caller.clone());
        let task = async move {
            registry.catch_up(&caller).await?;
            hit("delete_before_propose")?;
            let seen = registry
                .submit(command, &caller, About::Manifest(&reference))
                .await?;
            Ok(Seen {
                revision: seen.revision,
                value: (),
            })
        };
        self.run("delete a manifest", task).await
    }

    /// A digest names one content for ever, a tag may move.
    async fn read_reference<T>(
        &self,
        caller: &Caller,
        reference: &Reference,
        query: impl Fn(&dyn MetadataView) -> std::result::Result<Result<T>, ViewError>,
    ) -> Result<Seen<T>> {
        match reference {
            Reference::Digest(_) => self.read_manifest(caller, query).await,
            Reference::Tag(_) => {
                let seen = self.read_names(caller, query).await?;
                let revision = seen.revision;
                seen.value.map(|value| Seen { revision, value })
            }
        }
    }
}

/// What a reference names, and why it names nothing.
fn find(
    view: &dyn MetadataView,
    repository: &RepositoryName,
    reference: &Reference,
) -> std::result::Result<Result<ManifestInfo>, ViewError> {
    let digest = match reference {
        Reference::Digest(digest) => Some(*digest),
        Reference::Tag(tag) => query::tag(view, repository, tag)?.map(|record| record.digest),
    };
    let record = match digest {
        Some(digest) => query::manifest(view, repository, &digest)?.map(|record| (digest, record)),
        None => None,
    };
    Ok(match record {
        Some((digest, record)) => Ok(ManifestInfo {
            digest,
            media_type: record.media_type,
            size_bytes: record.size_bytes,
        }),
        None if query::repository_exists(view, repository)? => {
            Err(RegistryError::ManifestUnknown {
                reference: reference.to_string(),
            })
        }
        None => Err(RegistryError::RepositoryUnknown),
    })
}

/// The tag of the reference first, then the others; each once.
fn all_tags(reference: &Reference, tags: Vec<Tag>) -> Vec<Tag> {
    let mut all: Vec<Tag> = reference.tag().cloned().into_iter().collect();
    for tag in tags {
        if !all.contains(&tag) {
            all.push(tag);
        }
    }
    all
}

async fn parse(
    expected: Option<Digest>,
    content_type: Option<MediaType>,
    body: Bytes,
) -> Result<Parsed> {
    if body.len() < LARGE_BODY_BYTES {
        return facts::parse(expected, content_type.as_ref(), &body);
    }
    let parsing =
        tokio::task::spawn_blocking(move || facts::parse(expected, content_type.as_ref(), &body));
    parsing
        .await
        .unwrap_or_else(|error| Err(RegistryError::Internal(error.to_string())))
}
