//! Which nodes should hold a blob: rendezvous hashing. Pure.

use metadata::ids::NodeId;
use sha2::{Digest as _, Sha256};

/// All members, the most suitable first.
///
/// Every node computes the same order from the same key and members, and a member that joins or leaves moves only
/// the blobs it wins or loses. The hash is part of no format: nodes that disagree merely choose other holders.
pub fn order(key: &[u8], members: &[NodeId]) -> Vec<NodeId> {
    let mut scored: Vec<(u64, NodeId)> = members
        .iter()
        .map(|&node| (score(key, node), node))
        .collect();
    scored.sort_unstable_by(|left, right| right.cmp(left));
    scored.dedup();
    scored.into_iter().map(|(_, node)| node).collect()
}

/// The `copies` most suitable members, fewer when there are fewer.
pub fn placement(key: &[u8], members: &[NodeId], copies: usize) -> Vec<NodeId> {
    let mut nodes = order(key, members);
    nodes.truncate(copies);
    nodes
}

fn score(key: &[u8], node: NodeId) -> u64 {
    let hash = Sha256::new()
        .chain_update(node.0.to_be_bytes())
        .chain_update(key)
        .finalize();
    let mut leading = [0; 8];
    leading.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(leading)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn nodes(ids: impl IntoIterator<Item = u64>) -> Vec<NodeId> {
        ids.into_iter().map(NodeId).collect()
    }

    #[test]
    fn the_order_of_members_does_not_matter_and_nobody_is_named_twice() {
        let forwards = order(b"layer", &nodes([1, 2, 3, 4, 5]));
        let backwards = order(b"layer", &nodes([5, 4, 3, 2, 1, 1, 5]));
        assert_eq!(forwards, backwards);
        assert_eq!(forwards.len(), 5);
        assert_eq!(
            placement(b"layer", &nodes([1, 2, 3, 4, 5]), 2),
            forwards[..2]
        );
        assert_eq!(placement(b"layer", &nodes([7]), 3), nodes([7]));
    }

    #[test]
    fn a_leaving_member_moves_only_its_own_blobs() {
        let (all, fewer) = (nodes(1..=5), nodes(1..=4));
        for key in 0u32..500 {
            let key = key.to_be_bytes();
            let mut before = order(&key, &all);
            before.retain(|node| node.0 != 5);
            assert_eq!(before, order(&key, &fewer));
        }
    }

    #[test]
    fn blobs_are_spread_evenly() {
        let members = nodes(1..=5);
        let mut held = BTreeMap::new();
        for key in 0u32..5_000 {
            for node in placement(&key.to_be_bytes(), &members, 3) {
                *held.entry(node).or_insert(0) += 1;
            }
        }
        for (node, count) in held {
            assert!(
                (2_800..3_200).contains(&count),
                "node {node} holds {count} of 15,000"
            );
        }
    }
}
