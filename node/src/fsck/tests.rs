use std::path::Path;

use metadata::changes::Changes;
use metadata::command::{Command, CommitBlob, OpenTickets, ReportLost, TicketKind};
use metadata::ids::{LogIndex, NodeId, TicketId};
use metadata::memory::MemoryLog;
use metadata::response::Response;
use metadata::view::MetadataView;
use oci::{Algorithm, Digest, RepositoryName};
use storage::blob::{BlobOptions, BlobStore, DirectoryBlobs};
use storage::layout::DataDir;
use storage::log::LogStore;
use storage::rocks::{RocksLog, RocksState, StorageOptions};
use storage::state::{Applied, StateStore};

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
        settled: false,
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

fn entries(indexes: std::ops::Range<u64>) -> Vec<(u64, bytes::Bytes)> {
    indexes
        .map(|index| (index, bytes::Bytes::from_static(b"entry")))
        .collect()
}

fn applied(index: u64) -> Applied {
    Applied {
        index: LogIndex(index),
        ..Applied::default()
    }
}

/// Appends to the log, and makes a state that ends at `index`.
fn grow(path: &Path, log: std::ops::Range<u64>, index: u64, changes: Changes) {
    let data = DataDir::open(path, NodeId(1)).unwrap();
    let options = StorageOptions::default();
    let store = RocksLog::open(&data.raft_dir(), &options).unwrap();
    let (synced, done) = std::sync::mpsc::channel();
    let answer = move |outcome| synced.send(outcome).unwrap();
    store.append(entries(log), Box::new(answer)).unwrap();
    done.recv().unwrap().unwrap();
    let state = RocksState::open(&data.state_dir(), &options).unwrap();
    state.commit(changes, applied(index)).unwrap();
}

#[tokio::test]
async fn a_state_that_was_cut_back_is_reported() {
    let root = tempfile::tempdir().unwrap();
    directory(root.path(), 1).await;
    grow(root.path(), 0..500, 499, Changes::default());
    let report = fsck(&[root.path()], true);
    assert!(!says(&report, "behind"), "{report}");
    grow(root.path(), 500..501, 200, Changes::default());
    let report = fsck(&[root.path()], true);
    assert!(
        says(&report, "the state is 300 entries behind the log"),
        "{report}"
    );
    assert_eq!(report.exit_code(), 0, "the log has what it lacks");
    let warned = report.findings.iter();
    assert!(
        warned
            .map(|finding| finding.severity)
            .any(|severity| severity == Severity::Warning)
    );
}

#[tokio::test]
async fn a_log_that_was_cut_back_behind_the_state_is_reported() {
    let root = tempfile::tempdir().unwrap();
    directory(root.path(), 1).await;
    grow(root.path(), 0..10, 300, Changes::default());
    let report = fsck(&[root.path()], true);
    assert_eq!(report.exit_code(), 1, "{report}");
    assert!(says(&report, "the log is an old copy"), "{report}");
}

#[tokio::test]
async fn a_state_that_was_just_taken_over_is_no_old_log() {
    let root = tempfile::tempdir().unwrap();
    directory(root.path(), 1).await;
    grow(root.path(), 0..10, 9, Changes::default());
    let elsewhere = tempfile::tempdir().unwrap();
    let options = StorageOptions::default();
    let leader = RocksState::open(elsewhere.path(), &options).unwrap();
    leader.commit(Changes::default(), applied(300)).unwrap();
    let mut stream = Vec::new();
    leader.checkpoint().unwrap().export(&mut stream).unwrap();
    let data = DataDir::open(root.path(), NodeId(1)).unwrap();
    let state = RocksState::open(&data.state_dir(), &options).unwrap();
    state.install(&mut stream.as_slice()).unwrap();
    drop((state, data));
    let report = fsck(&[root.path()], true);
    assert_eq!(report.exit_code(), 0, "{report}");
    assert!(
        says(&report, "the state was taken over through entry 300"),
        "{report}"
    );

    let data = DataDir::open(root.path(), NodeId(1)).unwrap();
    let state = RocksState::open(&data.state_dir(), &options).unwrap();
    state.commit(Changes::default(), applied(301)).unwrap();
    drop((state, data));
    let report = fsck(&[root.path()], true);
    assert!(says(&report, "the log is an old copy"), "{report}");
}

