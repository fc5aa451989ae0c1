//! Whether this node can serve.

use consensus::RaftNode;
use metadata::log;
use metadata::query;

/// Why the node cannot serve; `None` when it can.
pub fn reason(raft: &RaftNode) -> Option<String> {
    let status = raft.status();
    if raft.is_ready() {
        // A node that the state does not know yet cannot hold tickets or copies.
        return match log::read(raft, |view| query::node(view, status.node)) {
            Ok(Some(_)) => None,
            Ok(None) => Some("this node is not registered yet".to_owned()),
            Err(error) => Some(error.to_string()),
        };
    }
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
