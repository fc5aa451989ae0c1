//! Bringing back what was deleted.

use metadata::command::{Command, RestoreManifest, RestoreTag};
use metadata::ids::LogIndex;
use metadata::query::{self, DeletedManifest, TagChange};
use metadata::response::{Rejection, Response};
use oci::{Digest, RepositoryName, Tag};

use super::GcError;
use super::admin::Listed;
use crate::Registry;

/// Repositories looked through in one view.
const REPOSITORIES: usize = 1_000;

impl Registry {
    /// Where a tag pointed, newest first.
    ///
    /// # Errors
    /// [`GcError`].
    pub async fn tag_history(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        limit: usize,
    ) -> Result<Vec<TagChange>, GcError> {
        self.gc_barrier().await?;
        self.gc_look(|view| query::tag_history(view, repository, tag, limit))
    }

    /// Points a tag where it pointed at `revision`, or last; the manifest, and whether it had to be restored as well.
    ///
    /// # Errors
    /// [`GcError`]; `Refused` when there is nothing to restore, or it is gone for good.
    pub async fn restore_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        revision: Option<LogIndex>,
        subject: &str,
    ) -> Result<(Digest, bool), GcError> {
        let command = Command::RestoreTag(RestoreTag {
            repository: repository.clone(),
            tag: tag.clone(),
            revision,
        });
        match self.gc_propose(command, subject).await? {
            Response::TagRestored {
                digest,
                is_manifest_restored,
            } => Ok((digest, is_manifest_restored)),
            other => Err(GcError::Unexpected(Box::new(other))),
        }
    }

    /// A page of deleted manifests that can be restored, of one repository or all, each with its repository. `after` is
    /// what the last page said.
    ///
    /// # Errors
    /// [`GcError`]; `Refused(OutOfBounds)` for an `after` that no page said.
    pub async fn deleted_manifests(
        &self,
        repository: Option<&RepositoryName>,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Listed<(RepositoryName, DeletedManifest)>, GcError> {
        self.gc_barrier().await?;
        let mut listed = Listed {
            items: Vec::new(),
            next: None,
            now: self.gc_look(|view| Ok(query::time(view)?.0))?,
        };
        let mut name_after = None;
        match (after, repository) {
            (Some(position), _) => {
                let (name, digest) =
                    read_position(position).ok_or(GcError::Refused(Rejection::OutOfBounds))?;
                self.list_deleted(&name, Some(&digest), limit, &mut listed)?;
                name_after = Some(name);
            }
            (None, Some(name)) => self.list_deleted(name, None, limit, &mut listed)?,
            (None, None) => {}
        }
        while repository.is_none() && listed.next.is_none() {
            let names = self.gc_look(|view| {
                let after = name_after.as_ref().map(RepositoryName::as_str);
                query::repositories(view, after, REPOSITORIES)
            })?;
            let Some(last) = names.last().cloned() else {
                break;
            };
            for name in &names {
                if listed.next.is_none() {
                    self.list_deleted(name, None, limit, &mut listed)?;
                }
            }
            name_after = Some(last);
        }
        Ok(listed)
    }

    /// Adds those of one repository, up to `limit` in all.
    fn list_deleted(
        &self,
        name: &RepositoryName,
        after: Option<&Digest>,
        limit: usize,
        listed: &mut Listed<(RepositoryName, DeletedManifest)>,
    ) -> Result<(), GcError> {
        let left = limit.saturating_sub(listed.items.len());
        let found = self.gc_look(|view| query::deleted_manifests(view, name, after, left))?;
        let last = found.last().filter(|_| found.len() == left);
        listed.next = last.map(|last| write_position(name, &last.digest));
        let found = found.into_iter();
        listed
            .items
            .extend(found.map(|deleted| (name.clone(), deleted)));
        Ok(())
    }

    /// Brings a deleted manifest back; the tags that point to it again.
    ///
    /// # Errors
    /// [`GcError`]; `Refused` when it is not deleted, or gone for good.
    pub async fn restore_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        subject: &str,
    ) -> Result<Vec<Tag>, GcError> {
        let command = Command::RestoreManifest(RestoreManifest {
            repository: repository.clone(),
            digest: *digest,
        });
        match self.gc_propose(command, subject).await? {
            Response::ManifestRestored { tags } => Ok(tags),
            other => Err(GcError::Unexpected(Box::new(other))),
        }
    }
}

/// Where a page of deleted manifests ended.
fn write_position(name: &RepositoryName, digest: &Digest) -> Vec<u8> {
    format!("{name} {digest}").into_bytes()
}

fn read_position(position: &[u8]) -> Option<(RepositoryName, Digest)> {
    let (name, digest) = std::str::from_utf8(position).ok()?.split_once(' ')?;
    Some((
        RepositoryName::parse(name).ok()?,
        Digest::parse(digest).ok()?,
    ))
}
