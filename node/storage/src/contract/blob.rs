//! What every blob store must do. Each case runs on disk and in memory.

mod fixture;
mod reading;
mod staging;
mod tending;
mod unlinking;

pub(crate) use fixture::{
    Cluster, HERE, THERE, bytes, digest, on_disk, put, read_all, stage, ticket,
};
pub(crate) use tending::{unlinked, verify};
pub(crate) use unlinking::LaggingLog;

use crate::blob::{BlobStore, CHUNK_BYTES, DirectoryBlobs, MemoryBlobs};

/// Instantiates every case for one way of making a store; `$make` gives the store and what must outlive it.
macro_rules! contract {
    ($name:ident, $make:expr, $($module:ident :: $case:ident),+ $(,)?) => {
        mod $name {
            $(
                #[tokio::test]
                async fn $case() {
                    let (store, _outlives) = $make;
                    super::$module::$case(&store).await;
                }
            )+
        }
    };
}

macro_rules! contracts {
    ($($case:tt)+) => {
        contract!(on_disk, super::fixture::on_disk(), $($case)+);
        contract!(in_memory, (crate::blob::MemoryBlobs::new(), ()), $($case)+);
    };
}

contracts!(
    staging::blobs_of_every_size_come_back,
    staging::the_way_bytes_arrive_does_not_matter,
    staging::a_wrong_digest_gives_the_staged_blob_back,
    staging::the_digest_decides_the_algorithm,
    staging::an_algorithm_can_be_chosen_before_the_first_byte,
    staging::a_commit_can_be_repeated,
    staging::the_same_blob_is_committed_by_many_at_once,
    staging::many_small_blobs_at_once,
    staging::a_discarded_blob_is_gone,
    staging::settling_and_going_on,
    staging::an_append_may_be_dropped,
    reading::followers_see_bytes_as_they_arrive,
    reading::followers_stay_valid_after_the_commit,
    reading::followers_of_a_discarded_blob_are_told,
    reading::ranges_are_cut_where_promised,
    reading::good_chunks_verify,
    reading::what_is_not_there,
    reading::lists_are_ordered_and_paged,
    reading::there_is_space,
    unlinking::an_open_ticket_protects,
    unlinking::a_counted_copy_is_kept,
    unlinking::a_ticket_newer_than_the_view_protects,
    unlinking::every_pin_counts_not_only_the_last,
    unlinking::pinning_again_protects,
    unlinking::a_blob_comes_back_after_it_was_unlinked,
    unlinking::readers_outlive_the_blob,
    tending::an_unlinked_blob_can_be_adopted_again,
    tending::trash_is_emptied_when_it_is_old,
    tending::sound_blobs_stay,
    tending::what_is_here_is_compared_with_what_should_be,
    tending::a_scrub_remembers_how_far_it_got,
);

/// Both kinds of store are used by others through this.
#[test]
fn both_are_blob_stores() {
    fn takes<B: BlobStore + Clone>() {}
    takes::<DirectoryBlobs>();
    takes::<MemoryBlobs>();
    assert_eq!(
        CHUNK_BYTES, 262_144,
        "part of the disk format and of the wire"
    );
}
