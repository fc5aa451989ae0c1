//! Tags: names that point at a manifest and may move.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{ParseError, excerpt};

/// A valid tag, `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`. Cheap to clone; ordered by bytes, the order of `tags/list`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(Arc<str>);

impl Tag {
    /// The longest tag in bytes (distribution spec, "Pulling manifests").
    pub const MAX_BYTES: usize = 128;

    /// Checks a tag against the grammar.
    ///
    /// # Errors
    /// [`ParseError::Tag`] with the first thing found wrong.
    pub fn parse(text: &str) -> Result<Tag, ParseError> {
        match check(text.as_bytes()) {
            Ok(()) => Ok(Tag(Arc::from(text))),
            Err(reason) => Err(ParseError::Tag {
                text: excerpt(text),
                reason,
            }),
        }
    }

    /// The tag as written in URLs.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Err("empty");
    };
    if bytes.len() > Tag::MAX_BYTES {
        return Err("longer than 128 characters");
    }
    if !(first.is_ascii_alphanumeric() || first == b'_') {
        return Err("must start with a letter, a digit or _");
    }
    if !rest
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
    {
        return Err("only letters, digits, . _ and - are allowed");
    }
    Ok(())
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for Tag {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Tag, ParseError> {
        Tag::parse(text)
    }
}

impl TryFrom<String> for Tag {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Tag, ParseError> {
        Tag::parse(&text)
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> String {
        tag.as_str().to_owned()
    }
}

impl AsRef<str> for Tag {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_corpus_is_sorted_rightly() {
        for text in [
            "a",
            "_",
            "9",
            "latest",
            "v1.0",
            "_x.y-Z",
            "A",
            "a..",
            "sha256-abc",
            &"t".repeat(128),
        ] {
            assert_eq!(
                Tag::parse(text).map(|tag| tag.to_string()),
                Ok(text.to_owned())
            );
        }
        for text in [
            "",
            ".x",
            "-x",
            "a+b",
            "a b",
            "a/b",
            "a:b",
            "a\n",
            "a\0",
            "é",
            "aé",
            &"t".repeat(129),
        ] {
            assert!(Tag::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn tags_sort_by_bytes() {
        let mut tags = ["b", "A", "a", "10", "2", "_x", "B"].map(|text| Tag::parse(text).unwrap());
        tags.sort();
        assert_eq!(
            tags.each_ref().map(Tag::as_str),
            ["10", "2", "A", "B", "_x", "a", "b"]
        );
    }

    proptest! {
        #[test]
        fn what_the_regex_of_the_spec_makes_is_a_tag(text in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}") {
            prop_assert_eq!(Tag::parse(&text).map(String::from), Ok(text));
        }

        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = Tag::parse(&text);
        }
    }
}
