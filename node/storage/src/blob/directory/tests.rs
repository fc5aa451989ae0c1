//! What only a disk can do: be reopened, rot, fill up, and stop in the middle.

mod crashes;
mod damage;
mod memory;
mod model;
mod space;
mod tending;

use std::path::{Path, PathBuf};

use super::*;
use crate::contract::blob::{bytes, digest, put, read_all, stage, ticket};

const INLINE: usize = 1000;
const FILE: usize = 700_000;

fn open(directory: &Path) -> DirectoryBlobs {
    DirectoryBlobs::open(directory, BlobOptions::default()).expect("opens")
}

fn blob_path(store: &DirectoryBlobs, digest: &Digest) -> PathBuf {
    store.shelf.files.blob(digest)
}

async fn is_whole(store: &DirectoryBlobs, bytes: &[u8]) -> bool {
    match store.open(&digest(bytes)).await.expect("opens") {
        Some(reader) => read_all(&reader).await == bytes,
        None => false,
    }
}

#[tokio::test]
async fn blobs_and_pins_survive_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let (small, large) = (bytes(INLINE, 1), bytes(FILE, 2));
    let store = open(directory.path());
    for blob in [&small, &large] {
        put(&store, blob, ticket(7)).await;
        store.pin(&digest(blob), ticket(9)).await.expect("pinned");
    }
    let listed = store.list(None, 10).await.expect("listed");
    drop(store);
    let store = open(directory.path());
    assert_eq!(store.list(None, 10).await.expect("listed"), listed);
    for blob in [&small, &large] {
        assert!(is_whole(&store, blob).await);
        let pins = store.shelf.index.pins(&digest(blob)).expect("read");
        assert_eq!(pins, [ticket(7), ticket(9)]);
    }
}

#[tokio::test]
async fn only_large_blobs_become_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let (small, large) = (bytes(INLINE, 1), bytes(FILE, 2));
    put(&store, &small, ticket(1)).await;
    put(&store, &large, ticket(1)).await;
    assert!(!blob_path(&store, &digest(&small)).exists());
    let path = blob_path(&store, &digest(&large));
    let hex = digest(&large).hex();
    assert!(
        path.ends_with(format!("blobs/sha256/{}/{hex}", &hex[..2])),
        "{}",
        path.display()
    );
    assert_eq!(std::fs::read(path).expect("readable"), large);
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let blob = bytes(3_000_000, 3);
    let store = open(directory.path());
    let mut staged = stage(&store, "long-upload", &blob.slice(..2_000_000)).await;
    assert_eq!(staged.settle().await.expect("durable"), 2_000_000);
    let small = stage(&store, "small-upload", &blob.slice(..10)).await;
    drop((staged, small, store));

    let store = open(directory.path());
    assert_eq!(store.staged_names().await.expect("listed"), ["long-upload"]);
    assert_eq!(
        store
            .stage("small-upload")
            .await
            .expect("staged")
            .len_bytes(),
        0,
        "memory is forgotten"
    );
    let mut staged = store.stage("long-upload").await.expect("resumed");
    assert_eq!(staged.len_bytes(), 2_000_000);
    assert_eq!(
        staged.reader().wait_beyond(0).await,
        Some(2_000_000),
        "followers start over as well"
    );
    staged
        .append(blob.slice(2_000_000..))
        .await
        .expect("goes on");
    store
        .commit(staged, &digest(&blob), ticket(1))
        .await
        .map_err(|(error, _)| error)
        .expect("committed");
    assert!(is_whole(&store, &blob).await);
    assert!(store.staged_names().await.expect("listed").is_empty());
}

