//! Tickets: open, then closed, once. Only open ones are stored (protocols.md section 3.1).

use super::{Refusal, Scope, index, node};
use crate::command::{CloseTickets, OpenTickets, RenewTickets, TicketKind};
use crate::ids::{TICKETS_PER_ENTRY, TicketId};
use crate::key;
use crate::record::TicketRecord;
use crate::response::{Rejection, Response};

/// How many tickets one command may renew or close.
pub const MAX_TICKETS_PER_COMMAND: usize = 4096;

/// The longest life of a ticket that is not renewed: seven days of log time, in milliseconds.
pub const MAX_TICKET_TTL_MS: u64 = 7 * 24 * 60 * 60 * 1000;

pub(super) fn open(scope: &mut Scope<'_, '_>, command: &OpenTickets) -> Result<Response, Refusal> {
    scope.cluster()?;
    let count = u64::from(command.count);
    if count == 0 || count > TICKETS_PER_ENTRY {
        return Err(Rejection::OutOfBounds.into());
    }
    check_ttl(command.ttl_ms)?;
    node::check_registered(scope, command.node)?;
    let record = TicketRecord {
        kind: command.kind,
        node: command.node,
        expires_at: scope.now.plus_ms(command.ttl_ms),
        uses: 1,
    };
    for number in 0..count {
        index::put_ticket(scope, TicketId::new(scope.at, number), None, Some(&record));
    }
    Ok(Response::TicketsOpened {
        first: TicketId::new(scope.at, 0),
        count: command.count,
    })
}

pub(super) fn renew(
    scope: &mut Scope<'_, '_>,
    command: &RenewTickets,
) -> Result<Response, Refusal> {
    check_count(&command.tickets)?;
    check_ttl(command.ttl_ms)?;
    let expires_at = scope.now.plus_ms(command.ttl_ms);
    for id in &command.tickets {
        // A closed ticket is never opened again: its pins may already be gone.
        if let Some(before) = scope.load::<TicketRecord>(&key::ticket(*id))? {
            index::put_ticket(
                scope,
                *id,
                Some(&before),
                Some(&TicketRecord {
                    expires_at,
                    ..before
                }),
            );
        }
    }
    Ok(Response::Done)
}

pub(super) fn close(
    scope: &mut Scope<'_, '_>,
    command: &CloseTickets,
) -> Result<Response, Refusal> {
    check_count(&command.tickets)?;
    for id in &command.tickets {
        if let Some(before) = scope.load::<TicketRecord>(&key::ticket(*id))? {
            index::put_ticket(scope, *id, Some(&before), None);
        }
    }
    Ok(Response::Done)
}

/// The ticket, while it is open and of this kind.
pub(super) fn check_open(
    scope: &Scope<'_, '_>,
    id: TicketId,
    kind: TicketKind,
) -> Result<TicketRecord, Refusal> {
    let ticket: Option<TicketRecord> = scope.load(&key::ticket(id))?;
    Ok(ticket
        .filter(|ticket| ticket.kind == kind)
        .ok_or(Rejection::TicketClosed(id))?)
}

fn check_count(tickets: &[TicketId]) -> Result<(), Refusal> {
    if tickets.len() > MAX_TICKETS_PER_COMMAND {
        Err(Rejection::OutOfBounds.into())
    } else {
        Ok(())
    }
}

fn check_ttl(ttl_ms: u64) -> Result<(), Refusal> {
    if ttl_ms == 0 || ttl_ms > MAX_TICKET_TTL_MS {
        Err(Rejection::OutOfBounds.into())
    } else {
        Ok(())
    }
}
