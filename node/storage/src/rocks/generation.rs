//! Generations of the state: each is a database in a directory of its own, and one small file names the current one.
//!
//! Installing a snapshot builds the next generation beside the current one and swaps by replacing that file, so a
//! crash at any point leaves either the old or the new state, whole (protocols.md 10.5).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use metadata::ids::LogIndex;
use rocksdb::{Cache, ColumnFamilyDescriptor};

use super::{CURRENT, Database, StorageOptions, family};
use crate::durable;
use crate::error::{REPLACE, StorageError};
use crate::failpoints;
use crate::state::Applied;

/// The key space.
pub(super) const KEYS: &str = "keys";
/// What was applied, under one key.
pub(super) const META: &str = "meta";
pub(super) const APPLIED: &[u8] = b"applied";
/// Through which index this generation came from another node; absent when it did not. Eight bytes, big-endian.
pub(super) const TAKEN_OVER: &[u8] = b"taken over";

pub(super) const POINTER: &str = "current";
const GENERATION_PREFIX: &str = "generation-";
const CHECKPOINT_PREFIX: &str = "checkpoint-";

/// An open generation. Closed when the last reader lets go of it; then its files go too if it is obsolete.
pub(super) struct Generation {
    pub(super) number: u64,
    /// `None` only while dropping.
    database: Option<Database>,
    path: PathBuf,
    obsolete: AtomicBool,
}

impl Generation {
    /// Opens the generation `number` in `dir`, creating it when `create`.
    pub(super) fn open(
        dir: &Path,
        number: u64,
        create: bool,
        options: &StorageOptions,
        cache: &Cache,
    ) -> Result<Generation, StorageError> {
        let path = generation_path(dir, number);
        if create {
            durable::create_dir(&path)?;
        } else if !path.join(CURRENT).is_file() {
            let path = path.join(CURRENT);
            let why = format!("it is missing, and with it the state that was here; {REPLACE}");
            return Err(StorageError::Refused { path, why });
        }
        let database = super::open(&path, &options.state_database(), families(options, cache))?;
        Ok(Generation {
            number,
            database: Some(database),
            path,
            obsolete: AtomicBool::new(false),
        })
    }

    pub(super) fn database(&self) -> &Database {
        self.database
            .as_ref()
            .expect("the database is only taken out while dropping")
    }

    /// Says whether the files are removed once nobody uses the generation.
    pub(super) fn set_obsolete(&self, obsolete: bool) {
        self.obsolete.store(obsolete, Ordering::Release);
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.database = None;
        if self.obsolete.load(Ordering::Acquire)
            && let Err(error) = durable::remove_dir_all(&self.path)
        {
            // It is removed at the next start.
            tracing::warn!(error = %error, "an obsolete state was not removed");
        }
    }
}

/// The column families of every generation and checkpoint.
pub(super) fn families(options: &StorageOptions, cache: &Cache) -> Vec<ColumnFamilyDescriptor> {
    vec![
        ColumnFamilyDescriptor::new(KEYS, options.state_keys(cache)),
        ColumnFamilyDescriptor::new(META, options.few_keys()),
        ColumnFamilyDescriptor::new("default", options.few_keys()),
    ]
}

/// What the pointer file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pointer {
    pub(super) number: u64,
    /// The generation may not exist yet: the first start was interrupted.
    pub(super) creating: bool,
}

impl Pointer {
    /// Reads the pointer file; `None` when there is none.
    pub(super) fn load(dir: &Path) -> Result<Option<Pointer>, StorageError> {
        let path = dir.join(POINTER);
        let Some(bytes) = durable::read_file(&path)? else {
            return Ok(None);
        };
        let corrupt = StorageError::Corrupt {
            path,
            what: "it does not name a generation; replace this node",
        };
        Pointer::decode(&bytes).map(Some).ok_or(corrupt)
    }

    /// Reads the pointer file, or starts the first generation of a new directory.
    pub(super) fn load_or_start(dir: &Path) -> Result<Pointer, StorageError> {
        if let Some(pointer) = Pointer::load(dir)? {
            return Ok(pointer);
        }
        let path = dir.join(POINTER);
        if names(dir)?
            .iter()
            .any(|name| name.starts_with(GENERATION_PREFIX))
        {
            let why = "it is missing, but there is a state; replace this node".to_owned();
            return Err(StorageError::Refused { path, why });
        }
        let first = Pointer {
            number: 1,
            creating: true,
        };
        first.save(dir)?;
        Ok(first)
    }

