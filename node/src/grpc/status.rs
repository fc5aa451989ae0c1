//! THE mapping from what administration can end with to gRPC.

use consensus::MembershipError;
use metadata::view::ViewError;
use storage::error::BlobError;
use tonic::Status;

/// Says why a change of membership was refused.
pub(super) fn of_membership(error: &MembershipError) -> Status {
    let message = error.to_string();
    match error {
        MembershipError::NotLeader { .. } => Status::failed_precondition(message),
        MembershipError::Busy => Status::aborted(message),
        MembershipError::AlreadyInitialized => Status::already_exists(message),
        MembershipError::Invalid(_) => Status::invalid_argument(message),
        MembershipError::TooFarBehind { .. } => Status::deadline_exceeded(message),
        MembershipError::OutcomeUnknown => Status::unknown(message),
        MembershipError::Fatal(_) => Status::internal(message),
    }
}

/// The state could not be read.
pub(super) fn of_view(error: &ViewError) -> Status {
    Status::internal(error.to_string())
}

/// The disk could not be asked.
pub(super) fn of_blobs(error: &BlobError) -> Status {
    Status::internal(error.to_string())
}
