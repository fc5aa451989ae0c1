use std::path::Path;

use metadata::ids::{LogIndex, NodeId, TicketId};
use oci::{Algorithm, Digest};
use storage::blob::{BlobOptions, BlobStore, DirectoryBlobs};
use storage::layout::DataDir;
use storage::rocks::{RocksLog, RocksState, StorageOptions};

use super::*;

/// A data directory of `node` with one blob in a file, closed again. Returns the blob.
async fn directory(path: &Path, node: u64) -> Digest {
    let data = DataDir::open(path, NodeId(node)).unwrap();
    let options = StorageOptions::default();
    drop(RocksLog::open(&data.raft_dir(), &options).unwrap());
    drop(RocksState::open(&data.state_dir(), &options).unwrap());
    let blobs = DirectoryBlobs::open(path, BlobOptions::default()).unwrap();
    let bytes = bytes::Bytes::from(vec![7; 500_000]);
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let mut staged = blobs.stage("one").await.unwrap();
    staged.append(bytes).await.unwrap();
    let ticket = TicketId::new(LogIndex(1), 0);
    assert!(blobs.commit(staged, &digest, ticket).await.is_ok());
    digest
}

fn fsck(directories: &[&Path], quick: bool) -> Report {
    run(&FsckOptions {
        directories: directories.iter().map(|path| path.to_path_buf()).collect(),
        quick,
    })
}

fn says(report: &Report, what: &str) -> bool {
    report.to_string().contains(what)
}

#[tokio::test]
async fn a_whole_directory_is_whole_and_is_not_changed() {
    let root = tempfile::tempdir().unwrap();
    directory(root.path(), 1).await;
    for quick in [true, false] {
        let report = fsck(&[root.path()], quick);
        assert_eq!(report.exit_code(), 0, "{report}");
        assert!(says(&report, "1 pins"), "{report}");
    }
}

#[tokio::test]
async fn damage_is_named() {
    let root = tempfile::tempdir().unwrap();
    let digest = directory(root.path(), 1).await;
    let file = root
        .path()
        .join("blobs/sha256")
        .join(&digest.hex()[..2])
        .join(digest.hex());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[300_000] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(
        fsck(&[root.path()], true).exit_code(),
        0,
        "the length is right"
    );
    let report = fsck(&[root.path()], false);
    assert_eq!(report.exit_code(), 1);
    assert!(says(&report, &digest.to_string()), "{report}");
    std::fs::remove_file(&file).unwrap();
    let report = fsck(&[root.path()], true);
    assert!(says(&report, "its file is missing"), "{report}");
}

#[tokio::test]
async fn what_cannot_be_checked_is_said() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(
        fsck(&[root.path()], true).exit_code(),
        2,
        "no data directory"
    );
    assert!(std::fs::read_dir(root.path()).unwrap().next().is_none());
    let _running = DataDir::open(root.path(), NodeId(1)).unwrap();
    let report = fsck(&[root.path()], true);
    assert_eq!(report.exit_code(), 2);
    assert!(says(&report, "another process uses it"), "{report}");
}

#[tokio::test]
async fn two_directories_of_one_node_do_not_go_together() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    directory(one.path(), 1).await;
    directory(other.path(), 2).await;
    let report = fsck(&[one.path(), other.path()], false);
    assert_eq!(report.exit_code(), 0, "{report}");
    let again = tempfile::tempdir().unwrap();
    directory(again.path(), 1).await;
    let report = fsck(&[one.path(), again.path()], false);
    assert!(says(&report, "both belong to node 1"), "{report}");
}
