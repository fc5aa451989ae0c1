//! The end of an upload: the bytes become a blob on W nodes, then the log makes it visible.

use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures::future::{Either, select};
use metadata::command::{CloseTickets, Command, CommitBlob};
use metadata::ids::{NodeId, TicketId};
use metadata::query;
use metadata::response::Response;
use oci::{Digest, RepositoryName};
use replication::error::ReplicationError;
use replication::peers::PushEnd;
use replication::{Copies, Spread};
use storage::blob::CHUNK_BYTES;
use storage::error::BlobError;

use crate::append::keep;
use crate::error::{About, RegistryError, not_copied, not_stored};
use crate::failpoints::hit;
use crate::sessions::{Receiving, Session, Stored, Writer};
use crate::uploads::Chunk;
use crate::{BlobInfo, Caller, Registry, Result, Seen};

/// How long the log may take once the copies are made, should the client's own deadline have passed meanwhile.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a PUT wants to have become of an upload.
pub(crate) struct Goal {
    pub(crate) caller: Caller,
    pub(crate) repository: RepositoryName,
    pub(crate) digest: Digest,
}

impl Registry {
    /// Takes the last chunk and makes the blob visible. After an error that may pass, the session goes on from
    /// where it stands; content that does not match its digest ends it, as in distribution.
    pub(crate) async fn complete(
        &self,
        session: &Session,
        goal: &Goal,
        last: Chunk,
    ) -> Result<Seen<BlobInfo>> {
        let mut writer = session.lock()?;
        if let Writer::Idle | Writer::Receiving(_) = &*writer {
            let receiving = self.open_writer(session, &mut writer).await?;
            if receiving.staged.set_algorithm(goal.digest.algorithm()) {
                receiving.algorithm = goal.digest.algorithm();
            }
        }
        let taken = self.take_chunk(session, &mut writer, last).await;
        let outcome = match (taken, &*writer) {
            (Err(error), _) => Err(error),
            (Ok(()), Writer::Receiving(_)) => {
                self.commit_received(session, &mut writer, goal).await
            }
            (Ok(()), Writer::Stored(_)) => self.commit_stored(session, &mut writer, goal).await,
            (Ok(()), Writer::Idle | Writer::Closed) => Err(RegistryError::UploadUnknown),
        };
        match &outcome {
            // The commit closed the ticket, or somebody else did.
            Ok(_) | Err(RegistryError::UploadUnknown) => self.forget(session, &mut writer).await,
            Err(RegistryError::DigestInvalid | RegistryError::BlobTooLarge { .. }) => {
                self.give_up(session, &mut writer).await;
            }
            Err(_) => {}
        }
        outcome.and_then(|seen| hit("commit_before_reply").map(|()| seen))
    }

    async fn commit_received(
        &self,
        session: &Session,
        writer: &mut Writer,
        goal: &Goal,
    ) -> Result<Seen<BlobInfo>> {
        let Writer::Receiving(receiving) = writer else {
            return Err(RegistryError::UploadUnknown);
        };
        let digest = match receiving.staged.digest(goal.digest.algorithm()).await {
            Ok(digest) => digest,
            Err(error) => return Err(keep(session, writer, error)),
        };
        if digest != goal.digest {
            return Err(RegistryError::DigestInvalid);
        }
        if let Some(seen) = self
            .commit_known(session, receiving.staged.len_bytes(), goal)
            .await?
        {
            return Ok(seen);
        }
        let copies = self.store(session, writer, goal).await?;
        self.commit_copies(session, writer, goal, copies).await
    }

    /// The same again after the bytes were stored here, but not acknowledged.
    async fn commit_stored(
        &self,
        session: &Session,
        writer: &mut Writer,
        goal: &Goal,
    ) -> Result<Seen<BlobInfo>> {
        let Writer::Stored(stored) = writer else {
            return Err(RegistryError::UploadUnknown);
        };
        if stored.digest != goal.digest {
            return Err(RegistryError::DigestInvalid);
        }
        let end = push_end(session, goal, stored.size_bytes);
        let copies = match &mut stored.spread {
            Some(spread) => self.finish_spread(spread, end).await?,
            None => {
                let mut spread = self.spread_again(session, stored).await?;
                let copies = self.finish_spread(&mut spread, end).await?;
                stored.spread = Some(spread);
                copies
            }
        };
        self.commit_copies(session, writer, goal, copies).await
    }

