//! What a crash between two steps leaves, and what becomes of it. The steps are those of `shelf.rs`.

use std::time::Duration;

use super::*;
use crate::blob::index::Edit;
use crate::contract::blob::Cluster;

fn write_blob_file(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("created");
    std::fs::write(path, bytes).expect("written");
}

#[tokio::test]
async fn between_pin_and_rename() {
    let directory = tempfile::tempdir().expect("a directory");
    let blob = bytes(FILE, 1);
    let store = open(directory.path());
    stage(&store, "upload", &blob)
        .await
        .settle()
        .await
        .expect("durable");
    let edit = Edit::default()
        .pin(&digest(&blob), ticket(1))
        .put_stray(&digest(&blob));
    store.shelf.index.write(edit).await.expect("written");
    drop(store);

    let store = open(directory.path());
    assert_eq!(store.stat(&digest(&blob)).await.expect("stat"), None);
    assert_eq!(store.shelf.index.strays().expect("read"), []);
    let staged = store.stage("upload").await.expect("resumed");
    store
        .commit(staged, &digest(&blob), ticket(2))
        .await
        .map_err(|(error, _)| error)
        .expect("committed");
    assert!(is_whole(&store, &blob).await);
    assert_eq!(
        store.shelf.index.pins(&digest(&blob)).expect("read"),
        [ticket(1), ticket(2)]
    );
}

#[tokio::test]
async fn between_rename_and_record() {
    let directory = tempfile::tempdir().expect("a directory");
    let blob = bytes(FILE, 2);
    let store = open(directory.path());
    let path = blob_path(&store, &digest(&blob));
    let edit = Edit::default()
        .pin(&digest(&blob), ticket(1))
        .put_stray(&digest(&blob));
    store.shelf.index.write(edit).await.expect("written");
    write_blob_file(&path, &blob);
    assert!(
        store.open(&digest(&blob)).await.expect("opens").is_none(),
        "without a record it is no blob"
    );
    drop(store);

    let store = open(directory.path());
    assert!(!path.exists(), "removed at the next start");
    assert_eq!(store.shelf.index.strays().expect("read"), []);
    put(&store, &blob, ticket(2)).await;
    assert!(is_whole(&store, &blob).await);
}

#[tokio::test]
async fn a_file_nobody_recorded_is_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let blob = bytes(FILE, 3);
    let store = open(directory.path());
    write_blob_file(&blob_path(&store, &digest(&blob)), b"from where?");
    assert!(store.open(&digest(&blob)).await.expect("opens").is_none());
    assert_eq!(
        store.pin(&digest(&blob), ticket(1)).await.expect("asked"),
        None
    );
    put(&store, &blob, ticket(1)).await;
    assert!(is_whole(&store, &blob).await);
}

#[tokio::test]
async fn between_the_removal_of_record_and_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let blob = bytes(FILE, 4);
    let store = open(directory.path());
    put(&store, &blob, ticket(1)).await;
    let path = blob_path(&store, &digest(&blob));
    let edit = Edit::default()
        .remove_record(&digest(&blob))
        .put_stray(&digest(&blob));
    store.shelf.index.write(edit).await.expect("written");
    drop(store);

    assert!(path.exists());
    let store = open(directory.path());
    assert!(!path.exists());
    assert_eq!(store.list(None, 10).await.expect("listed"), []);
}

#[tokio::test]
async fn a_stray_mark_does_not_harm_a_recorded_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let blob = bytes(FILE, 5);
    let store = open(directory.path());
    put(&store, &blob, ticket(1)).await;
    store
        .shelf
        .index
        .write(Edit::default().put_stray(&digest(&blob)))
        .await
        .expect("written");
    drop(store);

    let store = open(directory.path());
    assert!(is_whole(&store, &blob).await);
    assert_eq!(store.shelf.index.strays().expect("read"), []);
}

#[tokio::test]
async fn pins_without_a_blob_go_when_their_tickets_are_closed() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let cluster = Cluster::new();
    let opened = cluster.open(metadata::command::TicketKind::Upload);
    let lost = digest(b"never arrived");
    store
        .shelf
        .index
        .write(Edit::default().pin(&lost, opened))
        .await
        .expect("written");
    for is_closed in [false, true] {
        if is_closed {
            cluster.close(opened);
        }
        assert_eq!(
            store
                .unlink_if_unneeded(&lost, &cluster.log)
                .await
                .expect("decided"),
            Unlink::Absent
        );
        assert_eq!(
            store.shelf.index.pins(&lost).expect("read").is_empty(),
            is_closed
        );
    }
}

#[tokio::test]
async fn leftovers_in_the_upload_directory_do_no_harm() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(open(directory.path()));
    let uploads = directory.path().join("blobs/uploads");
    std::fs::write(uploads.join("half"), b"half").expect("written");
    std::fs::write(uploads.join("Not.A.Name"), b"?").expect("written");
    let secret = directory.path().join("secret");
    std::fs::write(&secret, b"secret").expect("written");
    std::os::unix::fs::symlink(&secret, uploads.join("link")).expect("linked");

    let store = open(directory.path());
    assert_eq!(
        store.staged_names().await.expect("listed"),
        ["half", "link"]
    );
    let mut staged = store.stage("half").await.expect("resumed");
    assert_eq!(
        staged.digest(oci::Algorithm::Sha256).await.expect("hashed"),
        digest(b"half")
    );
    // A link is followed neither for reading nor for writing.
    let mut staged = store.stage("link").await.expect("starts over");
    assert_eq!(staged.len_bytes(), 0);
    let append = staged.append(bytes(200_000, 6)).await;
    append.expect("not yet written");
    assert_eq!(staged.settle().await.expect("it made way"), 200_000);
    assert_eq!(std::fs::read(&secret).expect("readable"), b"secret");
    store.discard(staged).await.expect("discarded");
}

#[tokio::test]
async fn a_commit_that_nobody_waits_for_is_finished_or_harmless() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    for polls in 0..12 {
        for size in [INLINE, FILE] {
            let blob = bytes(size, 100 + polls);
            let staged = stage(&store, &format!("dropped-{polls}-{size}"), &blob).await;
            let wanted = digest(&blob);
            let mut commit = store.commit(staged, &wanted, ticket(1));
            for _ in 0..polls {
                if tokio::time::timeout(Duration::from_micros(300), &mut commit)
                    .await
                    .is_ok()
                {
                    break;
                }
            }
            drop(commit);
            put(&store, &blob, ticket(2)).await;
            assert!(is_whole(&store, &blob).await);
        }
    }
}
