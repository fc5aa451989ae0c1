//! What a node owes the cluster besides serving: introduce itself, and, while it leads, name a new cluster, finish a
//! membership change or a removal that a leader before it began, keep the copy counts as configured, let log time pass, and give
//! leadership away when its disk hangs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use metadata::command::{Command, InitializeCluster, RegisterNode, SetReplication, Tick};
use metadata::log::{LogError, MetadataLog};
use metadata::response::{Outcome, Rejection, Response};
use metadata::view::ViewError;
use openraft::async_runtime::watch::WatchReceiver;
use runtime::Backoff;

use crate::error::{MembershipError, log_hit};
use crate::facts;
use crate::node::RaftNode;
use crate::options::Member;

/// How long one duty may try.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often a settled node looks whether something changed that no signal tells.
const REVIEW: Duration = Duration::from_secs(5);

/// Why a duty is not done yet.
#[derive(Debug, thiserror::Error)]
enum Undone {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    View(#[from] ViewError),
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error("rejected: {0}")]
    Rejected(Rejection),
}

impl RaftNode {
    pub(crate) fn start_duties(self: &Arc<Self>) {
        let node = self.clone();
        self.tasks.spawn(
            "raft settling",
            async move { node.settle_until_closed().await },
        );
        let node = self.clone();
        self.tasks.spawn("raft disk watch", async move {
            node.watch_disk_until_closed().await
        });
        let node = self.clone();
        self.tasks
            .spawn("raft ticks", async move { node.tick_until_closed().await });
    }

    /// A disk that hangs fails nothing, and heartbeats need no disk: without this its node would lead on while no write
    /// of the cluster ends (faults F-25 and F-26).
    async fn watch_disk_until_closed(&self) {
        let closed = self.tasks.token();
        let mut hung = false;
        loop {
            tokio::select! {
                () = closed.cancelled() => return,
                () = tokio::time::sleep(self.options.sync_max / 4) => {}
            }
            let hangs = self.disk_hangs();
            match (hung, hangs) {
                (false, true) => tracing::warn!(
                    "the disk of the Raft log hangs; this node is not ready and does not lead"
                ),
                (true, false) => tracing::info!("the disk of the Raft log answers again"),
                _ => {}
            }
            hung = hangs;
            if hangs && self.is_leader() {
                self.hand_over(Instant::now() + self.options.sync_max).await;
            }
        }
    }