    /// Copies of a small blob, from the one on this node.
    async fn spread_again(&self, session: &Session, stored: &Stored) -> Result<Spread> {
        let reader = self.blobs.open(&stored.digest).await.map_err(not_stored)?;
        let reader = reader.ok_or_else(|| not_stored(BlobError::Gone))?;
        let mut body = BytesMut::new();
        while (body.len() as u64) < stored.size_bytes {
            let more = reader.read_at(body.len() as u64, CHUNK_BYTES).await;
            let more = more.map_err(not_stored)?;
            if more.is_empty() {
                return Err(not_stored(BlobError::Gone));
            }
            body.extend_from_slice(&more);
        }
        self.replication
            .spread_small(body.freeze(), &session.id.random)
            .map_err(not_copied)
    }

    /// A blob of which W nodes have a counted copy needs no further ones: only the link is new. The log counts again.
    /// This node does not claim a copy of its own here: one that was reported lost may still lie around. `None` when
    /// there are not enough copies, or when the bytes mend what this node has, or lacks.
    async fn commit_known(
        &self,
        session: &Session,
        size_bytes: u64,
        goal: &Goal,
    ) -> Result<Option<Seen<BlobInfo>>> {
        let me = self.log.node_id();
        let enough = self.look_for(&goal.caller, |view| {
            let cluster = query::cluster(view)?;
            let blob = query::blob(view, &goal.digest)?;
            let Some((cluster, blob)) = cluster.zip(blob) else {
                return Ok(false);
            };
            let (lasting, wanted) = query::lasting_copies(view, &blob)?;
            Ok(blob.size_bytes == size_bytes
                && blob.holders.len() as u64 >= u64::from(cluster.write_copies)
                && (lasting >= wanted || blob.holders.contains(&me)))
        })?;
        if !enough.value || self.heal.is_damaged(&goal.digest) {
            return Ok(None);
        }
        match self
            .commit_blob(session.ticket(), goal, size_bytes, Vec::new(), 0)
            .await
        {
            Ok((seen, _)) => Ok(Some(seen)),
            // They vanished since; the bytes of this upload replace them.
            Err(RegistryError::TooFewCopies { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the bytes durable here and on the peers, at the same time.
    async fn store(&self, session: &Session, writer: &mut Writer, goal: &Goal) -> Result<Copies> {
        let Writer::Receiving(Receiving {
            staged,
            algorithm,
            spread,
        }) = std::mem::replace(writer, Writer::Idle)
        else {
            return Err(RegistryError::UploadUnknown);
        };
        let size_bytes = staged.len_bytes();
        let is_in_memory = spread.is_none() && staged.in_memory().is_some();
        let key = &session.id.random;
        let spread = match (spread, staged.in_memory()) {
            (Some(spread), _) => Ok(spread),
            (None, Some(body)) => self.replication.spread_small(body, key),
            (None, None) => self
                .replication
                .start_spread(staged.reader(), algorithm, key),
        };
        let mut spread = match spread {
            Ok(spread) => spread,
            Err(error) => {
                *writer = Writer::Receiving(Receiving {
                    staged,
                    algorithm,
                    spread: None,
                });
                return Err(not_copied(error));
            }
        };
        let (stored, copies) = {
            let here = pin!(self.blobs.commit(staged, &goal.digest, session.ticket()));
            let there = pin!(self.finish_spread(&mut spread, push_end(session, goal, size_bytes)));
            match select(here, there).await {
                Either::Left((Ok(stat), there)) => (Ok(stat), there.await),
                // Copies elsewhere do not help a node that cannot keep its own: the client should know at once.
                Either::Left((Err(error), _)) => (Err(error), Ok(Copies::default())),
                Either::Right((copies, here)) => (here.await, copies),
            }
        };
        match stored {
            Ok(stat) => {
                self.heal.mended(&stat.digest);
                *writer = Writer::Stored(Stored {
                    digest: stat.digest,
                    size_bytes,
                    spread: Some(spread).filter(|_| copies.is_ok() || !is_in_memory),
                });
                copies
            }
            Err((error, staged)) => {
                if let Some(staged) = staged {
                    *writer = Writer::Receiving(Receiving {
                        staged,
                        algorithm,
                        spread: None,
                    });
                }
                Err(keep(session, writer, error))
            }
        }
    }

    /// Makes the blob visible, and lets the copies that are still on their way be counted later.
    async fn commit_copies(
        &self,
        session: &Session,
        writer: &mut Writer,
        goal: &Goal,
        copies: Copies,
    ) -> Result<Seen<BlobInfo>> {
        let Writer::Stored(Stored { size_bytes, .. }) = writer else {
            return Err(RegistryError::UploadUnknown);
        };
        let mut holders = copies.holders;
        if copies.counts_own {
            holders.push(self.log.node_id());
        }
        let (seen, repair_ticket) = self
            .commit_blob(
                session.ticket(),
                goal,
                *size_bytes,
                holders,
                copies.stragglers,
            )
            .await?;
        if let Writer::Stored(stored) = std::mem::replace(writer, Writer::Closed)
            && let Some(spread) = stored.spread
        {
            spread.stragglers(repair_ticket);
        }
        if !copies.counts_own {
            self.unlink(&goal.digest).await;
        }
        Ok(seen)
    }

    async fn commit_blob(
        &self,
        ticket: TicketId,
        goal: &Goal,
        size_bytes: u64,
        holders: Vec<NodeId>,
        stragglers: u32,
    ) -> Result<(Seen<BlobInfo>, Option<TicketId>)> {
        hit("commit_before_propose")?;
        let command = CommitBlob {
            ticket,
            repository: goal.repository.clone(),
            digest: goal.digest,
            size_bytes,
            holders,
            stragglers,
        };
        let mut caller = goal.caller.clone();
        caller.deadline = caller.deadline.max(Instant::now() + COMMIT_TIMEOUT);
        let seen = self
            .submit(
                Command::CommitBlob(command),
                &caller,
                About::Blob(&goal.digest),
            )
            .await?;
        let repair_ticket = match seen.value {
            Response::BlobCommitted { repair_ticket } => repair_ticket,
            _ => None,
        };
        let info = BlobInfo {
            digest: goal.digest,
            size_bytes,
        };
        Ok((
            Seen {
                revision: seen.revision,
                value: info,
            },
            repair_ticket,
        ))
    }

    async fn finish_spread(&self, spread: &mut Spread, end: PushEnd) -> Result<Copies> {
        let timeout = self.options.copies_timeout;
        match tokio::time::timeout(timeout, spread.finish(end)).await {
            Ok(copies) => copies.map_err(not_copied),
            Err(_) => Err(not_copied(ReplicationError::TooFewCopies {
                reached: 1,
                wanted: self.write_copies()?,
            })),
        }
    }

    fn write_copies(&self) -> Result<u32> {
        let cluster = self.look(query::cluster)?;
        Ok(cluster.value.map_or(1, |cluster| cluster.write_copies))
    }

    /// Ends a session that can never become a blob.
    pub(crate) async fn give_up(&self, session: &Session, writer: &mut Writer) {
        // First the ticket: as long as it is open it protects what was stored under it.
        self.close_ticket(session.ticket()).await;
        self.forget(session, writer).await;
    }

    /// Drops a session and whatever bytes it still has.
    pub(crate) async fn forget(&self, session: &Session, writer: &mut Writer) {
        session.close();
        self.sessions.remove(session);
        self.drop_bytes(std::mem::replace(writer, Writer::Closed))
            .await;
    }

    /// Removes what a session has on this node. A blob that is stored but was never committed goes by the unlink
    /// rule, which also knows whether another upload needs it.
    pub(crate) async fn drop_bytes(&self, writer: Writer) {
        let outcome = match writer {
            Writer::Receiving(receiving) => self.blobs.discard(receiving.staged).await,
            Writer::Stored(stored) => return self.unlink(&stored.digest).await,
            Writer::Idle | Writer::Closed => Ok(()),
        };
        if let Err(error) = outcome {
            tracing::warn!(error = %error, "the bytes of an upload were not removed");
        }
    }

    /// Closes the ticket of an upload that ended without a commit. What fails here is left to its expiry.
    pub(crate) async fn close_ticket(&self, ticket: TicketId) {
        let command = Command::CloseTickets(CloseTickets {
            tickets: vec![ticket],
        });
        let closed = match hit("tickets_before_close") {
            Ok(()) => self.upkeep(command).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = closed {
            tracing::warn!(%ticket, error = %error, "the ticket of an upload is left to expire");
        }
    }
}

fn push_end(session: &Session, goal: &Goal, size_bytes: u64) -> PushEnd {
    PushEnd {
        digest: goal.digest,
        size_bytes,
        ticket: session.ticket(),
    }
}
