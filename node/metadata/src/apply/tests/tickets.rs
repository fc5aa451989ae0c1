use crate::apply::{MAX_TICKET_TTL_MS, MAX_TICKETS_PER_COMMAND, TICKETS_EXPIRED_PER_TICK};
use crate::command::{CloseTickets, Command, OpenTickets, RenewTickets, TicketKind};
use crate::ids::{LogIndex, NodeId, TicketId};
use crate::query::{self, TicketState};
use crate::response::{Rejection, Response};
use crate::testing::{World, open};
use crate::view::MetadataView;

fn state(world: &World, ticket: TicketId) -> TicketState {
    query::ticket(&world.view, ticket).unwrap()
}

#[test]
fn tickets_are_numbered_by_their_entry() {
    let mut world = World::new();
    let at = LogIndex(world.view.applied().0 + 1);
    let response = world.apply(open(TicketKind::Upload, 64));
    assert_eq!(
        response,
        Response::TicketsOpened {
            first: TicketId::new(at, 0),
            count: 64
        }
    );
    assert_eq!(state(&world, TicketId::new(at, 63)), TicketState::Open);
    assert_eq!(
        state(&world, TicketId::new(LogIndex(1), 0)),
        TicketState::Closed
    );
    assert_eq!(
        state(&world, TicketId::new(LogIndex(at.0 + 1), 0)),
        TicketState::Unknown
    );
}

#[test]
fn counts_and_lives_are_bounded() {
    let mut world = World::new();
    let command = |node, count, ttl_ms| {
        Command::OpenTickets(OpenTickets {
            kind: TicketKind::Repair,
            node: NodeId(node),
            count,
            ttl_ms,
        })
    };
    for command in [command(1, 0, 1), command(1, 65, 1), command(1, 1, 0)] {
        assert_eq!(world.rejected(command), Rejection::OutOfBounds);
    }
    let rejection = world.rejected(command(1, 1, MAX_TICKET_TTL_MS + 1));
    assert_eq!(rejection, Rejection::OutOfBounds);
    assert_eq!(
        world.rejected(command(8, 1, 1)),
        Rejection::NodeUnknown(NodeId(8))
    );
    let many = vec![TicketId::from_u64(1); MAX_TICKETS_PER_COMMAND + 1];
    let renew = Command::RenewTickets(RenewTickets {
        tickets: many.clone(),
        ttl_ms: 1,
    });
    assert_eq!(world.rejected(renew), Rejection::OutOfBounds);
    let close = Command::CloseTickets(CloseTickets { tickets: many });
    assert_eq!(world.rejected(close), Rejection::OutOfBounds);
}

#[test]
fn closing_is_for_ever_and_may_be_repeated() {
    let mut world = World::new();
    let ticket = world.open(TicketKind::Upload);
    for _ in 0..2 {
        world.done(Command::CloseTickets(CloseTickets {
            tickets: vec![ticket],
        }));
        assert_eq!(state(&world, ticket), TicketState::Closed);
    }
    let renew = RenewTickets {
        tickets: vec![ticket],
        ttl_ms: 60_000,
    };
    world.done(Command::RenewTickets(renew));
    assert_eq!(state(&world, ticket), TicketState::Closed);
}

#[test]
fn a_ticket_is_open_through_its_deadline_and_a_renewal_moves_it() {
    let mut world = World::new();
    let (kept, left) = (
        world.open(TicketKind::Upload),
        world.open(TicketKind::Upload),
    );
    world.pass_ms(40_000);
    world.done(Command::RenewTickets(RenewTickets {
        tickets: vec![kept],
        ttl_ms: 60_000,
    }));
    world.pass_ms(20_000);
    assert_eq!(
        state(&world, left),
        TicketState::Open,
        "60 s have passed, not more"
    );
    world.pass_ms(1);
    assert_eq!(state(&world, left), TicketState::Closed);
    assert_eq!(state(&world, kept), TicketState::Open);
    world.pass_ms(40_000);
    assert_eq!(state(&world, kept), TicketState::Closed);
}

#[test]
fn one_tick_expires_a_bounded_number() {
    let mut world = World::new();
    let mut opened = Vec::new();
    for _ in 0..20 {
        let Response::TicketsOpened { first, count } = world.apply(open(TicketKind::Upload, 64))
        else {
            panic!("not opened")
        };
        opened.extend((0..u64::from(count)).map(|n| TicketId::new(first.index(), n)));
    }
    let left = |world: &World| {
        opened
            .iter()
            .filter(|ticket| state(world, **ticket) == TicketState::Open)
            .count()
    };
    world.pass_ms(60_000);
    assert_eq!(left(&world), opened.len());
    world.pass_ms(1);
    assert_eq!(left(&world), opened.len() - TICKETS_EXPIRED_PER_TICK);
    world.pass_ms(1);
    assert_eq!(left(&world), 0);
}
