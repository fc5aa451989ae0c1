//! Whose a database is. Every batch carries the id of the disk, so that a file of another node, put here by mistake, is
//! noticed: write-ahead logs do not say which database they belong to, and replaying a foreign one mixes two nodes.

use std::path::Path;

use rocksdb::WriteBatch;

use super::{Database, family};
use crate::error::{REPLACE, StorageError};
use crate::identity::Identity;

const KEY: &[u8] = b"owner";

/// The disk that writes to a database. Without an identity, as in tests of a single store, nothing is written or checked.
pub(crate) struct Owner {
    disk_id: Option<String>,
    /// The column family that has the key.
    family: &'static str,
}

impl Owner {
    /// The owner according to the identity in `dir`.
    pub(crate) fn load(dir: &Path, family: &'static str) -> Result<Owner, StorageError> {
        let disk_id = Identity::load(dir)?.map(|identity| identity.disk_id);
        Ok(Owner { disk_id, family })
    }

    /// Refuses a database in which somebody else wrote last.
    pub(crate) fn check(&self, database: &Database) -> Result<(), StorageError> {
        let Some(disk_id) = &self.disk_id else {
            return Ok(());
        };
        let found = database
            .get_cf(&family(database, self.family), KEY)
            .map_err(StorageError::database("read whose a database is"))?;
        match found {
            Some(found) if found != disk_id.as_bytes() => Err(StorageError::Refused {
                path: database.path().to_path_buf(),
                why: format!(
                    "it has writes of disk {}, and this is disk {disk_id}: a file of another node got into it; {REPLACE}",
                    String::from_utf8_lossy(&found)
                ),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Adds the key to a batch.
    pub(crate) fn sign(&self, database: &Database, batch: &mut WriteBatch) {
        if let Some(disk_id) = &self.disk_id {
            batch.put_cf(&family(database, self.family), KEY, disk_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::LogStore;
    use crate::rocks::{RocksLog, StorageOptions};
    use metadata::ids::NodeId;

    /// A log with entries, in a directory with an identity.
    fn log(entries: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let identity = Identity::new(NodeId(1));
        identity.save(dir.path()).expect("saved");
        let log = RocksLog::open(dir.path(), &StorageOptions::default()).expect("opens");
        let (synced, done) = crate::contract::log::expect_sync();
        let entries = (0..entries).map(|index| (index, bytes::Bytes::from_static(b"entry")));
        log.append(entries.collect(), synced).expect("appended");
        done.recv().expect("called back").expect("durable");
        dir
    }

    #[test]
    fn the_write_ahead_log_of_another_node_is_refused() {
        let (ours, theirs) = (log(5), log(9));
        let wal =
            |dir: &tempfile::TempDir| crate::rocks::tests::largest_wal(&dir.path().join("log"));
        std::fs::copy(wal(&theirs), wal(&ours)).expect("swapped");
        let Err(refused) = RocksLog::open(ours.path(), &StorageOptions::default()) else {
            panic!("it opened, and is longer than its mark");
        };
        assert!(
            refused.to_string().contains("a file of another node"),
            "{refused}"
        );
        RocksLog::open(theirs.path(), &StorageOptions::default()).expect("opens");
    }
}
