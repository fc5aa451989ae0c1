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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_values_count_as_absent() {
        for (n, last) in [
            (None, None),
            (Some(""), Some("")),
            (None, Some("")),
            (Some(""), None),
        ] {
            assert_eq!(Page::parse(n, last), Ok(Page::default()));
        }
        assert_eq!(Page::default().limit_within(100), 100);
    }

    #[test]
    fn limits_are_read_and_clamped() {
        let cases = [
            ("0", 0),
            ("1", 1),
            ("007", 7),
            ("100", 100),
            ("101", 100),
            ("99999999999999999999", 100),
        ];
        for (n, expected) in cases {
            assert_eq!(
                Page::parse(Some(n), None).map(|page| page.limit_within(100)),
                Ok(expected),
                "{n}"
            );
        }
    }

    #[test]
    fn what_is_no_number_is_an_error() {
        for n in [
            "-1", "-0", "+1", "foo", "1.0", "1e3", " 1", "1 ", "0x1", "١",
        ] {
            assert!(
                matches!(Page::parse(Some(n), None), Err(ParseError::Page { .. })),
                "{n}"
            );
        }
    }

    #[test]
    fn any_marker_is_taken_as_it_is() {
        let page = Page::parse(None, Some("no such tag")).unwrap();
        assert_eq!(page.last.as_deref(), Some("no such tag"));
    }

    #[test]
    fn a_link_is_encoded_and_cannot_be_escaped_from() {
        let link = link_next("/v2/a/tags/list", &[("n", "2"), ("last", "v1.0_b")]);
        assert_eq!(link, "</v2/a/tags/list?n=2&last=v1.0_b>; rel=\"next\"");
        assert_eq!(
            link_next("/v2/_catalog", &[]),
            "</v2/_catalog>; rel=\"next\""
        );
        let hostile = link_next(
            "/v2/a/referrers/x",
            &[("artifactType", "a/b+c>; rel=\"x\"\r\n&n=1")],
        );
        let expected = "</v2/a/referrers/x?artifactType=a%2Fb%2Bc%3E%3B%20rel%3D%22x%22%0D%0A%26n%3D1>; rel=\"next\"";
        assert_eq!(hostile, expected);
    }
}
