//! What is asked and answered when a node looks after its copies: walking, verifying, comparing.

use std::fmt;
use std::path::PathBuf;

use futures::future::BoxFuture;
use oci::Digest;

use super::BlobStat;
use crate::error::BlobError;

/// Waits after so many bytes were read, so that whoever looks after copies leaves the disk to requests.
pub type Pace<'a> = &'a (dyn Fn(u64) -> BoxFuture<'a, ()> + Send + Sync);

/// How well the blob directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobHealth {
    /// It takes everything.
    Healthy,
    /// Less than the floor is free: uploads are refused, everything else goes on.
    Full,
    /// The file system is read-only: nothing can be written, reads go on.
    ReadOnly,
    /// A sync failed: nothing is written until the node is started again, reads go on.
    Failed,
}

impl BlobHealth {
    /// Whether new copies can be placed here, as soon as there is room.
    pub fn is_writable(self) -> bool {
        match self {
            BlobHealth::Healthy | BlobHealth::Full => true,
            BlobHealth::ReadOnly | BlobHealth::Failed => false,
        }
    }
}

/// What is in the trash, or what left it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrashUsage {
    /// How many files.
    pub files: u64,
    /// Their lengths together.
    pub bytes: u64,
}

/// What is in quarantine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuarantineUsage {
    /// How many damaged copies.
    pub files: u64,
    /// Their lengths together.
    pub bytes: u64,
}

/// How far a walk over the directories got. Opaque.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkCursor(pub(super) PathBuf);

/// What one step of a walk found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Files under the name of a digest that are no blobs, because no record knows them. Their bytes are not
    /// verified. The caller adopts what the state wants and discards the others.
    pub orphans: Vec<BlobStat>,
    /// Names under which something was staged before this process began and that nobody uses. The caller
    /// discards those that belong to nothing.
    pub staged: Vec<String>,
    /// What is in the way of blobs and uploads under a name that neither has, and was not removed.
    pub foreign: Vec<PathBuf>,
    /// Files that were removed: incomplete ones, and what cannot be anything of ours.
    pub removed_files: u64,
    /// Where to go on; `None` at the end.
    pub next: Option<WalkCursor>,
}

/// What a blob was found to be, all of it read again from the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// Every byte is what the digest says, and every checksum what the bytes say.
    Sound(BlobStat),
    /// It is here and wrong.
    Damaged(Damage),
    /// There is a record, and no regular file or no bytes.
    Missing,
    /// This node does not know of it.
    Absent,
}

/// What is wrong with a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It has another length.
    Size {
        /// According to the record.
        expected_bytes: u64,
        /// On disk.
        found_bytes: u64,
    },
    /// The bytes have another digest.
    Content {
        /// Theirs.
        actual: Box<Digest>,
    },
    /// The bytes are right, and the checksum of this 256 KiB chunk is not: no read would succeed.
    Checksum {
        /// Which chunk, from 0.
        chunk: u64,
    },
    /// The disk does not give the bytes.
    Unreadable {
        /// What it says.
        error: String,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Size {
                expected_bytes,
                found_bytes,
            } => write!(f, "{found_bytes} bytes instead of {expected_bytes}"),
            Damage::Content { actual } => write!(f, "the bytes have digest {actual}"),
            Damage::Checksum { chunk } => write!(f, "the checksum of chunk {chunk} is wrong"),
            Damage::Unreadable { error } => write!(f, "the disk does not give it: {error}"),
        }
    }
}

/// What became of a copy that somebody found damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quarantined {
    /// It is in quarantine, and this node does not have the blob any more: report it lost.
    Moved,
    /// There was nothing to keep, and this node does not have the blob any more: report it lost.
    Missing,
    /// It is sound (by now): nothing was done.
    Sound,
    /// This node does not know of it.
    Absent,
    /// The quarantine is full; the copy stays where it is until a good copy that is committed replaces it, or the
    /// unlink rule moves it to the trash.
    Full,
}

/// How what is here differs from what should be here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Expected, and not here.
    pub missing: Vec<Digest>,
    /// Expected, and here with another length.
    pub wrong_size: Vec<Digest>,
    /// Here, and not expected: what the unlink rule is for.
    pub extra: Vec<BlobStat>,
}

/// How far a scrub of all blobs got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubProgress {
    /// Which pass, from 1.
    pub pass: u64,
    /// When it began, in milliseconds since 1970. For people: nothing depends on it but when to begin the next.
    pub started_at_ms: u64,
    /// When it ended, likewise; 0 while it runs.
    pub ended_at_ms: u64,
    /// The last blob verified; `None` before the first.
    pub after: Option<Digest>,
    /// Blobs verified in this pass.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs of them found damaged or missing.
    pub bad: u64,
}

