//! Lists: tags, repositories, referrers.

use std::collections::BTreeMap;

use oci::{Digest, MediaType, Page, RepositoryName, Tag};

use crate::{Caller, Registry, RegistryError, Result, Seen};

/// One page of a list, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageOf<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// A manifest that refers to another one, as clients of the referrers API see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// Its content.
    pub digest: Digest,
    /// Its media type.
    pub media_type: MediaType,
    /// Its length.
    pub size_bytes: u64,
    /// Its effective artifact type.
    pub artifact_type: Option<MediaType>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

fn not_yet<T>() -> Result<T> {
    Err(RegistryError::Internal("not yet".into()))
}

impl Registry {
    /// Tags of a repository, in the order of their bytes.
    pub async fn tags(
        &self,
        _caller: &Caller,
        _repository: &RepositoryName,
        _page: &Page,
    ) -> Result<Seen<PageOf<Tag>>> {
        not_yet()
    }

    /// Repositories, in the order of their bytes.
    pub async fn catalog(
        &self,
        _caller: &Caller,
        _page: &Page,
    ) -> Result<Seen<PageOf<RepositoryName>>> {
        not_yet()
    }

    /// Manifests of the repository that refer to `subject`, in the order of their digests.
    pub async fn referrers(
        &self,
        _caller: &Caller,
        _repository: &RepositoryName,
        _subject: &Digest,
        _artifact_type: Option<&MediaType>,
        _after: Option<&Digest>,
    ) -> Result<Seen<PageOf<Referrer>>> {
        not_yet()
    }
}
