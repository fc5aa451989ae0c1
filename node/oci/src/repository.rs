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