/// The form of a progress that fits no other version.
const VERSION: u8 = 1;
const NUMBERS: usize = 6;

impl ScrubProgress {
    /// Name of the note that holds it.
    pub(super) const NOTE: &str = "scrub";

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut note = vec![VERSION];
        for number in [
            self.pass,
            self.started_at_ms,
            self.ended_at_ms,
            self.blobs,
            self.bytes,
            self.bad,
        ] {
            note.extend_from_slice(&number.to_be_bytes());
        }
        note.extend(self.after.iter().flat_map(Digest::to_key));
        note
    }

    /// `None` for anything `encode` cannot have written.
    pub(super) fn decode(note: &[u8]) -> Option<ScrubProgress> {
        let (&VERSION, rest) = note.split_first()? else {
            return None;
        };
        let (numbers, after) = rest.split_at_checked(8 * NUMBERS)?;
        let mut numbers = numbers
            .as_chunks::<8>()
            .0
            .iter()
            .copied()
            .map(u64::from_be_bytes);
        let mut next = || numbers.next();
        Some(ScrubProgress {
            pass: next()?,
            started_at_ms: next()?,
            ended_at_ms: next()?,
            blobs: next()?,
            bytes: next()?,
            bad: next()?,
            after: if after.is_empty() {
                None
            } else {
                Some(Digest::from_key(after)?)
            },
        })
    }
}

/// Compares what should be here with what `next` finds, both ordered. `limit` bounds the extras.
pub(super) fn compare(
    expected: &[BlobStat],
    next: &mut dyn FnMut() -> Result<Option<BlobStat>, BlobError>,
    limit: usize,
) -> Result<Comparison, BlobError> {
    let mut comparison = Comparison::default();
    let mut found = next()?;
    for wanted in expected {
        while let Some(stat) = found.filter(|stat| stat.digest < wanted.digest) {
            comparison.extra.push(stat);
            found = next()?;
        }
        match found.filter(|stat| stat.digest == wanted.digest) {
            None => comparison.missing.push(wanted.digest),
            Some(stat) => {
                if stat.size_bytes != wanted.size_bytes {
                    comparison.wrong_size.push(wanted.digest);
                }
                found = next()?;
            }
        }
        comparison.extra.truncate(limit);
    }
    while let Some(stat) = found.filter(|_| comparison.extra.len() < limit) {
        comparison.extra.push(stat);
        found = next()?;
    }
    Ok(comparison)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::Sha256([number; 32])
    }

    fn stat(number: u8, size_bytes: u64) -> BlobStat {
        BlobStat {
            digest: digest(number),
            size_bytes,
        }
    }

    #[test]
    fn every_difference_is_named() {
        let expected = [stat(2, 20), stat(3, 30), stat(5, 50), stat(6, 60)];
        let found = [
            stat(1, 1),
            stat(3, 30),
            stat(4, 4),
            stat(5, 51),
            stat(7, 7),
            stat(8, 8),
        ];
        let compare = |found: &[BlobStat], limit| {
            let mut found = found.iter().copied();
            super::compare(&expected, &mut || Ok(found.next()), limit).expect("compared")
        };
        let comparison = compare(&found, 10);
        assert_eq!(comparison.missing, [digest(2), digest(6)]);
        assert_eq!(comparison.wrong_size, [digest(5)]);
        assert_eq!(
            comparison.extra,
            [stat(1, 1), stat(4, 4), stat(7, 7), stat(8, 8)]
        );
        assert_eq!(compare(&found, 2).extra.len(), 2);
        assert_eq!(compare(&expected, 9), Comparison::default());
    }

    #[test]
    fn a_progress_survives_a_round_trip() {
        let new = ScrubProgress::default();
        let half = ScrubProgress {
            pass: 3,
            started_at_ms: 1,
            ended_at_ms: 2,
            after: Some(digest(9)),
            blobs: 4,
            bytes: 5,
            bad: 6,
        };
        for progress in [new, half] {
            let note = progress.encode();
            assert_eq!(ScrubProgress::decode(&note), Some(progress));
            assert_eq!(ScrubProgress::decode(&note[..note.len() - 1]), None);
            assert_eq!(ScrubProgress::decode(&[&note[..], &[0]].concat()), None);
        }
        assert_eq!(ScrubProgress::decode(&[]), None);
        assert_eq!(ScrubProgress::decode(&[2; 49]), None);
    }
}
