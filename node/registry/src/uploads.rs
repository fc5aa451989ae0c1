//! Upload sessions: start, append, status, cancel, finish.
//!
//! A session lives on the node that opened it. Its id names that node and a ticket, and is sealed with the key of
//! the cluster, so any node can verify it and pass a request on to the owner (protocols.md section 4, step 1).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metadata::command::{CloseTickets, Command};
use metadata::ids::{NodeId, TicketId};
use metadata::log::LogError;
use metadata::query::{self, TicketState};
use oci::{ContentRange, Digest, RepositoryName, UploadId};

use crate::error::{About, RegistryError, no_answer, not_stored};
use crate::failpoints::hit;
use crate::finish::Goal;
use crate::sessions::{Session, Writer, staging_name};
use crate::{BlobInfo, BodyStream, Caller, Registry, Result, Seen};

/// Where an upload session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadState {
    /// The opaque id for its URL.
    pub id: String,
    /// Bytes that have arrived.
    pub offset_bytes: u64,
}

/// A chunk of an upload, as the client sent it.
pub struct Chunk {
    /// `Content-Range`: where the client says it belongs.
    pub range: Option<ContentRange>,
    /// `Content-Length`: how long the client says it is.
    pub length_bytes: Option<u64>,
    /// Its bytes.
    pub body: BodyStream,
}

/// How long a status request waits for one that still writes.
const STATUS_WAIT: Duration = Duration::from_secs(1);

/// Where a session lives.
enum Place {
    Here(UploadId),
    At(NodeId),
}

impl Registry {
    /// Opens an upload session on this node (end-4a). Writes neither to disk nor, in the common case, to the log.
    ///
    /// # Errors
    /// `ReadOnly`; `Unavailable` when no ticket could be opened in time.
    pub async fn start_upload(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &RepositoryName,
    ) -> Result<Seen<UploadState>> {
        self.require_writable()?;
        let (seen, _) = self.open_session(caller, repository).await?;
        Ok(seen)
    }

    /// Appends a chunk (end-5). The offset in the answer survives a restart of the owner.
    ///
    /// # Errors
    /// `ReadOnly`; `UploadUnknown`; `RangeInvalid` for a chunk that does not start where the session stands, or while another
    /// request writes; `SizeInvalid` when the headers disagree with each other or with the body; `BlobTooLarge`,
    /// which ends the session; `BodyInterrupted`,
    /// after which the session goes on from what arrived; `OwnerUnreachable`, `NoSpace`, `Overloaded`.
    pub async fn append_upload(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &RepositoryName,
        id: &str,
        chunk: Chunk,
    ) -> Result<UploadState> {
        self.require_writable()?;
        let offset_bytes = match self.locate(caller, repository, id).await? {
            Place::Here(upload) => {
                let session = self.sessions.enter(upload)?;
                let registry = self.clone();
                self.run("append to an upload", async move {
                    registry.receive(&session, chunk).await
                })
                .await?
            }
            Place::At(owner) => self.append_at(owner, caller, repository, id, chunk).await?,
        };
        Ok(UploadState {
            id: id.to_owned(),
            offset_bytes,
        })
    }

