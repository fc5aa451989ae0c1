//! Pages of lists as they go to clients, kept while nobody changes the list.
//!
//! A page is kept with the revision of the list it was made from, and given out only to a reader whose own view of
//! the state shows the same revision. So nothing has to be dropped when a name comes or goes, and no node gives out
//! a name that its state no longer has (invariant I11).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use metadata::ids::RepositoryId;
use metadata::query::ListRevision;

/// A page of a list, in the JSON of the specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage {
    /// The JSON.
    pub body: Bytes,
    /// The last entry, when there are more after it.
    pub last: Option<String>,
}

/// Which part of a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Part {
    /// Entries after this one.
    pub(crate) after: Option<String>,
    /// At most so many entries.
    pub(crate) limit: usize,
}

/// The list, as its revision names it, and the part of it.
type Key = (Option<RepositoryId>, Part);

/// Pages used last, within a number of bytes.
pub(crate) struct Pages {
    max_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    pages: HashMap<Arc<Key>, Entry>,
    /// Who was used when, oldest first.
    uses: BTreeMap<u64, Arc<Key>>,
    clock: u64,
    bytes: usize,
}

struct Entry {
    revision: ListRevision,
    page: ListPage,
    used: u64,
    bytes: usize,
}

/// What an entry takes beside its texts: both maps, the allocations.
const ENTRY_BYTES: usize = 512;

impl Pages {
    /// Keeps at most `max_bytes`; none at all with 0.
    pub(crate) fn new(max_bytes: usize) -> Pages {
        Pages {
            max_bytes,
            kept: Mutex::default(),
        }
    }

    /// The page, if it was made from the list at `revision`.
    pub(crate) fn get(&self, revision: &ListRevision, part: &Part) -> Option<ListPage> {
        self.with_kept(|kept| {
            let key = (revision.repository, part.clone());
            let entry = kept.pages.get_mut(&key)?;
            if entry.revision != *revision {
                return None;
            }
            kept.clock += 1;
            if let Some(key) = kept.uses.remove(&entry.used) {
                kept.uses.insert(kept.clock, key);
            }
            entry.used = kept.clock;
            Some(entry.page.clone())
        })
    }

    /// Keeps a page made from the list at `revision`.
    pub(crate) fn put(&self, revision: ListRevision, part: Part, page: ListPage) {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let bytes = ENTRY_BYTES + page.body.len() + length(&page.last) + length(&part.after);
        if bytes > self.max_bytes {
            return;
        }
        let key = Arc::new((revision.repository, part));
        self.with_kept(|kept| {
            kept.remove(&key);
            kept.clock += 1;
            kept.bytes += bytes;
            kept.uses.insert(kept.clock, key.clone());
            let entry = Entry {
                revision,
                page,
                used: kept.clock,
                bytes,
            };
            kept.pages.insert(key, entry);
            while kept.bytes > self.max_bytes {
                let Some(oldest) = kept.uses.values().next().cloned() else {
                    break;
                };
                kept.remove(&oldest);
            }
        });
    }

    fn with_kept<T>(&self, body: impl FnOnce(&mut Kept) -> T) -> T {
        body(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Kept {
    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.pages.remove(key) {
            self.uses.remove(&entry.used);
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use metadata::ids::LogIndex;

    use super::*;

    fn list(repository: u64, changed_at: u64) -> ListRevision {
        ListRevision {
            repository: Some(RepositoryId(repository)),
            changed_at: LogIndex(changed_at),
        }
    }

    fn part(after: &str) -> Part {
        Part {
            after: Some(after.to_owned()),
            limit: 10,
        }
    }

    fn page(text: &str) -> ListPage {
        ListPage {
            body: Bytes::copy_from_slice(text.as_bytes()),
            last: None,
        }
    }

    #[test]
    fn a_page_is_given_out_at_its_own_revision_only() {
        let pages = Pages::new(1 << 20);
        pages.put(list(1, 5), part("a"), page("five"));
        assert_eq!(pages.get(&list(1, 5), &part("a")), Some(page("five")));
        // A reader that is ahead, one that is behind, another list, another part.
        assert_eq!(pages.get(&list(1, 6), &part("a")), None);
        assert_eq!(pages.get(&list(1, 4), &part("a")), None);
        assert_eq!(pages.get(&list(2, 5), &part("a")), None);
        assert_eq!(pages.get(&list(1, 5), &part("b")), None);
        pages.put(list(1, 6), part("a"), page("six"));
        assert_eq!(pages.get(&list(1, 5), &part("a")), None);
        assert_eq!(pages.get(&list(1, 6), &part("a")), Some(page("six")));
    }

    #[test]
    fn the_page_used_longest_ago_makes_room() {
        let one = ENTRY_BYTES + 1 + 3;
        let pages = Pages::new(2 * one);
        for after in ["a", "b"] {
            pages.put(list(1, 1), part(after), page("txt"));
        }
        assert!(pages.get(&list(1, 1), &part("a")).is_some());
        pages.put(list(1, 1), part("c"), page("txt"));
        let there = ["a", "b", "c"].map(|after| pages.get(&list(1, 1), &part(after)).is_some());
        assert_eq!(there, [true, false, true]);
        // Replaced in place, the bytes are counted once.
        for changed_at in 2..10 {
            pages.put(list(1, changed_at), part("a"), page("new"));
        }
        assert!(pages.get(&list(1, 1), &part("c")).is_some());
        pages.with_kept(|kept| {
            assert_eq!(kept.bytes, 2 * one);
            assert_eq!((kept.pages.len(), kept.uses.len()), (2, 2));
        });
    }

    #[test]
    fn what_is_larger_than_all_room_is_not_kept() {
        for max_bytes in [0, ENTRY_BYTES + 3] {
            let pages = Pages::new(max_bytes);
            pages.put(list(1, 1), part("a"), page("txt"));
            assert_eq!(pages.get(&list(1, 1), &part("a")), None);
            pages.with_kept(|kept| assert_eq!((kept.bytes, kept.pages.len()), (0, 0)));
        }
    }
}
