//! The upload sessions that have, or may have, bytes on this node.
//!
//! A session exists because its ticket is open in the replicated state, not because it is in this map: the map
//! only holds what a request found worth keeping in memory, and a restart empties it without ending any session.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metadata::ids::TicketId;
use oci::{Algorithm, Digest, UploadId};
use replication::Spread;
use storage::blob::StagedBlob;
use tokio::sync::OwnedMutexGuard;

use crate::Result;
use crate::error::RegistryError;

/// Marks what uploads stage among everything that is staged.
const NAME_PREFIX: &str = "upload-";

/// One upload session.
pub(crate) struct Session {
    /// As its URL names it.
    pub(crate) id: UploadId,
    /// When this process first heard of it.
    pub(crate) opened: Instant,
    arrived_bytes: AtomicU64,
    touched: AtomicBool,
    closed: AtomicBool,
    writer: Arc<tokio::sync::Mutex<Writer>>,
}

/// What a session is doing. Whoever changes it holds the session's lock, for the time of one request.
pub(crate) enum Writer {
    /// Nothing is open; bytes from before a restart may be on disk.
    Idle,
    /// Bytes are arriving.
    Receiving(Receiving),
    /// The bytes are a blob on this node, but the log does not know yet: a repeated PUT goes on from here.
    Stored(Stored),
    /// Finished or cancelled.
    Closed,
}

/// Bytes on their way in.
pub(crate) struct Receiving {
    /// Those that arrived.
    pub(crate) staged: StagedBlob,
    /// What is computed while they arrive. Most clients use the canonical one and name it only at the end; a
    /// digest in another one costs a second reading, here and on the peers.
    pub(crate) algorithm: Algorithm,
    /// Their copies on other nodes, once they have outgrown memory.
    pub(crate) spread: Option<Spread>,
}

/// Bytes that are durable on this node under their digest.
pub(crate) struct Stored {
    /// Their digest.
    pub(crate) digest: Digest,
    /// How many they are.
    pub(crate) size_bytes: u64,
    /// Their copies on other nodes. `None` after a PUT that failed, when they were made from memory: whatever many
    /// failed pushes keep must not be there.
    pub(crate) spread: Option<Spread>,
}

impl Session {
    fn new(id: UploadId) -> Session {
        Session {
            id,
            opened: Instant::now(),
            arrived_bytes: AtomicU64::new(0),
            touched: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            writer: Arc::new(tokio::sync::Mutex::new(Writer::Idle)),
        }
    }

    /// The ticket that protects its bytes.
    pub(crate) fn ticket(&self) -> TicketId {
        TicketId::from_u64(self.id.ticket)
    }

    /// The name its bytes are staged under.
    pub(crate) fn name(&self) -> String {
        staging_name(&self.id)
    }

    /// Takes the session for one request.
    ///
    /// # Errors
    /// `RangeInvalid` while another request has it: two chunks at once cannot both be in order.
    pub(crate) fn lock(&self) -> Result<OwnedMutexGuard<Writer>> {
        let offset_bytes = self.offset_bytes();
        self.writer
            .clone()
            .try_lock_owned()
            .map_err(|_| RegistryError::RangeInvalid { offset_bytes })
    }

    /// Takes the session as soon as nobody else has it, when that is soon enough.
    pub(crate) async fn lock_within(&self, limit: Duration) -> Option<OwnedMutexGuard<Writer>> {
        tokio::time::timeout(limit, self.writer.clone().lock_owned())
            .await
            .ok()
    }

    /// Bytes that have arrived.
    pub(crate) fn offset_bytes(&self) -> u64 {
        self.arrived_bytes.load(Ordering::Relaxed)
    }

    /// Notes where the session stands, and that it is alive.
    pub(crate) fn advance_to(&self, offset_bytes: u64) {
        self.arrived_bytes.store(offset_bytes, Ordering::Relaxed);
        self.touch();
    }

    /// Notes that it is alive.
    pub(crate) fn touch(&self) {
        self.touched.store(true, Ordering::Relaxed);
    }

    /// Tells a request that still writes to the session that it is over.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Whether the session is over.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether it was alive since this was asked last.
    pub(crate) fn take_touched(&self) -> bool {
        self.touched.swap(false, Ordering::Relaxed)
    }
}