    /// Tells where a session stands (end-13).
    ///
    /// # Errors
    /// `UploadUnknown`, `OwnerUnreachable`, `Overloaded`.
    pub async fn upload_status(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<UploadState> {
        let offset_bytes = match self.locate(caller, repository, id).await? {
            Place::Here(upload) => self.offset_of(upload).await?,
            Place::At(owner) => self.status_at(owner, caller, repository, id).await?,
        };
        Ok(UploadState {
            id: id.to_owned(),
            offset_bytes,
        })
    }

    /// Throws a session and its bytes away (end-14).
    ///
    /// # Errors
    /// `ReadOnly`, `UploadUnknown`, `OwnerUnreachable`, `Unavailable`.
    pub async fn cancel_upload(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<()> {
        self.require_writable()?;
        match self.locate(caller, repository, id).await? {
            Place::Here(upload) => {
                let (registry, caller) = (self.clone(), caller.clone());
                self.run("cancel an upload", async move {
                    registry.cancel(upload, &caller).await
                })
                .await
            }
            Place::At(owner) => self.cancel_at(owner, caller, repository, id).await,
        }
    }

    /// Appends the last chunk, which may be empty, and makes the blob visible (end-6).
    ///
    /// # Errors
    /// Those of [`Registry::append_upload`]; `DigestInvalid`, which ends the session; `TooFewCopies` and
    /// `Unavailable`, after which the same request may be repeated with an empty chunk, also when it succeeded without
    /// anybody being told.
    pub async fn finish_upload(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &RepositoryName,
        id: &str,
        digest: &Digest,
        chunk: Chunk,
    ) -> Result<Seen<BlobInfo>> {
        self.require_writable()?;
        match self
            .try_to_finish(caller, repository, id, digest, chunk)
            .await
        {
            Err(RegistryError::UploadUnknown) => {
                self.finished_before(caller, repository, id, digest).await
            }
            outcome => outcome,
        }
    }

    /// A session whose client was told of a failure is over all the same, and has done what this request wants, when its
    /// repository has the blob. One whose success was told is forgotten, and unknown like any other.
    async fn finished_before(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        id: &str,
        digest: &Digest,
    ) -> Result<Seen<BlobInfo>> {
        let upload = UploadId::decode(id, &self.upload_key()?, repository)
            .map_err(|_| RegistryError::UploadUnknown)?;
        if self.sessions.get(&upload).is_none() {
            return Err(RegistryError::UploadUnknown);
        }
        let ticket = TicketId::from_u64(upload.ticket);
        // This node may not have applied yet what another one was not told of either.
        self.barrier(caller.deadline).await?;
        let seen = self.look_for(caller, |view| {
            let is_over = query::ticket(view, ticket)? == TicketState::Closed;
            let linked = query::linked_blob(view, repository, digest)?;
            Ok(linked.filter(|_| is_over))
        })?;
        let linked = seen.value.ok_or(RegistryError::UploadUnknown)?;
        Ok(Seen {
            revision: seen.revision,
            value: BlobInfo {
                digest: *digest,
                size_bytes: linked.size_bytes,
            },
        })
    }

    async fn try_to_finish(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &RepositoryName,
        id: &str,
        digest: &Digest,
        chunk: Chunk,
    ) -> Result<Seen<BlobInfo>> {
        let upload = match self.locate(caller, repository, id).await? {
            Place::Here(upload) => upload,
            Place::At(owner) => {
                return self
                    .finish_at(owner, caller, repository, id, digest, chunk)
                    .await;
            }
        };
        let session = self.sessions.enter(upload)?;
        let goal = Goal {
            caller: caller.clone(),
            repository: repository.clone(),
            digest: *digest,
        };
        let registry = self.clone();
        self.run("finish an upload", async move {
            registry.complete(&session, &goal, chunk).await
        })
        .await
    }

    /// Start and finish in one request (end-4b). No session is left after an error: nobody knows its id.
    ///
    /// # Errors
    /// Those of [`Registry::finish_upload`].
    pub async fn push_blob(
        self: &Arc<Self>,
        caller: &Caller,
        repository: &RepositoryName,
        digest: &Digest,
        chunk: Chunk,
    ) -> Result<Seen<BlobInfo>> {
        self.require_writable()?;
        let (_, upload) = self.open_session(caller, repository).await?;
        let session = self.sessions.enter(upload)?;
        let goal = Goal {
            caller: caller.clone(),
            repository: repository.clone(),
            digest: *digest,
        };
        let registry = self.clone();
        let task = async move {
            let outcome = registry.complete(&session, &goal, chunk).await;
            if outcome.is_err() && !session.is_closed() {
                registry.abandon(&session).await;
            }
            outcome
        };
        self.run("push a blob", task).await
    }

    /// A new session of this node.
    async fn open_session(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
    ) -> Result<(Seen<UploadState>, UploadId)> {
        if !self.is_writable().await {
            return Err(RegistryError::Unwritable);
        }
        self.catch_up(caller).await?;
        let ticket = self.tickets.take(caller.deadline).await?;
        caller.seen.note(ticket.revision);
        let upload = UploadId {
            owner: self.log.node_id().0,
            ticket: ticket.value.as_u64(),
            random: rand::random(),
        };
        let id = upload.encode(&self.upload_key()?, repository);
        Ok((
            Seen {
                revision: ticket.revision,
                value: UploadState {
                    id,
                    offset_bytes: 0,
                },
            },
            upload,
        ))
    }

    /// Finds the session that `id` names. An id that this cluster did not issue for this repository names none.
    async fn locate(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<Place> {
        self.catch_up(caller).await?;
        let upload = UploadId::decode(id, &self.upload_key()?, repository)
            .map_err(|_| RegistryError::UploadUnknown)?;
        let (owner, ticket) = (NodeId(upload.owner), TicketId::from_u64(upload.ticket));
        if owner == self.log.node_id() {
            self.require_open(ticket, caller).await?;
            return Ok(Place::Here(upload));
        }
        let gone = self.look_for(caller, |view| {
            // A closed ticket never opens again, so this node need not ask the owner about it.
            let is_closed = query::ticket(view, ticket)? == TicketState::Closed;
            Ok(is_closed || query::node(view, owner)?.is_none())
        })?;
        if gone.value {
            Err(RegistryError::UploadUnknown)
        } else {
            Ok(Place::At(owner))
        }
    }

    /// A session of this node exists while its ticket is open in the applied state.
    async fn require_open(&self, ticket: TicketId, caller: &Caller) -> Result<()> {
        let state = || self.look_for(caller, |view| query::ticket(view, ticket));
        let mut seen = state()?;
        if seen.value == TicketState::Unknown {
            self.wait_applied(ticket.index(), caller.deadline).await?;
            seen = state()?;
        }
        if seen.value == TicketState::Open {
            Ok(())
        } else {
            Err(RegistryError::UploadUnknown)
        }
    }

    async fn offset_of(&self, upload: UploadId) -> Result<u64> {
        let session = self.sessions.enter(upload)?;
        // A client asks after its connection broke, when this node may still be taking the last bytes that came.
        // A request that goes on for longer is answered with what it has taken so far.
        if let Some(mut writer) = session.lock_within(STATUS_WAIT).await
            && let Writer::Idle = *writer
        {
            self.open_writer(&session, &mut writer).await?;
        }
        Ok(session.offset_bytes())
    }

    /// Once the ticket is closed the session is over for every node, whoever still writes to it here.
    async fn cancel(&self, upload: UploadId, caller: &Caller) -> Result<()> {
        let ticket = TicketId::from_u64(upload.ticket);
        let command = Command::CloseTickets(CloseTickets {
            tickets: vec![ticket],
        });
        hit("cancel_before_propose")?;
        self.submit(command, caller, About::Upkeep).await?;
        match self.sessions.get(&upload) {
            Some(session) => {
                session.close();
                if let Ok(mut writer) = session.lock() {
                    self.forget(&session, &mut writer).await;
                }
                Ok(())
            }
            None => self
                .blobs
                .discard_name(&staging_name(&upload))
                .await
                .map_err(not_stored),
        }
    }

    /// Ends a session that nobody can go on with.
    async fn abandon(&self, session: &Session) {
        self.close_ticket(session.ticket()).await;
        if let Ok(mut writer) = session.lock() {
            self.forget(session, &mut writer).await;
        }
    }

    /// The key that seals upload ids; the same for the life of the cluster.
    pub(crate) fn upload_key(&self) -> Result<Bytes> {
        if let Some(key) = self.upload_key.get() {
            return Ok(key.clone());
        }
        let cluster = self
            .look(query::cluster)?
            .value
            .ok_or_else(|| no_answer(LogError::NoLeader))?;
        Ok(self.upload_key.get_or_init(|| cluster.upload_key).clone())
    }
}
