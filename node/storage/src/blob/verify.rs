//! Reading a copy again from the disk, all of it, trusting nothing that was computed when it came.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use oci::{Digest, Hasher};
use rustix::fs::Advice;

use super::checksum::RunningChecksums;
use super::index::{Place, Record};
use super::reader::read_blob;
use super::shelf::Shelf;
use super::{BlobStat, CHUNK_BYTES, Damage, Verified};
use crate::error::BlobError;

/// What one step reads: short enough that a caller who gives up is not waited for.
const STEP_BYTES: u64 = 4 << 20;

/// What is read at a time.
const BUFFER_BYTES: usize = 512 * 1024;

/// A verification under way.
pub(super) struct Scan {
    digest: Digest,
    record: Record,
    source: Source,
    found_bytes: u64,
    offset: u64,
    hasher: Hasher,
    checksums: RunningChecksums,
}

enum Source {
    Inline(Bytes),
    File(Arc<File>),
}

/// What a step led to.
pub(super) enum Step {
    /// There is more to read.
    More(Box<Scan>),
    /// It is known.
    Done(Verified),
}

impl Scan {
    /// Begins with what `record` describes.
    pub(super) fn begin(shelf: &Shelf, digest: &Digest, record: Record) -> Result<Step, BlobError> {
        let source = match record.place {
            Place::Inline => shelf.index.body(digest).map(Source::Inline),
            Place::File => shelf
                .files
                .open_blob(digest)?
                .map(|file| Source::File(Arc::new(file))),
        };
        let Some(source) = source else {
            return Ok(Step::Done(Verified::Missing));
        };
        let found_bytes = match &source {
            Source::Inline(body) => body.len() as u64,
            Source::File(file) => match file.metadata() {
                Ok(metadata) => metadata.len(),
                Err(error) => return Ok(unreadable(&error)),
            },
        };
        if found_bytes != record.size_bytes {
            return Ok(Step::Done(Verified::Damaged(Damage::Size {
                expected_bytes: record.size_bytes,
                found_bytes,
            })));
        }
        Ok(Step::More(Box::new(Scan::new(
            *digest,
            record,
            source,
            found_bytes,
        ))))
    }

    /// Reads a file that has no record. `Verified::Sound` comes with the checksums it should have.
    pub(super) fn of_file(digest: &Digest, file: &Arc<File>) -> Result<Option<Record>, BlobError> {
        let Ok(metadata) = file.metadata() else {
            return Ok(None);
        };
        let record = Record {
            size_bytes: metadata.len(),
            place: Place::File,
            checksums: Arc::new([]),
        };
        let source = Source::File(Arc::clone(file));
        let mut scan = Scan::new(*digest, record, source, metadata.len());
        while scan.offset < scan.found_bytes {
            if scan.read_step().is_err() || scan.offset == 0 {
                return Ok(None);
            }
        }
        let checksums = scan.checksums.finish().into();
        let is_it = scan.hasher.finish() == *digest;
        Ok(is_it.then_some(Record {
            checksums,
            ..scan.record
        }))
    }

    fn new(digest: Digest, record: Record, source: Source, found_bytes: u64) -> Self {
        if let Source::File(file) = &source {
            // Clean pages go: what is verified is the disk, not the memory in front of it.
            let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
        }
        Scan {
            digest,
            record,
            source,
            found_bytes,
            offset: 0,
            hasher: Hasher::new(digest.algorithm()),
            checksums: RunningChecksums::default(),
        }
    }

    /// How many bytes were read.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads on.
    pub(super) fn step(mut self: Box<Self>) -> Step {
        if let Err(error) = self.read_step() {
            return unreadable(&error);
        }
        if self.offset < self.found_bytes {
            return Step::More(self);
        }
        Step::Done(self.conclude())
    }

    /// Runs to the end, on a blocking thread.
    pub(super) fn run(
        shelf: &Shelf,
        digest: &Digest,
        record: Record,
    ) -> Result<Verified, BlobError> {
        let mut step = Scan::begin(shelf, digest, record)?;
        loop {
            match step {
                Step::More(scan) => step = scan.step(),
                Step::Done(verified) => return Ok(verified),
            }
        }
    }

    fn read_step(&mut self) -> std::io::Result<()> {
        match &self.source {
            Source::Inline(body) => {
                self.hasher.update(body);
                self.checksums.update(body);
                self.offset = self.found_bytes;
            }
            Source::File(file) => {
                let mut buffer = vec![0; BUFFER_BYTES];
                let end = self.found_bytes.min(self.offset + STEP_BYTES);
                while self.offset < end {
                    let read = read_blob(file, self.offset, &mut buffer)?;
                    if read == 0 {
                        return Err(std::io::ErrorKind::UnexpectedEof.into());
                    }
                    self.hasher.update(&buffer[..read]);
                    self.checksums.update(&buffer[..read]);
                    self.offset += read as u64;
                }
                let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
            }
        }
        Ok(())
    }

    fn conclude(self) -> Verified {
        let actual = self.hasher.finish();
        if actual != self.digest {
            let actual = Box::new(actual);
            return Verified::Damaged(Damage::Content { actual });
        }
        let checksums = self.checksums.finish();
        let wrong = (checksums.iter().zip(self.record.checksums.iter()))
            .position(|(computed, recorded)| computed != recorded);
        match wrong {
            Some(chunk) => Verified::Damaged(Damage::Checksum {
                chunk: chunk as u64,
            }),
            None => Verified::Sound(BlobStat {
                digest: self.digest,
                size_bytes: self.found_bytes,
            }),
        }
    }
}

fn unreadable(error: &std::io::Error) -> Step {
    Step::Done(Verified::Damaged(Damage::Unreadable {
        error: error.to_string(),
    }))
}

const _: () = assert!(
    BUFFER_BYTES.is_multiple_of(CHUNK_BYTES),
    "whole chunks at a time"
);
