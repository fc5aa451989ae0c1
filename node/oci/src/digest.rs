//! Content addresses: `algorithm:hex`, as the image spec writes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{ParseError, excerpt};

/// A digest algorithm registered in the image spec and supported here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// `sha256`, the canonical algorithm.
    Sha256,
    /// `sha512`.
    Sha512,
}

impl Algorithm {
    /// The name as written before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// The length of a raw digest in bytes.
    pub fn digest_bytes(self) -> usize {
        match self {
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Algorithm, ParseError> {
        match text {
            "sha256" => Ok(Algorithm::Sha256),
            "sha512" => Ok(Algorithm::Sha512),
            _ => Err(ParseError::Algorithm {
                text: excerpt(text),
            }),
        }
    }
}

/// The digest of some bytes. Ordered by algorithm, then by value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Digest {
    /// A SHA-256 value.
    Sha256([u8; 32]),
    /// A SHA-512 value.
    Sha512([u8; 64]),
}

/// The algorithm bytes in front of a stored digest. They are part of the disk format and never change.
const KEY_SHA256: u8 = 1;
const KEY_SHA512: u8 = 2;

impl Digest {
    /// Parses the canonical form only: a supported algorithm, a colon, lower-case hex of the exact length.
    ///
    /// # Errors
    /// [`ParseError::Algorithm`] or [`ParseError::Digest`].
    pub fn parse(text: &str) -> Result<Digest, ParseError> {
        let invalid = |reason| ParseError::Digest {
            text: excerpt(text),
            reason,
        };
        let (algorithm, hex) = text
            .split_once(':')
            .ok_or_else(|| invalid("no algorithm before a colon"))?;
        let algorithm = Algorithm::from_str(algorithm)?;
        if hex.len() != algorithm.digest_bytes() * 2 {
            return Err(invalid("wrong length"));
        }
        let mut raw = [0; 64];
        for (byte, pair) in raw.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let (Some(high), Some(low)) = (nibble(pair[0]), nibble(pair[1])) else {
                return Err(invalid("not lower-case hexadecimal"));
            };
            *byte = high << 4 | low;
        }
        Digest::from_raw(algorithm, &raw[..algorithm.digest_bytes()])
            .ok_or_else(|| invalid("wrong length"))
    }

    /// Computes the digest of bytes that are already in memory.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm that made this digest.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Digest::Sha256(_) => Algorithm::Sha256,
            Digest::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The raw value, without the algorithm.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Digest::Sha256(raw) => raw,
            Digest::Sha512(raw) => raw,
        }
    }

    /// The value in lower-case hexadecimal, without the algorithm.
    pub fn hex(&self) -> String {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let nibbles = self
            .as_bytes()
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15]);
        nibbles
            .map(|nibble| char::from(HEX[usize::from(nibble)]))
            .collect()
    }

    /// The compact form for keys and records: one algorithm byte, then the raw value. Keys sort as digests do.
    pub fn to_key(&self) -> Vec<u8> {
        let algorithm = match self {
            Digest::Sha256(_) => KEY_SHA256,
            Digest::Sha512(_) => KEY_SHA512,
        };
        let mut key = Vec::with_capacity(1 + self.as_bytes().len());
        key.push(algorithm);
        key.extend_from_slice(self.as_bytes());
        key
    }

    /// Reads back what [`Digest::to_key`] wrote; nothing when the bytes are anything else.
    pub fn from_key(key: &[u8]) -> Option<Digest> {
        match key.split_first()? {
            (&KEY_SHA256, raw) => Digest::from_raw(Algorithm::Sha256, raw),
            (&KEY_SHA512, raw) => Digest::from_raw(Algorithm::Sha512, raw),
            _ => None,
        }
    }

    fn from_raw(algorithm: Algorithm, raw: &[u8]) -> Option<Digest> {
        match algorithm {
            Algorithm::Sha256 => raw.try_into().ok().map(Digest::Sha256),
            Algorithm::Sha512 => raw.try_into().ok().map(Digest::Sha512),
        }
    }
}

/// The value of one lower-case hexadecimal digit. Upper case is refused: one content has one spelling.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Digest, ParseError> {
        Digest::parse(text)
    }
}

impl TryFrom<String> for Digest {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Digest, ParseError> {
        Digest::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// A running digest of a stream. Cloning it keeps the state so far, which is how a resumed upload goes on.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// A hasher that has seen no bytes.
    pub fn new(algorithm: Algorithm) -> Hasher {
        Hasher(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    /// Takes the next bytes of the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of everything seen.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => Digest::Sha256(state.finalize().into()),
            State::Sha512(state) => Digest::Sha512(state.finalize().into()),
        }
    }

