//! The high-water mark of the log, in a file of its own.
//!
//! A write-ahead log that lost its tail, or a directory restored from an old copy, opens without complaint
//! (protocols.md 10.3). A node that then votes or acknowledges again can break what it promised before, so the
//! log remembers here how far it got; it may be ahead of this mark, never behind it.
//!
//! Two slots, in sectors of their own, are written in turn: a torn write leaves the other one.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::durable;
use crate::error::StorageError;
use crate::failpoints;

const MAGIC: &[u8; 8] = b"argosyhw";
const SLOT_BYTES: usize = 36;
const SECTOR_BYTES: usize = 4096;
const SLOTS: u64 = 2;
const FILE_BYTES: usize = 2 * SECTOR_BYTES;

/// How far the log got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The index after the last durable entry.
    pub(crate) end: u64,
    /// How many votes were made durable. Counting spares this floor from comparing votes, which are opaque here.
    pub(crate) votes: u64,
}

/// The open file.
pub(crate) struct HighWater {
    file: File,
    path: PathBuf,
    mark: Mark,
    /// Of the slot written last; the next write goes to the other one.
    generation: u64,
}

impl HighWater {
    /// Reads the mark, or returns `None` when there is no file.
    pub(crate) fn peek(path: &Path) -> Result<Option<Mark>, StorageError> {
        Ok(newest(path)?.map(|(_, mark)| mark))
    }

    /// Opens the file, or returns `None` when there is none.
    pub(crate) fn load(path: &Path) -> Result<Option<HighWater>, StorageError> {
        let Some((generation, mark)) = newest(path)? else {
            return Ok(None);
        };
        let file = OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(StorageError::io("open", path))?;
        Ok(Some(HighWater {
            file,
            path: path.to_path_buf(),
            mark,
            generation,
        }))
    }

    /// Creates the file of a new log.
    pub(crate) fn create(path: &Path) -> Result<HighWater, StorageError> {
        let mut bytes = vec![0; FILE_BYTES];
        bytes[..SLOT_BYTES].copy_from_slice(&encode(0, Mark::default()));
        durable::write_file(path, &bytes)?;
        let file = OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(StorageError::io("open", path))?;
        Ok(HighWater {
            file,
            path: path.to_path_buf(),
            mark: Mark::default(),
            generation: 0,
        })
    }

    /// The mark written last.
    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    /// Replaces the mark, durably.
    pub(crate) fn write(&mut self, mark: Mark) -> Result<(), StorageError> {
        let generation = self.generation + 1;
        let offset = (generation % SLOTS) * SECTOR_BYTES as u64;
        failpoints::hit("hwm_before_write")
            .and_then(|()| self.file.write_all_at(&encode(generation, mark), offset))
            .map_err(StorageError::io("write", &self.path))?;
        failpoints::hit("hwm_before_sync")
            .and_then(|()| self.file.sync_data())
            .map_err(StorageError::io("sync", &self.path))?;
        self.generation = generation;
        self.mark = mark;
        Ok(())
    }
}

/// The slot written last, with its generation; `None` when there is no file.
fn newest(path: &Path) -> Result<Option<(u64, Mark)>, StorageError> {
    let Some(bytes) = durable::read_file(path)? else {
        return Ok(None);
    };
    let newest = (0..SLOTS)
        .filter_map(|slot| decode(&bytes, slot))
        .max_by_key(|(generation, _)| *generation);
    newest.map(Some).ok_or_else(|| StorageError::Corrupt {
        path: path.to_path_buf(),
        what: "neither slot is intact; replace this node",
    })
}

fn encode(generation: u64, mark: Mark) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(MAGIC);
    slot[8..16].copy_from_slice(&generation.to_be_bytes());
    slot[16..24].copy_from_slice(&mark.end.to_be_bytes());
    slot[24..32].copy_from_slice(&mark.votes.to_be_bytes());
    let checksum = crc32c::crc32c(&slot[..32]);
    slot[32..].copy_from_slice(&checksum.to_be_bytes());
    slot
}

fn decode(file: &[u8], slot: u64) -> Option<(u64, Mark)> {
    let start = usize::try_from(slot).ok()? * SECTOR_BYTES;
    let slot: &[u8; SLOT_BYTES] = file.get(start..start + SLOT_BYTES)?.try_into().ok()?;
    let number = |at: usize| -> Option<u64> {
        Some(u64::from_be_bytes(slot.get(at..at + 8)?.try_into().ok()?))
    };
    let intact = slot.starts_with(MAGIC) && slot[32..] == crc32c::crc32c(&slot[..32]).to_be_bytes();
    intact.then_some(())?;
    Some((
        number(8)?,
        Mark {
            end: number(16)?,
            votes: number(24)?,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl HighWater {
        /// A mark on a full disk.
        pub(in crate::rocks) fn failing() -> HighWater {
            let path = PathBuf::from("/dev/full");
            let file = OpenOptions::new()
                .write(true)
                .open(&path)
                .expect("the device exists");
            HighWater {
                file,
                path,
                mark: Mark::default(),
                generation: 0,
            }
        }
    }

    fn mark(end: u64, votes: u64) -> Mark {
        Mark { end, votes }
    }

    fn reload(path: &Path) -> Mark {
        HighWater::load(path)
            .expect("intact")
            .expect("there")
            .mark()
    }

    #[test]
    fn the_last_mark_written_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("hwm");
        assert!(HighWater::load(&path).expect("readable").is_none());
        let mut file = HighWater::create(&path).expect("created");
        assert_eq!(reload(&path), Mark::default());
        for n in 1..6 {
            file.write(mark(10 * n, n)).expect("written");
            assert_eq!(reload(&path), mark(10 * n, n));
        }
        let mut file = HighWater::load(&path).expect("intact").expect("there");
        file.write(mark(7, 9)).expect("written");
        assert_eq!(reload(&path), mark(7, 9));
    }

    #[test]
    fn a_torn_slot_leaves_the_one_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("hwm");
        let mut file = HighWater::create(&path).expect("created");
        file.write(mark(1, 1)).expect("written");
        file.write(mark(2, 2)).expect("written");
        let mut bytes = std::fs::read(&path).expect("readable");
        bytes[20] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        assert_eq!(reload(&path), mark(1, 1));
        bytes[SECTOR_BYTES + 20] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        assert!(matches!(
            HighWater::load(&path),
            Err(StorageError::Corrupt { .. })
        ));
    }
}
