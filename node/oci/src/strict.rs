//! Reading JSON objects without the freedoms that let two readers see two different manifests.
//!
//! JSON leaves open what a repeated key means, and some readers match keys without regard to case. A manifest
//! that one client reads as an image and another as an index is an attack (CVE-2021-41190), so a repeated key
//! and a key that is a known one in other case are both errors here.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The keys of one object: hands out known ones and skips the values of all others.
pub(crate) struct Fields<'de> {
    known: &'static [&'static str],
    seen: BTreeSet<Cow<'de, str>>,
}

impl<'de> Fields<'de> {
    pub(crate) fn new(known: &'static [&'static str]) -> Fields<'de> {
        Fields {
            known,
            seen: BTreeSet::new(),
        }
    }

    /// The next known key; the caller reads its value. Nothing at the end of the object.
    pub(crate) fn next<A: MapAccess<'de>>(
        &mut self,
        map: &mut A,
    ) -> Result<Option<&'static str>, A::Error> {
        while let Some(Text(key)) = map.next_key()? {
            let known = self.known.iter().find(|known| **known == key);
            if known.is_none() && self.known.iter().any(|known| same_folded(known, &key)) {
                return Err(A::Error::custom(format_args!(
                    "field {key:?} differs from a known one only by case"
                )));
            }
            if let Some(repeated) = self.seen.replace(key) {
                return Err(A::Error::custom(format_args!(
                    "field {repeated:?} is repeated"
                )));
            }
            if let Some(known) = known {
                return Ok(Some(known));
            }
            map.next_value::<Skip>()?;
        }
        Ok(None)
    }
}

/// Equal for a reader that folds case as Go's `encoding/json` does: ASCII, the long s and the Kelvin sign.
fn same_folded(known: &str, key: &str) -> bool {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        _ => c.to_ascii_lowercase(),
    };
    known.chars().map(fold).eq(key.chars().map(fold))
}

/// A string borrowed from the body unless it holds escapes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Text<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'de>, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// Any value, checked and forgotten. Unlike `IgnoredAny` it descends through the reader's recursion limit, so
/// deep nesting is refused instead of stored for a client to choke on.
struct Skip;

impl<'de> Deserialize<'de> for Skip {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Skip, D::Error> {
        deserializer.deserialize_any(SkipVisitor)
    }
}

struct SkipVisitor;

impl<'de> Visitor<'de> for SkipVisitor {
    type Value = Skip;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Skip, E> {
        Ok(Skip)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Skip, E> {
        Ok(Skip)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Skip, E> {
        Ok(Skip)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Skip, E> {
        Ok(Skip)
    }

    fn visit_str<E>(self, _: &str) -> Result<Skip, E> {
        Ok(Skip)
    }

    fn visit_unit<E>(self) -> Result<Skip, E> {
        Ok(Skip)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Skip, A::Error> {
        while seq.next_element::<Skip>()?.is_some() {}
        Ok(Skip)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Skip, A::Error> {
        while map.next_key::<Text<'_>>()?.is_some() {
            map.next_value::<Skip>()?;
        }
        Ok(Skip)
    }
}

/// A map of strings in which every key appears once.
pub(crate) struct StringMap(pub(crate) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for StringMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StringMap, D::Error> {
        struct StringMapVisitor;
        impl<'de> Visitor<'de> for StringMapVisitor {
            type Value = StringMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StringMap, A::Error> {
                let mut strings = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if strings.contains_key(&key) {
                        return Err(A::Error::custom(format_args!("field {key:?} is repeated")));
                    }
                    strings.insert(key, value);
                }
                Ok(StringMap(strings))
            }
        }
        deserializer.deserialize_map(StringMapVisitor)
    }
}
