//! Manifests and the tags that point to them.

use std::sync::Arc;

use bytes::Bytes;
use metadata::command::Precondition;
use oci::{Digest, MediaType, Reference, RepositoryName, Tag};

use crate::{Caller, Registry, RegistryError, Result, Seen};

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

fn not_yet<T>() -> Result<T> {
    Err(RegistryError::Internal("not yet".into()))
}

impl Registry {
    /// What the headers of a manifest say.
    pub async fn manifest_info(
        &self,
        _caller: &Caller,
        _repository: &RepositoryName,
        _reference: &Reference,
    ) -> Result<Seen<ManifestInfo>> {
        not_yet()
    }

    /// A manifest, byte for byte as pushed.
    pub async fn manifest(
        &self,
        _caller: &Caller,
        _repository: &RepositoryName,
        _reference: &Reference,
    ) -> Result<Seen<(ManifestInfo, Bytes)>> {
        not_yet()
    }

    /// Stores a manifest and moves tags to it.
    #[allow(clippy::too_many_arguments)]
    pub async fn put_manifest(
        self: &Arc<Self>,
        _caller: &Caller,
        _repository: &RepositoryName,
        _reference: &Reference,
        _tags: Vec<Tag>,
        _content_type: Option<&MediaType>,
        _body: Bytes,
        _precondition: Precondition,
    ) -> Result<Seen<ManifestPut>> {
        not_yet()
    }

    /// Removes a manifest and every tag that points to it.
    pub async fn delete_manifest(
        self: &Arc<Self>,
        _caller: &Caller,
        _repository: &RepositoryName,
        _digest: &Digest,
    ) -> Result<Seen<()>> {
        not_yet()
    }

    /// Removes a tag.
    pub async fn delete_tag(
        self: &Arc<Self>,
        _caller: &Caller,
        _repository: &RepositoryName,
        _tag: &Tag,
        _precondition: Precondition,
    ) -> Result<Seen<()>> {
        not_yet()
    }
}
