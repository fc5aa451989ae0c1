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
