//! The byte format of an exported state: what one node streams to another.
//!
//! ```text
//! magic  "argosyst"         8 bytes
//! format 1                  u32
//! applied                   u64 index, u32 + log id, u32 + membership
//! frame*                    u32 length > 0, then records: u32 key length, u32 value length, key, value
//! end                       u32 0, u64 number of records
//! SHA-256                   of everything above
//! ```
//! Numbers are big-endian, keys ascend strictly. A reader holds one frame in memory, and knows whether what it read
//! is right only when it has seen the end.

use std::io::{Read, Write};

use bytes::Bytes;
use metadata::ids::LogIndex;
use sha2::{Digest as _, Sha256};

use crate::error::StorageError;
use crate::state::Applied;

const MAGIC: &[u8; 8] = b"argosyst";
const FORMAT: u32 = 1;
const SHA256_BYTES: usize = 32;

/// A frame is closed once it holds this much.
const FRAME_BYTES: usize = 1 << 20;

/// The largest frame that is read: a full one and one more record. A manifest has at most 4 MiB.
const MAX_FRAME_BYTES: usize = 64 << 20;

/// The largest log id or membership that is read.
const MAX_APPLIED_BYTES: usize = 1 << 20;

/// Writes a stream.
pub(crate) struct SnapshotWriter<'a> {
    sink: &'a mut dyn Write,
    hash: Sha256,
    frame: Vec<u8>,
    records: u64,
}

impl<'a> SnapshotWriter<'a> {
    /// Writes the header.
    pub(crate) fn new(
        sink: &'a mut dyn Write,
        applied: &Applied,
    ) -> Result<SnapshotWriter<'a>, StorageError> {
        let mut writer = SnapshotWriter {
            sink,
            hash: Sha256::new(),
            frame: Vec::new(),
            records: 0,
        };
        let mut header = MAGIC.to_vec();
        header.extend(FORMAT.to_be_bytes());
        header.extend(applied.index.0.to_be_bytes());
        for part in [&applied.log_id, &applied.membership] {
            if part.len() > MAX_APPLIED_BYTES {
                return Err(StorageError::DamagedStream {
                    what: "the log id or the membership is too large",
                });
            }
            header.extend(length(part)?);
            header.extend_from_slice(part);
        }
        writer.write(&header)?;
        Ok(writer)
    }

    /// Adds a record. Keys come in ascending order.
    pub(crate) fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.frame.extend(length(key)?);
        self.frame.extend(length(value)?);
        self.frame.extend_from_slice(key);
        self.frame.extend_from_slice(value);
        if self.frame.len() > MAX_FRAME_BYTES {
            return Err(StorageError::DamagedStream {
                what: "a record is too large",
            });
        }
        self.records += 1;
        if self.frame.len() >= FRAME_BYTES {
            self.end_frame()
        } else {
            Ok(())
        }
    }

    /// Writes what is left and the checksum.
    pub(crate) fn finish(mut self) -> Result<(), StorageError> {
        self.end_frame()?;
        self.write(&0_u32.to_be_bytes())?;
        self.write(&self.records.to_be_bytes())?;
        let checksum = self.hash.finalize_reset();
        self.sink
            .write_all(&checksum)
            .and_then(|()| self.sink.flush())
            .map_err(write_failed)
    }

    fn end_frame(&mut self) -> Result<(), StorageError> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let frame = std::mem::take(&mut self.frame);
        self.write(&length(&frame)?)?;
        self.write(&frame)?;
        self.frame = frame;
        self.frame.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.hash.update(bytes);
        self.sink.write_all(bytes).map_err(write_failed)
    }
}

/// Reads a stream.
pub(crate) struct SnapshotReader<'a> {
    source: &'a mut dyn Read,
    hash: Sha256,
    applied: Applied,
    frame: Vec<u8>,
    records: u64,
    last_key: Option<Vec<u8>>,
}

