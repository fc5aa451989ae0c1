//! Leaders that leave, links that are cut, answers that are lost.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use metadata::codec;
use metadata::entry::Entry;
use metadata::ids::{NodeId, RequestId, Timestamp};
use metadata::key::{self, Table};
use metadata::log::{LogError, MetadataLog};
use metadata::response::{Outcome, Rejection, Response};
use storage::log::LogStore;

use tokio::task::JoinSet;

use super::{TestCluster, eventually, has_tag, open_stores, open_ticket, put, soon};
use crate::RaftNode;
use crate::forward::Attempt;
use crate::types::EntryBytes;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_shuts_down_hands_over_and_writes_go_on() {
    let mut cluster = TestCluster::formed(3).await;
    let old = cluster.leader().await;
    put(cluster.node(old), "before").await.unwrap();
    let start = Instant::now();
    cluster.stop(old).await;
    let new = cluster.leader().await;
    println!("stopped with a new leader after {:?}", start.elapsed());
    assert_ne!(new, old);
    for node in cluster.running() {
        let name = format!("after-{}", node.node_id());
        put(node, &name).await.unwrap();
        assert!(has_tag(node, "before") && has_tag(node, &name));
    }
    cluster.start(old).await.unwrap();
    cluster.node(old).barrier(soon()).await.unwrap();
    assert!(has_tag(cluster.node(old), &format!("after-{new}")));
}

/// Peers that are gone cannot take leadership over, however long the node would have time to try.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_peers_hands_over_to_nobody() {
    let mut cluster = TestCluster::formed(3).await;
    let leader = cluster.leader().await;
    for other in (1..=3).filter(|node| *node != leader) {
        cluster.stop(other).await;
    }
    let an_hour = Instant::now() + Duration::from_secs(3600);
    let handed_over = cluster.node(leader).hand_over(an_hour);
    let ended = tokio::time::timeout(super::PATIENCE, handed_over).await;
    assert!(ended.is_ok(), "it waits for peers that are gone");
}

