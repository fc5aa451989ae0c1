use std::collections::BTreeMap;
use std::ops::ControlFlow;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Changes, Overlay};
use crate::ids::LogIndex;
use crate::memory::MemoryView;
use crate::view::MetadataView;

/// Few bytes, so that keys collide and are prefixes of each other.
fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0_u8), Just(1), Just(0xff)], 0..4)
}

fn pairs(
    view: &dyn MetadataView,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    view.scan(prefix, after, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        if found.len() < limit {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })
    .unwrap();
    found
}

proptest! {
    /// An overlay reads as the map that results when its changes are committed.
    #[test]
    fn an_overlay_reads_like_the_committed_map(
        stored in vec((key(), any::<u8>()), 0..12),
        changes in vec((key(), proptest::option::of(any::<u8>())), 0..12),
        prefix in key(),
        after in proptest::option::of(key()),
        limit in 1_usize..6,
    ) {
        let mut base = MemoryView::new();
        let pairs_of = |(key, value): (Vec<u8>, u8)| (key, Some(vec![value]));
        base.commit(stored.into_iter().map(pairs_of).collect(), LogIndex(7));

        let mut overlay = Overlay::new(&base);
        for (key, value) in &changes {
            match value {
                Some(value) => overlay.put(key.clone(), vec![*value]),
                None => overlay.delete(key.clone()),
            }
        }
        let mut committed = base.clone();
        let last: Changes =
            changes.iter().map(|(key, value)| (key.clone(), value.map(|value| vec![value]))).collect();
        committed.commit(last, LogIndex(8));

        let after = after.as_deref();
        for limit in [limit, usize::MAX] {
            prop_assert_eq!(
                pairs(&overlay, &prefix, after, limit),
                pairs(&committed, &prefix, after, limit)
            );
        }
        prop_assert_eq!(overlay.get(&prefix).unwrap(), committed.get(&prefix).unwrap());
    }

    /// The map in memory scans as its contract says, compared with a filter over all pairs.
    #[test]
    fn a_scan_is_a_filter(
        stored in vec((key(), any::<u8>()), 0..12),
        prefix in key(),
        after in proptest::option::of(key()),
    ) {
        let stored: BTreeMap<Vec<u8>, Vec<u8>> =
            stored.into_iter().map(|(key, value)| (key, vec![value])).collect();
        let mut view = MemoryView::new();
        view.commit(stored.iter().map(|(k, v)| (k.clone(), Some(v.clone()))).collect(), LogIndex(1));
        let wanted: Vec<_> = stored
            .into_iter()
            .filter(|(key, _)| key.starts_with(&prefix))
            .filter(|(key, _)| after.as_ref().is_none_or(|after| key > after))
            .collect();
        prop_assert_eq!(pairs(&view, &prefix, after.as_deref(), usize::MAX), wanted);
    }
}

#[test]
fn a_change_can_be_changed_again() {
    let base = MemoryView::new();
    let mut overlay = Overlay::new(&base);
    overlay.put(vec![1], vec![1]);
    overlay.delete(vec![1]);
    assert_eq!(overlay.get(&[1]).unwrap(), None);
    overlay.put(vec![1], vec![2]);
    assert_eq!(overlay.get(&[1]).unwrap(), Some(vec![2]));
    assert_eq!(
        overlay.into_changes(),
        Changes::from([(vec![1], Some(vec![2]))])
    );
}