#[tokio::test]
async fn a_copy_is_named_and_checked() {
    let root = tempfile::tempdir().unwrap();
    directory(root.path(), 1).await;
    let place = root.path().join("raft/PLACE");
    let content = std::fs::read(&place).unwrap();
    std::fs::remove_file(&place).unwrap();
    std::fs::write(&place, content).unwrap();
    let report = fsck(&[root.path()], true);
    assert!(says(&report, "it is a copy of"), "{report}");
    assert_eq!(report.exit_code(), 0, "{report}");
}

/// Every blob that no node holds counts, however many there are.
#[tokio::test]
async fn more_lost_blobs_than_a_page_are_counted() {
    const LOST: u64 = 1_100;
    let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    directory(root.path(), 1).await;
    directory(other.path(), 2).await;
    let log = MemoryLog::with_nodes(&[NodeId(1), NodeId(2)], 2, 1).unwrap();
    for number in 0..LOST {
        let digest = Digest::of(Algorithm::Sha256, &number.to_be_bytes());
        lose(&log, digest);
    }
    let mut changes = Changes::default();
    let everything = &mut |key: &[u8], value: &[u8]| {
        changes.insert(key.to_vec(), Some(value.to_vec()));
        std::ops::ControlFlow::Continue(())
    };
    log.snapshot().scan(&[], None, everything).unwrap();
    let newest = log.snapshot().applied().0;
    grow(root.path(), 0..newest + 1, newest, changes);
    let report = fsck(&[root.path(), other.path()], true);
    assert!(
        says(&report, "1100 of 1100 blobs have too few whole copies"),
        "{report}"
    );
}

/// Commits a blob on one node, which then loses it.
fn lose(log: &MemoryLog, digest: Digest) {
    let open = Command::OpenTickets(OpenTickets {
        kind: TicketKind::Upload,
        node: NodeId(2),
        count: 1,
        ttl_ms: 3_600_000,
    });
    let Response::TicketsOpened { first, .. } = log.apply(open).unwrap().response else {
        panic!("no ticket");
    };
    let commit = Command::CommitBlob(CommitBlob {
        ticket: first,
        repository: RepositoryName::parse("team/app").unwrap(),
        digest,
        size_bytes: 8,
        holders: vec![NodeId(2)],
        stragglers: 0,
    });
    log.apply(commit).unwrap();
    let node = NodeId(2);
    log.apply(Command::ReportLost(ReportLost {
        node,
        digest,
        is_gone: true,
    }))
    .unwrap();
}

#[tokio::test]
async fn a_file_without_a_reason_is_wrong_once_the_node_had_time() {
    let root = tempfile::tempdir().unwrap();
    let digest = directory(root.path(), 1).await;
    let settled = || {
        run(&FsckOptions {
            directories: vec![root.path().to_path_buf()],
            quick: true,
            settled: true,
        })
    };
    // Its ticket is ahead of the state, which may open it yet.
    assert_eq!(settled().exit_code(), 0, "{}", settled());
    let stray = root.path().join("blobs/sha256/00").join("0".repeat(64));
    std::fs::create_dir_all(stray.parent().unwrap()).unwrap();
    std::fs::write(&stray, b"nobody's").unwrap();
    assert_eq!(settled().exit_code(), 1);
    assert!(says(&settled(), "blob sha256:0000"), "{}", settled());
    assert!(says(&settled(), "1 files have no reason"));
    let usual = fsck(&[root.path()], true);
    assert_eq!(usual.exit_code(), 0, "{usual}");
    assert!(says(&usual, "1 files have no reason"), "{usual}");
    std::fs::remove_file(&stray).unwrap();
    let foreign = stray.with_file_name("notes.txt");
    std::fs::write(&foreign, b"an operator's").unwrap();
    assert!(says(&settled(), "notes.txt: a node makes no such file"));
    assert_eq!(settled().exit_code(), 1);
    std::fs::remove_file(foreign).unwrap();
    let upload = format!(
        "upload-{:016x}-{:032x}",
        TicketId::new(LogIndex(1), 0).as_u64(),
        7
    );
    let upload = root.path().join("blobs/uploads").join(upload);
    std::fs::write(&upload, b"the beginning").unwrap();
    assert_eq!(settled().exit_code(), 0, "{}", settled());
    assert!(says(&settled(), "1 uploads are staged"));
    // Applied past the entry that could have opened the ticket, and the state does not know it: it is closed.
    grow(root.path(), 0..3, 2, Changes::default());
    assert!(says(&settled(), &digest.to_string()), "{}", settled());
    assert!(
        says(&settled(), "it is staged, and no open ticket"),
        "{}",
        settled()
    );
    assert!(says(&settled(), "2 files have no reason"));
    assert_eq!(settled().exit_code(), 1);
}
