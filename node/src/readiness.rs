//! Whether this node can serve.

use consensus::RaftNode;
use metadata::log;
use metadata::query;
use storage::blob::DirectoryBlobs;

/// Why the node cannot serve; `None` when it can.
///
/// A node whose blob directory takes no writes still answers reads, but pushes should go to the others.
pub fn reason(raft: &RaftNode, blobs: &DirectoryBlobs) -> Option<String> {
    of_raft(raft).or_else(|| blobs.trouble())
}

fn of_raft(raft: &RaftNode) -> Option<String> {
    if raft.is_claimed_elsewhere() {
        return Some("another cluster knows this node with another disk".to_owned());
    }
    if raft.disk_hangs() {
        return Some("the disk of the Raft log hangs".to_owned());
    }
    let status = raft.status();
    if raft.is_removed() {
        return Some("this node was removed from the cluster".to_owned());
    }
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
