//! Trash, orphans, leftovers and quarantine as files.

use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use super::*;
use crate::blob::{BlobHealth, Damage, Quarantined, Verified, Walk};
use crate::contract::blob::{unlinked, verify};

/// All steps of a walk, `limit` files each.
async fn walk(store: &DirectoryBlobs, limit: usize) -> Walk {
    let mut whole = Walk::default();
    loop {
        let step = store
            .walk(whole.next.as_ref(), limit)
            .await
            .expect("walked");
        assert!(step.orphans.len() + step.staged.len() <= limit);
        whole.orphans.extend(step.orphans);
        whole.staged.extend(step.staged);
        whole.removed_files += step.removed_files;
        whole.next = step.next;
        if whole.next.is_none() {
            return whole;
        }
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("listed").flatten();
    entries
        .map(|entry| entry.file_name().into_string().expect("text"))
        .collect()
}

fn write_aged(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("created");
    std::fs::write(path, content).expect("written");
    let file = std::fs::File::open(path).expect("opens");
    let yesterday = SystemTime::now() - Duration::from_secs(86_400);
    file.set_modified(yesterday).expect("aged");
}

#[tokio::test]
async fn trash_survives_a_restart_and_is_bounded() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let [first, second] = [
        unlinked(&store, FILE, 1).await,
        unlinked(&store, FILE, 2).await,
    ];
    unlinked(&store, INLINE, 3).await;
    let before = store.trash_usage().await.expect("counted");
    assert_eq!(before.files, 2, "inline blobs go at once");
    drop(store);

    let options = BlobOptions {
        trash_max_bytes: FILE as u64,
        ..BlobOptions::default()
    };
    let store = DirectoryBlobs::open(directory.path(), options).expect("opens");
    assert_eq!(store.trash_usage().await.expect("counted"), before);
    let gone = store
        .empty_trash(SystemTime::now(), 10)
        .await
        .expect("emptied");
    assert_eq!(gone.files, 1, "the oldest goes when there is too much");
    unlinked(&store, FILE, 4).await;
    assert_eq!(
        names(&directory.path().join("blobs/trash")).len(),
        1,
        "full: removed at once"
    );
    assert_eq!(
        store.adopt(&first.digest, ticket(1)).await.expect("read"),
        None
    );
    assert_eq!(
        store.adopt(&second.digest, ticket(1)).await.expect("read"),
        Some(second)
    );
    assert!(is_whole(&store, &bytes(FILE, 2)).await);
}

#[tokio::test]
async fn trash_makes_room_for_uploads() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    unlinked(&store, FILE, 1).await;
    drop(store);
    let options = BlobOptions {
        min_free_bytes: Some(u64::MAX),
        trash_min_free_bytes: Some(u64::MAX),
        ..BlobOptions::default()
    };
    let store = DirectoryBlobs::open(directory.path(), options).expect("opens");
    assert_eq!(store.health().await.expect("asked"), BlobHealth::Full);
    assert_eq!(store.trash_usage().await.expect("counted").files, 1);
    assert!(matches!(store.stage("new").await, Err(BlobError::NoSpace)));
    assert_eq!(store.trash_usage().await.expect("counted").files, 0);
    assert!(names(&directory.path().join("blobs/trash")).is_empty());
}

#[tokio::test]
async fn a_walk_reports_orphans_and_removes_leftovers() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    for seed in 1..4 {
        put(&store, &bytes(FILE, seed), ticket(1)).await;
    }
    let orphan = bytes(FILE, 9);
    let path = blob_path(&store, &digest(&orphan));
    let uploads = directory.path().join("blobs/uploads");
    write_aged(&path, &orphan);
    write_aged(&path.with_extension("partial"), b"half");
    write_aged(&uploads.join("upload-1"), b"half");
    write_aged(&uploads.join("Not.A.Name"), b"?");
    std::fs::write(path.with_extension("new.partial"), b"in use").expect("written");
    let mut used = store.stage("upload-2").await.expect("staged");
    used.append(bytes(FILE, 5)).await.expect("appended");
    used.settle().await.expect("durable");

    for limit in [1, 3, 1000] {
        let found = walk(&store, limit).await;
        let digests: Vec<Digest> = found.orphans.iter().map(|stat| stat.digest).collect();
        assert_eq!(digests, [digest(&orphan)]);
        assert_eq!(found.staged, ["upload-1"]);
        assert_eq!(found.removed_files, if limit == 1 { 2 } else { 0 });
    }
    assert!(
        path.with_extension("new.partial").exists(),
        "younger than the process"
    );
    assert!(!uploads.join("Not.A.Name").exists());

    assert!(store.discard_orphan(&digest(&orphan)).await.expect("moved"));
    assert!(!store.discard_orphan(&digest(&orphan)).await.expect("asked"));
    let known = digest(&bytes(FILE, 1));
    assert!(
        !store.discard_orphan(&known).await.expect("asked"),
        "it has a record"
    );
    assert!(is_whole(&store, &bytes(FILE, 1)).await);
    assert!(walk(&store, 10).await.orphans.is_empty());
    assert!(
        store
            .adopt(&digest(&orphan), ticket(2))
            .await
            .expect("read")
            .is_some()
    );
    assert!(is_whole(&store, &orphan).await, "from the trash");
}

