//! CRC-32C per 256 KiB chunk: what says, before a byte is handed out, whether it is the byte that was stored.
//!
//! The digest of a blob covers all of it and can only be checked at its end; a checksum per chunk lets a
//! reader stop before the first damaged byte (invariant I6).

use super::CHUNK_BYTES;

/// Checksums of a stream of bytes so far.
#[derive(Clone, Debug, Default)]
pub(super) struct RunningChecksums {
    complete: Vec<u32>,
    current: u32,
    current_bytes: usize,
}

impl RunningChecksums {
    /// Takes the next bytes of the stream.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.current_bytes));
            self.current = crc32c::crc32c_append(self.current, piece);
            self.current_bytes += piece.len();
            if self.current_bytes == CHUNK_BYTES {
                self.complete.push(std::mem::take(&mut self.current));
                self.current_bytes = 0;
            }
            bytes = rest;
        }
    }

    /// One checksum per chunk; the last chunk may be short.
    pub(super) fn finish(&self) -> Vec<u32> {
        let mut checksums = self.complete.clone();
        if self.current_bytes > 0 {
            checksums.push(self.current);
        }
        checksums
    }
}

/// The checksums of bytes in memory.
pub(super) fn checksums(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(CHUNK_BYTES).map(crc32c::crc32c).collect()
}

/// How many chunks a blob of this size has.
pub(super) fn chunk_count(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(CHUNK_BYTES as u64)
}

/// Length of a chunk of a blob of this size; 0 behind the end.
pub(super) fn chunk_len(size_bytes: u64, chunk: u64) -> usize {
    let start = chunk.saturating_mul(CHUNK_BYTES as u64);
    usize::try_from(size_bytes.saturating_sub(start))
        .map_or(CHUNK_BYTES, |rest| rest.min(CHUNK_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn chunk_arithmetic_at_the_edges() {
        let chunk = CHUNK_BYTES as u64;
        assert_eq!(
            (
                chunk_count(0),
                chunk_count(1),
                chunk_count(chunk),
                chunk_count(chunk + 1)
            ),
            (0, 1, 1, 2)
        );
        assert_eq!(
            (chunk_len(0, 0), chunk_len(1, 0), chunk_len(chunk, 0)),
            (0, 1, CHUNK_BYTES)
        );
        assert_eq!(
            (
                chunk_len(chunk, 1),
                chunk_len(chunk + 1, 1),
                chunk_len(1, u64::MAX)
            ),
            (0, 1, 0)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn the_way_a_stream_is_cut_does_not_matter(
            len in 0usize..3 * CHUNK_BYTES,
            cuts in proptest::collection::vec(1usize..CHUNK_BYTES + 7, 1..40),
        ) {
            let bytes: Vec<u8> = (0u8..251).cycle().step_by(31).take(len).collect();
            let mut running = RunningChecksums::default();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, tail) = rest.split_at(rest.len().min(*cut));
                running.update(piece);
                rest = tail;
            }
            prop_assert_eq!(running.finish(), checksums(&bytes));
        }
    }
}
