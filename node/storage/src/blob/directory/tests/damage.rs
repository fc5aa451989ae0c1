//! Files that are not what was stored.

use std::os::unix::fs::{FileExt, symlink};

use bytes::Bytes;

use super::*;
use crate::blob::CHUNK_BYTES;
use crate::blob::index::Edit;

/// The chunk a read was refused for.
fn damaged_chunk<T>(result: Result<T, BlobError>) -> Option<u64> {
    match result {
        Ok(_) => None,
        Err(BlobError::Corrupt { chunk, .. }) => Some(chunk),
        Err(error) => panic!("{error}"),
    }
}

async fn stored(blob: &Bytes) -> (DirectoryBlobs, PathBuf, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    put(&store, blob, ticket(1)).await;
    let path = blob_path(&store, &digest(blob));
    (store, path, directory)
}

#[tokio::test]
async fn a_changed_byte_is_found_in_every_chunk() {
    let chunks = 5;
    let blob = bytes((chunks - 1) * CHUNK_BYTES + 999, 1);
    let (store, path, _directory) = stored(&blob).await;
    for bad in 0..chunks {
        let at = bad * CHUNK_BYTES + 500;
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("opens");
        file.write_all_at(&[!blob[at]], at as u64).expect("written");
        let reader = store
            .open(&digest(&blob))
            .await
            .expect("opens")
            .expect("is there");
        for chunk in 0..chunks {
            let offset = (chunk * CHUNK_BYTES) as u64;
            let expected = (chunk == bad).then_some(bad as u64);
            assert_eq!(
                damaged_chunk(reader.read_at(offset, CHUNK_BYTES).await),
                expected,
                "chunk {chunk}"
            );
            // Even for a byte far from the damage, which is itself good.
            assert_eq!(
                damaged_chunk(reader.read_at(offset + 990, 1).await),
                expected
            );
            assert_eq!(
                damaged_chunk(reader.verify(offset..offset + 1).await),
                expected
            );
        }
        // A read over several chunks names the damaged one.
        let before = (bad.saturating_sub(1) * CHUNK_BYTES) as u64;
        assert_eq!(
            damaged_chunk(reader.read_at(before, usize::MAX).await),
            Some(bad as u64)
        );
        assert_eq!(
            damaged_chunk(reader.verify(0..u64::MAX).await),
            Some(bad as u64)
        );
        file.write_all_at(&blob[at..=at], at as u64)
            .expect("healed");
    }
    assert!(is_whole(&store, &blob).await);
}

/// A pin makes a copy count: one that rotted since it came must not.
#[tokio::test]
async fn a_damaged_copy_is_not_pinned() {
    let blob = bytes(3 * CHUNK_BYTES, 1);
    let (store, path, _directory) = stored(&blob).await;
    let pinned = store.pin(&digest(&blob), ticket(2)).await.expect("asked");
    assert_eq!(pinned.map(|stat| stat.size_bytes), Some(blob.len() as u64));
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("opens");
    let at = 2 * CHUNK_BYTES;
    file.write_all_at(&[!blob[at]], at as u64).expect("written");
    assert_eq!(
        store.pin(&digest(&blob), ticket(3)).await.expect("asked"),
        None
    );
    let pins = store.pins(&digest(&blob)).await.expect("read");
    assert_eq!(pins, [ticket(1), ticket(2)]);
    put(&store, &blob, ticket(3)).await;
    assert!(is_whole(&store, &blob).await);
}

#[tokio::test]
async fn a_truncated_file_loses_only_its_end() {
    let blob = bytes(4 * CHUNK_BYTES, 2);
    let (store, path, _directory) = stored(&blob).await;
    for len in [3 * CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 2 * CHUNK_BYTES - 1, 0] {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("opens");
        file.set_len(len as u64).expect("shortened");
        let reader = store
            .open(&digest(&blob))
            .await
            .expect("opens")
            .expect("is there");
        let lost = (len / CHUNK_BYTES) as u64;
        assert_eq!(
            damaged_chunk(reader.read_at(0, usize::MAX).await),
            Some(lost)
        );
        assert_eq!(damaged_chunk(reader.verify(0..u64::MAX).await), Some(lost));
        for chunk in 0..lost {
            assert_eq!(
                damaged_chunk(
                    reader
                        .read_at(chunk * CHUNK_BYTES as u64, CHUNK_BYTES)
                        .await
                ),
                None
            );
        }
        assert_eq!(
            store.pin(&digest(&blob), ticket(2)).await.expect("asked"),
            None,
            "not a copy to count"
        );
    }
}

