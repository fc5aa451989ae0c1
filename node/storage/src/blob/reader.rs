//! Reading a committed blob, verified chunk by chunk.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use oci::Digest;

use super::CHUNK_BYTES;
use super::checksum::chunk_len;
use crate::error::BlobError;
use crate::failpoints;

/// Most chunks that one read returns: 1 MiB, which bounds the memory of a reader.
const READ_CHUNKS: u64 = 4;

/// What `verify` reads at a time: it stays in the processor's cache between the copy and the checksum.
const VERIFY_BYTES: usize = 64 * 1024;

#[derive(Clone)]
enum Source {
    Memory(Bytes),
    File(Arc<File>),
}

/// A committed blob opened for reading. Cheap to clone. Keeps working after the file was unlinked.
#[derive(Clone)]
pub struct BlobReader {
    digest: Digest,
    size_bytes: u64,
    checksums: Arc<[u32]>,
    source: Source,
}

impl BlobReader {
    /// A blob whose bytes are in memory.
    pub(super) fn memory(digest: Digest, bytes: Bytes, checksums: Arc<[u32]>) -> Self {
        BlobReader {
            digest,
            size_bytes: bytes.len() as u64,
            checksums,
            source: Source::Memory(bytes),
        }
    }

    /// A blob in a file. The file may be shorter than `size_bytes`: then the chunks it lacks are damaged.
    pub(super) fn file_of(
        digest: Digest,
        size_bytes: u64,
        file: File,
        checksums: Arc<[u32]>,
    ) -> Self {
        BlobReader {
            digest,
            size_bytes,
            checksums,
            source: Source::File(Arc::new(file)),
        }
    }

    /// Which blob.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Length of the blob.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The bytes from `offset` on: at least one and at most `limit_bytes`, empty only at the end (or for a
    /// limit of 0). One call returns at most what is left of the chunk of `offset` and three more chunks, so at
    /// most 1 MiB. Every chunk touched is read and checked whole before a byte of it is returned, so a limit
    /// below 256 KiB reads chunks again and again.
    ///
    /// # Errors
    /// `BlobError::Corrupt` names the first damaged chunk; nothing is returned then, not even of the good chunks
    /// before it, which can still be read by a smaller limit.
    pub async fn read_at(&self, offset: u64, limit_bytes: usize) -> Result<Bytes, BlobError> {
        let end = offset
            .saturating_add(limit_bytes as u64)
            .min(self.size_bytes);
        if offset >= end {
            return Ok(Bytes::new());
        }
        let first = offset / CHUNK_BYTES as u64;
        let end = end.min((first + READ_CHUNKS) * CHUNK_BYTES as u64);
        match &self.source {
            Source::Memory(_) => self.read_span(offset..end),
            Source::File(_) => {
                let reader = self.clone();
                let read = tokio::task::spawn_blocking(move || reader.read_span(offset..end));
                read.await.unwrap_or(Err(self.corrupt(first)))
            }
        }
    }

    /// Checks the chunks that cover `range` (cut to the blob) without returning them: for a front that sends the
    /// file itself. Bounded memory whatever the range.
    ///
    /// # Errors
    /// `BlobError::Corrupt` names the first damaged chunk.
    pub async fn verify(&self, range: Range<u64>) -> Result<(), BlobError> {
        let reader = self.clone();
        let verified = tokio::task::spawn_blocking(move || reader.verify_blocking(range));
        verified.await.unwrap_or(Err(self.corrupt(0)))
    }

    /// [`BlobReader::verify`] for callers on a blocking thread.
    pub fn verify_blocking(&self, range: Range<u64>) -> Result<(), BlobError> {
        let end = range.end.min(self.size_bytes);
        if range.start >= end {
            return Ok(());
        }
        let mut buffer = match &self.source {
            Source::Memory(_) => Vec::new(),
            Source::File(_) => vec![0; VERIFY_BYTES],
        };
        for chunk in range.start / CHUNK_BYTES as u64..end.div_ceil(CHUNK_BYTES as u64) {
            let checksum = match &self.source {
                Source::Memory(bytes) => crc32c::crc32c(&bytes[self.within(chunk)]),
                Source::File(file) => self.checksum_of(file, chunk, &mut buffer)?,
            };
            self.expect(chunk, checksum)?;
        }
        Ok(())
    }

    /// CRC-32C per 256 KiB chunk.
    pub fn checksums(&self) -> Arc<[u32]> {
        Arc::clone(&self.checksums)
    }

