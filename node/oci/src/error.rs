//! Why a text could not become a value.

use thiserror::Error;

/// A value from outside did not match its grammar; one variant per grammar.
///
/// Messages may quote at most [`EXCERPT_CHARS`] characters of the input, so an answer never echoes a hostile
/// request in full.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseError {
    /// The digest algorithm is not registered or not supported.
    #[error("digest algorithm {text:?} is not sha256 or sha512")]
    Algorithm {
        /// Excerpt of the input.
        text: String,
    },
    /// The digest is not `algorithm:lower-case-hex` of the right length.
    #[error("digest {text:?} is invalid: {reason}")]
    Digest {
        /// Excerpt of the input.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The repository name does not match the `<name>` grammar of the distribution spec.
    #[error("repository name {text:?} is invalid: {reason}")]
    RepositoryName {
        /// Excerpt of the input.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The tag does not match the tag grammar of the distribution spec.
    #[error("tag {text:?} is invalid: {reason}")]
    Tag {
        /// Excerpt of the input.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The media type does not match RFC 6838.
    #[error("media type {text:?} is invalid: {reason}")]
    MediaType {
        /// Excerpt of the input.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The body is not a manifest this registry can keep.
    #[error("manifest is invalid: {reason}")]
    Manifest {
        /// What is wrong with it, with the position where the JSON reader knows one.
        reason: String,
    },
    /// The body is a Docker schema 1 manifest, which carries no usable digests of its content.
    #[error("docker schema 1 manifests are not supported, push schema 2 or an OCI manifest")]
    ManifestSchemaOne,
    /// The upload id was not issued by this cluster for this repository.
    #[error("upload id was not issued here for this repository")]
    UploadId,
    /// The `Content-Range` of a chunk is neither `a-b` nor `bytes a-b/*`.
    #[error("content range {text:?} is invalid: {reason}")]
    ContentRange {
        /// Excerpt of the input.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The page size `n` is not a number at or above zero.
    #[error("page size {text:?} is not a number at or above zero")]
    Page {
        /// Excerpt of the input.
        text: String,
    },
}

/// How many characters of a refused input a message may quote.
pub const EXCERPT_CHARS: usize = 80;

/// The first characters of an input, marked when something was cut.
pub(crate) fn excerpt(text: &str) -> String {
    shorten(text, EXCERPT_CHARS)
}

pub(crate) fn shorten(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        None => text.to_owned(),
        Some((cut, _)) => format!("{}...", &text[..cut]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_bounded_and_cuts_between_characters() {
        assert_eq!(excerpt("short"), "short");
        let cut = excerpt(&"é".repeat(5000));
        assert_eq!(cut, format!("{}...", "é".repeat(EXCERPT_CHARS)));
    }
}