/// F-100: the answer is lost, the leader dies, and the same bytes are sent again to the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_replayed_after_a_leader_change_is_applied_once() {
    let mut cluster = TestCluster::formed(3).await;
    let old = cluster.leader().await;
    let asking = cluster.follower().await;
    let request = RequestId {
        node: NodeId(asking),
        boot: 42,
        sequence: 1,
    };
    let entry = codec::encode_entry(&Entry {
        proposed_at: Timestamp(0),
        subject: String::new(),
        request: Some(request),
        command: open_ticket(asking),
    });
    let first = cluster.node(asking).propose_entry(entry.clone(), soon());
    let first = first.await.unwrap();
    assert!(matches!(first.response, Response::TicketsOpened { .. }));
    cluster.stop(old).await;
    assert_ne!(cluster.leader().await, old);
    put(cluster.node(asking), "in-between").await.unwrap();
    for node in cluster.running() {
        let again = node.propose_entry(entry.clone(), soon()).await.unwrap();
        assert_eq!(again, first, "the answer of the first time");
    }
    cluster.start(old).await.unwrap();
    let back = cluster.node(old);
    assert_eq!(back.propose_entry(entry, soon()).await.unwrap(), first);
    let tickets = metadata::log::read(&**back, |view| {
        let mut count = 0;
        view.scan(&key::table(Table::Ticket), None, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    });
    assert_eq!(tickets.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_sent_twice_is_applied_once() {
    let cluster = TestCluster::formed(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.node(cluster.follower().await);
    let request = RequestId {
        node: follower.node_id(),
        boot: 42,
        sequence: 1,
    };
    let entry = |request| {
        codec::encode_entry(&Entry {
            proposed_at: Timestamp(0),
            subject: String::new(),
            request: Some(request),
            command: open_ticket(leader),
        })
    };
    // The second is what a follower sends when the first answer was lost.
    let first = follower
        .propose_entry(entry(request), soon())
        .await
        .unwrap();
    let again = follower
        .propose_entry(entry(request), soon())
        .await
        .unwrap();
    assert_eq!(again, first, "the answer of the first, with its index");
    let at_leader = cluster
        .node(leader)
        .propose_entry(entry(request), soon())
        .await
        .unwrap();
    assert_eq!(at_leader, first, "wherever it is sent");
    let next = RequestId {
        sequence: 2,
        ..request
    };
    let other = follower.propose_entry(entry(next), soon()).await.unwrap();
    assert_ne!(other, first, "another request is another ticket");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overtaken_request_gets_a_new_id_because_it_was_never_applied() {
    let cluster = TestCluster::formed(1).await;
    let node = cluster.node(1);
    let request = |sequence| RequestId {
        node: NodeId(1),
        boot: 42,
        sequence,
    };
    let entry = |request| {
        let command = open_ticket(1);
        codec::encode_entry(&Entry {
            proposed_at: Timestamp(0),
            subject: String::new(),
            request,
            command,
        })
    };
    node.propose_entry(entry(Some(request(1025))), soon())
        .await
        .unwrap();
    let overtaken = node
        .propose_entry(entry(Some(request(1))), soon())
        .await
        .unwrap();
    assert_eq!(
        overtaken.response,
        Response::Rejected(Rejection::RequestTooOld)
    );
    // Through the front door the same happens with the node's own numbers, and is repaired there.
    node.overtake_next_request(entry).await;
    let outcome: Outcome = node.propose(open_ticket(1), "", soon()).await.unwrap();
    assert!(matches!(outcome.response, Response::TicketsOpened { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolated_leader_answers_no_barrier_and_the_others_go_on() {
    let cluster = TestCluster::formed(3).await;
    let old = cluster.leader().await;
    put(cluster.node(old), "before").await.unwrap();
    cluster.set_isolated(old, true);

    let start = Instant::now();
    let deadline = start + Duration::from_secs(2);
    let refused = cluster.node(old).barrier(deadline).await.unwrap_err();
    assert!(
        matches!(refused, LogError::QuorumLost | LogError::NoLeader),
        "{refused}"
    );
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "no wait beyond the deadline"
    );
    eventually("not ready", || !cluster.node(old).is_ready()).await;

    let others: Vec<_> = cluster
        .running()
        .filter(|node| node.node_id().0 != old)
        .collect();
    put(others[0], "during").await.unwrap();
    others[1].barrier(soon()).await.unwrap();
    assert!(has_tag(others[1], "during"));

    let attempt = cluster
        .node(old)
        .propose(
            open_ticket(old),
            "",
            Instant::now() + Duration::from_secs(1),
        )
        .await;
    assert!(
        attempt.is_err(),
        "a write without a quorum is not acknowledged"
    );
    assert!(!has_tag(cluster.node(old), "during"));

    cluster.set_isolated(old, false);
    cluster.node(old).barrier(soon()).await.unwrap();
    assert!(has_tag(cluster.node(old), "during"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_fails_at_its_deadline_and_not_later() {
    let mut cluster = TestCluster::formed(3).await;
    let kept = cluster.follower().await;
    for node in (1..=3).filter(|node| *node != kept) {
        cluster.stop(node).await;
    }
    let node = cluster.node(kept);
    let start = Instant::now();
    let deadline = start + Duration::from_secs(1);
    let (proposed, barrier) = tokio::join!(
        node.propose(open_ticket(kept), "", deadline),
        node.barrier(deadline)
    );
    assert!(proposed.is_err() && barrier.is_err());
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    eventually("not ready", || !node.is_ready()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leader_is_no_ambiguity_and_garbage_is_not_proposed() {
    let mut cluster = TestCluster::formed(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    let known = cluster.node(follower).cluster.leader().unwrap();
    assert_eq!(known.node.0, leader);

    let garbage = bytes::Bytes::from_static(b"\xff\xff\xff");
    let attempt = cluster
        .node(follower)
        .cluster
        .propose_at(&known, garbage, soon())
        .await;
    assert!(
        matches!(attempt, Attempt::Stopped(_)),
        "an entry nobody can decode would stop every node"
    );

    // Nothing listens here: the connection is refused before anything is sent.
    let gone = crate::forward::Leader {
        address: "127.0.0.1:1".into(),
        ..known
    };
    let entry = codec::encode_entry(&Entry {
        proposed_at: Timestamp(0),
        subject: String::new(),
        request: None,
        command: open_ticket(leader),
    });
    let attempt = cluster
        .node(follower)
        .cluster
        .propose_at(&gone, entry, soon())
        .await;
    assert!(matches!(attempt, Attempt::NotProposed(_)));
    cluster.stop(leader).await;
    put(cluster.node(follower), "after").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_proposal_over_a_link_that_keeps_breaking_is_applied_exactly_once() {
    let cluster = Arc::new(TestCluster::formed(3).await);
    let follower = cluster.follower().await;
    let mut proposers = JoinSet::new();
    for _ in 0..8 {
        let node = cluster.node(follower).clone();
        proposers.spawn(async move {
            let mut tickets = Vec::new();
            for _ in 0..25 {
                let outcome = node
                    .propose(open_ticket(follower), "", soon())
                    .await
                    .unwrap();
                tickets.push(outcome.index);
            }
            tickets
        });
    }
    let mut is_cut = false;
    let mut cuts = 0;
    let mut indexes = BTreeSet::new();
    while !proposers.is_empty() {
        tokio::select! {
            done = proposers.join_next() => indexes.extend(done.unwrap().unwrap()),
            () = tokio::time::sleep(Duration::from_millis(if is_cut { 5 } else { 15 })) => {
                is_cut = !is_cut;
                cuts += u32::from(is_cut);
                cluster.set_link_cut(follower, is_cut);
            }
        }
    }
    cluster.set_link_cut(follower, false);
    assert!(cuts > 5, "the link broke only {cuts} times");
    assert_eq!(
        indexes.len(),
        200,
        "each proposal was answered with its own entry"
    );
    cluster.node(1).barrier(soon()).await.unwrap();
    assert_eq!(
        open_tickets(cluster.node(1)),
        200,
        "and none was applied twice"
    );
}

/// What a stopping node has sent may still be committed by the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_that_raft_took_before_it_stopped_has_an_unknown_outcome() {
    let cluster = TestCluster::formed(3).await;
    let leader = cluster.node(cluster.leader().await).clone();
    let last = leader.status().last_log_index;
    cluster.set_isolated(leader.node_id().0, true);
    let proposing = leader.clone();
    let proposed = tokio::spawn(async move { put(&proposing, "halfway").await });
    eventually("the entry is in the log", || {
        leader.status().last_log_index > last
    })
    .await;
    leader.cluster.raft.shutdown().await.unwrap();
    let outcome = proposed.await.unwrap();
    assert!(
        matches!(outcome, Err(LogError::OutcomeUnknown)),
        "{outcome:?}"
    );
    // Nothing was proposed of what comes later.
    let refused = put(&leader, "late").await;
    assert!(
        matches!(refused, Err(LogError::ShuttingDown)),
        "{refused:?}"
    );
}

fn open_tickets(node: &RaftNode) -> usize {
    metadata::log::read(node, |view| {
        let mut count = 0;
        view.scan(&key::table(Table::Ticket), None, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    })
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_cannot_be_applied_stops_the_node() {
    let cluster = TestCluster::formed(1).await;
    let node = cluster.node(1);
    let applied = node.status().applied;
    // Past the checks of the front door, as a newer version of this program might do it.
    let garbage = EntryBytes(bytes::Bytes::from_static(b"\xff\xff\xff"));
    assert!(node.cluster.raft.client_write(garbage).await.is_err());
    let failed = tokio::time::timeout(super::PATIENCE, node.failed())
        .await
        .unwrap();
    assert!(matches!(failed, LogError::Fatal(_)), "{failed}");
    assert!(!node.is_ready());
    assert_eq!(
        node.state.applied().unwrap().index,
        applied,
        "nothing of it was committed"
    );
    let refused = node.propose(open_ticket(1), "", soon()).await.unwrap_err();
    assert!(matches!(refused, LogError::Fatal(_)), "{refused}");
}

/// A power cut can take the applied state and the committed index, which are not synced. The log has every entry, but nobody knows yet up to where
/// it was committed: a leader that went on without an election would answer reads from before what it acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_lost_its_state_answers_no_barrier_from_the_past() {
    let mut cluster = TestCluster::formed(3).await;
    let leader = cluster.leader().await;
    let index = put(cluster.node(leader), "acknowledged").await.unwrap();
    // The others first, so that it cannot hand its leadership over.
    for node in (1..=3).filter(|node| *node != leader) {
        cluster.stop(node).await;
    }
    cluster.stop(leader).await;
    let state = cluster.seat(leader).directory.path().join("state");
    std::fs::remove_dir_all(state).unwrap();
    let (log, _) = open_stores(cluster.seat(leader).directory.path());
    log.set_hard_state("committed", Bytes::new(), true).unwrap();
    drop(log);
    for node in 1..=3 {
        cluster.open(node).await.unwrap();
    }
    // Asked before anything is replicated again.
    let asking = cluster.node(leader).clone();
    let asked = tokio::spawn(async move {
        let seen = asking.barrier(soon()).await.unwrap();
        (seen, has_tag(&asking, "acknowledged"))
    });
    for joined in futures::future::join_all(cluster.running().map(|node| node.join())).await {
        joined.unwrap();
    }
    let (seen, has_tag) = asked.await.unwrap();
    assert!(seen >= index, "{seen} instead of {index}");
    assert!(has_tag);
}
