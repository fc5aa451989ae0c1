//! Byte ranges: the `Range` header of a pull and the `Content-Range` header of a chunk.

use std::str::FromStr;

use crate::error::{ParseError, excerpt};

/// A non-empty run of bytes inside a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset of the last byte.
    pub end_inclusive: u64,
}

impl ByteRange {
    /// The length in bytes; at least one. The range 0 to `u64::MAX`, one byte too long to count, saturates.
    pub fn len_bytes(&self) -> u64 {
        self.end_inclusive
            .saturating_sub(self.start)
            .saturating_add(1)
    }
}

/// What a `Range` header asks for, before the size of the blob is known (RFC 9110, section 14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeRequest {
    /// Nothing we honour: another unit, several ranges, or not the grammar. RFC 9110 lets a server ignore all
    /// three and answer with the whole representation.
    Ignored,
    /// `bytes=a-b`, or `bytes=a-` with the largest end.
    Span {
        /// Offset of the first byte.
        start: u64,
        /// Offset of the last byte, not yet clamped.
        end_inclusive: u64,
    },
    /// `bytes=-n`: the last n bytes.
    Suffix {
        /// How many bytes from the end.
        length_bytes: u64,
    },
}

/// What to answer for a blob of a known size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeOutcome {
    /// 200 with everything.
    Full,
    /// 206 with these bytes.
    Partial {
        /// Offset of the first byte.
        start: u64,
        /// Offset of the last byte, inside the blob.
        end_inclusive: u64,
    },
    /// 416 with `Content-Range: bytes */size`.
    Unsatisfiable,
}

impl RangeRequest {
    /// Reads the value of a `Range` header. Never fails: what cannot be honoured is [`RangeRequest::Ignored`].
    pub fn parse(header: &str) -> RangeRequest {
        let Some((unit, ranges)) = header.split_once('=') else {
            return RangeRequest::Ignored;
        };
        if !unit.eq_ignore_ascii_case("bytes") {
            return RangeRequest::Ignored;
        }
        let Some((start, end)) = ranges.trim_matches([' ', '\t']).split_once('-') else {
            return RangeRequest::Ignored;
        };
        // Numbers saturate, which resolves rightly by itself: no blob has a byte at u64::MAX, so an offset beyond
        // 64 bits is past the end as a start, and clamped as an end.
        match (
            start.is_empty(),
            end.is_empty(),
            saturating(start),
            saturating(end),
        ) {
            (false, false, Some(start), Some(end_inclusive)) => RangeRequest::Span {
                start,
                end_inclusive,
            },
            (false, true, Some(start), _) => RangeRequest::Span {
                start,
                end_inclusive: u64::MAX,
            },
            (true, false, _, Some(length_bytes)) => RangeRequest::Suffix { length_bytes },
            _ => RangeRequest::Ignored,
        }
    }

    /// Fits the request to a blob of `size_bytes`.
    ///
    /// A last byte before the first is unsatisfiable: RFC 9110 would let us ignore it, the conformance suite
    /// wants 416.
    pub fn resolve(self, size_bytes: u64) -> RangeOutcome {
        match self {
            RangeRequest::Ignored => RangeOutcome::Full,
            RangeRequest::Span {
                start,
                end_inclusive,
            } if start >= size_bytes || end_inclusive < start => RangeOutcome::Unsatisfiable,
            RangeRequest::Span {
                start,
                end_inclusive,
            } => RangeOutcome::Partial {
                start,
                end_inclusive: end_inclusive.min(size_bytes - 1),
            },
            RangeRequest::Suffix { length_bytes: 0 } => RangeOutcome::Unsatisfiable,
            // RFC 9110 would call a suffix of nothing satisfiable; no 206 can say "no bytes", and clients that ask an
            // empty blob for a part expect the same answer whatever the part.
            RangeRequest::Suffix { .. } if size_bytes == 0 => RangeOutcome::Unsatisfiable,
            RangeRequest::Suffix { length_bytes } => RangeOutcome::Partial {
                start: size_bytes.saturating_sub(length_bytes),
                end_inclusive: size_bytes - 1,
            },
        }
    }
}

