//! Looking after copies: trash, adoption, verification, quarantine, comparison.

use std::time::{Duration, SystemTime};

use futures::FutureExt;
use metadata::command::TicketKind;
use oci::Digest;

use super::{Cluster, bytes, digest, put, read_all, ticket};
use crate::blob::{
    BlobHealth, BlobStat, BlobStore, Comparison, Quarantined, ScrubProgress, TrashUsage, Unlink,
    Verified,
};

/// Verifies without waiting in between.
pub(crate) async fn verify(store: &dyn BlobStore, digest: &Digest) -> Verified {
    let pace = |_| std::future::ready(()).boxed();
    store.verify(digest, &pace).await.expect("read")
}

/// Commits a blob that nobody wants and unlinks it.
pub(crate) async fn unlinked(store: &dyn BlobStore, size: usize, seed: u64) -> BlobStat {
    let cluster = Cluster::new();
    let opened = cluster.open(TicketKind::Upload);
    let stat = put(store, &bytes(size, seed), opened).await;
    cluster.close(opened);
    let unlink = store.unlink_if_unneeded(&stat.digest, &cluster.log).await;
    assert_eq!(unlink.expect("decided"), Unlink::Removed);
    stat
}

pub(super) async fn an_unlinked_blob_can_be_adopted_again(store: &dyn BlobStore) {
    let blob = bytes(700_000, 11);
    assert_eq!(
        store.adopt(&digest(&blob), ticket(1)).await.expect("asked"),
        None
    );
    let stat = unlinked(store, blob.len(), 11).await;
    let trash = store.trash_usage().await.expect("counted");
    assert_eq!((trash.files, trash.bytes), (1, stat.size_bytes));

    let cluster = Cluster::new();
    let opened = cluster.open(TicketKind::Repair);
    for _ in 0..2 {
        let adopted = store.adopt(&stat.digest, opened).await.expect("read");
        assert_eq!(adopted, Some(stat), "and again: it is only pinned");
    }
    assert_eq!(
        store.trash_usage().await.expect("counted"),
        TrashUsage::default()
    );
    let reader = store
        .open(&stat.digest)
        .await
        .expect("opens")
        .expect("is there");
    assert!(read_all(&reader).await == blob);
    let unlink = || store.unlink_if_unneeded(&stat.digest, &cluster.log);
    assert_eq!(
        unlink().await.expect("decided"),
        Unlink::Needed,
        "the ticket protects it"
    );
    cluster.close(opened);
    assert_eq!(unlink().await.expect("decided"), Unlink::Removed);
}

pub(super) async fn trash_is_emptied_when_it_is_old(store: &dyn BlobStore) {
    for seed in 21..24 {
        unlinked(store, 300_000, seed).await;
    }
    let now = SystemTime::now();
    assert_eq!(
        store.empty_trash(now, 10).await.expect("emptied"),
        TrashUsage::default()
    );
    let later = now + Duration::from_secs(25 * 3600);
    for (limit, files) in [(2, 2), (2, 1), (2, 0)] {
        let gone = store.empty_trash(later, limit).await.expect("emptied");
        assert_eq!((gone.files, gone.bytes), (files, files * 300_000));
    }
    assert_eq!(
        store.trash_usage().await.expect("counted"),
        TrashUsage::default()
    );
    let gone = digest(&bytes(300_000, 21));
    assert_eq!(store.adopt(&gone, ticket(1)).await.expect("asked"), None);
}

pub(super) async fn sound_blobs_stay(store: &dyn BlobStore) {
    for size in [0, 100, 700_000, 5_000_000] {
        let stat = put(store, &bytes(size, 31), ticket(1)).await;
        assert_eq!(verify(store, &stat.digest).await, Verified::Sound(stat));
        let quarantined = store.quarantine(&stat.digest).await.expect("verified");
        assert_eq!(quarantined, Quarantined::Sound);
        assert_eq!(store.stat(&stat.digest).await.expect("stat"), Some(stat));
    }
    let unknown = digest(b"unknown");
    assert_eq!(verify(store, &unknown).await, Verified::Absent);
    assert_eq!(
        store.quarantine(&unknown).await.expect("asked"),
        Quarantined::Absent
    );
    assert!(!store.discard_orphan(&unknown).await.expect("asked"));
    assert_eq!(store.health().await.expect("asked"), BlobHealth::Healthy);
    let walk = store.walk(None, 100).await.expect("walked");
    assert_eq!((walk.orphans.len(), walk.removed_files), (0, 0));
    assert_eq!(walk.next, None);
}

pub(super) async fn what_is_here_is_compared_with_what_should_be(store: &dyn BlobStore) {
    let mut stats = Vec::new();
    for seed in 41..47 {
        let size = if seed % 2 == 0 { 100 } else { 700_000 };
        stats.push(put(store, &bytes(size, seed), ticket(1)).await);
    }
    stats.sort_by_key(|stat| stat.digest);
    let compare = |expected: Vec<BlobStat>, after: Option<Digest>, through: Option<Digest>| async move {
        let compared = store
            .compare(after.as_ref(), through.as_ref(), &expected, 10)
            .await;
        compared.expect("compared")
    };
    assert_eq!(
        compare(stats.clone(), None, None).await,
        Comparison::default()
    );
    let (first, last) = (stats[0], stats[5]);
    let mut expected = stats[1..].to_vec();
    let missing = digest(b"missing");
    let at = expected.partition_point(|stat| stat.digest < missing);
    expected.insert(
        at,
        BlobStat {
            digest: missing,
            size_bytes: 7,
        },
    );
    let wrong = expected.iter_mut().find(|stat| stat.digest == last.digest);
    wrong.expect("it is there").size_bytes += 1;
    let comparison = compare(expected, None, None).await;
    assert_eq!(comparison.missing, [missing]);
    assert_eq!(comparison.wrong_size, [last.digest]);
    assert_eq!(comparison.extra, [first]);
    // A range has nothing to do with what is outside of it.
    let within = compare(
        stats[2..4].to_vec(),
        Some(stats[1].digest),
        Some(stats[3].digest),
    )
    .await;
    assert_eq!(within, Comparison::default());
    let extra = compare(Vec::new(), Some(stats[1].digest), Some(stats[3].digest)).await;
    assert_eq!(extra.extra, stats[2..4]);
}

pub(super) async fn a_scrub_remembers_how_far_it_got(store: &dyn BlobStore) {
    assert_eq!(store.scrub_progress().await.expect("read"), None);
    for pass in 1..3 {
        let progress = ScrubProgress {
            pass,
            after: Some(digest(b"so far")),
            ..ScrubProgress::default()
        };
        store.save_scrub_progress(&progress).await.expect("written");
        assert_eq!(store.scrub_progress().await.expect("read"), Some(progress));
    }
}
