//! Tags.

use oci::{Digest, Tag};

use super::{Refusal, Scope, index};
use crate::command::{DeleteTag, Precondition};
use crate::ids::RepositoryId;
use crate::key;
use crate::record::TagRecord;
use crate::response::{Rejection, Response};

pub(super) fn delete(scope: &mut Scope<'_, '_>, command: &DeleteTag) -> Result<Response, Refusal> {
    let repository = scope.known_repository(&command.repository)?;
    let before = load(scope, repository, &command.tag)?.ok_or(Rejection::TagUnknown)?;
    check(&command.precondition, Some(before.digest))?;
    index::put_tag(scope, repository, &command.tag, Some(before), None)?;
    Ok(Response::Done)
}

pub(super) fn load(
    scope: &Scope<'_, '_>,
    repository: RepositoryId,
    tag: &Tag,
) -> Result<Option<TagRecord>, Refusal> {
    Ok(scope.load(&key::tag(repository, tag))?)
}

/// Whether the precondition holds of a tag that points to `current`.
pub(super) fn check(precondition: &Precondition, current: Option<Digest>) -> Result<(), Rejection> {
    let holds = match precondition {
        Precondition::None => true,
        Precondition::Matches(digests) => current.is_some_and(|current| digests.contains(&current)),
        Precondition::Exists => current.is_some(),
        Precondition::Absent => current.is_none(),
    };
    if holds {
        Ok(())
    } else {
        Err(Rejection::PreconditionFailed { current })
    }
}