/// A decimal number, or the largest one when it does not fit; nothing when a character is not a digit.
fn saturating(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// Where a chunk belongs in an upload (distribution spec, "Pushing a blob in chunks").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset of the last byte, at or after the first.
    pub end_inclusive: u64,
}

impl ContentRange {
    /// Reads `a-b` as the distribution spec writes it, and `bytes a-b/*` or `bytes a-b/total` as RFC 9110 does,
    /// which some clients send.
    ///
    /// # Errors
    /// [`ParseError::ContentRange`].
    pub fn parse(header: &str) -> Result<ContentRange, ParseError> {
        let invalid = |reason| ParseError::ContentRange {
            text: excerpt(header),
            reason,
        };
        let (span, total) = match header.strip_prefix("bytes ") {
            None => (header, None),
            Some(rest) => rest
                .split_once('/')
                .map(|(span, total)| (span, Some(total)))
                .ok_or_else(|| invalid("no total size"))?,
        };
        let (start, end) = span
            .split_once('-')
            .ok_or_else(|| invalid("not start-end"))?;
        let number = |digits| exact(digits).ok_or_else(|| invalid("not a 64-bit number"));
        let (start, end_inclusive) = (number(start)?, number(end)?);
        if end_inclusive < start {
            return Err(invalid("the last byte is before the first"));
        }
        match total {
            None | Some("*") => {}
            Some(total) if number(total)? > end_inclusive => {}
            Some(_) => return Err(invalid("the last byte is past the total size")),
        }
        Ok(ContentRange {
            start,
            end_inclusive,
        })
    }

    /// The length of the chunk in bytes; at least one. 0 to `u64::MAX`, one byte too long to count, saturates.
    pub fn len_bytes(&self) -> u64 {
        (self.end_inclusive - self.start).saturating_add(1)
    }
}

fn exact(digits: &str) -> Option<u64> {
    saturating(digits)?;
    digits.parse().ok()
}

impl FromStr for ContentRange {
    type Err = ParseError;

