//! Log time, and what comes due with it.

use super::{ApplyError, Refusal, Scope, index, session};
use crate::command::Tick;
use crate::ids::{LogTime, TicketId};
use crate::key::{self, Reader, Table};
use crate::record::{TicketRecord, TimeRecord};
use crate::response::Response;
use crate::scan;
use crate::view::ViewError;

/// The longest step of one tick, in milliseconds: a leader that was paused must not age everything at once.
pub const MAX_TICK_MS: u64 = 20_000;

/// How many tickets one tick may expire. What is left is due at the next.
pub const TICKETS_EXPIRED_PER_TICK: usize = 1000;

pub(super) fn tick(scope: &mut Scope<'_, '_>, command: &Tick) -> Result<Response, Refusal> {
    let before: TimeRecord = scope.load(&key::single(Table::Time))?.unwrap_or_default();
    if command.previous_sequence != before.sequence {
        return Ok(Response::Done);
    }
    let now = before.now.plus_ms(command.elapsed_ms.min(MAX_TICK_MS));
    scope.save(
        key::single(Table::Time),
        &TimeRecord {
            now,
            sequence: before.sequence + 1,
        },
    );
    scope.now = now;
    expire_tickets(scope)?;
    session::review_due(scope)?;
    Ok(Response::Done)
}

/// A ticket is open through its deadline.
fn expire_tickets(scope: &mut Scope<'_, '_>) -> Result<(), ApplyError> {
    for key in due(
        scope,
        Table::TicketExpiry,
        TICKETS_EXPIRED_PER_TICK,
        |at, now| at < now,
    )? {
        let mut parts = Reader::new(Table::TicketExpiry, &key).map_err(ViewError::from)?;
        let id = parts
            .number()
            .and_then(|_| parts.number())
            .map_err(ViewError::from)?;
        let id = TicketId::from_u64(id);
        let before: TicketRecord =
            scope.load_promised(&key::ticket(id), "every ticket expiry has a ticket")?;
        index::put_ticket(scope, id, Some(&before), None);
    }
    Ok(())
}

/// Up to `limit` keys of a table ordered by log time, as long as `is_due(time of key, now)`.
pub(super) fn due(
    scope: &Scope<'_, '_>,
    table: Table,
    limit: usize,
    is_due: impl Fn(LogTime, LogTime) -> bool,
) -> Result<Vec<Vec<u8>>, ApplyError> {
    let mut keys = Vec::new();
    scan::visit(scope.state, &key::table(table), None, &mut |key, _| {
        let at = LogTime(Reader::new(table, key)?.number()?);
        if keys.len() == limit || !is_due(at, scope.now) {
            return Ok(std::ops::ControlFlow::Break(()));
        }
        keys.push(key.to_vec());
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    Ok(keys)
}
