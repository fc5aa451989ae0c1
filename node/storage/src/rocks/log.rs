//! The Raft log in RocksDB.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rocksdb::{ColumnFamilyDescriptor, ReadOptions, WriteBatch, WriteOptions};

use super::hwm::{HighWater, Mark};
use super::owner::Owner;
use super::sync::LogSync;
use super::{Database, StorageOptions, family};
use crate::durable;
use crate::error::{REPLACE, StorageError};
use crate::failpoints;
use crate::log::{LogEnds, LogStore, Synced, VOTE};

const DATABASE: &str = "log";
pub(super) const HIGH_WATER: &str = "hwm";

/// Big-endian index to entry.
const ENTRIES: &str = "entries";
/// The keys below, the owner, and Raft's hard state behind a prefix.
pub(super) const STATE: &str = "state";
/// Big-endian index purged through, then the marker.
const PURGED: &[u8] = b"log.purged";
/// Big-endian count of durable votes, compared with the high-water mark.
const VOTES: &[u8] = b"log.votes";

/// Where the database of the log in `dir` is.
pub(super) fn log_path(dir: &Path) -> PathBuf {
    dir.join(DATABASE)
}

pub(super) fn log_families(options: &StorageOptions) -> Vec<ColumnFamilyDescriptor> {
    vec![
        ColumnFamilyDescriptor::new(ENTRIES, options.log_entries()),
        ColumnFamilyDescriptor::new(STATE, options.few_keys()),
        ColumnFamilyDescriptor::new("default", options.few_keys()),
    ]
}

fn hard_state_key(name: &str) -> Vec<u8> {
    [b"raft.", name.as_bytes()].concat()
}

/// A log on disk. Appends are written by their callers, one after the other, and synced by one thread.
pub struct RocksLog {
    /// Dropped first: it joins the thread that syncs the database.
    sync: LogSync,
    database: Arc<Database>,
    path: PathBuf,
    /// Held while the log changes, and while a request for it enters the queue: callbacks, entries and
    /// iterators agree on one order. The syncing thread never takes it.
    tail: Mutex<Tail>,
    owner: Owner,
    /// Held while a vote is written and queued, so that their count grows in the order of the queue.
    votes: Mutex<u64>,
}

/// Where the log ends, as the database has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    purged: Option<(u64, Bytes)>,
    /// Indexes of the entries. Empty at 0 for a log that never had any: it takes any first index.
    entries: Range<u64>,
}

impl RocksLog {
    /// Opens the log in `dir`, creating it in an empty directory.
    ///
    /// Refuses a log that has a hole, or that ends before its high-water mark: entries or a vote that this node
    /// once acknowledged are gone, and taking part in Raft again could break what was promised.
    pub fn open(dir: &Path, options: &StorageOptions) -> Result<RocksLog, StorageError> {
        let path = log_path(dir);
        durable::create_dir(&path)?;
        let families = log_families(options);
        let database = Arc::new(super::open(&path, &options.log_database(), families)?);
        let owner = Owner::load(dir, STATE)?;
        owner.check(&database)?;
        let tail = Tail::load(&database, &path)?;
        let votes = load_votes(&database, &path)?;
        let high_water = check_high_water(
            &dir.join(HIGH_WATER),
            Mark {
                end: tail.end(),
                votes,
            },
        )?;
        let sync = LogSync::start(Arc::clone(&database), high_water)?;
        Ok(RocksLog {
            sync,
            database,
            path,
            tail: Mutex::new(tail),
            owner,
            votes: Mutex::new(votes),
        })
    }

    /// How often the log was synced since it was opened. Grows slower than appends under load: they share.
    pub fn syncs(&self) -> u64 {
        self.sync.syncs()
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        // The tail changes only after its write succeeded, in one step: a panic elsewhere cannot tear it.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn corrupt(&self, what: &'static str) -> StorageError {
        StorageError::Corrupt {
            path: self.path.clone(),
            what,
        }
    }

    fn write_durably(&self, batch: WriteBatch, action: &'static str) -> Result<(), StorageError> {
        failpoints::hit("log_before_change").map_err(StorageError::database(action))?;
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.database
            .write_opt(batch, &options)
            .map_err(StorageError::database(action))
    }
}

impl LogStore for RocksLog {
    fn ends(&self) -> Result<LogEnds, StorageError> {
        let tail = self.tail();
        let last = match tail.entries.clone().next_back() {
            None => None,
            Some(index) => {
                let entry = self
                    .database
                    .get_cf(&family(&self.database, ENTRIES), index.to_be_bytes())
                    .map_err(StorageError::database("read the last log entry"))?
                    .ok_or_else(|| self.corrupt("the last entry is missing"))?;
                Some((index, Bytes::from(entry)))
            }
        };
        Ok(LogEnds {
            purged: tail.purged.clone(),
            last,
        })
    }

    fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<(u64, Bytes)>, StorageError> {
        let entries_family = family(&self.database, ENTRIES);
        let (existing, mut iterator) = {
            // An iterator sees the database as it is now: taken under the lock, it sees what the tail says.
            let tail = self.tail();
            let existing = range.start.max(tail.entries.start)..range.end.min(tail.entries.end);
            if existing.is_empty() {
                return Ok(Vec::new());
            }
            let mut options = ReadOptions::default();
            options.set_iterate_range(existing.start.to_be_bytes()..existing.end.to_be_bytes());
            (
                existing,
                self.database.raw_iterator_cf_opt(&entries_family, options),
            )
        };
        iterator.seek_to_first();
        let mut found = Vec::new();
        let mut found_bytes: usize = 0;
        for index in existing {
            let Some((key, value)) = iterator.item() else {
                iterator
                    .status()
                    .map_err(StorageError::database("read the log"))?;
                return Err(self.corrupt("entries are missing"));
            };
            if key != index.to_be_bytes() {
                return Err(self.corrupt("the log has a hole"));
            }
            found_bytes = found_bytes.saturating_add(value.len());
            if found_bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push((index, Bytes::copy_from_slice(value)));
            iterator.next();
        }
        Ok(found)
    }

    fn append(&self, entries: Vec<(u64, Bytes)>, synced: Synced) -> Result<(), StorageError> {
        let mut tail = self.tail();
        let appended = tail.accept(&entries)?;
        if let Some(appended) = appended {
            let entries_family = family(&self.database, ENTRIES);
            let mut batch = WriteBatch::default();
            for (index, entry) in &entries {
                batch.put_cf(&entries_family, index.to_be_bytes(), entry);
            }
            self.owner.sign(&self.database, &mut batch);
            failpoints::hit("raft_append_before_write")
                .and_then(|()| self.database.write(batch).map_err(std::io::Error::other))
                .map_err(StorageError::database("append to the log"))?;
            tail.entries = appended;
        }
        self.sync.append(tail.end(), synced)
    }

    fn truncate_from(&self, index: u64) -> Result<(), StorageError> {
        let mut tail = self.tail();
        let removed = index.max(tail.entries.start)..tail.entries.end;
        if removed.is_empty() {
            return Ok(());
        }
        // The mark goes first: a crash in between leaves a log that is longer than its mark, which is fine.
        // Under the tail's lock no append can slip in between and be removed.
        self.sync.lower(removed.start)?;
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(
            &family(&self.database, ENTRIES),
            removed.start.to_be_bytes(),
            removed.end.to_be_bytes(),
        );
        self.write_durably(batch, "truncate the log")?;
        tail.truncate(removed.start);
        Ok(())
    }

    fn purge_through(&self, index: u64, marker: Bytes) -> Result<(), StorageError> {
        let mut tail = self.tail();
        if tail
            .purged
            .as_ref()
            .is_some_and(|(purged, _)| *purged >= index)
        {
            return Ok(());
        }
        if !tail.entries.is_empty() && index + 1 < tail.entries.start {
            // It would leave a hole between what was purged and what is there.
            return Err(StorageError::NotNext {
                expected: tail.entries.start,
                found: index + 1,
            });
        }
        let entries_family = family(&self.database, ENTRIES);
        let mut batch = WriteBatch::default();
        batch.put_cf(
            &family(&self.database, STATE),
            PURGED,
            [&index.to_be_bytes(), marker.as_ref()].concat(),
        );
        batch.delete_range_cf(
            &entries_family,
            tail.entries.start.to_be_bytes(),
            (index + 1).to_be_bytes(),
        );
        // Durable before the files go: they must not be missing from a log that does not know it was purged.
        self.write_durably(batch, "purge the log")?;
        tail.purge(index, marker);
        failpoints::hit("purge_before_files").map_err(StorageError::database("purge the log"))?;
        self.database
            .delete_file_in_range_cf(&entries_family, 0_u64.to_be_bytes(), index.to_be_bytes())
            .map_err(StorageError::database("remove purged files of the log"))
    }

    fn hard_state(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        let value = self
            .database
            .get_cf(&family(&self.database, STATE), hard_state_key(name))
            .map_err(StorageError::database("read the hard state"))?;
        Ok(value.map(Bytes::from))
    }

    fn sync_age(&self) -> Duration {
        self.sync.age()
    }

    fn set_hard_state(&self, name: &str, value: Bytes, sync: bool) -> Result<(), StorageError> {
        let state = family(&self.database, STATE);
        let mut batch = WriteBatch::default();
        batch.put_cf(&state, hard_state_key(name), &value);
        self.owner.sign(&self.database, &mut batch);
        let write = |batch| {
            self.database
                .write(batch)
                .map_err(StorageError::database("write the hard state"))
        };
        if !sync {
            return write(batch);
        }
        if name != VOTE {
            write(batch)?;
            return self.sync.hard_state(None)?();
        }
        let durable = {
            let mut votes = self.votes.lock().unwrap_or_else(PoisonError::into_inner);
            batch.put_cf(&state, VOTES, (*votes + 1).to_be_bytes());
            write(batch)?;
            *votes += 1;
            self.sync.hard_state(Some(*votes))?
        };
        durable()
    }
}

