//! Tickets and sessions.

use super::Checker;
use crate::apply::ANSWERS_PER_SESSION;
use crate::ids::{LogTime, NodeId, TicketId};
use crate::key::{self, Table};
use crate::record::{AnswerRecord, SessionRecord, TicketRecord};
use crate::scan;
use crate::view::ViewError;

pub(super) fn check(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    tickets(checker)?;
    sessions(checker)
}

fn tickets(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    checker.each_record::<TicketRecord>(Table::Ticket, |checker, key, mut parts, ticket| {
        let id = TicketId::from_u64(parts.number()?);
        let is_past = id.index() <= checker.view.applied();
        checker.expect(is_past, "a ticket was opened by an applied entry", key);
        checker.expect(ticket.uses > 0, "an open ticket can be used", key);
        let listed = key::ticket_expiry(ticket.expires_at, id);
        checker.expect_key(&listed, "every ticket has an expiry", key)
    })?;
    checker.each(Table::TicketExpiry, |checker, key, mut parts| {
        let (at, id) = (
            LogTime(parts.number()?),
            TicketId::from_u64(parts.number()?),
        );
        let ticket: Option<TicketRecord> = checker.load(&key::ticket(id))?;
        let holds = ticket.is_some_and(|ticket| ticket.expires_at == at);
        checker.expect(holds, "every ticket expiry has a ticket", key);
        Ok(())
    })
}

fn sessions(checker: &mut Checker<'_>) -> Result<(), ViewError> {
    checker.each_record::<SessionRecord>(Table::Session, |checker, key, mut parts, session| {
        let (node, boot) = (NodeId(parts.number()?), parts.number()?);
        let listed = key::session_due(session.due_at, node, boot);
        checker.expect_key(&listed, "every session has a review", key)?;
        let has_answer = scan::first_key(checker.view, &key::answers_of(node, boot))?.is_some();
        let agrees = has_answer != session.is_retired;
        checker.expect(agrees, "a session is retired or has an answer", key);
        Ok(())
    })?;
    checker.each(Table::SessionDue, |checker, key, mut parts| {
        let at = LogTime(parts.number()?);
        let (node, boot) = (NodeId(parts.number()?), parts.number()?);
        let session: Option<SessionRecord> = checker.load(&key::session(node, boot))?;
        let holds = session.is_some_and(|session| session.due_at == at);
        checker.expect(holds, "every session review has a session", key);
        Ok(())
    })?;
    checker.each_record::<AnswerRecord>(Table::Answer, |checker, key, mut parts, answer| {
        let (node, boot, slot) = (NodeId(parts.number()?), parts.number()?, parts.number()?);
        let in_place = answer.sequence % ANSWERS_PER_SESSION == slot;
        checker.expect(in_place, "an answer is in the slot of its sequence", key);
        let session: Option<SessionRecord> = checker.load(&key::session(node, boot))?;
        let holds =
            session.is_some_and(|session| !session.is_retired && answer.sequence > session.floor);
        checker.expect(
            holds,
            "answers belong to a session and lie above its floor",
            key,
        );
        let is_past = answer.outcome.index <= checker.view.applied();
        checker.expect(is_past, "an answer was decided by an applied entry", key);
        Ok(())
    })
}
