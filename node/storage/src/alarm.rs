//! That stored bytes of a database are not what was written, found while it is read.
//!
//! RocksDB checks blocks when it reads them, not when it is opened. Whoever asked gets an error; but a node whose state or
//! index has a hole must not go on as if only this request had failed. So what was found is remembered here, and the
//! process waits for it beside everything else.

use tokio::sync::watch;

use crate::error::{REPLACE, StorageError};

/// The first damage found; there is none at first.
pub(crate) struct Alarm {
    found: watch::Sender<Option<String>>,
}

impl Alarm {
    pub(crate) fn new() -> Alarm {
        Alarm {
            found: watch::Sender::new(None),
        }
    }

    /// Looks at an error of a database, and rings if damage is what it says.
    pub(crate) fn notice(&self, error: &(dyn std::error::Error + 'static)) {
        if !is_damage(error) {
            return;
        }
        let mut is_first = false;
        self.found.send_if_modified(|found| {
            is_first = found.is_none();
            found.get_or_insert_with(|| error.to_string());
            is_first
        });
        if is_first {
            tracing::error!(error, "a database is damaged");
        }
    }

    /// Completes with the damage, once there is one.
    pub(crate) async fn rung(&self) -> StorageError {
        let mut found = self.found.subscribe();
        let text = match found.wait_for(Option::is_some).await {
            Ok(text) => text.clone().unwrap_or_default(),
            // The sender lives as long as `self`.
            Err(_) => std::future::pending().await,
        };
        let action = "read a database that is damaged";
        StorageError::database(action)(format!("{text}; {REPLACE}"))
    }
}

/// Whether RocksDB, somewhere below the error, says that bytes are damaged.
fn is_damage(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let kind = error
            .downcast_ref::<rocksdb::Error>()
            .map(|error| error.kind());
        let is_corrupt = matches!(
            error.downcast_ref::<StorageError>(),
            Some(StorageError::Corrupt { .. })
        );
        if is_corrupt || kind == Some(rocksdb::ErrorKind::Corruption) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[tokio::test]
    async fn only_damage_rings_and_the_first_is_told() {
        let alarm = Alarm::new();
        alarm.notice(&std::io::Error::other("full"));
        let corrupt = |what| StorageError::Corrupt {
            path: PathBuf::from("state"),
            what,
        };
        let waiting = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(waiting, alarm.rung()).await.is_err());
        alarm.notice(&metadata::view::ViewError(Box::new(corrupt("one"))));
        alarm.notice(&corrupt("two"));
        let rung = alarm.rung().await.to_string();
        assert!(rung.contains("state is damaged: one"), "{rung}");
    }
}
