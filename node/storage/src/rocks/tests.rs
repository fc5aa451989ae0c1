//! What the tests of both stores share.

use std::path::{Path, PathBuf};

/// Copies a directory tree: what a killed process leaves in the file system.
pub(super) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("created");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("listed");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// The write-ahead log of a database that holds the data.
pub(super) fn largest_wal(database: &Path) -> PathBuf {
    let entries = std::fs::read_dir(database).expect("listed");
    let wals = entries
        .map(|entry| entry.expect("listed").path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"));
    wals.max_by_key(|path| path.metadata().expect("there").len())
        .expect("a database has a write-ahead log")
}
