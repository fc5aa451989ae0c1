//! Blobs: look up, read, delete, mount.

use std::sync::Arc;

use metadata::command::{Command, MountBlob, TouchBlob, UnlinkBlob};
use metadata::ids::LogTime;
use metadata::query::{self, LinkedBlob};
use metadata::response::Response;
use metadata::view::{MetadataView, ViewError};
use oci::{Digest, RepositoryName};

use crate::error::{About, RegistryError};
use crate::failpoints::hit;
use crate::open_blob::OpenBlob;
use crate::{Caller, Registry, Result, Seen};

/// What a HEAD that finds a blob promises at least of its grace (protocols.md section 4, step 4), but no more than half
/// of it: otherwise a short grace would make every HEAD an entry of the log.
const PROMISED_MS: u64 = 30 * 60 * 1000;

/// A blob of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its content.
    pub digest: Digest,
    /// Its length.
    pub size_bytes: u64,
}

/// A blob of a repository as the state has it.
struct Found {
    blob: LinkedBlob,
    /// Its grace ends before a client that found it could use it.
    is_ending: bool,
}

impl Registry {
    /// Whether the repository has the blob, and its size (HEAD of end-2). A blob that nothing names gets a new
    /// grace when the old one is about to end, so that "exists" is worth something to the client.
    ///
    /// # Errors
    /// `BlobUnknown`, `Unavailable`.
    pub async fn blob_info(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Seen<BlobInfo>> {
        let seen = self
            .read_blob(caller, |view| self.linked(view, repository, digest))
            .await?;
        let info = BlobInfo {
            digest: *digest,
            size_bytes: seen.value.blob.size_bytes,
        };
        if !seen.value.is_ending {
            return Ok(Seen {
                revision: seen.revision,
                value: info,
            });
        }
        let touch = TouchBlob {
            repository: repository.clone(),
            digest: *digest,
        };
        let touched = self
            .submit(Command::TouchBlob(touch), caller, About::Blob(digest))
            .await;
        let revision = match touched {
            Ok(touched) => touched.revision,
            // The blob is there all the same; only the promise is not given.
            Err(RegistryError::Unavailable(_)) => seen.revision,
            Err(error) => return Err(error),
        };
        Ok(Seen {
            revision,
            value: info,
        })
    }

    /// Opens the blob for reading (end-2): from this node, else from another holder.
    ///
    /// # Errors
    /// `BlobUnknown`, `Unavailable`; `ContentUnavailable` when no holder can be reached.
    pub async fn open_blob(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Seen<OpenBlob>> {
        let seen = self
            .read_blob(caller, |view| self.linked(view, repository, digest))
            .await?;
        let info = BlobInfo {
            digest: *digest,
            size_bytes: seen.value.blob.size_bytes,
        };
        let value = OpenBlob::open(self, info, seen.value.blob.holders).await?;
        Ok(Seen {
            revision: seen.revision,
            value,
        })
    }

    /// Removes the blob from the repository (end-10). Other repositories keep it.
    ///
    /// # Errors
    /// `ReadOnly`, `DeletesDisabled`, `BlobUnknown`, `BlobReferenced` while a manifest of the repository names it,
    /// `Unavailable`.
    pub async fn delete_blob(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Seen<()>> {
        self.require_deletes()?;
        let (registry, caller, digest) = (self.clone(), caller.clone(), *digest);
        let command = Command::UnlinkBlob(UnlinkBlob {
            repository: repository.clone(),
            digest,
        });
        let task = async move {
            registry.catch_up(&caller).await?;
            let seen = registry
                .submit(command, &caller, About::Blob(&digest))
                .await?;
            Ok(Seen {
                revision: seen.revision,
                value: (),
            })
        };
        self.run("delete a blob", task).await
    }

    /// Makes a blob of another repository (any, without `from`) visible here (end-11); `None` when there is no such
    /// blob, and the client has to upload it.
    ///
    /// # Errors
    /// `ReadOnly`, `Unavailable`.
    pub async fn mount_blob(
        self: &Arc<Self>,
        caller: &Caller,
        from: Option<&RepositoryName>,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Seen<BlobInfo>>> {
        self.require_writable()?;
        // Clients try to mount whatever they push: a mount that cannot work should cost no log entry.
        let found = self
            .read_blob(caller, |view| mountable(view, from, digest))
            .await;
        match found {
            Ok(_) => {}
            Err(RegistryError::BlobUnknown(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
        let (registry, caller, digest) = (self.clone(), caller.clone(), *digest);
        let command = MountBlob {
            from: from.cloned(),
            repository: repository.clone(),
            digest,
        };
        let task = async move {
            hit("mount_before_propose")?;
            registry
                .submit(Command::MountBlob(command), &caller, About::Blob(&digest))
                .await
        };
        match self.run("mount a blob", task).await {
            Ok(Seen {
                revision,
                value: Response::BlobMounted { size_bytes },
            }) => Ok(Some(Seen {
                revision,
                value: BlobInfo { digest, size_bytes },
            })),
            Ok(other) => Err(RegistryError::Internal(format!(
                "a mount was answered by {:?}",
                other.value
            ))),
            Err(RegistryError::BlobUnknown(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn require_writable(&self) -> Result<()> {
        if self.options.read_only {
            Err(RegistryError::ReadOnly)
        } else {
            Ok(())
        }
    }

    /// The blob, when the repository may serve it. Whether the repository exists at all makes no difference to a
    /// client that knows a digest.
    fn linked(
        &self,
        view: &dyn MetadataView,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> std::result::Result<Result<Found>, ViewError> {
        let Some(blob) = query::linked_blob(view, repository, digest)? else {
            return Ok(Err(RegistryError::BlobUnknown(*digest)));
        };
        let is_ending = match blob.unreferenced_since {
            Some(since) => is_ending(self.options.gc.grace_ms, since, query::time(view)?.0),
            None => false,
        };
        Ok(Ok(Found { blob, is_ending }))
    }

    pub(crate) fn require_deletes(&self) -> Result<()> {
        self.require_writable()?;
        if self.options.deletes_enabled {
            Ok(())
        } else {
            Err(RegistryError::DeletesDisabled)
        }
    }
}

/// Whether a grace that began at `unreferenced_since` ends before a client could use what it found.
fn is_ending(grace_ms: u64, unreferenced_since: LogTime, now: LogTime) -> bool {
    let promised_ms = PROMISED_MS.min(grace_ms / 2);
    unreferenced_since.plus_ms(grace_ms) < now.plus_ms(promised_ms)
}

/// Whether a mount has a chance. The log decides.
fn mountable(
    view: &dyn MetadataView,
    from: Option<&RepositoryName>,
    digest: &Digest,
) -> std::result::Result<Result<()>, ViewError> {
    let found = match from {
        Some(from) => query::linked_blob(view, from, digest)?.is_some(),
        None => query::blob(view, digest)?.is_some(),
    };
    Ok(if found {
        Ok(())
    } else {
        Err(RegistryError::BlobUnknown(*digest))
    })
}