impl<'a> SnapshotReader<'a> {
    /// Reads the header.
    pub(crate) fn new(source: &'a mut dyn Read) -> Result<SnapshotReader<'a>, StorageError> {
        let mut reader = SnapshotReader {
            source,
            hash: Sha256::new(),
            applied: Applied::default(),
            frame: Vec::new(),
            records: 0,
            last_key: None,
        };
        if &reader.array::<8>()? != MAGIC {
            return Err(StorageError::DamagedStream {
                what: "it does not start like one",
            });
        }
        if u32::from_be_bytes(reader.array()?) != FORMAT {
            return Err(StorageError::DamagedStream {
                what: "it has a format that this version does not know",
            });
        }
        let index = LogIndex(u64::from_be_bytes(reader.array()?));
        let log_id = reader.applied_part()?;
        let membership = reader.applied_part()?;
        reader.applied = Applied {
            index,
            log_id,
            membership,
        };
        Ok(reader)
    }

    /// What the header says was applied. To be believed after `next_frame` returned false.
    pub(crate) fn applied(&self) -> &Applied {
        &self.applied
    }

    /// Hands the records of the next frame to `visit`; false when there is none and the checksum is right.
    pub(crate) fn next_frame(
        &mut self,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<bool, StorageError> {
        let frame_bytes = u32::from_be_bytes(self.array()?) as usize;
        if frame_bytes == 0 {
            return self.check_end().map(|()| false);
        }
        let mut frame = std::mem::take(&mut self.frame);
        self.fill(&mut frame, frame_bytes, MAX_FRAME_BYTES)?;
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            let ((key, value), after) = split_record(rest)?;
            if self.last_key.as_deref().is_some_and(|last| last >= key) {
                return Err(StorageError::DamagedStream {
                    what: "its keys do not ascend",
                });
            }
            let last_key = self.last_key.get_or_insert_default();
            last_key.clear();
            last_key.extend_from_slice(key);
            self.records += 1;
            visit(key, value);
            rest = after;
        }
        self.frame = frame;
        Ok(true)
    }

    fn check_end(&mut self) -> Result<(), StorageError> {
        if u64::from_be_bytes(self.array()?) != self.records {
            return Err(StorageError::DamagedStream {
                what: "the number of records is wrong",
            });
        }
        let expected = self.hash.finalize_reset();
        let mut found = [0; SHA256_BYTES];
        self.source.read_exact(&mut found).map_err(read_failed)?;
        if found != expected.as_slice() {
            return Err(StorageError::DamagedStream {
                what: "the checksum is wrong",
            });
        }
        Ok(())
    }

    fn applied_part(&mut self) -> Result<Bytes, StorageError> {
        let part_bytes = u32::from_be_bytes(self.array()?) as usize;
        let mut part = Vec::new();
        self.fill(&mut part, part_bytes, MAX_APPLIED_BYTES)?;
        Ok(part.into())
    }

    fn fill(
        &mut self,
        buffer: &mut Vec<u8>,
        length_bytes: usize,
        max_bytes: usize,
    ) -> Result<(), StorageError> {
        if length_bytes > max_bytes {
            return Err(StorageError::DamagedStream {
                what: "a length is too large",
            });
        }
        buffer.resize(length_bytes, 0);
        self.source.read_exact(buffer).map_err(read_failed)?;
        self.hash.update(buffer.as_slice());
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StorageError> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(read_failed)?;
        self.hash.update(bytes);
        Ok(bytes)
    }
}

type Record<'a> = (&'a [u8], &'a [u8]);

/// A key with its value, and what follows them.
fn split_record(bytes: &[u8]) -> Result<(Record<'_>, &[u8]), StorageError> {
    let split = || {
        let (key_bytes, rest) = bytes.split_first_chunk::<4>()?;
        let (value_bytes, rest) = rest.split_first_chunk::<4>()?;
        let (key, rest) = rest.split_at_checked(u32::from_be_bytes(*key_bytes) as usize)?;
        let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*value_bytes) as usize)?;
        Some(((key, value), rest))
    };
    split().ok_or(StorageError::DamagedStream {
        what: "a record goes past the end of its frame",
    })
}

