//! The periodic walk over the directories of blobs and uploads (protocols.md section 6.2): what lies there that no
//! record knows.
//!
//! A step visits a bounded number of files. It removes only what cannot be anything of ours and is older than this
//! process; whatever may be somebody's is reported, and judged again under its lock by whoever acts on it.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use oci::{Algorithm, Digest};

use super::files;
use super::index::Place;
use super::names::Names;
use super::shelf::Shelf;
use super::{BlobStat, Walk, WalkCursor};
use crate::durable::PARTIAL_SUFFIX;
use crate::error::BlobError;

/// One step of a walk.
pub(super) struct Walker<'a> {
    pub(super) shelf: &'a Shelf,
    pub(super) names: &'a Names,
    /// Only what is older may be removed.
    pub(super) started: SystemTime,
}

impl Walker<'_> {
    /// Visits at most `limit` files after `after`.
    pub(super) fn step(&self, after: Option<&WalkCursor>, limit: usize) -> Result<Walk, BlobError> {
        let mut walk = Walk::default();
        let mut left = limit.max(1);
        for directory in self.directories()? {
            if after.is_some_and(|after| {
                after
                    .0
                    .parent()
                    .is_some_and(|done| directory.as_path() < done)
            }) {
                continue;
            }
            for name in names_in(&directory)? {
                let path = directory.join(name);
                if after.is_some_and(|after| path <= after.0) {
                    continue;
                }
                self.visit(&path, &mut walk)?;
                left -= 1;
                if left == 0 {
                    walk.next = Some(WalkCursor(path));
                    return Ok(walk);
                }
            }
        }
        Ok(walk)
    }

    /// Those that hold files, in the order of their paths.
    fn directories(&self) -> Result<Vec<PathBuf>, BlobError> {
        let mut directories = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let above = self.shelf.files.blobs().join(algorithm.as_str());
            let below = names_in(&above)?.into_iter().map(|name| above.join(name));
            directories.extend(below.filter(|path| is_directory(path)));
        }
        directories.push(self.shelf.files.uploads().to_owned());
        directories.sort_unstable();
        Ok(directories)
    }

    fn visit(&self, path: &Path, walk: &mut Walk) -> Result<(), BlobError> {
        let Ok(metadata) = std::fs::symlink_metadata(path) else {
            // It went while we looked: somebody takes care of it.
            return Ok(());
        };
        if metadata.is_dir() {
            return Ok(());
        }
        let is_old = metadata.modified().is_ok_and(|at| at < self.started);
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.parent() == Some(self.shelf.files.uploads()) {
            if files::is_name(name) {
                if is_old && self.names.is_free(name) {
                    walk.staged.push(name.to_owned());
                }
                return Ok(());
            }
            return remove_if(is_old, path, walk);
        }
        match self.digest_at(path, name) {
            Some(digest) => {
                let is_known = (self.shelf.index.record(&digest)?)
                    .is_some_and(|record| record.place == Place::File);
                if !is_known {
                    walk.orphans.push(BlobStat {
                        digest,
                        size_bytes: metadata.len(),
                    });
                }
                Ok(())
            }
            None => remove_if(is_old && name.ends_with(PARTIAL_SUFFIX), path, walk),
        }
    }

    /// The digest whose blob belongs at `path`.
    fn digest_at(&self, path: &Path, name: &str) -> Option<Digest> {
        let algorithm = path.parent()?.parent()?.file_name()?.to_str()?;
        let digest = Digest::parse(&format!("{algorithm}:{name}")).ok()?;
        (self.shelf.files.blob(&digest) == path).then_some(digest)
    }
}

fn remove_if(is_garbage: bool, path: &Path, walk: &mut Walk) -> Result<(), BlobError> {
    if !is_garbage {
        walk.foreign.push(path.to_owned());
        return Ok(());
    }
    tracing::info!(path = %path.display(), "a leftover file is removed");
    files::remove(path)?;
    walk.removed_files += 1;
    Ok(())
}

fn is_directory(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// Names in a directory, in order; none when it is not there.
fn names_in(directory: &Path) -> Result<Vec<OsString>, BlobError> {
    let fail = |error| BlobError::io("list", directory)(error);
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(fail)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(fail)?.file_name());
    }
    names.sort_unstable();
    Ok(names)
}
