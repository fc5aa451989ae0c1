//! The leader's eye on the others: who is silent for too long is Down, who answers again is Up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metadata::command::{Command, NodeState, SetNodeState};
use metadata::ids::NodeId;
use metadata::query;

use crate::Registry;
use crate::failpoints::hit;

/// When each node was last seen answering, in log time. Lives as long as this node leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Watch {
    answered_at: BTreeMap<NodeId, u64>,
}

/// What the leader knows of a node at one look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) node: NodeId,
    pub(super) state: NodeState,
    /// Since when it is silent; `None` when it has not answered this leader yet.
    pub(super) silence: Option<Duration>,
}

impl Watch {
    /// What changes now. A node counts as answering while its silence is shorter than `suspect_after`; a new leader
    /// starts to count anew, and time without a leader does not count: a restart of everything puts nobody down.
    pub(super) fn look(
        &mut self,
        nodes: &[Seen],
        now_ms: u64,
        suspect_after: Duration,
        down_after_ms: u64,
    ) -> Vec<SetNodeState> {
        self.answered_at
            .retain(|node, _| nodes.iter().any(|seen| seen.node == *node));
        let mut changes = Vec::new();
        for seen in nodes {
            let answers = seen.silence.is_some_and(|silence| silence < suspect_after);
            let answered_at = self.answered_at.entry(seen.node).or_insert(now_ms);
            if answers {
                *answered_at = now_ms;
            }
            let is_late = now_ms.saturating_sub(*answered_at) >= down_after_ms;
            let state = match seen.state {
                NodeState::Up if is_late && !answers => NodeState::Down,
                NodeState::Down if answers => NodeState::Up,
                // What an operator drains stays draining: it does not count towards R either.
                NodeState::Up | NodeState::Down | NodeState::Draining => continue,
            };
            changes.push(SetNodeState {
                node: seen.node,
                state,
            });
        }
        changes
    }
}

impl Registry {
    /// One look at the others, while this node leads.
    pub(crate) async fn watch_nodes(self: &Arc<Self>) {
        if !self.log.is_leader() {
            let mut memory = self.heal.memory();
            memory.watch = Watch::default();
            memory.silent.clear();
            return;
        }
        let me = self.log.node_id();
        let seen = self.look(|view| Ok((query::nodes(view)?, query::time(view)?.0.0)));
        let (nodes, now_ms) = match seen {
            Ok(seen) => seen.value,
            Err(error) => {
                tracing::warn!(error = %error, "the nodes of the cluster cannot be read");
                return;
            }
        };
        let nodes: Vec<Seen> = nodes
            .into_iter()
            .map(|known| Seen {
                node: known.node,
                state: known.state,
                // The leader answers itself.
                silence: match known.node == me {
                    true => Some(Duration::ZERO),
                    false => self.log.silence(known.node),
                },
            })
            .collect();
        let options = &self.options.heal;
        let changes = {
            let mut memory = self.heal.memory();
            memory.silent = nodes
                .iter()
                .filter_map(|seen| Some((seen.node, seen.silence?)))
                .filter(|(_, silence)| *silence >= options.suspect_after)
                .collect();
            memory
                .watch
                .look(&nodes, now_ms, options.suspect_after, options.down_after_ms)
        };
        for change in changes {
            tracing::warn!(peer = %change.node, state = ?change.state, "a node changes its state");
            let changed = match hit("node_state_before_propose") {
                Ok(()) => self.upkeep(Command::SetNodeState(change)).await,
                Err(error) => Err(error),
            };
            if let Err(error) = changed {
                tracing::warn!(error = %error, "the state of a node was not changed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUSPECT: Duration = Duration::from_secs(30);
    const DOWN_MS: u64 = 600_000;

    fn look(
        watch: &mut Watch,
        state: NodeState,
        silence_s: Option<u64>,
        now_s: u64,
    ) -> Vec<NodeState> {
        let seen = Seen {
            node: NodeId(2),
            state,
            silence: silence_s.map(Duration::from_secs),
        };
        let changes = watch.look(&[seen], now_s * 1_000, SUSPECT, DOWN_MS);
        changes.into_iter().map(|change| change.state).collect()
    }

    #[test]
    fn a_node_is_down_after_the_delay_and_up_when_it_answers() {
        let mut watch = Watch::default();
        assert!(look(&mut watch, NodeState::Up, Some(1), 0).is_empty());
        assert!(look(&mut watch, NodeState::Up, Some(599), 599).is_empty());
        assert_eq!(
            look(&mut watch, NodeState::Up, Some(600), 600),
            [NodeState::Down]
        );
        assert!(look(&mut watch, NodeState::Down, Some(700), 700).is_empty());
        assert_eq!(
            look(&mut watch, NodeState::Down, Some(1), 800),
            [NodeState::Up]
        );
        assert!(look(&mut watch, NodeState::Up, Some(1), 801).is_empty());
    }

    #[test]
    fn a_flapping_node_never_goes_down() {
        let mut watch = Watch::default();
        for turn in 0..20 {
            let now = turn * 60;
            assert!(look(&mut watch, NodeState::Up, Some(0), now).is_empty());
            assert!(look(&mut watch, NodeState::Up, Some(30), now + 30).is_empty());
        }
    }

    #[test]
    fn a_new_leader_counts_anew() {
        let mut watch = Watch::default();
        assert!(look(&mut watch, NodeState::Up, None, 5_000).is_empty());
        assert!(look(&mut watch, NodeState::Up, None, 5_599).is_empty());
        assert_eq!(
            look(&mut watch, NodeState::Up, None, 5_600),
            [NodeState::Down]
        );
    }

    #[test]
    fn draining_is_left_alone() {
        let mut watch = Watch::default();
        look(&mut watch, NodeState::Draining, Some(0), 0);
        assert!(look(&mut watch, NodeState::Draining, Some(900), 900).is_empty());
        assert!(look(&mut watch, NodeState::Draining, Some(0), 901).is_empty());
    }
}