#[tokio::test]
async fn what_is_not_a_regular_file_is_not_opened() {
    let blob = bytes(FILE, 3);
    let (store, path, directory) = stored(&blob).await;
    let secret = directory.path().join("secret");
    std::fs::write(&secret, &blob).expect("written");
    let replacements: [&dyn Fn(); 3] = [
        &|| symlink(&secret, &path).expect("a link"),
        &|| std::fs::create_dir(&path).expect("a directory"),
        &|| {},
    ];
    for put_there in replacements {
        let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
        put_there();
        assert_eq!(damaged_chunk(store.open(&digest(&blob)).await), Some(0));
        assert_eq!(
            store.pin(&digest(&blob), ticket(2)).await.expect("asked"),
            None
        );
    }
    assert_eq!(std::fs::read(&secret).expect("readable"), blob);
}

#[tokio::test]
async fn pushing_a_blob_again_replaces_a_damaged_or_missing_copy() {
    let blob = bytes(FILE, 4);
    let (store, path, directory) = stored(&blob).await;
    let elsewhere = directory.path().join("elsewhere");
    let harms: [&dyn Fn(); 4] = [
        &|| std::fs::write(&path, &blob[1..]).expect("written"),
        &|| {
            std::fs::write(&path, [&blob[..FILE - 1], &[!blob[FILE - 1]]].concat())
                .expect("written")
        },
        &|| std::fs::remove_file(&path).expect("removed"),
        &|| {
            std::fs::rename(&path, &elsewhere).expect("moved");
            symlink(&elsewhere, &path).expect("linked");
        },
    ];
    for (number, harm) in harms.into_iter().enumerate() {
        harm();
        put(&store, &blob, ticket(2 + number as u64)).await;
        assert!(is_whole(&store, &blob).await);
        assert!(std::fs::symlink_metadata(&path).expect("there").is_file());
    }
    assert_eq!(
        store.shelf.index.pins(&digest(&blob)).expect("read").len(),
        5,
        "and no pin was lost"
    );
}

#[tokio::test]
async fn a_damaged_inline_blob_is_found_and_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let blob = bytes(INLINE, 5);
    put(&store, &blob, ticket(1)).await;
    for rotten in [Some(bytes(INLINE, 6)), Some(bytes(INLINE - 1, 5)), None] {
        let edit = match rotten {
            Some(rotten) => Edit::default().put_body(&digest(&blob), rotten),
            None => Edit::default().remove_body(&digest(&blob), 0),
        };
        store.shelf.index.write(edit).await.expect("written");
        let read = match store.open(&digest(&blob)).await {
            Ok(reader) => reader.expect("is there").read_at(0, 10).await,
            Err(error) => Err(error),
        };
        assert_eq!(damaged_chunk(read), Some(0));
        put(&store, &blob, ticket(2)).await;
        assert!(is_whole(&store, &blob).await);
    }
}

#[tokio::test]
async fn a_blob_may_change_between_file_and_index() {
    let directory = tempfile::tempdir().expect("a directory");
    let blob = bytes(INLINE, 7);
    let with_limit = |inline_limit_bytes| {
        let options = BlobOptions {
            inline_limit_bytes,
            ..BlobOptions::default()
        };
        DirectoryBlobs::open(directory.path(), options).expect("opens")
    };
    let store = with_limit(0);
    put(&store, &blob, ticket(1)).await;
    let path = blob_path(&store, &digest(&blob));
    std::fs::write(&path, b"rotten").expect("written");
    drop(store);

    let store = with_limit(INLINE);
    put(&store, &blob, ticket(2)).await;
    assert!(is_whole(&store, &blob).await);
    assert!(!path.exists(), "the file went with its record");
    store
        .shelf
        .index
        .write(Edit::default().put_body(&digest(&blob), Bytes::new()))
        .await
        .expect("written");
    drop(store);

    let store = with_limit(0);
    put(&store, &blob, ticket(3)).await;
    assert!(is_whole(&store, &blob).await);
    assert!(path.exists());
    assert_eq!(store.shelf.index.body(&digest(&blob)), None);
}

