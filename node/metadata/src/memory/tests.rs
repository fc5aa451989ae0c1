use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::command::{OpenTickets, TicketKind};
use crate::log;
use crate::query::TicketState;
use crate::response::Response;
use crate::testing::register;

/// These futures never wait, so polling once is running them.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a log in memory has nothing to wait for"),
    }
}

// The deadline does not matter here, but its type wants one.
#[allow(clippy::disallowed_methods)]
fn deadline() -> Instant {
    Instant::now()
}

fn open() -> Command {
    Command::OpenTickets(OpenTickets {
        kind: TicketKind::Upload,
        node: NodeId(1),
        count: 1,
        ttl_ms: 60_000,
    })
}

fn cluster() -> MemoryLog {
    MemoryLog::with_nodes(&[NodeId(1), NodeId(2)], 2, 1).unwrap()
}

#[test]
fn what_was_proposed_is_read() {
    let log = cluster();
    let outcome = now(log.propose(open(), "me", deadline())).unwrap();
    let Response::TicketsOpened { first, count: 1 } = outcome.response else {
        panic!("{outcome:?}")
    };
    assert_eq!(now(log.barrier(deadline())).unwrap(), outcome.index);
    assert!(now(log.wait_applied(outcome.index, deadline())).is_ok());
    let later = LogIndex(outcome.index.0 + 1);
    assert!(matches!(
        now(log.wait_applied(later, deadline())),
        Err(LogError::Lagging)
    ));
    let state = log::read(&log, |view| query::ticket(view, first)).unwrap();
    assert_eq!(state, TicketState::Open);
    log.advance_ms(60_001).unwrap();
    let state = log::read(&log, |view| query::ticket(view, first)).unwrap();
    assert_eq!(state, TicketState::Closed);
}

#[test]
fn handles_share_the_state_and_differ_by_node() {
    let one = cluster();
    let two = one.on_node(NodeId(2));
    assert!(one.is_leader() && !two.is_leader());
    now(two.propose(register(3, "disk-3"), "", deadline())).unwrap();
    assert_eq!(log::read(&one, query::nodes).unwrap().len(), 3);
    one.set_leader(NodeId(2));
    assert!(!one.is_leader() && two.is_leader());
    assert_eq!(two.node_id(), NodeId(2));
}

#[test]
fn failures_are_as_told() {
    let log = cluster();
    let before = log.snapshot();
    log.set_failure(Some(LogError::QuorumLost));
    let failed = now(log.propose(open(), "", deadline()));
    assert!(matches!(failed, Err(LogError::QuorumLost)));
    assert!(matches!(
        now(log.barrier(deadline())),
        Err(LogError::QuorumLost)
    ));
    assert_eq!(log.snapshot(), before, "nothing was proposed");
    log.set_failure(None);
    log.lose_outcomes(1);
    let lost = now(log.propose(open(), "", deadline()));
    assert!(matches!(lost, Err(LogError::OutcomeUnknown)));
    assert_ne!(log.snapshot(), before, "but it was applied");
    assert!(now(log.propose(open(), "", deadline())).is_ok());
}

#[test]
fn the_history_gets_subject_and_wall_clock() {
    let log = cluster();
    log.set_wall_clock(Timestamp(77));
    let put = crate::testing::manifest("a", "m", &[], &["v1"]);
    now(log.propose(Command::PutManifest(put), "me", deadline())).unwrap();
    let (name, tag) = (crate::testing::repository("a"), crate::testing::tag("v1"));
    let history = log::read(&log, |view| query::tag_history(view, &name, &tag, 9)).unwrap();
    assert_eq!(
        (history[0].subject.as_str(), history[0].proposed_at),
        ("me", Timestamp(77))
    );
}