    fn from_str(header: &str) -> Result<ContentRange, ParseError> {
        ContentRange::parse(header)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolve(header: &str, size_bytes: u64) -> RangeOutcome {
        RangeRequest::parse(header).resolve(size_bytes)
    }

    fn part(start: u64, end_inclusive: u64) -> RangeOutcome {
        RangeOutcome::Partial {
            start,
            end_inclusive,
        }
    }

    #[test]
    fn ranges_resolve_as_the_rfc_and_the_suite_say() {
        const BEYOND: &str = "18446744073709551616";
        let none = RangeOutcome::Unsatisfiable;
        let cases = [
            ("bytes=500-1499".to_owned(), part(500, 1499)),
            ("bytes=0-0".to_owned(), part(0, 0)),
            ("bytes=500-".to_owned(), part(500, 1999)),
            ("bytes=-500".to_owned(), part(1500, 1999)),
            ("bytes=1500-9999".to_owned(), part(1500, 1999)),
            ("bytes=-5000".to_owned(), part(0, 1999)),
            ("bytes=1999-1999".to_owned(), part(1999, 1999)),
            ("BYTES= 1-2\t".to_owned(), part(1, 2)),
            ("bytes=0001-0002".to_owned(), part(1, 2)),
            ("bytes=2000-".to_owned(), none),
            ("bytes=5000-10000".to_owned(), none),
            ("bytes=500-0".to_owned(), none),
            ("bytes=-0".to_owned(), none),
            (format!("bytes=0-{BEYOND}"), part(0, 1999)),
            (format!("bytes=-{BEYOND}"), part(0, 1999)),
            (format!("bytes={BEYOND}-"), none),
            (format!("bytes={BEYOND}-{BEYOND}0"), none),
            (format!("bytes={BEYOND}-0"), none),
        ];
        for (header, expected) in cases {
            assert_eq!(resolve(&header, 2000), expected, "{header}");
        }
    }

    #[test]
    fn what_is_not_one_byte_range_is_ignored() {
        let headers = [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=1",
            "bytes=1-2-3",
            "bytes=--1",
            "bytes=+1-2",
            "bytes=1 - 2",
            "bytes=0x1-2",
            "bytes:1-2",
            "bytes 1-2",
            "items=1-2",
            "bytes=0-1,4-5",
            "bytes=0-1,",
            ",0-1",
            "bytes=500-0,0-1",
            "bytes =1-2",
            "bytes=１-２",
        ];
        for header in headers {
            assert_eq!(resolve(header, 2000), RangeOutcome::Full, "{header}");
        }
    }

    #[test]
    fn an_empty_blob_has_no_range() {
        for header in ["bytes=0-0", "bytes=0-", "bytes=5-9", "bytes=-0", "bytes=-5"] {
            assert_eq!(resolve(header, 0), RangeOutcome::Unsatisfiable, "{header}");
        }
    }

    #[test]
    fn chunks_are_placed_by_either_spelling() {
        for header in ["0-9", "bytes 0-9/*", "bytes 0-9/10", "00-009"] {
            let range =
                ContentRange::parse(header).unwrap_or_else(|error| panic!("{header}: {error}"));
            assert_eq!(
                (range.start, range.end_inclusive, range.len_bytes()),
                (0, 9, 10)
            );
        }
        let whole = ContentRange::parse("0-18446744073709551615").unwrap();
        assert_eq!(whole.len_bytes(), u64::MAX);
        let bad = [
            "",
            "abc",
            "5",
            "-",
            "9-3",
            "-5",
            "5-",
            "a-b",
            "0-9 ",
            " 0-9",
            "+0-9",
            "0--9",
            "0-9-",
            "bytes 0-9",
            "bytes=0-9",
            "bytes 0-9/9",
            "bytes 0-9/x",
            "bytes */10",
            "bytes 0-9/",
            "0-9/10",
            "0-18446744073709551616",
            "18446744073709551616-18446744073709551617",
        ];
        for header in bad {
            let error = header.parse::<ContentRange>().unwrap_err();
            assert!(matches!(error, ParseError::ContentRange { .. }), "{header}");
        }
    }

    #[test]
    fn lengths_count_both_ends() {
        assert_eq!(
            ByteRange {
                start: 3,
                end_inclusive: 3
            }
            .len_bytes(),
            1
        );
        assert_eq!(
            ByteRange {
                start: 0,
                end_inclusive: u64::MAX
            }
            .len_bytes(),
            u64::MAX
        );
    }

    proptest! {
        #[test]
        fn a_partial_answer_lies_inside_the_blob(header in "bytes=[0-9]{0,21}-[0-9]{0,21}", size_bytes: u64) {
            for size_bytes in [size_bytes, size_bytes % 100] {
                if let RangeOutcome::Partial { start, end_inclusive } = resolve(&header, size_bytes) {
                    prop_assert!(start <= end_inclusive && end_inclusive < size_bytes);
                }
            }
        }

        #[test]
        fn a_range_as_written_is_the_range_read(start: u64, more in 0..1000_u64) {
            let end_inclusive = start.saturating_add(more);
            let range = ContentRange { start, end_inclusive };
            prop_assert_eq!(ContentRange::parse(&format!("{start}-{end_inclusive}")), Ok(range));
            prop_assert_eq!(ContentRange::parse(&format!("bytes {start}-{end_inclusive}/*")), Ok(range));
            if start < end_inclusive {
                let reversed = format!("{end_inclusive}-{start}");
                prop_assert!(ContentRange::parse(&reversed).is_err());
            }
        }

        #[test]
        fn parsing_never_panics(header in "(bytes[ =])?.*", size_bytes: u64) {
            let _ = resolve(&header, size_bytes);
            let _ = ContentRange::parse(&header);
        }
    }
}
