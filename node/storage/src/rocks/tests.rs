//! What the tests of both stores share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Copies a directory tree: what a killed process leaves in the file system.
///
/// A kill stops everything at one instant, a copy takes a while: it is repeated until RocksDB's background threads
/// changed nothing meanwhile.
pub(super) fn copy_dir(from: &Path, to: &Path) {
    for _ in 0..1000 {
        let before = listing(from);
        let is_whole = before
            .keys()
            .all(|name| copy_entry(&from.join(name), &to.join(name)));
        if is_whole && listing(from) == before {
            return;
        }
        std::fs::remove_dir_all(to).expect("removed");
        std::fs::create_dir(to).expect("created");
    }
    panic!("{} cannot be copied, or never stands still", from.display());
}

type Listing = BTreeMap<PathBuf, (bool, u64, SystemTime)>;

/// Paths below `root`, directories before their content, with what changes when a file does.
fn listing(root: &Path) -> Listing {
    let mut listing = Listing::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(directory) = pending.pop() {
        // What vanishes while it is listed is missing from the next listing too.
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let path = entry.path();
            if metadata.is_dir() {
                pending.push(path.clone());
            }
            let name = path.strip_prefix(root).expect("it is below").to_path_buf();
            let modified = metadata.modified().expect("known");
            listing.insert(name, (metadata.is_dir(), metadata.len(), modified));
        }
    }
    listing
}

/// False when the file vanished.
fn copy_entry(from: &Path, to: &Path) -> bool {
    if from.is_dir() {
        return std::fs::create_dir(to).is_ok();
    }
    std::fs::copy(from, to).is_ok()
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