#[tokio::test]
async fn a_directory_in_the_place_of_a_blob_makes_way() {
    let blob = bytes(FILE, 8);
    let (store, path, directory) = stored(&blob).await;
    std::fs::remove_file(&path).expect("removed");
    std::fs::create_dir(&path).expect("created");
    std::fs::write(path.join("somebody's"), b"file").expect("written");
    put(&store, &blob, ticket(2)).await;
    assert!(is_whole(&store, &blob).await);
    let kept = std::fs::read_dir(directory.path().join("blobs/quarantine")).expect("listed");
    let kept = kept.flatten().next().expect("it is kept").path();
    assert!(kept.join("somebody's").is_file());
}

#[tokio::test]
async fn what_takes_the_place_of_an_upload_makes_way() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let blob = bytes(FILE, 9);
    let path = directory.path().join("blobs/uploads/upload");
    let secret = directory.path().join("secret");
    std::fs::write(&secret, b"secret").expect("written");
    let replacements: [&dyn Fn(); 2] = [&|| symlink(&secret, &path).expect("a link"), &|| {
        std::fs::create_dir(&path).expect("a directory")
    }];
    for (number, put_there) in (1..).zip(replacements) {
        put_there();
        let staged = stage(&store, "upload", &blob).await;
        assert_eq!(staged.len_bytes(), FILE as u64, "it began anew");
        let committed = store.commit(staged, &digest(&blob), ticket(number)).await;
        assert!(committed.is_ok());
        assert!(!path.exists());
    }
    assert_eq!(std::fs::read(&secret).expect("readable"), b"secret");
}

/// Why the store does not open.
fn refusal(directory: &Path) -> String {
    match DirectoryBlobs::open(directory, BlobOptions::default()) {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string(),
    }
}

/// A closed store with blobs in it, small and large.
async fn closed() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    for seed in 1..4 {
        put(&store, &bytes(INLINE, seed), ticket(seed)).await;
        put(&store, &bytes(FILE, seed), ticket(seed)).await;
    }
    directory
}

fn newest_wal(directory: &Path) -> PathBuf {
    let entries = std::fs::read_dir(directory.join("local")).expect("listed");
    let wals = entries.flatten().map(|entry| entry.path());
    wals.filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .max()
        .expect("there is one")
}

#[tokio::test]
async fn an_index_that_lost_its_end_is_refused() {
    let harms: [&dyn Fn(&Path); 4] = [
        &|wal| {
            let file = std::fs::OpenOptions::new()
                .write(true)
                .open(wal)
                .expect("opens");
            let half = file.metadata().expect("there").len() / 2;
            file.set_len(half).expect("cut");
        },
        &|wal| std::fs::write(wal, b"").expect("emptied"),
        &|wal| std::fs::remove_file(wal).expect("removed"),
        &|wal| {
            let local = wal.parent().expect("below it");
            std::fs::remove_dir_all(local).expect("removed");
            std::fs::create_dir(local).expect("created");
        },
    ];
    for (number, harm) in harms.into_iter().enumerate() {
        let directory = closed().await;
        drop(open(directory.path()));
        put(&open(directory.path()), &bytes(INLINE, 9), ticket(9)).await;
        harm(&newest_wal(directory.path()));
        let why = refusal(directory.path());
        assert!(why.contains("local"), "{number}: {why}");
        // And again: refusing has repaired nothing.
        refusal(directory.path());
    }
}

#[tokio::test]
async fn an_index_that_lost_its_description_is_not_made_anew() {
    let directory = closed().await;
    let current = directory.path().join("local/CURRENT");
    let content = std::fs::read(&current).expect("there");
    std::fs::remove_file(&current).expect("removed");
    let why = refusal(directory.path());
    assert!(
        why.contains("local/CURRENT") && why.contains("it is missing"),
        "{why}"
    );
    std::fs::write(&current, content).expect("put back");
    assert!(
        is_whole(&open(directory.path()), &bytes(INLINE, 1)).await,
        "nothing was touched"
    );
}