    /// Writes the pointer file, durably. This is the instant of a swap.
    pub(super) fn save(self, dir: &Path) -> Result<(), StorageError> {
        failpoints::hit("snapshot_install_before_swap")
            .map_err(StorageError::io("write", &dir.join(POINTER)))?;
        durable::write_file(&dir.join(POINTER), self.encode().as_bytes())
    }

    fn encode(self) -> String {
        let text = format!(
            "{} {}",
            self.number,
            if self.creating { "creating" } else { "whole" }
        );
        format!("{text} {:08x}\n", crc32c::crc32c(text.as_bytes()))
    }

    fn decode(bytes: &[u8]) -> Option<Pointer> {
        let mut words = std::str::from_utf8(bytes).ok()?.split(' ');
        let pointer = Pointer {
            number: words.next()?.parse().ok()?,
            creating: words.next()? == "creating",
        };
        (pointer.encode().as_bytes() == bytes).then_some(pointer)
    }
}

/// Removes what interrupted installs and exports left behind.
pub(super) fn remove_leftovers(dir: &Path, current: u64) -> Result<(), StorageError> {
    let keep = generation_name(current);
    for name in names(dir)? {
        let is_ours = name.starts_with(GENERATION_PREFIX) || name.starts_with(CHECKPOINT_PREFIX);
        if is_ours && name != keep {
            tracing::info!(
                name = name.as_str(),
                "removing what an interrupted install or export left"
            );
            durable::remove_dir_all(&dir.join(name))?;
        } else if name.ends_with(durable::PARTIAL_SUFFIX) {
            durable::remove_file(&dir.join(name))?;
        }
    }
    Ok(())
}

pub(super) fn checkpoint_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{CHECKPOINT_PREFIX}{number}"))
}

pub(super) fn generation_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(generation_name(number))
}

fn generation_name(number: u64) -> String {
    format!("{GENERATION_PREFIX}{number}")
}

fn names(dir: &Path) -> Result<Vec<String>, StorageError> {
    let entries = std::fs::read_dir(dir).map_err(StorageError::io("list", dir))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StorageError::io("list", dir))?;
        // A name that is not text is none of ours.
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

/// What the database, or a checkpoint of it, has applied.
pub(super) fn load_applied(database: &Database) -> Result<Applied, StorageError> {
    let stored = database
        .get_cf(&family(database, META), APPLIED)
        .map_err(StorageError::database("read what was applied"))?;
    match stored {
        None => Ok(Applied::default()),
        Some(bytes) => decode_applied(&bytes).ok_or_else(|| StorageError::Corrupt {
            path: database.path().to_path_buf(),
            what: "what was applied",
        }),
    }
}

/// Index, length of the log id, log id, membership.
pub(super) fn encode_applied(applied: &Applied) -> Result<Vec<u8>, StorageError> {
    let log_id_bytes =
        u32::try_from(applied.log_id.len()).map_err(StorageError::database("encode a log id"))?;
    let mut bytes = applied.index.0.to_be_bytes().to_vec();
    bytes.extend(log_id_bytes.to_be_bytes());
    bytes.extend_from_slice(&applied.log_id);
    bytes.extend_from_slice(&applied.membership);
    Ok(bytes)
}

pub(super) fn decode_applied(bytes: &[u8]) -> Option<Applied> {
    let (index, rest) = bytes.split_first_chunk::<8>()?;
    let (log_id_bytes, rest) = rest.split_first_chunk::<4>()?;
    let (log_id, membership) = rest.split_at_checked(u32::from_be_bytes(*log_id_bytes) as usize)?;
    Some(Applied {
        index: LogIndex(u64::from_be_bytes(*index)),
        log_id: Bytes::copy_from_slice(log_id),
        membership: Bytes::copy_from_slice(membership),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pointer_survives_a_round_trip_and_no_flipped_bit() {
        for pointer in [
            Pointer {
                number: 1,
                creating: true,
            },
            Pointer {
                number: 42,
                creating: false,
            },
        ] {
            let bytes = pointer.encode().into_bytes();
            assert_eq!(Pointer::decode(&bytes), Some(pointer));
            for position in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[position] ^= 1;
                assert_eq!(Pointer::decode(&damaged), None, "byte {position}");
            }
        }
    }

    #[test]
    fn applied_survives_a_round_trip() {
        let applied = Applied {
            index: LogIndex(9),
            log_id: Bytes::from_static(b"3-9"),
            membership: Bytes::from_static(b"\0\x01"),
        };
        let bytes = encode_applied(&applied).expect("small");
        assert_eq!(decode_applied(&bytes), Some(applied));
        assert_eq!(decode_applied(&bytes[..13]), None);
    }
}
