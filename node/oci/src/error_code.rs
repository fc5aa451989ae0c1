//! The codes in the JSON body of an error answer.

use std::fmt;

/// An error code: those of the distribution spec ("Error Codes"), and four that other registries use where the
/// spec has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// `BLOB_UNKNOWN`: the blob is not known in the repository.
    BlobUnknown,
    /// `BLOB_UPLOAD_INVALID`: the upload cannot go on like this.
    BlobUploadInvalid,
    /// `BLOB_UPLOAD_UNKNOWN`: there is no such upload session.
    BlobUploadUnknown,
    /// `DIGEST_INVALID`: malformed, unsupported, or not the digest of the content.
    DigestInvalid,
    /// `MANIFEST_BLOB_UNKNOWN`: a manifest references something the repository does not have.
    ManifestBlobUnknown,
    /// `MANIFEST_INVALID`: the body is not an acceptable manifest.
    ManifestInvalid,
    /// `MANIFEST_UNKNOWN`: no such manifest in the repository.
    ManifestUnknown,
    /// `NAME_INVALID`: not a repository name.
    NameInvalid,
    /// `NAME_UNKNOWN`: no such repository.
    NameUnknown,
    /// `SIZE_INVALID`: the length of the body is not the announced one.
    SizeInvalid,
    /// `UNAUTHORIZED`: credentials are needed.
    Unauthorized,
    /// `DENIED`: the caller may not do this.
    Denied,
    /// `UNSUPPORTED`: the operation is not offered here.
    Unsupported,
    /// `TOOMANYREQUESTS`: slow down.
    TooManyRequests,
    /// `TAG_INVALID`: not a tag. From the error table of distribution.
    TagInvalid,
    /// `PAGINATION_NUMBER_INVALID`: `n` is not a number at or above zero. From distribution.
    PaginationNumberInvalid,
    /// `UNAVAILABLE`: the cluster cannot answer now; try again. From distribution.
    Unavailable,
    /// `INTERNAL`: a defect or a broken disk on our side.
    Internal,
}

impl ErrorCode {
    /// Every code, in the order of the declaration.
    pub const ALL: [ErrorCode; 18] = [
        ErrorCode::BlobUnknown,
        ErrorCode::BlobUploadInvalid,
        ErrorCode::BlobUploadUnknown,
        ErrorCode::DigestInvalid,
        ErrorCode::ManifestBlobUnknown,
        ErrorCode::ManifestInvalid,
        ErrorCode::ManifestUnknown,
        ErrorCode::NameInvalid,
        ErrorCode::NameUnknown,
        ErrorCode::SizeInvalid,
        ErrorCode::Unauthorized,
        ErrorCode::Denied,
        ErrorCode::Unsupported,
        ErrorCode::TooManyRequests,
        ErrorCode::TagInvalid,
        ErrorCode::PaginationNumberInvalid,
        ErrorCode::Unavailable,
        ErrorCode::Internal,
    ];

    /// The code as it stands in the body.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::BlobUnknown => "BLOB_UNKNOWN",
            ErrorCode::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            ErrorCode::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            ErrorCode::DigestInvalid => "DIGEST_INVALID",
            ErrorCode::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            ErrorCode::ManifestInvalid => "MANIFEST_INVALID",
            ErrorCode::ManifestUnknown => "MANIFEST_UNKNOWN",
            ErrorCode::NameInvalid => "NAME_INVALID",
            ErrorCode::NameUnknown => "NAME_UNKNOWN",
            ErrorCode::SizeInvalid => "SIZE_INVALID",
            ErrorCode::Unauthorized => "UNAUTHORIZED",
            ErrorCode::Denied => "DENIED",
            ErrorCode::Unsupported => "UNSUPPORTED",
            ErrorCode::TooManyRequests => "TOOMANYREQUESTS",
            ErrorCode::TagInvalid => "TAG_INVALID",
            ErrorCode::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            ErrorCode::Unavailable => "UNAVAILABLE",
            ErrorCode::Internal => "INTERNAL",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_distinct_and_spelled_as_the_spec_asks() {
        let codes: BTreeSet<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
        assert!(
            codes
                .iter()
                .all(|code| code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
        );
        // The table of the distribution spec, whole.
        for code in [
            "BLOB_UNKNOWN",
            "BLOB_UPLOAD_INVALID",
            "BLOB_UPLOAD_UNKNOWN",
            "DIGEST_INVALID",
            "MANIFEST_BLOB_UNKNOWN",
            "MANIFEST_INVALID",
            "MANIFEST_UNKNOWN",
            "NAME_INVALID",
            "NAME_UNKNOWN",
            "SIZE_INVALID",
            "UNAUTHORIZED",
            "DENIED",
            "UNSUPPORTED",
            "TOOMANYREQUESTS",
        ] {
            assert!(codes.contains(code), "{code}");
        }
    }
}
