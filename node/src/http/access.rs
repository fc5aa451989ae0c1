//! The one place that says who asks. Today everybody is anonymous and may do everything.

use http::HeaderMap;

/// Who asks, as the tag history and the audit will name them. Empty: anonymous.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subject(pub(super) String);

/// Finds the subject of a request. Credentials are ignored as long as there is nobody to check them against.
pub(super) fn subject(_headers: &HeaderMap) -> Subject {
    Subject::default()
}

/// Says at start what [`subject`] means for the operator.
pub fn warn_about_open_access(address: &str) {
    tracing::warn!(
        address,
        "anonymous access: whoever reaches this address may push, pull and delete everything"
    );
}
