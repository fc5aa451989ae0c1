//! The record of a blob, as bytes.
//!
//! Version 1: `1`, where (`1` file, `2` inline), size as 8 bytes, then 4 bytes of CRC-32C per chunk; numbers
//! are big-endian. The format is local to a node and never leaves it.

use std::sync::Arc;

use crate::blob::checksum::chunk_count;

const VERSION: u8 = 1;
const FILE: u8 = 1;
const INLINE: u8 = 2;
const HEADER_BYTES: usize = 10;

/// Where the bytes of a blob are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::blob) enum Place {
    /// In a file of the blob directory.
    File,
    /// In the index.
    Inline,
}

/// What the index knows of a blob. Its existence says that the bytes are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::blob) struct Record {
    /// Its length.
    pub size_bytes: u64,
    /// Where the bytes are.
    pub place: Place,
    /// CRC-32C per chunk.
    pub checksums: Arc<[u32]>,
}

impl Record {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(HEADER_BYTES + 4 * self.checksums.len());
        value.push(VERSION);
        value.push(match self.place {
            Place::File => FILE,
            Place::Inline => INLINE,
        });
        value.extend_from_slice(&self.size_bytes.to_be_bytes());
        for checksum in self.checksums.iter() {
            value.extend_from_slice(&checksum.to_be_bytes());
        }
        value
    }

    /// `None` for anything `encode` cannot have written.
    pub(super) fn decode(value: &[u8]) -> Option<Record> {
        let (header, checksums) = value.split_at_checked(HEADER_BYTES)?;
        let place = match (header[0], header[1]) {
            (VERSION, FILE) => Place::File,
            (VERSION, INLINE) => Place::Inline,
            _ => return None,
        };
        let size_bytes = u64::from_be_bytes(header[2..].try_into().ok()?);
        let (checksums, rest) = checksums.as_chunks::<4>();
        if !rest.is_empty() || checksums.len() as u64 != chunk_count(size_bytes) {
            return None;
        }
        let checksums = checksums
            .iter()
            .map(|bytes| u32::from_be_bytes(*bytes))
            .collect();
        Some(Record {
            size_bytes,
            place,
            checksums,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::CHUNK_BYTES;

    #[test]
    fn the_format_is_fixed() {
        let record = Record {
            size_bytes: 300_000,
            place: Place::File,
            checksums: Arc::new([0xa1b2_c3d4, 7]),
        };
        let golden = [
            1, 1, 0, 0, 0, 0, 0, 4, 0x93, 0xe0, 0xa1, 0xb2, 0xc3, 0xd4, 0, 0, 0, 7,
        ];
        assert_eq!(record.encode(), golden);
        assert_eq!(Record::decode(&golden), Some(record));
        let empty = Record {
            size_bytes: 0,
            place: Place::Inline,
            checksums: Arc::new([]),
        };
        assert_eq!(Record::decode(&empty.encode()), Some(empty));
    }

    #[test]
    fn other_bytes_are_refused() {
        let good = Record {
            size_bytes: CHUNK_BYTES as u64,
            place: Place::Inline,
            checksums: Arc::new([1]),
        }
        .encode();
        assert!(Record::decode(&good).is_some());
        for len in 0..good.len() {
            assert_eq!(Record::decode(&good[..len]), None, "{len} bytes");
        }
        let mut longer = good.clone();
        longer.extend_from_slice(&[0; 4]);
        assert_eq!(Record::decode(&longer), None, "a checksum too many");
        for (at, value) in [(0, 2), (0, 0), (1, 0), (1, 3)] {
            let mut other = good.clone();
            other[at] = value;
            assert_eq!(Record::decode(&other), None, "byte {at} = {value}");
        }
    }
}
