//! The memory of staged blobs, all together.

use super::*;

/// Room for three blobs of `INLINE` bytes, and for all but one byte of a fourth.
fn open_small(directory: &Path) -> DirectoryBlobs {
    let options = BlobOptions {
        inline_memory_bytes: 4 * INLINE as u64 - 1,
        ..BlobOptions::default()
    };
    DirectoryBlobs::open(directory, options).expect("opens")
}

#[tokio::test]
async fn staged_blobs_that_find_no_memory_become_files_and_are_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open_small(directory.path());
    let blobs: Vec<_> = (0..4).map(|number| bytes(INLINE, number)).collect();
    let mut staged = Vec::new();
    for (number, blob) in blobs.iter().enumerate() {
        staged.push(stage(&store, &format!("s{number}"), blob).await);
    }
    let in_memory: Vec<bool> = staged.iter().map(|one| one.in_memory().is_some()).collect();
    assert_eq!(in_memory, [true, true, true, false]);
    let last = staged.last_mut().expect("four");
    assert_eq!(last.settle().await.expect("durable"), INLINE as u64);
    let names = store.staged_names().await.expect("listed");
    assert_eq!(names, ["s3"], "only what found no room is a file");

    // What ends makes room: by commit and by discard. A file stays one.
    let fourth = staged.pop().expect("four");
    let third = staged.pop().expect("three");
    store.discard(third).await.expect("discarded");
    let again = stage(&store, "again", &blobs[2]).await;
    assert!(again.in_memory().is_some());
    for (one, blob) in staged
        .into_iter()
        .chain([again, fourth])
        .zip([&blobs[0], &blobs[1], &blobs[2], &blobs[3]])
    {
        let done = store.commit(one, &digest(blob), ticket(1)).await;
        assert!(done.is_ok(), "committed");
        assert!(is_whole(&store, blob).await);
    }
    assert_eq!(store.staged_names().await.expect("listed").len(), 0);
    let after = stage(&store, "after", &blobs[0]).await;
    assert!(after.in_memory().is_some());
}

/// The last piece of a blob may be the one that finds no room.
#[tokio::test]
async fn a_blob_moves_to_its_file_in_the_middle_and_gives_its_memory_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open_small(directory.path());
    let (big, blob) = (bytes(3 * INLINE, 1), bytes(INLINE, 2));
    let _others = stage(&store, "others", &big).await;
    let mut staged = stage(&store, "one", &blob.slice(..INLINE - 1)).await;
    assert!(staged.in_memory().is_some(), "exactly what is left");
    staged
        .append(blob.slice(INLINE - 1..))
        .await
        .expect("appended");
    assert!(staged.in_memory().is_none());
    staged.settle().await.expect("durable");
    let small = stage(&store, "small", &blob.slice(..INLINE - 1)).await;
    assert!(small.in_memory().is_some(), "the file needs no memory");
    drop(staged);

    drop(small);
    drop(store);
    let store = open_small(directory.path());
    let resumed = store.stage("one").await.expect("staged");
    assert_eq!(resumed.len_bytes(), INLINE as u64, "it survived a restart");
    let done = store.commit(resumed, &digest(&blob), ticket(1)).await;
    assert!(done.is_ok(), "committed");
    assert!(is_whole(&store, &blob).await);
}

/// Slow uploads would hold a full batch each.
#[tokio::test]
async fn batches_that_find_no_memory_are_small() {
    let directory = tempfile::tempdir().expect("a directory");
    let memory_bytes = 1 << 20;
    let options = BlobOptions {
        inline_limit_bytes: INLINE,
        inline_memory_bytes: memory_bytes,
        ..BlobOptions::default()
    };
    let store = DirectoryBlobs::open(directory.path(), options).expect("opens");
    let (count, blob) = (20, bytes(400_000, 1));
    let mut slow = Vec::new();
    for number in 0..count {
        slow.push(stage(&store, &format!("s{number}"), &blob.slice(..0)).await);
    }
    for at in (0..blob.len()).step_by(5000) {
        for staged in &mut slow {
            staged
                .append(blob.slice(at..at + 5000))
                .await
                .expect("appended");
        }
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let mut held_bytes = 0;
        for staged in &slow {
            let mut reader = staged.reader();
            let readable = reader.wait_beyond(0);
            let readable =
                tokio::time::timeout(std::time::Duration::from_millis(1), readable).await;
            held_bytes += staged.len_bytes() - readable.ok().flatten().unwrap_or(0);
        }
        if held_bytes <= memory_bytes + count * (70 << 10) {
            break;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{held_bytes} bytes are held"
        );
    }
    for staged in slow {
        let done = store.commit(staged, &digest(&blob), ticket(1)).await;
        assert!(done.is_ok(), "committed");
    }
    assert!(is_whole(&store, &blob).await);
}