impl Tail {
    /// Reads every entry once: a hole must be found now, not when Raft needs what is missing.
    pub(super) fn load(database: &Database, path: &Path) -> Result<Tail, StorageError> {
        let corrupt = |what| StorageError::Corrupt {
            path: path.to_path_buf(),
            what,
        };
        let purged = database
            .get_cf(&family(database, STATE), PURGED)
            .map_err(StorageError::database("read where the log was purged"))?;
        let purged = match purged {
            None => None,
            Some(mut bytes) if bytes.len() >= 8 => {
                let marker = bytes.split_off(8);
                let index =
                    parse_number(&bytes).ok_or_else(|| corrupt("the purge marker is malformed"))?;
                Some((index, Bytes::from(marker)))
            }
            Some(_) => return Err(corrupt("the purge marker is malformed")),
        };
        let start = purged.as_ref().map_or(0, |(index, _)| index + 1);
        let mut options = ReadOptions::default();
        options.set_iterate_range(start.to_be_bytes().to_vec()..);
        options.fill_cache(false);
        options.set_readahead_size(1 << 20);
        let mut entries = start..start;
        let mut iterator = database.raw_iterator_cf_opt(&family(database, ENTRIES), options);
        iterator.seek_to_first();
        while let Some(key) = iterator.key() {
            let index = parse_number(key).ok_or_else(|| corrupt("a key is not an index"))?;
            if entries.is_empty() && purged.is_none() {
                entries = index..index;
            }
            if index != entries.end {
                return Err(corrupt("the log has a hole"));
            }
            entries.end += 1;
            iterator.next();
        }
        iterator
            .status()
            .map_err(StorageError::database("read the log"))?;
        Ok(Tail { purged, entries })
    }

    /// The index after the last entry, purged ones included.
    pub(super) fn end(&self) -> u64 {
        self.entries.end
    }

    pub(super) fn purged_through(&self) -> Option<u64> {
        self.purged.as_ref().map(|(index, _)| *index)
    }

    /// The range of entries once `new` is appended; `None` when there is nothing to append.
    fn accept(&self, new: &[(u64, Bytes)]) -> Result<Option<Range<u64>>, StorageError> {
        let Some((first, _)) = new.first() else {
            return Ok(None);
        };
        let may_start_anywhere = self.purged.is_none() && self.entries.is_empty();
        let mut entries = if may_start_anywhere {
            *first..*first
        } else {
            self.entries.clone()
        };
        for (index, _) in new {
            if *index != entries.end {
                return Err(StorageError::NotNext {
                    expected: entries.end,
                    found: *index,
                });
            }
            entries.end += 1;
        }
        Ok(Some(entries))
    }

    fn truncate(&mut self, index: u64) {
        self.entries.end = index;
        if self.entries.is_empty() && self.purged.is_none() {
            self.entries = 0..0;
        }
    }

    fn purge(&mut self, index: u64, marker: Bytes) {
        self.entries = index + 1..self.entries.end.max(index + 1);
        self.purged = Some((index, marker));
    }
}

pub(super) fn load_votes(database: &Database, path: &Path) -> Result<u64, StorageError> {
    let votes = database
        .get_cf(&family(database, STATE), VOTES)
        .map_err(StorageError::database("read the number of votes"))?;
    let Some(votes) = votes else { return Ok(0) };
    parse_number(&votes).ok_or_else(|| StorageError::Corrupt {
        path: path.to_path_buf(),
        what: "the number of votes is malformed",
    })
}

/// Opens the mark and compares what the log has with it.
fn check_high_water(path: &Path, found: Mark) -> Result<HighWater, StorageError> {
    let high_water = HighWater::load(path)?;
    compare_with_mark(path, found, high_water.as_ref().map(HighWater::mark))?;
    high_water.map_or_else(|| HighWater::create(path), Ok)
}

/// Refuses a log that is behind its mark, or that lost it.
pub(super) fn compare_with_mark(
    path: &Path,
    found: Mark,
    mark: Option<Mark>,
) -> Result<(), StorageError> {
    let log = path.with_file_name(DATABASE);
    let log = log.display();
    let why = match mark {
        None if found == Mark::default() => return Ok(()),
        None => format!(
            "it is missing, but the log {log} has entries before {} and {} votes; {REPLACE}",
            found.end, found.votes
        ),
        Some(mark) if found.end < mark.end || found.votes < mark.votes => format!(
            "the log {log} was rolled back: it ends before entry {} with {} votes, and had reached entry {} with {} \
             votes; {REPLACE}",
            found.end, found.votes, mark.end, mark.votes
        ),
        Some(_) => return Ok(()),
    };
    Err(StorageError::Refused {
        path: path.to_path_buf(),
        why,
    })
}

fn parse_number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests;
