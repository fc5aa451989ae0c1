//! Taking the bytes of an upload as they arrive.

use futures::StreamExt as _;
use oci::Algorithm;
use storage::error::BlobError;

use crate::error::{RegistryError, not_stored};
use crate::sessions::{Receiving, Session, Writer};
use crate::uploads::Chunk;
use crate::{Registry, Result};

impl Registry {
    /// Takes a chunk that is not the last one. Its bytes are durable on this node when this returns, so that the
    /// offset told to the client survives a restart. Returns that offset.
    pub(crate) async fn receive(&self, session: &Session, chunk: Chunk) -> Result<u64> {
        let mut writer = session.lock()?;
        let outcome = self.take_chunk(session, &mut writer, chunk).await;
        match &outcome {
            Err(RegistryError::UploadUnknown) => self.forget(session, &mut writer).await,
            Err(RegistryError::BlobTooLarge { .. }) => self.give_up(session, &mut writer).await,
            _ => {}
        }
        // Also what arrived before the body broke off is worth keeping.
        if let Writer::Receiving(receiving) = &mut *writer
            && let Err(error) = receiving.staged.settle().await
        {
            return Err(keep(session, &mut writer, error));
        }
        outcome.map(|()| session.offset_bytes())
    }

    /// Appends a chunk to whatever the session is doing.
    pub(crate) async fn take_chunk(
        &self,
        session: &Session,
        writer: &mut Writer,
        chunk: Chunk,
    ) -> Result<()> {
        if let Writer::Stored(stored) = writer {
            return expect_nothing(chunk, stored.size_bytes).await;
        }
        let receiving = self.open_writer(session, writer).await?;
        let room = self.room_for(&chunk, receiving.staged.len_bytes())?;
        let outcome = self.pump(session, receiving, chunk, room).await;
        match outcome {
            Err(Stop::Store(error)) => Err(keep(session, writer, error)),
            Err(Stop::Client(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    /// Opens the staged bytes of a session: those from before a restart, or none.
    pub(crate) async fn open_writer<'a>(
        &self,
        session: &Session,
        writer: &'a mut Writer,
    ) -> Result<&'a mut Receiving> {
        if let Writer::Idle = writer {
            let staged = self
                .blobs
                .stage(&session.name())
                .await
                .map_err(not_stored)?;
            session.advance_to(staged.len_bytes());
            *writer = Writer::Receiving(Receiving {
                staged,
                algorithm: Algorithm::Sha256,
                spread: None,
            });
        }
        match writer {
            Writer::Receiving(receiving) => Ok(receiving),
            Writer::Idle | Writer::Stored(_) | Writer::Closed => Err(RegistryError::UploadUnknown),
        }
    }

    /// How many bytes the chunk may have, and whether it must have them all.
    fn room_for(&self, chunk: &Chunk, offset_bytes: u64) -> Result<Room> {
        let announced = chunk
            .length_bytes
            .or(chunk.range.map(|range| range.len_bytes()));
        if let Some(range) = chunk.range {
            if announced != Some(range.len_bytes()) {
                return Err(RegistryError::SizeInvalid { offset_bytes });
            }
            if range.start != offset_bytes {
                return Err(RegistryError::RangeInvalid { offset_bytes });
            }
        }
        let limit_bytes = self.options.upload_max_bytes.unwrap_or(u64::MAX);
        let most = limit_bytes.saturating_sub(offset_bytes);
        match announced {
            Some(length_bytes) if length_bytes > most => {
                Err(RegistryError::BlobTooLarge { limit_bytes })
            }
            Some(length_bytes) => Ok(Room::Exactly(length_bytes)),
            None => Ok(Room::UpTo { most, limit_bytes }),
        }
    }

    async fn pump(
        &self,
        session: &Session,
        receiving: &mut Receiving,
        mut chunk: Chunk,
        room: Room,
    ) -> std::result::Result<(), Stop> {
        let mut taken_bytes = 0;
        while let Some(frame) = chunk.body.next().await {
            let bytes = frame.map_err(|error| {
                tracing::debug!(error = %error, "an upload broke off");
                Stop::Client(RegistryError::BodyInterrupted)
            })?;
            if session.is_closed() {
                return Err(Stop::Client(RegistryError::UploadUnknown));
            }
            taken_bytes += bytes.len() as u64;
            room.admit(taken_bytes, session).map_err(Stop::Client)?;
            receiving.staged.append(bytes).await.map_err(Stop::Store)?;
            session.advance_to(receiving.staged.len_bytes());
            self.spread_when_large(session, receiving);
        }
        match room {
            Room::Exactly(length_bytes) if taken_bytes < length_bytes => {
                Err(Stop::Client(RegistryError::BodyInterrupted))
            }
            _ => Ok(()),
        }
    }

    /// Copies follow the bytes as soon as these have outgrown memory; smaller blobs travel whole at the end.
    fn spread_when_large(&self, session: &Session, receiving: &mut Receiving) {
        if receiving.spread.is_some() || receiving.staged.in_memory().is_some() {
            return;
        }
        let reader = receiving.staged.reader();
        match self
            .replication
            .start_spread(reader, receiving.algorithm, &session.id.random)
        {
            Ok(spread) => receiving.spread = Some(spread),
            // Tried again at the end, where it matters.
            Err(error) => tracing::warn!(error = %error, "no copies were started"),
        }
    }
}

/// After an error of the store the session goes on from what the store kept, if it still can; else from what is
/// durable.
pub(crate) fn keep(session: &Session, writer: &mut Writer, error: BlobError) -> RegistryError {
    match writer {
        Writer::Receiving(receiving) if !matches!(error, BlobError::Gone | BlobError::Failed) => {
            session.advance_to(receiving.staged.len_bytes());
        }
        _ => *writer = Writer::Idle,
    }
    not_stored(error)
}

/// How many bytes a chunk may carry.
enum Room {
    /// As many as its headers say.
    Exactly(u64),
    /// Its headers do not say how many. With more than `most` the blob outgrows the limit.
    UpTo { most: u64, limit_bytes: u64 },
}

impl Room {
    /// Refuses a chunk of which this many bytes have come, when these are too many.
    fn admit(&self, taken_bytes: u64, session: &Session) -> Result<()> {
        match *self {
            Room::Exactly(length_bytes) if taken_bytes > length_bytes => {
                Err(RegistryError::SizeInvalid {
                    offset_bytes: session.offset_bytes(),
                })
            }
            Room::UpTo { most, limit_bytes } if taken_bytes > most => {
                Err(RegistryError::BlobTooLarge { limit_bytes })
            }
            _ => Ok(()),
        }
    }
}

/// Why a chunk ended early.
enum Stop {
    /// The client's doing; what arrived is kept.
    Client(RegistryError),
    /// This node's.
    Store(BlobError),
}

/// A PUT that is repeated after its bytes were stored has nothing to add to them.
async fn expect_nothing(mut chunk: Chunk, offset_bytes: u64) -> Result<()> {
    while let Some(frame) = chunk.body.next().await {
        match frame {
            Ok(bytes) if bytes.is_empty() => {}
            Ok(_) => return Err(RegistryError::RangeInvalid { offset_bytes }),
            Err(_) => return Err(RegistryError::BodyInterrupted),
        }
    }
    Ok(())
}
