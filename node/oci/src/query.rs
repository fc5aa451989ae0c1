//! The query of a request, read by name.

use std::borrow::Cow;

use crate::percent;
use crate::route::RouteError;

/// A raw query. Parameters nobody asks for are never looked at, so `?ns=docker.io` and the like are ignored.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(crate) fn new(raw: Option<&'a str>) -> Query<'a> {
        Query(raw.unwrap_or_default())
    }

    /// Every value of a parameter, decoded, in the order sent.
    pub(crate) fn all(
        self,
        name: &'static str,
    ) -> impl Iterator<Item = Result<Cow<'a, str>, RouteError>> {
        let invalid = RouteError::QueryInvalid {
            parameter: name,
            reason: "bad percent-encoding",
        };
        self.raw(name)
            .map(move |value| percent::decode(value).ok_or_else(|| invalid.clone()))
    }

    /// How often a parameter stands in the query.
    pub(crate) fn count(self, name: &str) -> usize {
        self.raw(name).count()
    }

    /// The value of a parameter that may stand once. Twice is refused: a proxy that checks the first and a
    /// server that uses the second would not be talking about the same request.
    pub(crate) fn one(self, name: &'static str) -> Result<Option<Cow<'a, str>>, RouteError> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(RouteError::QueryInvalid {
                parameter: name,
                reason: "given more than once",
            }),
            (value, None) => value.transpose(),
        }
    }

    fn raw<'n>(self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        let pairs = self
            .0
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs
            .filter(move |(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_their_exact_name() {
        let query = Query::new(Some("a=1&ab=2&A=3&flag&b=x=y&c=%2B+"));
        let one = |name| query.one(name).map(|value| value.map(Cow::into_owned));
        assert_eq!(one("a"), Ok(Some("1".to_owned())));
        assert_eq!(one("flag"), Ok(Some(String::new())));
        assert_eq!(one("b"), Ok(Some("x=y".to_owned())));
        assert_eq!(one("c"), Ok(Some("++".to_owned())));
        assert_eq!(one("missing"), Ok(None));
        assert_eq!(Query::new(None).count(""), 1);
    }

    #[test]
    fn a_repeated_single_parameter_is_refused_and_a_list_keeps_its_order() {
        let query = Query::new(Some("tag=a&n=1&tag=%62&n=1"));
        assert!(matches!(
            query.one("n"),
            Err(RouteError::QueryInvalid { parameter: "n", .. })
        ));
        let tags: Result<Vec<_>, _> = query.all("tag").collect();
        assert_eq!(tags, Ok(vec![Cow::Borrowed("a"), Cow::Borrowed("b")]));
        assert_eq!(query.count("tag"), 2);
    }

    #[test]
    fn only_what_is_asked_for_must_be_readable() {
        let query = Query::new(Some("ns=%zz&&=&digest=%zz"));
        assert_eq!(query.one("n"), Ok(None));
        assert!(matches!(
            query.one("digest"),
            Err(RouteError::QueryInvalid {
                parameter: "digest",
                ..
            })
        ));
    }
}