fn length(bytes: &[u8]) -> Result<[u8; 4], StorageError> {
    let length = u32::try_from(bytes.len());
    Ok(length
        .map_err(|_| StorageError::DamagedStream {
            what: "a record is too large",
        })?
        .to_be_bytes())
}

fn read_failed(source: std::io::Error) -> StorageError {
    match source.kind() {
        std::io::ErrorKind::UnexpectedEof => StorageError::DamagedStream {
            what: "it ends too early",
        },
        _ => StorageError::Stream {
            action: "read the snapshot stream",
            source,
        },
    }
}

fn write_failed(source: std::io::Error) -> StorageError {
    StorageError::Stream {
        action: "write the snapshot stream",
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied() -> Applied {
        Applied {
            index: LogIndex(77),
            log_id: Bytes::from_static(b"7-77"),
            membership: Bytes::from_static(b"three of us"),
        }
    }

    fn records() -> Pairs {
        let small = (0..50_u8).map(|n| (vec![b'a', n], vec![n; usize::from(n) * 10]));
        let large = (0..3_u8).map(|n| (vec![b'b', n], vec![n; FRAME_BYTES / 2 + 1]));
        small
            .chain(large)
            .chain([(b"c".to_vec(), Vec::new())])
            .collect()
    }

    fn written() -> Vec<u8> {
        let mut stream = Vec::new();
        let mut writer = SnapshotWriter::new(&mut stream, &applied()).expect("written");
        for (key, value) in records() {
            writer.record(&key, &value).expect("written");
        }
        writer.finish().expect("written");
        stream
    }

    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    fn read(mut stream: &[u8]) -> Result<(Applied, Pairs), StorageError> {
        let mut reader = SnapshotReader::new(&mut stream)?;
        let mut found = Vec::new();
        while reader.next_frame(&mut |key, value| found.push((key.to_vec(), value.to_vec())))? {}
        Ok((reader.applied().clone(), found))
    }

    #[test]
    fn what_is_written_is_read() {
        let (found_applied, found) = read(&written()).expect("intact");
        assert_eq!(found_applied, applied());
        assert_eq!(found, records());
    }

    #[test]
    fn an_empty_state_is_a_stream_too() {
        let mut stream = Vec::new();
        SnapshotWriter::new(&mut stream, &Applied::default())
            .expect("written")
            .finish()
            .expect("written");
        assert_eq!(
            read(&stream).expect("intact"),
            (Applied::default(), Vec::new())
        );
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let stream = written();
        let interesting = (0..200)
            .chain(stream.len() - 60..stream.len())
            .chain((200..stream.len()).step_by(9973));
        for position in interesting {
            let mut damaged = stream.clone();
            damaged[position] ^= 0x10;
            assert!(
                matches!(read(&damaged), Err(StorageError::DamagedStream { .. })),
                "byte {position} of {}",
                stream.len()
            );
        }
    }

    #[test]
    fn a_stream_that_ends_early_is_noticed() {
        let stream = written();
        for kept in (0..100).chain(stream.len() - 50..stream.len()) {
            assert!(matches!(
                read(&stream[..kept]),
                Err(StorageError::DamagedStream {
                    what: "it ends too early"
                })
            ));
        }
    }

    #[test]
    fn keys_that_do_not_ascend_are_noticed() {
        for second in [b"k".as_slice(), b"j"] {
            let mut stream = Vec::new();
            let mut writer =
                SnapshotWriter::new(&mut stream, &Applied::default()).expect("written");
            writer.record(b"k", b"1").expect("written");
            writer.record(second, b"2").expect("written");
            writer.finish().expect("written");
            assert!(matches!(
                read(&stream),
                Err(StorageError::DamagedStream {
                    what: "its keys do not ascend"
                })
            ));
        }
    }
}
