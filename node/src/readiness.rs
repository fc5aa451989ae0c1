//! Whether this node can serve.

use consensus::RaftNode;

/// Why the node cannot serve; `None` when it can.
pub fn reason(raft: &RaftNode) -> Option<String> {
    if raft.is_ready() {
        return None;
    }
    let status = raft.status();
    Some(match status.leader {
        None => "no leader is known".to_owned(),
        Some(leader) => format!(
            "leader {leader} is out of reach, or this node lags: applied {} of {}",
            status.applied,
            status
                .committed
                .map_or_else(|| "?".to_owned(), |index| index.to_string())
        ),
    })
}
