//! At most once: answers remembered per node and run of its process (protocols.md section 3.4).
//!
//! A request goes to the slot `sequence % 1024` of its session. The slot tells all there is to know: the same
//! sequence means "answered before", a higher one "too old to say", a lower one or none "never applied", because
//! applying it would have left its own or a higher sequence there.
//!
//! A session unused for ten minutes of log time forgets its answers and keeps a floor: the highest sequence it
//! had seen. Requests up to the floor are too old. The floor itself goes a day later.

use super::{ApplyError, Scope, time};
use crate::ids::{NodeId, RequestId};
use crate::key::{self, Reader, Table};
use crate::record::{AnswerRecord, SessionRecord};
use crate::response::{Outcome, Rejection, Response};
use crate::scan;
use crate::view::ViewError;

/// How many answers are remembered for one run of a node.
pub const ANSWERS_PER_SESSION: u64 = 1024;

/// How long answers are remembered after the last request of a session: log time, in milliseconds.
pub const SESSION_TTL_MS: u64 = 10 * 60 * 1000;

/// How long the floor of an unused session is kept after its answers: log time, in milliseconds.
const FLOOR_TTL_MS: u64 = 24 * 60 * 60 * 1000;

/// Sessions reviewed by one tick: each may delete a thousand answers.
const SESSIONS_REVIEWED_PER_TICK: usize = 4;

/// Items kept of a remembered list: a manifest can name a hundred thousand unknown blobs, and a command of garbage
/// collection delete a thousand. What a repeated request is told needs no more.
const ITEMS_REMEMBERED: usize = 100;

/// What the state knows of a request.
pub(super) enum Request {
    /// It was never applied.
    New,
    /// It was applied, with this outcome.
    Repeated(Outcome),
    /// It may have been applied; nobody knows any more.
    TooOld,
}

pub(super) fn look_up(scope: &Scope<'_, '_>, request: RequestId) -> Result<Request, ApplyError> {
    let answer: Option<AnswerRecord> = scope.load(&slot(request))?;
    match answer {
        Some(answer) if answer.sequence == request.sequence => {
            return Ok(Request::Repeated(answer.outcome));
        }
        Some(answer) if answer.sequence > request.sequence => return Ok(Request::TooOld),
        _ => {}
    }
    let session: Option<SessionRecord> = scope.load(&key::session(request.node, request.boot))?;
    let floor = session.map_or(0, |session| session.floor);
    Ok(if request.sequence <= floor {
        Request::TooOld
    } else {
        Request::New
    })
}

pub(super) fn remember(
    scope: &mut Scope<'_, '_>,
    request: RequestId,
    outcome: &Outcome,
) -> Result<(), ApplyError> {
    let mut outcome = outcome.clone();
    match &mut outcome.response {
        Response::Rejected(Rejection::ReferencesUnknown(digests)) => {
            digests.truncate(ITEMS_REMEMBERED);
        }
        Response::BlobsDeleted(deleted) => deleted.digests.truncate(ITEMS_REMEMBERED),
        Response::ManifestsCollected(collected) => collected.truncate(ITEMS_REMEMBERED),
        Response::ManifestRestored { tags } => tags.truncate(ITEMS_REMEMBERED),
        _ => {}
    }
    scope.save(
        slot(request),
        &AnswerRecord {
            sequence: request.sequence,
            outcome,
        },
    );

    let before: Option<SessionRecord> = scope.load(&key::session(request.node, request.boot))?;
    let after = SessionRecord {
        due_at: scope.now.plus_ms(SESSION_TTL_MS),
        floor: before.map_or(0, |before| before.floor),
        is_retired: false,
    };
    put(scope, request.node, request.boot, before, Some(after));
    Ok(())
}

/// Part of every tick.
pub(super) fn review_due(scope: &mut Scope<'_, '_>) -> Result<(), ApplyError> {
    for key in time::due(
        scope,
        Table::SessionDue,
        SESSIONS_REVIEWED_PER_TICK,
        |at, now| at <= now,
    )? {
        let mut parts = Reader::new(Table::SessionDue, &key).map_err(ViewError::from)?;
        let mut number = || parts.number().map_err(ViewError::from);
        let (_due_at, node, boot) = (number()?, NodeId(number()?), number()?);
        let before: SessionRecord = scope.load_promised(
            &key::session(node, boot),
            "every session review has a session",
        )?;
        let after = if before.is_retired {
            None
        } else {
            Some(retire(scope, node, boot, before)?)
        };
        put(scope, node, boot, Some(before), after);
    }
    Ok(())
}

/// Forgets the answers and raises the floor over them.
fn retire(
    scope: &mut Scope<'_, '_>,
    node: NodeId,
    boot: u64,
    before: SessionRecord,
) -> Result<SessionRecord, ApplyError> {
    let mut floor = before.floor;
    let mut slots = Vec::new();
    scan::visit(
        scope.state,
        &key::answers_of(node, boot),
        None,
        &mut |key, value| {
            let answer = <AnswerRecord as crate::codec::Record>::decode(key, value)?;
            floor = floor.max(answer.sequence);
            slots.push(key.to_vec());
            Ok(std::ops::ControlFlow::Continue(()))
        },
    )?;
    for slot in slots {
        scope.delete(slot);
    }
    Ok(SessionRecord {
        due_at: scope.now.plus_ms(FLOOR_TTL_MS),
        floor,
        is_retired: true,
    })
}

fn slot(request: RequestId) -> Vec<u8> {
    key::answer(
        request.node,
        request.boot,
        request.sequence % ANSWERS_PER_SESSION,
    )
}

/// Log time stands still between ticks, so most requests leave the record as it is.
fn put(
    scope: &mut Scope<'_, '_>,
    node: NodeId,
    boot: u64,
    before: Option<SessionRecord>,
    after: Option<SessionRecord>,
) {
    if before == after {
        return;
    }
    if let Some(before) = before {
        scope.delete(key::session_due(before.due_at, node, boot));
    }
    match after {
        Some(after) => {
            scope.mark(key::session_due(after.due_at, node, boot));
            scope.save(key::session(node, boot), &after);
        }
        None => scope.delete(key::session(node, boot)),
    }
}
