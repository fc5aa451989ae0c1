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
        if let Err(RegistryError::UploadUnknown) = outcome {
            self.forget(session, &mut writer).await;
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
        let most = self
            .options
            .upload_max_bytes
            .unwrap_or(u64::MAX)
            .saturating_sub(offset_bytes);
        if announced.is_some_and(|length_bytes| length_bytes > most) {
            return Err(RegistryError::SizeInvalid { offset_bytes });
        }
        Ok(Room {
            most_bytes: announced.unwrap_or(most),
            least_bytes: announced.unwrap_or(0),
        })
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
            if taken_bytes > room.most_bytes {
                return Err(Stop::Client(RegistryError::SizeInvalid {
                    offset_bytes: session.offset_bytes(),
                }));
            }
            receiving.staged.append(bytes).await.map_err(Stop::Store)?;
            session.advance_to(receiving.staged.len_bytes());
            self.spread_when_large(session, receiving);
        }
        if taken_bytes < room.least_bytes {
            return Err(Stop::Client(RegistryError::BodyInterrupted));
        }
        Ok(())
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

/// What a chunk may carry.
struct Room {
    most_bytes: u64,
    least_bytes: u64,
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
