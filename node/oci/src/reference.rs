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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    #[test]
    fn a_colon_decides() {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        assert_eq!(
            Reference::parse(&digest.to_string()),
            Ok(Reference::Digest(digest))
        );
        let tag = Reference::parse("latest").unwrap();
        assert_eq!(
            (tag.tag().map(Tag::as_str), tag.digest()),
            (Some("latest"), None)
        );
        assert!(matches!(
            Reference::parse("sha256:baddigeststring"),
            Err(ParseError::Digest { .. })
        ));
        assert!(matches!(
            Reference::parse("md5:00"),
            Err(ParseError::Algorithm { .. })
        ));
        assert!(matches!(Reference::parse(""), Err(ParseError::Tag { .. })));
        // Without its colon a digest is a tag like any other; the referrers tag schema relies on it.
        assert!(Reference::parse(&digest.to_string().replace(':', "-")).is_ok());
    }

    #[test]
    fn it_displays_as_written() {
        for text in ["v1", &Digest::of(Algorithm::Sha512, b"").to_string()] {
            assert_eq!(
                Reference::parse(text).map(|reference| reference.to_string()),
                Ok((*text).to_owned())
            );
        }
    }
}