    /// Looks again whenever who leads or who belongs changes, and after a failure with growing pauses.
    async fn settle_until_closed(&self) {
        let closed = self.tasks.token();
        let mut metrics = self.cluster.raft.server_metrics();
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        loop {
            metrics.borrow_and_update();
            let pause = match self.settle().await {
                Ok(true) => {
                    backoff.reset();
                    REVIEW
                }
                Ok(false) => backoff.next_delay(),
                Err(error) => {
                    tracing::debug!(%error, "not settled yet");
                    backoff.next_delay()
                }
            };
            tokio::select! {
                () = closed.cancelled() => return,
                changed = metrics.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One look at what this node still owes. False when something has to happen elsewhere first.
    async fn settle(&self) -> Result<bool, Undone> {
        let Some(cluster) = facts::cluster(&*self.state)? else {
            if self.is_leader() {
                self.name_cluster().await?;
            }
            return Ok(false);
        };
        self.cluster.peers.set_cluster(&cluster.cluster_id);
        if self.is_removed() {
            return Ok(true);
        }
        // It may take itself, or the last one it heard of, for the leader.
        if !self.is_ready() {
            self.ask_whether_removed().await;
        }
        self.register().await?;
        let nodes = facts::nodes(&*self.state)?;
        self.cluster.peers.set_disks(
            nodes
                .iter()
                .map(|known| (known.node, known.disk_id.as_str())),
        );
        if self.is_leader() {
            self.resume_change(Instant::now() + DEADLINE).await?;
            self.resume_removals(Instant::now() + DEADLINE).await?;
        }
        let (copies, write_copies) = self.wanted_copies();
        if self.is_leader() && (cluster.copies, cluster.write_copies) != (copies, write_copies) {
            self.decide(Command::SetReplication(SetReplication {
                copies,
                write_copies,
            }))
            .await?;
        }
        Ok(true)
    }

    /// Nobody calls a removed node, so one that was away meanwhile has to ask.
    async fn ask_whether_removed(&self) {
        let others = self.status().members.into_iter();
        let others = others.filter(|member| member.node != self.options.node);
        let members: Vec<Member> = others
            .map(|member| Member {
                node: member.node,
                grpc_address: member.grpc_address,
            })
            .collect();
        let answers = join_all(members.iter().map(|member| self.probe(member))).await;
        if answers.iter().flatten().any(|answer| answer.removed) {
            self.note_removal();
        }
    }

    /// R and W: as configured, else following the number of voters, so that a cluster which grows keeps its promise
    /// (protocols.md section 0: one more copy than the losses that consensus survives).
    fn wanted_copies(&self) -> (u32, u32) {
        let voters = self.cluster.raft.voter_ids().count().max(1);
        let voters = u32::try_from(voters).unwrap_or(u32::MAX);
        let write_copies = match self.options.write_copies {
            0 => (voters - 1) / 2 + 1,
            configured => configured,
        };
        let copies = match self.options.copies {
            0 => voters.min(write_copies.max(3)),
            configured => configured,
        };
        (copies, write_copies)
    }

    async fn name_cluster(&self) -> Result<(), Undone> {
        let upload_key: [u8; 32] = rand::random();
        let (copies, write_copies) = self.wanted_copies();
        let command = Command::InitializeCluster(InitializeCluster {
            cluster_id: format!("{:032x}", rand::random::<u128>()),
            upload_key: Bytes::copy_from_slice(&upload_key),
            copies,
            write_copies,
        });
        log_hit("name_before_propose")?;
        match self.decide(command).await {
            // A leader before this one did it.
            Err(Undone::Rejected(Rejection::AlreadyInitialized)) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn register(&self) -> Result<(), Undone> {
        let wanted = RegisterNode {
            node: self.options.node,
            http_address: self.options.http_address.clone(),
            grpc_address: self.options.grpc_address.clone(),
            disk_id: self.options.disk_id.clone(),
        };
        let is_current = facts::registered(&*self.state, wanted.node)?.is_some_and(|record| {
            (&record.http_address, &record.grpc_address, &record.disk_id)
                == (&wanted.http_address, &wanted.grpc_address, &wanted.disk_id)
        });
        if is_current {
            return Ok(());
        }
        log_hit("register_before_propose")?;
        match self.decide(Command::RegisterNode(wanted)).await {
            Err(Undone::Rejected(Rejection::DiskMismatch(node))) => {
                self.refuse_disk();
                Err(Undone::Rejected(Rejection::DiskMismatch(node)))
            }
            other => other.map(drop),
        }
    }

    async fn decide(&self, command: Command) -> Result<Outcome, Undone> {
        let outcome = self.propose(command, "", Instant::now() + DEADLINE).await?;
        match outcome.response {
            Response::Rejected(rejection) => Err(Undone::Rejected(rejection)),
            _ => Ok(outcome),
        }
    }

    async fn tick_until_closed(&self) {
        let closed = self.tasks.token();
        let mut interval = tokio::time::interval(self.options.tick);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut clock = TickClock::default();
        loop {
            tokio::select! {
                () = closed.cancelled() => return,
                _ = interval.tick() => {}
            }
            if let Err(error) = self.tick(&mut clock).await {
                tracing::debug!(%error, "log time stands still");
                clock = TickClock::default();
            }
        }
    }

    async fn tick(&self, clock: &mut TickClock) -> Result<(), Undone> {
        if !self.is_leader() || facts::cluster(&*self.state)?.is_none() {
            *clock = TickClock::default();
            return Ok(());
        }
        let previous_sequence = facts::tick_sequence(&*self.state)?;
        let elapsed_ms = clock.advance(previous_sequence, Instant::now());
        log_hit("tick_before_propose")?;
        self.decide(Command::Tick(Tick {
            previous_sequence,
            elapsed_ms,
        }))
        .await
        .map(drop)
    }
}

/// Measures the time between the ticks of one leader with its monotonic clock. Time before its first tick is
/// not counted: log time may be late, never early (protocols.md section 2).
#[derive(Debug, Default)]
struct TickClock {
    /// The sequence the next tick should follow, and when the last one was measured.
    last: Option<(u64, Instant)>,
}

impl TickClock {
    /// Milliseconds to propose with a tick that follows `previous_sequence`, measured at `now`.
    fn advance(&mut self, previous_sequence: u64, now: Instant) -> u64 {
        let elapsed = match self.last {
            // Another leader ticked meanwhile, or ours was lost: its time is not ours to count.
            Some((expected, at)) if expected == previous_sequence => {
                now.saturating_duration_since(at)
            }
            _ => Duration::ZERO,
        };
        self.last = Some((previous_sequence + 1, now));
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_time_counts_only_what_one_leader_measured_between_its_own_ticks() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut clock = TickClock::default();
        assert_eq!(clock.advance(7, at(0)), 0, "a new leader starts at zero");
        assert_eq!(clock.advance(8, at(10)), 10_000);
        assert_eq!(
            clock.advance(8, at(20)),
            0,
            "the tick of second 10 was lost"
        );
        assert_eq!(clock.advance(9, at(30)), 10_000);
        assert_eq!(clock.advance(12, at(40)), 0, "somebody else led meanwhile");
    }
}