    /// The algorithm this hasher computes.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hasher").field(&self.algorithm()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn known_values() {
        assert_eq!(Digest::of(Algorithm::Sha256, b"").to_string(), EMPTY);
        let abc = Digest::of(Algorithm::Sha512, b"abc").to_string();
        assert!(
            abc.starts_with("sha512:ddaf35a193617abacc417349ae204131") && abc.len() == 7 + 128,
            "{abc}"
        );
    }

    #[test]
    fn one_content_has_one_spelling() {
        let hex = &EMPTY[7..];
        let bad = [
            String::new(),
            ":".to_owned(),
            hex.to_owned(),
            "sha256".to_owned(),
            "sha256:".to_owned(),
            EMPTY.to_uppercase(),
            format!("sha256:{}", hex.to_uppercase()),
            format!("SHA256:{hex}"),
            format!("sha512:{hex}"),
            format!("sha1:{}", &hex[..40]),
            format!("sha257:{hex}"),
            format!("sha256:{hex}0"),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{}g", &hex[1..]),
            format!("sha256:{}é", &hex[2..]),
            format!("sha256::{}", &hex[1..]),
            format!("sha256+b64:{hex}"),
            format!(" {EMPTY}"),
            format!("{EMPTY}\n"),
        ];
        for text in bad {
            assert!(Digest::parse(&text).is_err(), "{text:?}");
        }
        assert!(matches!(
            Digest::parse("md5:00"),
            Err(ParseError::Algorithm { .. })
        ));
    }

    #[test]
    fn keys_are_compact_stable_and_exact() {
        let digest = Digest::parse(EMPTY).unwrap();
        let key = digest.to_key();
        assert_eq!((key.len(), key[0]), (33, 1));
        assert_eq!(Digest::of(Algorithm::Sha512, b"").to_key()[0], 2);
        assert_eq!(Digest::from_key(&key), Some(digest));
        assert_eq!(Digest::from_key(&key[..32]), None);
        assert_eq!(Digest::from_key(&[&key[..], &[0]].concat()), None);
        assert_eq!(Digest::from_key(&[&[2], &key[1..]].concat()), None);
        assert_eq!(Digest::from_key(&[&[3], &key[1..]].concat()), None);
        assert_eq!(Digest::from_key(&[]), None);
    }

    #[test]
    fn a_hasher_clone_goes_on_alone() {
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"a");
        let mut other = hasher.clone();
        hasher.update(b"b");
        other.update(b"c");
        assert_eq!(hasher.algorithm(), Algorithm::Sha512);
        assert_eq!(hasher.finish(), Digest::of(Algorithm::Sha512, b"ab"));
        assert_eq!(other.finish(), Digest::of(Algorithm::Sha512, b"ac"));
    }

    #[test]
    fn serde_writes_and_checks_the_text_form() {
        let digest = Digest::parse(EMPTY).unwrap();
        let json = format!("\"{EMPTY}\"");
        assert_eq!(serde_json::to_string(&digest).unwrap(), json);
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        assert!(serde_json::from_str::<Digest>("\"sha256:x\"").is_err());
    }

    fn algorithm() -> impl Strategy<Value = Algorithm> {
        prop_oneof![Just(Algorithm::Sha256), Just(Algorithm::Sha512)]
    }

    proptest! {
        #[test]
        fn text_and_key_round_trip(algorithm in algorithm(), content: Vec<u8>) {
            let digest = Digest::of(algorithm, &content);
            prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
            prop_assert_eq!(Digest::from_key(&digest.to_key()), Some(digest));
            prop_assert_eq!(digest.as_bytes().len(), algorithm.digest_bytes());
            prop_assert_eq!(algorithm.to_string().parse::<Algorithm>(), Ok(digest.algorithm()));
        }

        #[test]
        fn keys_sort_as_digests_do(one in (algorithm(), 0..9_u8), two in (algorithm(), 0..9_u8)) {
            let (one, two) = (Digest::of(one.0, &[one.1]), Digest::of(two.0, &[two.1]));
            prop_assert_eq!(one.cmp(&two), one.to_key().cmp(&two.to_key()));
        }

        #[test]
        fn parsing_never_panics(text in "(sha256:|sha512:)?.*", key: Vec<u8>) {
            if let Ok(digest) = Digest::parse(&text) {
                prop_assert_eq!(digest.to_string(), text);
            }
            let _ = Digest::from_key(&key);
        }
    }
}
