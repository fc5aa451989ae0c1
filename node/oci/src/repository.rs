//! Repository names: the `<name>` in `/v2/<name>/...`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{ParseError, excerpt};

/// A valid repository name. Cheap to clone; ordered by bytes, the order of every listing.
///
/// Grammar (distribution spec, "Pulling manifests"):
/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    /// The longest accepted name in bytes. The spec asks registries to support 255 with the host in front;
    /// clients such as distribution refuse longer ones themselves.
    pub const MAX_BYTES: usize = 255;

    /// Checks a name against the grammar.
    ///
    /// # Errors
    /// [`ParseError::RepositoryName`] with the first thing found wrong.
    pub fn parse(text: &str) -> Result<RepositoryName, ParseError> {
        match check(text) {
            Ok(()) => Ok(RepositoryName(Arc::from(text))),
            Err(reason) => Err(ParseError::RepositoryName {
                text: excerpt(text),
                reason,
            }),
        }
    }

    /// The name as written in URLs.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("empty");
    }
    if text.len() > RepositoryName::MAX_BYTES {
        return Err("longer than 255 characters");
    }
    text.split('/').try_for_each(check_component)
}

/// One component: alphanumeric runs with exactly one separator between two of them.
fn check_component(component: &str) -> Result<(), &'static str> {
    if component.is_empty() {
        return Err("empty path component");
    }
    let bytes = component.as_bytes();
    let mut at = 0;
    loop {
        let run = count(&bytes[at..], |b| {
            b.is_ascii_lowercase() || b.is_ascii_digit()
        });
        if run == 0 {
            return Err("a path component must start and end with a-z or 0-9");
        }
        at += run;
        let Some(&separator) = bytes.get(at) else {
            return Ok(());
        };
        let repeated = count(&bytes[at..], |b| b == separator);
        match (separator, repeated) {
            (b'.', 1) | (b'_', 1 | 2) | (b'-', _) => at += repeated,
            (b'.' | b'_', _) => return Err("too many separators in a row"),
            _ => return Err("only a-z, 0-9 and the separators . _ __ - / are allowed"),
        }
    }
}

fn count(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|&&b| wanted(b)).count()
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for RepositoryName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<RepositoryName, ParseError> {
        RepositoryName::parse(text)
    }
}

impl TryFrom<String> for RepositoryName {
    type Error = ParseError;

    fn try_from(text: String) -> Result<RepositoryName, ParseError> {
        RepositoryName::parse(&text)
    }
}

impl From<RepositoryName> for String {
    fn from(name: RepositoryName) -> String {
        name.as_str().to_owned()
    }
}

impl AsRef<str> for RepositoryName {
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
        let good = [
            "a",
            "0",
            "a.b",
            "a_b",
            "a__b",
            "a-b",
            "a--b",
            "a---b",
            "a/b",
            "a/b/c/d/e/f/g/h",
            "library/x1.2-3",
            "x/blobs",
        ];
        for text in good {
            assert_eq!(
                RepositoryName::parse(text).map(|name| name.to_string()),
                Ok(text.to_owned())
            );
        }
        let bad = [
            "", "A", "Repo", "a/B", "a___b", "a..b", "a.-b", "a-.b", "a_-b", "a._b", "-a", "a-",
            "_a", "a_", ".a", "a.", ".", "..", "/", "/a", "a/", "a//b", "a/../b", "a/./b", "a b",
            "a\n", "a\0", "a%2Fb", "a:b", "a@b", "a+b", "é", "ａ", "a\\b", "~a",
        ];
        for text in bad {
            assert!(RepositoryName::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_length_is_capped() {
        assert!(RepositoryName::parse(&"a".repeat(255)).is_ok());
        for text in ["a".repeat(256), "a/".repeat(1000) + "a"] {
            let error = RepositoryName::parse(&text).unwrap_err();
            assert!(error.to_string().len() < 200);
        }
    }

    /// The grammar in other words: no component is empty, starts or ends with a separator, and every run of
    /// separators is one of those the grammar lists.
    fn oracle(text: &str) -> bool {
        let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        text.split('/').all(|component| {
            let runs: Vec<&str> = component
                .split(alphanumeric)
                .filter(|run| !run.is_empty())
                .collect();
            component.starts_with(alphanumeric)
                && component.ends_with(alphanumeric)
                && runs
                    .iter()
                    .all(|run| [".", "_", "__"].contains(run) || run.chars().all(|c| c == '-'))
        })
    }

    #[test]
    fn every_short_text_is_judged_as_the_grammar_says() {
        const ALPHABET: [char; 6] = ['a', '.', '_', '-', '/', 'A'];
        let mut texts = vec![String::new()];
        for _ in 0..6 {
            texts = texts
                .iter()
                .flat_map(|text| ALPHABET.map(|c| format!("{text}{c}")))
                .collect();
            for text in &texts {
                assert_eq!(
                    RepositoryName::parse(text).is_ok(),
                    oracle(text),
                    "{text:?}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn what_the_regex_of_the_spec_makes_is_a_name(
            text in "[a-z0-9]{1,3}((\\.|_|__|-{1,3})[a-z0-9]{1,3}){0,3}(/[a-z0-9]{1,3}((\\.|_|__|-{1,3})[a-z0-9]{1,3}){0,3}){0,4}",
        ) {
            prop_assert_eq!(RepositoryName::parse(&text).map(String::from), Ok(text));
        }

        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = RepositoryName::parse(&text);
        }
    }
}