#[tokio::test]
async fn a_resumed_upload_can_be_sha512() {
    let directory = tempfile::tempdir().expect("a directory");
    let blob = bytes(FILE, 4);
    let store = open(directory.path());
    stage(&store, "upload", &blob)
        .await
        .settle()
        .await
        .expect("durable");
    drop(store);
    let store = open(directory.path());
    let mut staged = store.stage("upload").await.expect("resumed");
    assert!(
        !staged.set_algorithm(oci::Algorithm::Sha512),
        "bytes were hashed already"
    );
    let sha512 = Digest::of(oci::Algorithm::Sha512, &blob);
    assert_eq!(
        staged
            .digest(oci::Algorithm::Sha512)
            .await
            .expect("read back"),
        sha512
    );
    store
        .commit(staged, &sha512, ticket(1))
        .await
        .map_err(|(error, _)| error)
        .expect("committed");
    assert!(blob_path(&store, &sha512).exists());
}

#[tokio::test]
async fn a_name_belongs_to_one_upload_and_stays_in_its_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let staged = store.stage("taken").await.expect("staged");
    assert!(matches!(
        store.stage("taken").await,
        Err(BlobError::InUse { .. })
    ));
    assert!(matches!(
        store.discard_name("taken").await,
        Err(BlobError::InUse { .. })
    ));
    drop(staged);
    drop(store.stage("taken").await.expect("free again"));
    let long = "a".repeat(81);
    for name in [
        "", ".", "..", "../blobs", "a/b", "UPPER", "dot.ted", "nul\0", "ü", &long,
    ] {
        assert!(
            matches!(
                store.stage(name).await,
                Err(BlobError::Io {
                    action: "stage",
                    ..
                })
            ),
            "{name:?}"
        );
        assert!(store.discard_name(name).await.is_err(), "{name:?}");
    }
    drop(store.stage(&long[..80]).await.expect("just short enough"));
}

#[tokio::test]
async fn concurrent_commits_leave_one_file_and_all_pins() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    for blob in [bytes(INLINE, 5), bytes(FILE, 5)] {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 1..=8 {
            let (store, blob) = (store.clone(), blob.clone());
            tasks.spawn(async move { put(&store, &blob, ticket(number)).await });
        }
        tasks.join_all().await;
        let pins = store.shelf.index.pins(&digest(&blob)).expect("read");
        assert_eq!(pins, (1..=8).map(ticket).collect::<Vec<_>>());
    }
    let parent = blob_path(&store, &digest(&bytes(FILE, 5)));
    let entries = std::fs::read_dir(parent.parent().expect("a directory")).expect("listed");
    assert_eq!(entries.count(), 1);
    assert_eq!(store.shelf.index.strays().expect("read"), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_small_blobs_share_their_syncs() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..100 {
        let store = store.clone();
        tasks.spawn(async move {
            for number in 0..100 {
                let seed = worker * 100 + number;
                put(&store, &bytes(2000, seed), ticket(seed)).await;
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(
        store.list(None, 20_000).await.expect("listed").len(),
        10_000
    );
    let syncs = store.index_syncs();
    assert!(syncs < 2_500, "{syncs} syncs for 10,000 commits");
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_written_and_everything_is_readable() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let (old, small, large) = (bytes(FILE, 6), bytes(INLINE, 7), bytes(FILE, 8));
    put(&store, &old, ticket(1)).await;
    let staged = [
        stage(&store, "small", &small).await,
        stage(&store, "large", &large).await,
    ];
    store.shelf.disk.fail(&std::io::Error::other("simulated"));

    for (staged, blob) in staged.into_iter().zip([&small, &large]) {
        let (error, _) = store
            .commit(staged, &digest(blob), ticket(2))
            .await
            .expect_err("refused");
        assert!(matches!(error, BlobError::Failed), "{error}");
    }
    assert!(matches!(store.stage("next").await, Err(BlobError::Failed)));
    assert!(matches!(
        store.pin(&digest(&old), ticket(2)).await,
        Err(BlobError::Failed)
    ));
    assert!(is_whole(&store, &old).await);
    assert_eq!(store.list(None, 10).await.expect("listed").len(), 1);
}