/// The name the bytes of an upload are staged under.
pub(crate) fn staging_name(id: &UploadId) -> String {
    format!(
        "{NAME_PREFIX}{:016x}-{:032x}",
        id.ticket,
        u128::from_be_bytes(id.random)
    )
}

/// The ticket in the name under which the bytes of an upload are staged; `None` for what somebody else staged.
pub fn ticket_of_name(name: &str) -> Option<TicketId> {
    let (ticket, _) = name.strip_prefix(NAME_PREFIX)?.split_once('-')?;
    u64::from_str_radix(ticket, 16).ok().map(TicketId::from_u64)
}

/// The sessions in memory. The lock is held for single map operations only.
pub(crate) struct Sessions {
    open: Mutex<HashMap<UploadId, Arc<Session>>>,
    max: usize,
}

impl Sessions {
    /// Room for `max` sessions.
    pub(crate) fn new(max: usize) -> Sessions {
        Sessions {
            open: Mutex::default(),
            max,
        }
    }

    /// The session, taken into memory when it was not there.
    ///
    /// # Errors
    /// `Overloaded` when there is no room.
    pub(crate) fn enter(&self, id: UploadId) -> Result<Arc<Session>> {
        let mut open = self.open();
        if let Some(session) = open.get(&id) {
            return Ok(session.clone());
        }
        if open.len() >= self.max {
            return Err(RegistryError::Overloaded);
        }
        let session = Arc::new(Session::new(id));
        open.insert(id, session.clone());
        Ok(session)
    }

    /// The session, when it is in memory.
    pub(crate) fn get(&self, id: &UploadId) -> Option<Arc<Session>> {
        self.open().get(id).cloned()
    }

    /// Forgets a session.
    pub(crate) fn remove(&self, session: &Session) {
        self.open().remove(&session.id);
    }

    /// The names that the sessions in memory stage under.
    pub(crate) fn names(&self) -> HashSet<String> {
        self.open().keys().map(staging_name).collect()
    }

    /// Every session in memory.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.open().values().cloned().collect()
    }

    fn open(&self) -> MutexGuard<'_, HashMap<UploadId, Arc<Session>>> {
        // Single map operations leave the map whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ticket: u64) -> UploadId {
        UploadId {
            owner: 1,
            ticket,
            random: [0xab; 16],
        }
    }

    #[test]
    fn a_staging_name_tells_its_ticket_and_fits_the_store() {
        for ticket in [0, 64, u64::MAX] {
            let name = staging_name(&id(ticket));
            assert_eq!(ticket_of_name(&name), Some(TicketId::from_u64(ticket)));
            assert!(
                name.len() <= 80
                    && name
                        .bytes()
                        .all(|b| b"abcdefghijklmnopqrstuvwxyz0123456789-".contains(&b))
            );
        }
    }

    #[test]
    fn what_others_staged_has_no_ticket() {
        for name in [
            "",
            "upload-",
            "upload-xyz-00",
            "push-0000000000000040-00",
            "upload-0000000000000040",
        ] {
            assert_eq!(ticket_of_name(name), None, "{name}");
        }
    }

    #[test]
    fn sessions_are_bounded_and_the_same_id_is_one_session() {
        let sessions = Sessions::new(2);
        let first = sessions.enter(id(1)).unwrap();
        assert!(Arc::ptr_eq(&first, &sessions.enter(id(1)).unwrap()));
        sessions.enter(id(2)).unwrap();
        assert!(matches!(
            sessions.enter(id(3)),
            Err(RegistryError::Overloaded)
        ));
        sessions.remove(&first);
        sessions.enter(id(3)).unwrap();
        assert_eq!(sessions.all().len(), 2);
    }

    #[test]
    fn a_taken_session_tells_a_second_request_where_it_stands() {
        let session = Session::new(id(1));
        let taken = session.lock().unwrap();
        session.advance_to(7);
        assert!(matches!(
            session.lock(),
            Err(RegistryError::RangeInvalid { offset_bytes: 7 })
        ));
        drop(taken);
        assert!(session.lock().is_ok());
        assert!(session.take_touched() && !session.take_touched());
    }
}
