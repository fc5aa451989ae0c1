//! A full disk.

use std::process::Command;
use std::time::Duration;

use super::*;

/// A file system of a few megabytes, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Needs the right to mount: without it what happens on a full disk cannot be known, so the test fails.
    fn mount() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=64m", "argosy-test"])
            .arg(directory.path());
        let done = mount.output().expect("the program `mount` runs");
        let reason = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success(),
            "this test mounts a small tmpfs, which needs root (CAP_SYS_ADMIN): {reason}"
        );
        SmallDisk(directory)
    }

    fn open(&self) -> DirectoryBlobs {
        let options = BlobOptions {
            min_free_bytes: Some(0),
            ..BlobOptions::default()
        };
        DirectoryBlobs::open(self.0.path(), options).expect("opens")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn below_the_reserve_nothing_new_is_staged() {
    let directory = tempfile::tempdir().expect("a directory");
    let blob = bytes(FILE, 1);
    put(&open(directory.path()), &blob, ticket(1)).await;
    let options = BlobOptions {
        min_free_bytes: Some(u64::MAX),
        ..BlobOptions::default()
    };
    let store = DirectoryBlobs::open(directory.path(), options).expect("opens");
    assert!(matches!(store.stage("new").await, Err(BlobError::NoSpace)));
    assert!(is_whole(&store, &blob).await, "reading goes on");
    let pinned = store
        .pin(&digest(&blob), ticket(2))
        .await
        .expect("so does what takes no room");
    assert!(pinned.is_some());
}

/// An upload that began before the disk filled up is refused at its write-backs, and loses nothing.
#[tokio::test]
async fn an_upload_stops_at_the_reserve_and_can_go_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = BlobOptions {
        min_free_bytes: Some(u64::MAX),
        write_back_bytes: 1 << 20,
        ..BlobOptions::default()
    };
    let full = DirectoryBlobs::open(directory.path(), options).expect("opens");
    let blob = bytes(4 << 20, 2);
    let target = Arc::new(SpoolTarget {
        path: full.shelf.files.upload("upload").expect("a name"),
        disk: Arc::clone(&full.shelf.disk),
        write_back_bytes: 1 << 20,
        _claim: full.names.claim("upload").expect("free"),
    });
    let memory = full.memory.share(1000);
    let batch = full.batches.share(512 << 10);
    let mut staged = StagedBlob::spilling(target, Arc::new(Feed::new()), memory, batch, None);
    let mut refusals = 0;
    while staged.len_bytes() < blob.len() as u64 {
        let at = usize::try_from(staged.len_bytes()).expect("small");
        match staged
            .append(blob.slice(at..blob.len().min(at + 100_000)))
            .await
        {
            Ok(()) => {}
            Err(BlobError::NoSpace) => refusals += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!((2..=4).contains(&refusals), "{refusals} refusals");
    let hashed = loop {
        match staged.digest(oci::Algorithm::Sha256).await {
            Err(BlobError::NoSpace) => {
                let at = usize::try_from(staged.len_bytes()).expect("small");
                staged.append(blob.slice(at..)).await.expect("pending");
            }
            hashed => break hashed,
        }
    };
    assert_eq!(hashed.expect("hashed"), digest(&blob), "nothing was lost");
}

#[tokio::test]
async fn a_full_disk_fails_uploads_cleanly() {
    let disk = SmallDisk::mount();
    let store = disk.open();
    let (old, big) = (bytes(FILE, 3), bytes(80 << 20, 4));
    put(&store, &old, ticket(1)).await;

    let mut staged = store.stage("too-large").await.expect("staged");
    let mut refused = None;
    for piece in big.chunks(1 << 20) {
        refused = staged.append(big.slice_ref(piece)).await.err();
        if refused.is_some() {
            break;
        }
    }
    assert!(matches!(refused, Some(BlobError::NoSpace)), "{refused:?}");
    let arrived = usize::try_from(staged.len_bytes()).expect("small");
    assert!(arrived > 4 << 20 && arrived < 64 << 20, "{arrived} bytes");
    let hashed = staged.digest(oci::Algorithm::Sha256).await.expect("hashed");
    assert_eq!(hashed, digest(&big[..arrived]), "what arrived is whole");
    assert!(is_whole(&store, &old).await, "reading goes on");
    store.discard(staged).await.expect("discarded");

    put(&store, &bytes(2 << 20, 5), ticket(2)).await;
    put(&store, &bytes(INLINE, 6), ticket(2)).await;
}

#[tokio::test]
async fn a_disk_too_full_for_the_index_recovers() {
    let disk = SmallDisk::mount();
    let store = disk.open();
    let old = bytes(INLINE, 7);
    put(&store, &old, ticket(1)).await;
    let ballast = disk.0.path().join("ballast");
    let filled = std::fs::write(&ballast, vec![1; 80 << 20]).expect_err("it does not fit");
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);

    // RocksDB has reserved room for its log: the first few still fit.
    let mut number = 8;
    let (blob, error, mut staged) = loop {
        let blob = bytes(100_000, number);
        let staged = stage(&store, "inline", &blob).await;
        match store.commit(staged, &digest(&blob), ticket(2)).await {
            Ok(_) => number += 1,
            Err((error, staged)) => break (blob, error, staged),
        }
        assert!(number < 1000, "the disk was never full");
    };
    assert!(matches!(error, BlobError::NoSpace), "{error}");
    assert!(is_whole(&store, &old).await, "reading goes on");

    std::fs::remove_file(&ballast).expect("removed");
    for _ in 0..120 {
        match store
            .commit(staged.expect("given back"), &digest(&blob), ticket(2))
            .await
        {
            Ok(_) => {
                assert!(is_whole(&store, &blob).await);
                drop(store);
                assert!(is_whole(&disk.open(), &blob).await, "and after a restart");
                return;
            }
            Err((BlobError::NoSpace, back)) => staged = back,
            Err((error, _)) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("the index did not recover in 30 s");
}

fn bytes_below(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("listed").flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn space_of_removed_small_blobs_comes_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = BlobOptions {
        index_write_buffer_bytes: 1 << 20,
        index_reclaim_bytes: 4 << 20,
        index_max_wal_bytes: 4 << 20,
        ..BlobOptions::default()
    };
    let store = DirectoryBlobs::open(directory.path(), options).expect("opens");
    let cluster = crate::contract::blob::Cluster::new();
    let opened = cluster.open(metadata::command::TicketKind::Upload);
    let blob = |number: u64| bytes(100_000, 1000 + number);
    for number in 0..200 {
        put(&store, &blob(number), opened).await;
    }
    cluster.close(opened);
    let local = directory.path().join("local");
    let before = bytes_below(&local);
    assert!(before > 19 << 20, "{before} bytes");
    for number in (0..200).filter(|number| number % 4 > 0) {
        let unlinked = store
            .unlink_if_unneeded(&digest(&blob(number)), &cluster.log)
            .await;
        assert_eq!(unlinked.expect("decided"), crate::blob::Unlink::Removed);
    }
    let mut after = bytes_below(&local);
    for _ in 0..100 {
        if after < 13 << 20 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        after = bytes_below(&local);
    }
    assert!(after < 13 << 20, "{after} of {before} bytes are left");
    for number in (0..200).filter(|number| number % 4 == 0) {
        assert!(is_whole(&store, &blob(number)).await);
    }
}
