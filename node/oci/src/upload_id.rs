//! Upload ids: which node holds a session, sealed so that only this cluster can issue one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::error::ParseError;
use crate::repository::RepositoryName;

/// An upload session, as its URL names it.
///
/// The text form is 64 characters of base64url over owner, ticket, random part and a truncated HMAC-SHA256 that
/// also covers the repository, so an id is worthless under another repository (behaviour U25).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UploadId {
    /// The node that holds the bytes of the session.
    pub owner: u64,
    /// The ticket that protects them.
    pub ticket: u64,
    /// Makes the id impossible to guess. Drawn by the caller: this crate has no randomness.
    pub random: [u8; 16],
}

const BODY_BYTES: usize = 32;
const SEAL_BYTES: usize = 16;

impl UploadId {
    /// Writes the id for a URL, sealed with the key of the cluster.
    pub fn encode(&self, key: &[u8], repository: &RepositoryName) -> String {
        let body = self.body();
        let seal = sealer(&body, key, repository).finalize().into_bytes();
        let mut sealed = [0; BODY_BYTES + SEAL_BYTES];
        sealed[..BODY_BYTES].copy_from_slice(&body);
        sealed[BODY_BYTES..].copy_from_slice(&seal[..SEAL_BYTES]);
        URL_SAFE_NO_PAD.encode(sealed)
    }

    /// Reads an id back and checks its seal in constant time.
    ///
    /// # Errors
    /// [`ParseError::UploadId`] for anything [`UploadId::encode`] did not write with this key and repository,
    /// without saying which part is wrong.
    pub fn decode(
        text: &str,
        key: &[u8],
        repository: &RepositoryName,
    ) -> Result<UploadId, ParseError> {
        // Checked before decoding so that a long path allocates nothing.
        if text.len() != (BODY_BYTES + SEAL_BYTES) / 3 * 4 {
            return Err(ParseError::UploadId);
        }
        let sealed = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| ParseError::UploadId)?;
        let (body, seal) = sealed
            .split_at_checked(BODY_BYTES)
            .ok_or(ParseError::UploadId)?;
        sealer(body, key, repository)
            .verify_truncated_left(seal)
            .map_err(|_| ParseError::UploadId)?;
        UploadId::from_body(body).ok_or(ParseError::UploadId)
    }

    fn body(&self) -> [u8; BODY_BYTES] {
        let mut body = [0; BODY_BYTES];
        body[..8].copy_from_slice(&self.owner.to_be_bytes());
        body[8..16].copy_from_slice(&self.ticket.to_be_bytes());
        body[16..].copy_from_slice(&self.random);
        body
    }

    fn from_body(body: &[u8]) -> Option<UploadId> {
        let (owner, rest) = body.split_first_chunk()?;
        let (ticket, random) = rest.split_first_chunk()?;
        let random = random.try_into().ok()?;
        Some(UploadId {
            owner: u64::from_be_bytes(*owner),
            ticket: u64::from_be_bytes(*ticket),
            random,
        })
    }
}

/// The MAC over an id and the repository it belongs to. The body has a fixed length, so the two cannot run into
/// each other.
fn sealer(body: &[u8], key: &[u8], repository: &RepositoryName) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(body);
    mac.update(repository.as_str().as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &[u8] = b"the key of the cluster";

    fn name(text: &str) -> RepositoryName {
        RepositoryName::parse(text).unwrap()
    }

    fn some_id() -> UploadId {
        UploadId {
            owner: 3,
            ticket: 4711,
            random: [7; 16],
        }
    }

    /// The expected text was computed with another implementation of HMAC.
    #[test]
    fn the_text_form_is_pinned() {
        let text = some_id().encode(KEY, &name("a/b"));
        assert_eq!(
            text,
            "AAAAAAAAAAMAAAAAAAASZwcHBwcHBwcHBwcHBwcHBwcRu4lhthZ61LvREkEZnM-D"
        );
    }

    #[test]
    fn another_key_or_repository_opens_nothing() {
        let text = some_id().encode(KEY, &name("a/b"));
        assert_eq!(UploadId::decode(&text, KEY, &name("a/b")), Ok(some_id()));
        for other in ["a", "a/b/c", "a/c", "b/a", "ab"] {
            assert_eq!(
                UploadId::decode(&text, KEY, &name(other)),
                Err(ParseError::UploadId),
                "{other}"
            );
        }
        assert_eq!(
            UploadId::decode(&text, b"another key", &name("a/b")),
            Err(ParseError::UploadId)
        );
        assert_eq!(
            UploadId::decode(&text, b"", &name("a/b")),
            Err(ParseError::UploadId)
        );
    }

    #[test]
    fn every_other_character_anywhere_fails() {
        let repository = name("a/b");
        let text = some_id().encode(KEY, &repository);
        for at in 0..text.len() {
            for replacement in "AZaz09-_+/=. é".chars() {
                let mut changed: Vec<char> = text.chars().collect();
                if std::mem::replace(&mut changed[at], replacement) == replacement {
                    continue;
                }
                let changed: String = changed.into_iter().collect();
                assert_eq!(
                    UploadId::decode(&changed, KEY, &repository),
                    Err(ParseError::UploadId),
                    "{changed}"
                );
            }
        }
        for changed in [
            "",
            &text[1..],
            &text[..63],
            &format!("{text}A"),
            &format!("{text}=="),
            &format!(" {text}"),
        ] {
            assert_eq!(
                UploadId::decode(changed, KEY, &repository),
                Err(ParseError::UploadId),
                "{changed}"
            );
        }
    }

    proptest! {
        #[test]
        fn ids_round_trip_and_fit_a_route(owner: u64, ticket: u64, random: [u8; 16], key: Vec<u8>) {
            let (id, repository) = (UploadId { owner, ticket, random }, name("a/b"));
            let text = id.encode(&key, &repository);
            prop_assert_eq!(UploadId::decode(&text, &key, &repository), Ok(id));
            let route = crate::Route::parse("GET", &format!("/v2/a/b/blobs/uploads/{text}"), None);
            prop_assert_eq!(route, Ok(crate::Route::UploadStatus { repository, upload_id: text }));
        }

        #[test]
        fn nothing_forged_is_accepted(text in "[A-Za-z0-9_-]{64}|.*") {
            prop_assert_eq!(UploadId::decode(&text, KEY, &name("a")), Err(ParseError::UploadId));
        }
    }
}