#[tokio::test]
async fn only_the_right_bytes_are_adopted() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let blob = bytes(FILE, 1);
    let path = blob_path(&store, &digest(&blob));
    for content in [&b""[..], b"other", &blob[1..]] {
        write_aged(&path, content);
        assert_eq!(
            store.adopt(&digest(&blob), ticket(1)).await.expect("read"),
            None
        );
        assert!(
            store
                .shelf
                .index
                .pins(&digest(&blob))
                .expect("read")
                .is_empty()
        );
    }
    std::fs::remove_file(&path).expect("removed");
    let elsewhere = directory.path().join("elsewhere");
    std::fs::write(&elsewhere, &blob).expect("written");
    symlink(&elsewhere, &path).expect("linked");
    assert_eq!(
        store.adopt(&digest(&blob), ticket(1)).await.expect("read"),
        None
    );
    assert!(store.discard_orphan(&digest(&blob)).await.expect("removed"));
    assert!(
        elsewhere.exists() && !path.exists(),
        "the link goes, not what it names"
    );
    std::fs::rename(&elsewhere, &path).expect("moved");
    assert!(
        store
            .adopt(&digest(&blob), ticket(1))
            .await
            .expect("read")
            .is_some()
    );
    drop(store);
    let store = open(directory.path());
    assert!(is_whole(&store, &blob).await);
    assert_eq!(
        store.shelf.index.pins(&digest(&blob)).expect("read"),
        [ticket(1)]
    );
    assert!(matches!(
        verify(&store, &digest(&blob)).await,
        Verified::Sound(_)
    ));
}

/// Damages a copy in every way, and says what verifying should find.
async fn damage(store: &DirectoryBlobs, digest: &Digest, way: usize) -> &'static str {
    let path = blob_path(store, digest);
    let mut content = std::fs::read(&path).expect("readable");
    match way {
        0 => content[400_000] ^= 4,
        1 => content.truncate(300_000),
        2 => content.clear(),
        3 => content[8192..12_288].fill(0),
        4 => content.push(0),
        5 => {
            std::fs::remove_file(&path).expect("removed");
            return "missing";
        }
        _ => {
            let mut record = store
                .shelf
                .index
                .record(digest)
                .expect("read")
                .expect("there");
            record.checksums = record.checksums.iter().map(|sum| sum ^ 1).collect();
            let edit = Edit::default().put_record(digest, &record);
            store.shelf.index.write(edit).await.expect("written");
            return "checksum";
        }
    }
    std::fs::write(&path, content).expect("written");
    if matches!(way, 0 | 3) {
        "content"
    } else {
        "size"
    }
}

#[tokio::test]
async fn every_damage_is_found_and_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let quarantine = directory.path().join("blobs/quarantine");
    for way in 0..7 {
        let blob = bytes(FILE, 100 + way as u64);
        let stat = put(&store, &blob, ticket(1)).await;
        let expected = damage(&store, &stat.digest, way).await;
        let found = match verify(&store, &stat.digest).await {
            Verified::Damaged(Damage::Size { .. }) => "size",
            Verified::Damaged(Damage::Content { .. }) => "content",
            Verified::Damaged(Damage::Checksum { chunk: 0 }) => "checksum",
            Verified::Missing => "missing",
            other => panic!("{other:?}"),
        };
        assert_eq!(found, expected, "way {way}");
        let before = names(&quarantine).len();
        let quarantined = store.quarantine(&stat.digest).await.expect("moved");
        let moved = if expected == "missing" {
            Quarantined::Missing
        } else {
            Quarantined::Moved
        };
        assert_eq!(quarantined, moved);
        assert_eq!(
            names(&quarantine).len() - before,
            usize::from(expected != "missing")
        );
        assert_eq!(store.stat(&stat.digest).await.expect("stat"), None);
        assert_eq!(verify(&store, &stat.digest).await, Verified::Absent);
        put(&store, &blob, ticket(2)).await;
        assert!(is_whole(&store, &blob).await, "a good copy takes its place");
    }
}

