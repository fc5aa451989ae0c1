//! Staging and committing.

use std::sync::Arc;

use bytes::Bytes;
use oci::{Algorithm, Digest};

use super::{bytes, digest, put, read_all, stage, ticket};
use crate::blob::{BlobStore, CHUNK_BYTES};
use crate::error::BlobError;

pub(super) async fn blobs_of_every_size_come_back(store: &dyn BlobStore) {
    let inline = 128 << 10;
    let sizes = [
        0,
        1,
        4096,
        inline - 1,
        inline,
        inline + 1,
        CHUNK_BYTES - 1,
        CHUNK_BYTES,
        CHUNK_BYTES + 1,
    ];
    let large = [
        512 << 10,
        1 << 20,
        (1 << 20) + 1,
        3 * CHUNK_BYTES + 7,
        5_000_000,
    ];
    for (number, size) in sizes.into_iter().chain(large).enumerate() {
        let blob = bytes(size, number as u64);
        let stat = put(store, &blob, ticket(1)).await;
        assert_eq!((stat.digest, stat.size_bytes), (digest(&blob), size as u64));
        assert_eq!(store.stat(&stat.digest).await.expect("stat"), Some(stat));
        let reader = store
            .open(&stat.digest)
            .await
            .expect("opens")
            .expect("is there");
        assert_eq!(
            (reader.digest(), reader.size_bytes()),
            (stat.digest, size as u64)
        );
        assert_eq!(
            reader.checksums().len(),
            size.div_ceil(CHUNK_BYTES),
            "{size} bytes"
        );
        assert!(read_all(&reader).await == blob, "{size} bytes come back");
    }
    assert_eq!(
        store.staged_names().await.expect("listed"),
        Vec::<String>::new()
    );
}

pub(super) async fn the_way_bytes_arrive_does_not_matter(store: &dyn BlobStore) {
    let blob = bytes(1_300_000, 7);
    for (number, cut) in [1_300_000, 999_999, 4096, 4095, 333, 31]
        .into_iter()
        .enumerate()
    {
        let mut staged = store.stage("pieces").await.expect("staged");
        for piece in blob.chunks(cut) {
            staged
                .append(Bytes::copy_from_slice(piece))
                .await
                .expect("appended");
        }
        staged.append(Bytes::new()).await.expect("nothing is fine");
        assert_eq!(staged.len_bytes(), 1_300_000);
        assert_eq!(
            staged.digest(Algorithm::Sha256).await.expect("hashed"),
            digest(&blob),
            "pieces of {cut}"
        );
        store
            .commit(staged, &digest(&blob), ticket(number as u64))
            .await
            .map_err(|(error, _)| error)
            .expect("commit");
        let reader = store
            .open(&digest(&blob))
            .await
            .expect("opens")
            .expect("is there");
        assert!(read_all(&reader).await == blob);
    }
}

pub(super) async fn a_wrong_digest_gives_the_staged_blob_back(store: &dyn BlobStore) {
    for size in [100, 600_000] {
        let blob = bytes(size, 1);
        let wrong = digest(b"something else");
        let staged = stage(store, "wrong", &blob).await;
        let (error, staged) = store
            .commit(staged, &wrong, ticket(1))
            .await
            .expect_err("refused");
        match error {
            BlobError::DigestMismatch { expected, actual } => {
                assert_eq!((expected, *actual), (wrong, digest(&blob)));
            }
            other => panic!("{other}"),
        }
        assert_eq!(store.stat(&wrong).await.expect("stat"), None);
        let mut staged = staged.expect("given back");
        staged
            .append(Bytes::from_static(b"!"))
            .await
            .expect("goes on");
        let longer = [&blob[..], b"!"].concat();
        let stat = store
            .commit(staged, &digest(&longer), ticket(1))
            .await
            .map_err(|(error, _)| error)
            .expect("commit");
        assert_eq!(stat.size_bytes, longer.len() as u64);
    }
}

pub(super) async fn the_digest_decides_the_algorithm(store: &dyn BlobStore) {
    for size in [100, 700_000] {
        let blob = bytes(size, 2);
        let sha512 = Digest::of(Algorithm::Sha512, &blob);
        let mut staged = stage(store, "late", &blob).await;
        assert_eq!(
            staged.digest(Algorithm::Sha512).await.expect("hashed"),
            sha512
        );
        assert_eq!(
            staged.digest(Algorithm::Sha256).await.expect("hashed"),
            digest(&blob)
        );
        let stat = store
            .commit(staged, &sha512, ticket(1))
            .await
            .map_err(|(error, _)| error)
            .expect("committed");
        assert_eq!((stat.digest, stat.size_bytes), (sha512, size as u64));
        let reader = store.open(&sha512).await.expect("opens").expect("is there");
        assert!(read_all(&reader).await == blob);
        assert_eq!(
            store.stat(&digest(&blob)).await.expect("stat"),
            None,
            "known by the digest asked for only"
        );
    }
}

