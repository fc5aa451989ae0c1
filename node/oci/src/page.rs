//! Paging: `n`, `last` and the `Link` header.

use crate::error::{ParseError, excerpt};
use crate::percent;

/// Which part of a listing is asked for (distribution spec, "Listing Tags").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// How many entries at most; zero asks for none. As sent: [`Page::limit_within`] applies the maximum.
    pub limit: Option<usize>,
    /// List only what sorts after this; it need not exist.
    pub last: Option<String>,
}

impl Page {
    /// Reads the decoded values of `n` and `last`. Empty values count as absent; numbers too large to hold
    /// become the largest.
    ///
    /// # Errors
    /// [`ParseError::Page`] when `n` is negative or not a number.
    pub fn parse(n: Option<&str>, last: Option<&str>) -> Result<Page, ParseError> {
        let limit = match n.filter(|n| !n.is_empty()) {
            None => None,
            Some(n) if n.bytes().all(|digit| digit.is_ascii_digit()) => {
                Some(n.parse().unwrap_or(usize::MAX))
            }
            Some(n) => return Err(ParseError::Page { text: excerpt(n) }),
        };
        Ok(Page {
            limit,
            last: last.filter(|last| !last.is_empty()).map(str::to_owned),
        })
    }

    /// How many entries to answer with when the server gives at most `max`.
    pub fn limit_within(&self, max: usize) -> usize {
        self.limit.map_or(max, |limit| limit.min(max))
    }
}

/// The value of a `Link` header that leads to the next page (RFC 5988, section 5): `path` as it stands, the
/// parameters percent-encoded.
pub fn link_next(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut link = format!("<{path}");
    for (position, (name, value)) in parameters.iter().enumerate() {
        link.push(if position == 0 { '?' } else { '&' });
        link.push_str(name);
        link.push('=');
        link.push_str(&percent::encode(value));
    }
    link.push_str(">; rel=\"next\"");
    link
}
