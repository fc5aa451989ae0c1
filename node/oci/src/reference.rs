//! References: how a manifest is named in a URL.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::ParseError;
use crate::tag::Tag;

/// The `<reference>` of the manifest endpoints: a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// A name that may move.
    Tag(Tag),
    /// Fixed content.
    Digest(Digest),
}

impl Reference {
    /// Anything with a colon must be a digest: no tag contains one, and a mistyped digest read as a tag would
    /// hide the mistake behind "not found".
    ///
    /// # Errors
    /// [`ParseError::Digest`] or [`ParseError::Algorithm`] with a colon, [`ParseError::Tag`] without.
    pub fn parse(text: &str) -> Result<Reference, ParseError> {
        if text.contains(':') {
            Digest::parse(text).map(Reference::Digest)
        } else {
            Tag::parse(text).map(Reference::Tag)
        }
    }

    /// The digest, when the reference is one.
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Reference::Tag(_) => None,
            Reference::Digest(digest) => Some(digest),
        }
    }

    /// The tag, when the reference is one.
    pub fn tag(&self) -> Option<&Tag> {
        match self {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(tag) => tag.fmt(f),
            Reference::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

impl FromStr for Reference {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Reference, ParseError> {
        Reference::parse(text)
    }
}