pub(super) async fn an_algorithm_can_be_chosen_before_the_first_byte(store: &dyn BlobStore) {
    for size in [100, 700_000] {
        let blob = bytes(size, 3);
        let mut staged = store.stage("early").await.expect("staged");
        assert!(staged.set_algorithm(Algorithm::Sha512));
        staged.append(blob.clone()).await.expect("appended");
        assert!(!staged.set_algorithm(Algorithm::Sha256), "too late");
        let sha512 = Digest::of(Algorithm::Sha512, &blob);
        assert_eq!(
            staged.digest(Algorithm::Sha512).await.expect("hashed"),
            sha512
        );
        assert_eq!(
            staged.digest(Algorithm::Sha256).await.expect("hashed"),
            digest(&blob)
        );
        store
            .commit(staged, &sha512, ticket(1))
            .await
            .map_err(|(error, _)| error)
            .expect("committed");
    }
}

pub(super) async fn a_commit_can_be_repeated(store: &dyn BlobStore) {
    for size in [1000, 700_000] {
        let blob = bytes(size, 4);
        for number in [1, 1, 2] {
            let stat = put(store, &blob, ticket(number)).await;
            assert_eq!(stat.size_bytes, size as u64);
        }
        assert!(
            read_all(
                &store
                    .open(&digest(&blob))
                    .await
                    .expect("opens")
                    .expect("is there")
            )
            .await
                == blob
        );
    }
    assert_eq!(
        store.staged_names().await.expect("listed"),
        Vec::<String>::new(),
        "the bytes sent twice are gone"
    );
    assert_eq!(store.list(None, 10).await.expect("listed").len(), 2);
}

pub(super) async fn the_same_blob_is_committed_by_many_at_once(store: &(impl BlobStore + Clone)) {
    for size in [1000, 700_000] {
        let blob = bytes(size, 5);
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..8 {
            let (store, blob) = (store.clone(), blob.clone());
            tasks.spawn(async move { put(&store, &blob, ticket(number)).await });
        }
        while let Some(stat) = tasks.join_next().await {
            assert_eq!(stat.expect("no panic").size_bytes, size as u64);
        }
        assert!(
            read_all(
                &store
                    .open(&digest(&blob))
                    .await
                    .expect("opens")
                    .expect("is there")
            )
            .await
                == blob
        );
    }
    assert_eq!(store.list(None, 10).await.expect("listed").len(), 2);
    assert_eq!(
        store.staged_names().await.expect("listed"),
        Vec::<String>::new()
    );
}

pub(super) async fn many_small_blobs_at_once(store: &(impl BlobStore + Clone)) {
    let store: Arc<dyn BlobStore> = Arc::new(store.clone());
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            put(store.as_ref(), &bytes(2000, number), ticket(number))
                .await
                .digest
        });
    }
    while let Some(stored) = tasks.join_next().await {
        let stored = stored.expect("no panic");
        let reader = store.open(&stored).await.expect("opens").expect("is there");
        assert_eq!(digest(&read_all(&reader).await), stored);
    }
    assert_eq!(store.list(None, 1000).await.expect("listed").len(), 200);
}

pub(super) async fn a_discarded_blob_is_gone(store: &dyn BlobStore) {
    for size in [1000, 700_000] {
        let mut staged = stage(store, "discarded", &bytes(size, 6)).await;
        staged.settle().await.expect("settled");
        store.discard(staged).await.expect("discarded");
        assert_eq!(
            store.staged_names().await.expect("listed"),
            Vec::<String>::new()
        );
        let staged = store.stage("discarded").await.expect("the name is free");
        assert_eq!(staged.len_bytes(), 0);
    }
    store
        .discard_name("never-staged")
        .await
        .expect("nothing to do");
}

pub(super) async fn settling_and_going_on(store: &dyn BlobStore) {
    let blob = bytes(2_000_000, 8);
    let mut staged = store.stage("chunked").await.expect("staged");
    let mut arrived = 0;
    for piece in [
        &blob[..50_000],
        &blob[50_000..900_000],
        &blob[900_000..900_001],
        &blob[900_001..],
    ] {
        staged
            .append(blob.slice_ref(piece))
            .await
            .expect("appended");
        arrived += piece.len() as u64;
        assert_eq!(staged.settle().await.expect("settled"), arrived);
        assert_eq!(staged.len_bytes(), arrived);
    }
    store
        .commit(staged, &digest(&blob), ticket(1))
        .await
        .map_err(|(error, _)| error)
        .expect("committed");
    assert!(
        read_all(
            &store
                .open(&digest(&blob))
                .await
                .expect("opens")
                .expect("is there")
        )
        .await
            == blob
    );
}

pub(super) async fn an_append_may_be_dropped(store: &dyn BlobStore) {
    let blob = bytes(3_000_000, 9);
    let mut staged = store.stage("impatient").await.expect("staged");
    while staged.len_bytes() < blob.len() as u64 {
        let at = usize::try_from(staged.len_bytes()).expect("small");
        let piece = blob.slice(at..blob.len().min(at + 150_000));
        // Polled once: what was accepted by then counts, all or nothing.
        let _ = futures::FutureExt::now_or_never(staged.append(piece));
        tokio::task::yield_now().await;
    }
    let hashed = futures::FutureExt::now_or_never(staged.digest(Algorithm::Sha256));
    assert!(hashed.is_none_or(|hashed| hashed.is_ok()));
    assert_eq!(
        staged.digest(Algorithm::Sha256).await.expect("hashed"),
        digest(&blob)
    );
    store
        .commit(staged, &digest(&blob), ticket(1))
        .await
        .map_err(|(error, _)| error)
        .expect("committed");
    assert!(
        read_all(
            &store
                .open(&digest(&blob))
                .await
                .expect("opens")
                .expect("is there")
        )
        .await
            == blob
    );
}
