//! Durable file operations. Every file that must survive a power cut is written through here.
//!
//! A rename is undone by a power cut unless the parent directory is synced, on ext4 and on xfs alike
//! (protocols.md 6.1), so nothing here stops before that. A failed fsync is never repeated: the kernel may
//! have dropped the dirty pages and report success the second time. Callers treat it as fatal.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::StorageError;

/// Suffix of files that are not complete yet. Found after a crash, they are garbage.
pub const PARTIAL_SUFFIX: &str = ".partial";

/// Writes `bytes` to `path`, replacing what is there. After a crash either the old or the new content is
/// there, whole; on return it is the new one.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let partial = partial_path(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&partial)
        .map_err(StorageError::io("create", &partial))?;
    file.write_all(bytes)
        .map_err(StorageError::io("write", &partial))?;
    file.sync_all()
        .map_err(StorageError::io("sync", &partial))?;
    rename(&partial, path)
}

/// Renames within one file system and makes the rename durable. The content of `from` must be synced already.
pub fn rename(from: &Path, to: &Path) -> Result<(), StorageError> {
    std::fs::rename(from, to).map_err(StorageError::io("rename", from))?;
    sync_dir(parent(to))?;
    if parent(from) != parent(to) {
        sync_dir(parent(from))?;
    }
    Ok(())
}

/// Creates the directory and its missing parents, readable by their owner only, durably.
/// One that exists is left as it is.
pub fn create_dir(path: &Path) -> Result<(), StorageError> {
    if path.is_dir() {
        return Ok(());
    }
    let above = parent(path);
    create_dir(above)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) => return Err(StorageError::io("create", path)(error)),
    }
    sync_dir(above)
}

/// Removes a file durably, or an empty directory in its place. One that is not there is fine.
pub fn remove_file(path: &Path) -> Result<(), StorageError> {
    match remove_entry(path) {
        Ok(()) => sync_dir(parent(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StorageError::io("remove", path)(error)),
    }
}

/// Removes a file, or an empty directory in its place.
pub(crate) fn remove_entry(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::IsADirectory => std::fs::remove_dir(path),
        removed => removed,
    }
}

/// Removes a directory and everything in it. One that is not there is fine.
///
/// A crash can leave any part of it behind: only for directories that nothing points to any more.
pub fn remove_dir_all(path: &Path) -> Result<(), StorageError> {
    match std::fs::remove_dir_all(path) {
        Ok(()) => sync_dir(parent(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StorageError::io("remove", path)(error)),
    }
}

/// The content of a small file, or `None` when it does not exist.
pub fn read_file(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::io("read", path)(error)),
    }
}

/// Makes what was created, renamed or removed in a directory durable.
pub fn sync_dir(path: &Path) -> Result<(), StorageError> {
    let dir = File::open(path).map_err(StorageError::io("open", path))?;
    dir.sync_all().map_err(StorageError::io("sync", path))
}

fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PARTIAL_SUFFIX);
    PathBuf::from(name)
}

/// A path without a directory part is in the working directory.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        assert_eq!(read_file(&path).expect("readable"), None);
        write_file(&path, b"one, and long").expect("written");
        write_file(&path, b"two").expect("written");
        assert_eq!(
            read_file(&path).expect("readable").as_deref(),
            Some(b"two".as_slice())
        );
        assert!(!partial_path(&path).exists());
    }

    #[test]
    fn a_leftover_of_an_interrupted_write_is_overwritten() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        std::fs::write(partial_path(&path), b"half of something longer").expect("written");
        write_file(&path, b"whole").expect("written");
        assert_eq!(
            read_file(&path).expect("readable").as_deref(),
            Some(b"whole".as_slice())
        );
    }

    #[test]
    fn directories_are_made_with_their_parents_and_removed_with_their_content() {
        let dir = tempfile::tempdir().expect("a directory");
        let deep = dir.path().join("a/b/c");
        create_dir(&deep).expect("created");
        create_dir(&deep).expect("there already");
        write_file(&deep.join("file"), b"x").expect("written");
        remove_dir_all(&dir.path().join("a")).expect("removed");
        remove_dir_all(&dir.path().join("a")).expect("gone already");
        assert!(!deep.exists());
    }

    #[test]
    fn a_file_in_the_way_of_a_directory_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        write_file(&path, b"x").expect("written");
        assert!(matches!(
            create_dir(&path),
            Err(StorageError::Io {
                action: "create",
                ..
            })
        ));
        assert!(matches!(
            create_dir(&path.join("below")),
            Err(StorageError::Io { .. })
        ));
    }
}
