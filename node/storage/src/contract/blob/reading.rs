//! Reading: committed blobs, and bytes that are still arriving.

use bytes::Bytes;
use oci::{Algorithm, Digest};

use super::{bytes, digest, put, stage, ticket};
use crate::blob::{BlobStore, CHUNK_BYTES};
use crate::error::BlobError;

pub(super) async fn followers_see_bytes_as_they_arrive(store: &(impl BlobStore + Clone)) {
    let blob = bytes(3_000_000, 1);
    let mut staged = store.stage("followed").await.expect("staged");
    let mut followers = tokio::task::JoinSet::new();
    for limit in [1, 7] {
        let mut reader = staged.reader();
        followers.spawn(async move {
            let (mut seen, mut waits) = (Vec::new(), 0);
            while let Some(readable) = reader.wait_beyond(seen.len() as u64).await {
                waits += 1;
                while (seen.len() as u64) < readable {
                    seen.extend_from_slice(
                        &reader
                            .read_at(seen.len() as u64, limit * 100_000)
                            .await
                            .expect("read"),
                    );
                }
            }
            assert!(
                reader
                    .read_at(seen.len() as u64, 10)
                    .await
                    .expect("read")
                    .is_empty(),
                "the end"
            );
            (seen, waits)
        });
    }
    for piece in blob.chunks(10_000) {
        staged
            .append(blob.slice_ref(piece))
            .await
            .expect("appended");
        tokio::task::yield_now().await;
    }
    store
        .commit(staged, &digest(&blob), ticket(1))
        .await
        .map_err(|(error, _)| error)
        .expect("committed");
    while let Some(seen) = followers.join_next().await {
        let (seen, waits) = seen.expect("no panic");
        assert!(seen == blob);
        assert!(waits > 1, "the bytes came bit by bit");
    }
}

pub(super) async fn followers_stay_valid_after_the_commit(store: &dyn BlobStore) {
    for size in [3000, 800_000] {
        let blob = bytes(size, 2);
        // Twice: the second commit finds the blob there and drops what was staged.
        for number in [1, 2] {
            let mut staged = stage(store, "early-bird", &blob).await;
            let mut reader = staged.reader();
            staged.digest(Algorithm::Sha256).await.expect("hashed");
            assert_eq!(
                reader.wait_beyond(0).await,
                Some(size as u64),
                "all of it after `digest`"
            );
            store
                .commit(staged, &digest(&blob), ticket(number))
                .await
                .map_err(|(error, _)| error)
                .expect("committed");
            assert_eq!(reader.wait_beyond(size as u64).await, None);
            assert_eq!(
                reader.wait_beyond(5).await,
                Some(size as u64),
                "what is there stays readable"
            );
            let tail = reader
                .read_at(size as u64 - 1000, usize::MAX)
                .await
                .expect("read");
            assert!(tail == blob[size - 1000..]);
            assert!(
                reader
                    .read_at(size as u64 + 5, 10)
                    .await
                    .expect("read")
                    .is_empty()
            );
        }
    }
}

pub(super) async fn followers_of_a_discarded_blob_are_told(store: &dyn BlobStore) {
    for size in [3000, 800_000] {
        let staged = stage(store, "doomed", &bytes(size, 3)).await;
        let mut reader = staged.reader();
        store.discard(staged).await.expect("discarded");
        assert!(matches!(reader.read_at(0, 10).await, Err(BlobError::Gone)));
        assert_eq!(reader.wait_beyond(size as u64).await, None);
    }
}

pub(super) async fn ranges_are_cut_where_promised(store: &dyn BlobStore) {
    let chunk = CHUNK_BYTES as u64;
    for size in [5000, 5 * CHUNK_BYTES + 100] {
        let blob = bytes(size, 4);
        put(store, &blob, ticket(1)).await;
        let reader = store
            .open(&digest(&blob))
            .await
            .expect("opens")
            .expect("is there");
        let size = size as u64;
        let offsets = [
            0,
            1,
            4999,
            chunk - 1,
            chunk,
            chunk + 1,
            4 * chunk - 1,
            4 * chunk,
            5 * chunk,
            size - 1,
        ];
        for offset in offsets.into_iter().filter(|offset| *offset < size) {
            for limit in [
                1,
                2,
                4096,
                CHUNK_BYTES - 1,
                CHUNK_BYTES,
                CHUNK_BYTES + 1,
                1 << 20,
                usize::MAX,
            ] {
                let read = reader.read_at(offset, limit).await.expect("verified");
                let window = (offset / chunk + 4) * chunk - offset;
                let wanted = (limit as u64).min(size - offset).min(window);
                assert_eq!(read.len() as u64, wanted, "{limit} bytes from {offset}");
                let offset = usize::try_from(offset).expect("small");
                assert!(
                    read == blob[offset..offset + read.len()],
                    "{limit} bytes from {offset}"
                );
            }
        }
        for offset in [size, size + 1, u64::MAX] {
            assert_eq!(
                reader.read_at(offset, 10).await.expect("fine"),
                Bytes::new()
            );
        }
        assert_eq!(reader.read_at(0, 0).await.expect("fine"), Bytes::new());
    }
}

pub(super) async fn good_chunks_verify(store: &dyn BlobStore) {
    for size in [0, 5000, 5 * CHUNK_BYTES + 100] {
        let blob = bytes(size, 5);
        put(store, &blob, ticket(1)).await;
        let reader = store
            .open(&digest(&blob))
            .await
            .expect("opens")
            .expect("is there");
        for range in [
            0..0,
            0..1,
            0..u64::MAX,
            4096..5001,
            262_143..262_145,
            u64::MAX - 1..u64::MAX,
        ] {
            reader.verify(range).await.expect("good");
        }
    }
}

pub(super) async fn what_is_not_there(store: &dyn BlobStore) {
    let absent = digest(b"absent");
    assert_eq!(store.stat(&absent).await.expect("stat"), None);
    assert!(store.open(&absent).await.expect("opens").is_none());
    assert_eq!(store.pin(&absent, ticket(1)).await.expect("pins"), None);
    assert_eq!(store.list(None, 10).await.expect("listed"), []);
}

pub(super) async fn lists_are_ordered_and_paged(store: &dyn BlobStore) {
    let mut digests = Vec::new();
    for number in 0..20 {
        let blob = bytes(100, number);
        let algorithm = if number % 5 == 0 {
            Algorithm::Sha512
        } else {
            Algorithm::Sha256
        };
        let digest = Digest::of(algorithm, &blob);
        let staged = stage(store, "listed", &blob).await;
        store
            .commit(staged, &digest, ticket(number))
            .await
            .map_err(|(error, _)| error)
            .expect("committed");
        digests.push(digest);
    }
    digests.sort_unstable();
    let mut listed = Vec::new();
    loop {
        let page = store.list(listed.last(), 7).await.expect("listed");
        assert!(page.len() <= 7 && page.iter().all(|stat| stat.size_bytes == 100));
        if page.is_empty() {
            break;
        }
        listed.extend(page.into_iter().map(|stat| stat.digest));
    }
    assert_eq!(listed, digests);
    assert_eq!(store.list(None, 0).await.expect("listed"), []);
    // A place to start from need not exist.
    let between = digest(b"nobody has this");
    let behind = store.list(Some(&between), 100).await.expect("listed");
    assert_eq!(
        behind.len(),
        digests.iter().filter(|digest| **digest > between).count()
    );
}

pub(super) async fn there_is_space(store: &dyn BlobStore) {
    let usage = store.usage().await.expect("known");
    assert!(usage.free_bytes > 0 && usage.free_bytes <= usage.total_bytes);
}