    /// The file, for a front that can send it without copying (after [`BlobReader::verify`]); `None` when the
    /// blob is inline.
    pub fn file(&self) -> Option<Arc<File>> {
        match &self.source {
            Source::Memory(_) => None,
            Source::File(file) => Some(Arc::clone(file)),
        }
    }

    /// Reads and checks whole chunks, returns the bytes asked for. The range is within the blob, not empty.
    fn read_span(&self, range: Range<u64>) -> Result<Bytes, BlobError> {
        let chunks = range.start / CHUNK_BYTES as u64..range.end.div_ceil(CHUNK_BYTES as u64);
        let base = chunks.start * CHUNK_BYTES as u64;
        let whole = match &self.source {
            Source::Memory(bytes) => {
                self.verify_blocking(range.clone())?;
                bytes.slice(self.within(chunks.start).start..)
            }
            Source::File(file) => self.read_chunks(file, chunks)?,
        };
        // A span is at most `READ_CHUNKS` long, far below any usize.
        let [start, end] =
            [range.start, range.end].map(|at| usize::try_from(at - base).unwrap_or(usize::MAX));
        Ok(whole.slice(start..end))
    }

    /// Each chunk is checked while it is still in the processor's cache.
    fn read_chunks(&self, file: &File, chunks: Range<u64>) -> Result<Bytes, BlobError> {
        let mut buffer = Vec::with_capacity(
            chunks
                .clone()
                .map(|chunk| chunk_len(self.size_bytes, chunk))
                .sum(),
        );
        for chunk in chunks {
            let start = buffer.len();
            buffer.resize(start + chunk_len(self.size_bytes, chunk), 0);
            self.read(
                file,
                chunk,
                chunk * CHUNK_BYTES as u64,
                &mut buffer[start..],
            )?;
            self.expect(chunk, crc32c::crc32c(&buffer[start..]))?;
        }
        Ok(buffer.into())
    }

    fn checksum_of(&self, file: &File, chunk: u64, buffer: &mut [u8]) -> Result<u32, BlobError> {
        let (mut offset, mut rest) = (
            chunk * CHUNK_BYTES as u64,
            chunk_len(self.size_bytes, chunk),
        );
        let mut checksum = 0;
        while rest > 0 {
            let piece = &mut buffer[..rest.min(VERIFY_BYTES)];
            self.read(file, chunk, offset, piece)?;
            checksum = crc32c::crc32c_append(checksum, piece);
            offset += piece.len() as u64;
            rest -= piece.len();
        }
        Ok(checksum)
    }

    /// Fills `piece`. When the file ends early or the disk gives up, the chunk must come from another holder
    /// just as if it were damaged.
    fn read(
        &self,
        file: &File,
        chunk: u64,
        offset: u64,
        piece: &mut [u8],
    ) -> Result<(), BlobError> {
        match read_blob(file, offset, piece) {
            Ok(len) if len == piece.len() => Ok(()),
            Ok(_) => Err(self.corrupt(chunk)),
            Err(error) => {
                tracing::warn!(digest = %self.digest, error = &error as &dyn std::error::Error, "a blob cannot be read");
                Err(self.corrupt(chunk))
            }
        }
    }

    /// Where a chunk is within bytes in memory.
    fn within(&self, chunk: u64) -> Range<usize> {
        // Bytes in memory are shorter than a usize counts.
        let start = usize::try_from(chunk)
            .unwrap_or(usize::MAX)
            .saturating_mul(CHUNK_BYTES);
        start..start + chunk_len(self.size_bytes, chunk)
    }

    fn expect(&self, chunk: u64, checksum: u32) -> Result<(), BlobError> {
        let known = usize::try_from(chunk)
            .ok()
            .and_then(|chunk| self.checksums.get(chunk));
        if known == Some(&checksum) {
            Ok(())
        } else {
            Err(self.corrupt(chunk))
        }
    }

    fn corrupt(&self, chunk: u64) -> BlobError {
        BlobError::Corrupt {
            digest: self.digest,
            chunk,
        }
    }
}

/// [`read_full`] of a file of a committed blob.
pub(super) fn read_blob(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    failpoints::hit("blob_before_read")?;
    read_full(file, offset, buffer)
}

/// Fills `buffer` from `offset`; less only when the file ends. Returns how much.
pub(super) fn read_full(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(&mut buffer[len..], offset + len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}