#[tokio::test]
async fn a_full_quarantine_takes_nothing_and_deletes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = BlobOptions {
        quarantine_max_files: 1,
        ..BlobOptions::default()
    };
    let store = DirectoryBlobs::open(directory.path(), options).expect("opens");
    for (seed, outcome) in [(1, Quarantined::Moved), (2, Quarantined::Full)] {
        let stat = put(&store, &bytes(FILE, seed), ticket(1)).await;
        damage(&store, &stat.digest, 0).await;
        assert_eq!(
            store.quarantine(&stat.digest).await.expect("asked"),
            outcome
        );
    }
    assert_eq!(store.quarantine_usage().await.expect("counted").files, 1);
    assert!(blob_path(&store, &digest(&bytes(FILE, 2))).exists());
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_quarantine_leaves_a_missing_copy() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let stat = put(&store, &bytes(FILE, 1), ticket(1)).await;
    damage(&store, &stat.digest, 0).await;
    let path = blob_path(&store, &stat.digest);
    let shelf = &store.shelf;
    shelf
        .quarantine
        .take_file(&path, &stat.digest, &shelf.disk)
        .expect("moved");
    drop(store);
    let store = open(directory.path());
    assert_eq!(verify(&store, &stat.digest).await, Verified::Missing);
    let quarantined = store.quarantine(&stat.digest).await.expect("asked");
    assert_eq!(quarantined, Quarantined::Missing);
    assert_eq!(store.quarantine_usage().await.expect("counted").files, 1);
}

#[tokio::test]
async fn a_damaged_inline_blob_is_kept_as_a_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let stat = put(&store, &bytes(INLINE, 1), ticket(1)).await;
    let mut body = bytes(INLINE, 1).to_vec();
    body[7] ^= 1;
    let edit = Edit::default().put_body(&stat.digest, body.clone().into());
    store.shelf.index.write(edit).await.expect("written");
    assert!(matches!(
        verify(&store, &stat.digest).await,
        Verified::Damaged(_)
    ));
    assert_eq!(
        store.quarantine(&stat.digest).await.expect("moved"),
        Quarantined::Moved
    );
    let kept = directory.path().join("blobs/quarantine");
    let name = names(&kept).pop().expect("it is there");
    assert_eq!(std::fs::read(kept.join(name)).expect("readable"), body);
}

#[tokio::test]
async fn a_scrub_goes_on_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let progress = crate::blob::ScrubProgress {
        pass: 2,
        after: Some(digest(b"so far")),
        blobs: 7,
        ..Default::default()
    };
    let store = open(directory.path());
    store.save_scrub_progress(&progress).await.expect("written");
    drop(store);
    let store = open(directory.path());
    assert_eq!(store.scrub_progress().await.expect("read"), Some(progress));
}

#[tokio::test]
async fn a_failed_directory_says_so_and_goes_on_reading() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let stat = put(&store, &bytes(FILE, 1), ticket(1)).await;
    assert!(store.health().await.expect("asked").is_writable());
    store.shelf.disk.fail(&std::io::Error::other("fsync"));
    assert_eq!(store.health().await.expect("asked"), BlobHealth::Failed);
    assert!(matches!(store.stage("new").await, Err(BlobError::Failed)));
    assert!(matches!(
        store.adopt(&stat.digest, ticket(2)).await,
        Err(BlobError::Failed)
    ));
    assert!(matches!(
        store.quarantine(&stat.digest).await,
        Err(BlobError::Failed)
    ));
    assert_eq!(verify(&store, &stat.digest).await, Verified::Sound(stat));
    assert!(is_whole(&store, &bytes(FILE, 1)).await);
}
