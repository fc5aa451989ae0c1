//! Taking keys apart.

use oci::Digest;

use super::Table;
use crate::codec::CodecError;

/// Takes a key apart, part by part, in the order in which it was written.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Behind the table byte.
    ///
    /// # Errors
    /// [`CodecError::Key`] when `key` belongs to another table.
    pub fn new(table: Table, key: &'a [u8]) -> Result<Reader<'a>, CodecError> {
        match key.split_first() {
            Some((&byte, rest)) if byte == table as u8 => Ok(Reader(rest)),
            _ => Err(CodecError::Key),
        }
    }

    /// The next eight bytes as a number.
    ///
    /// # Errors
    /// [`CodecError::Key`] when the key ends before.
    pub fn number(&mut self) -> Result<u64, CodecError> {
        let (number, rest) = self.0.split_first_chunk().ok_or(CodecError::Key)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*number))
    }

    /// Whether nothing is left.
    pub fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    /// The next digest, whose first byte tells its length.
    ///
    /// # Errors
    /// [`CodecError::Key`] when there is none.
    pub fn digest(&mut self) -> Result<Digest, CodecError> {
        // `from_key` refuses a length that does not fit the algorithm byte, so at most one of these parses.
        for length in [33, 65] {
            if let Some((head, rest)) = self.0.split_at_checked(length)
                && let Some(digest) = Digest::from_key(head)
            {
                self.0 = rest;
                return Ok(digest);
            }
        }
        Err(CodecError::Key)
    }

    /// The text behind its length.
    ///
    /// # Errors
    /// [`CodecError::Key`] when the key ends before, or it is no UTF-8.
    pub fn counted_text(&mut self) -> Result<&'a str, CodecError> {
        let (length, rest) = self.0.split_first_chunk().ok_or(CodecError::Key)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (text, rest) = rest.split_at_checked(length).ok_or(CodecError::Key)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| CodecError::Key)
    }

    /// All that is left, as text.
    ///
    /// # Errors
    /// [`CodecError::Key`] when it is no UTF-8.
    pub fn text(self) -> Result<&'a str, CodecError> {
        std::str::from_utf8(self.0).map_err(|_| CodecError::Key)
    }
}
