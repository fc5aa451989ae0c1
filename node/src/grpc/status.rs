//! THE mapping from what administration can end with to gRPC.

use consensus::MembershipError;
use metadata::log::LogError;
use metadata::response::Rejection;
use metadata::view::{Stopped, ViewError};
use registry::gc::GcError;
use tonic::Status;

/// Says why a change of membership was refused.
pub(super) fn of_membership(error: &MembershipError) -> Status {
    let message = error.to_string();
    match error {
        MembershipError::NotLeader { .. } => Status::unavailable(message),
        MembershipError::Busy => Status::aborted(message),
        MembershipError::AlreadyInitialized => Status::already_exists(message),
        MembershipError::Invalid(_) => Status::invalid_argument(message),
        MembershipError::Unknown { .. } => Status::not_found(message),
        MembershipError::Silent { .. }
        | MembershipError::NoSuccessor
        | MembershipError::Removed { .. }
        | MembershipError::TooFewNodes { .. }
        | MembershipError::Leads { .. }
        | MembershipError::NotDraining { .. }
        | MembershipError::TooFewVoters { .. }
        | MembershipError::NoMajority { .. }
        | MembershipError::CopiesLeft { .. } => Status::failed_precondition(message),
        MembershipError::Refused(rejection) => of_rejection(rejection, message),
        MembershipError::Log(error) => of_log(error, message),
        MembershipError::View(error) => of_view(error),
        MembershipError::TooFarBehind { .. } | MembershipError::NotTakenOver { .. } => {
            Status::deadline_exceeded(message)
        }
        MembershipError::OutcomeUnknown => Status::unknown(message),
        MembershipError::Fatal(_) => Status::internal(message),
    }
}

/// The state could not be read, or not to its end.
pub(super) fn of_view(error: &ViewError) -> Status {
    let message = error.to_string();
    if error.0.is::<Stopped>() {
        return Status::unavailable(message);
    }
    Status::internal(message)
}

/// Says why garbage collection did not do what it was asked for.
pub(super) fn of_gc(error: &GcError) -> Status {
    let message = error.to_string();
    match error {
        GcError::NotLeader | GcError::Paused(_) => Status::failed_precondition(message),
        GcError::Busy => Status::resource_exhausted(message),
        GcError::Refused(rejection) => of_rejection(rejection, message),
        GcError::Unavailable(error) => of_log(error, message),
        GcError::Unreadable(_) | GcError::Blobs(_) | GcError::Unexpected(_) => {
            Status::internal(message)
        }
        GcError::Stopping => Status::unavailable(message),
    }
}

fn of_log(error: &LogError, message: String) -> Status {
    match error {
        LogError::NoLeader | LogError::QuorumLost | LogError::Lagging | LogError::ShuttingDown => {
            Status::unavailable(message)
        }
        LogError::OutcomeUnknown => Status::unknown(message),
        LogError::Fatal(_) => Status::internal(message),
    }
}

fn of_rejection(rejection: &Rejection, message: String) -> Status {
    match rejection {
        Rejection::RepositoryUnknown
        | Rejection::BlobUnknown
        | Rejection::ManifestUnknown
        | Rejection::TagUnknown
        | Rejection::NodeUnknown(_) => Status::not_found(message),
        Rejection::AlreadyInitialized | Rejection::NotDeleted => Status::already_exists(message),
        Rejection::OutOfBounds => Status::invalid_argument(message),
        Rejection::NotInitialized
        | Rejection::ReferencesUnknown(_)
        | Rejection::SizeMismatch { .. }
        | Rejection::BlobReferenced { .. }
        | Rejection::PreconditionFailed { .. }
        | Rejection::TicketClosed(_)
        | Rejection::TooFewCopies { .. }
        | Rejection::DiskMismatch(_)
        | Rejection::NodeNotUp(_)
        | Rejection::NodeHoldsCopies(_)
        | Rejection::NodeRemoved(_)
        | Rejection::NotAHolder(_)
        | Rejection::GcPaused => Status::failed_precondition(message),
        Rejection::StaleEpoch { .. } | Rejection::RequestTooOld => Status::aborted(message),
    }
}
