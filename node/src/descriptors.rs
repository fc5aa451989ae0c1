//! File descriptors: asks for as many as the process may have, and says for how many connections they are enough.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for the node itself: files of its databases, connections to other nodes, work in the background.
const OWN: u64 = 128;
/// A connection holds its socket, the file of a blob or an upload, and meanwhile the file of a copy for another node.
const PER_CONNECTION: u64 = 3;
/// Whatever the limit, somebody must be able to ask how the node is.
const CONNECTIONS_MIN: u64 = 8;

/// Raises the limit as far as the process may.
pub(crate) fn raise() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of file descriptors cannot be raised");
    }
}

/// The limit as it is; `None` is no limit.
pub(crate) fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Connections that can be served with so many descriptors: as configured, or fewer.
pub(crate) fn connections_max(configured: usize, descriptors: Option<u64>) -> usize {
    let Some(descriptors) = descriptors else {
        return configured;
    };
    let enough_for = (descriptors.saturating_sub(OWN) / PER_CONNECTION).max(CONNECTIONS_MIN);
    let possible = usize::try_from(enough_for).unwrap_or(usize::MAX);
    if possible < configured {
        tracing::warn!(
            descriptors,
            connections = possible,
            configured,
            "the limit of file descriptors (`ulimit -n`) allows fewer connections than `limits.connections_max`"
        );
    }
    configured.min(possible)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_allow_few_connections() {
        assert_eq!(connections_max(8_192, None), 8_192);
        assert_eq!(connections_max(8_192, Some(1 << 20)), 8_192);
        assert_eq!(connections_max(8_192, Some(256)), 42);
        assert_eq!(connections_max(8_192, Some(64)), 8);
        assert_eq!(connections_max(5, Some(256)), 5);
    }
}
