//! Who a data directory belongs to: a small file in the Raft directory and one in the blob directory.
//!
//! They catch what would otherwise look like a healthy start: a blank disk mounted in place of the right one, the
//! disk of another node, one half of a backup (protocols.md section 9).

use std::path::Path;

use metadata::ids::NodeId;

use crate::durable;
use crate::error::StorageError;
use crate::failpoints;

/// Name of the file.
pub(crate) const FILE: &str = "IDENTITY";

const FIRST_LINE: &str = "argosy identity 1";
const MAX_CLUSTER_ID_BYTES: usize = 128;

/// What the files say. Both say the same, except that a crash may leave one without the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) node_id: NodeId,
    /// 32 hexadecimal digits, drawn when the directory was created.
    pub(crate) disk_id: String,
    /// `None` until the node has founded or joined a cluster.
    pub(crate) cluster_id: Option<String>,
}

impl Identity {
    /// A new one.
    pub(crate) fn new(node_id: NodeId) -> Identity {
        Identity {
            node_id,
            disk_id: format!("{:032x}", rand::random::<u128>()),
            cluster_id: None,
        }
    }

    /// Reads the file in `dir`; `None` when there is none.
    pub(crate) fn load(dir: &Path) -> Result<Option<Identity>, StorageError> {
        let path = dir.join(FILE);
        let Some(bytes) = durable::read_file(&path)? else {
            return Ok(None);
        };
        match Identity::decode(&bytes) {
            Some(identity) => Ok(Some(identity)),
            None => Err(StorageError::Corrupt {
                path,
                what: "it is not an identity; put the right disk back, or replace this node",
            }),
        }
    }

    /// Writes the file in `dir`, durably.
    pub(crate) fn save(&self, dir: &Path) -> Result<(), StorageError> {
        failpoints::hit("identity_before_write")
            .map_err(StorageError::io("write", &dir.join(FILE)))?;
        durable::write_file(&dir.join(FILE), self.encode().as_bytes())
    }

    fn encode(&self) -> String {
        let mut text = format!(
            "{FIRST_LINE}\nnode {}\ndisk {}\n",
            self.node_id, self.disk_id
        );
        if let Some(cluster_id) = &self.cluster_id {
            text.push_str(&format!("cluster {cluster_id}\n"));
        }
        let checksum = crc32c::crc32c(text.as_bytes());
        format!("{text}checksum {checksum:08x}\n")
    }

    fn decode(bytes: &[u8]) -> Option<Identity> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines().skip(1);
        let node_id = NodeId(lines.next()?.strip_prefix("node ")?.parse().ok()?);
        let disk_id = lines.next()?.strip_prefix("disk ")?.to_owned();
        let cluster_id = lines.next()?.strip_prefix("cluster ").map(str::to_owned);
        let identity = Identity {
            node_id,
            disk_id,
            cluster_id,
        };
        // Whatever is not exactly what would be written is damaged: checksum, first line, spacing, rest.
        (identity.encode().as_bytes() == bytes).then_some(identity)
    }
}

/// Whether the name fits on a line of the file.
pub(crate) fn is_cluster_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_CLUSTER_ID_BYTES
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_survive_a_round_trip_and_no_flipped_bit() {
        let new = Identity::new(NodeId(3));
        assert_eq!(new.disk_id.len(), 32);
        assert_ne!(new.disk_id, Identity::new(NodeId(3)).disk_id);
        let bound = Identity {
            cluster_id: Some("0a-1b".to_owned()),
            ..new.clone()
        };
        for identity in [new, bound] {
            let bytes = identity.encode().into_bytes();
            assert_eq!(Identity::decode(&bytes), Some(identity));
            for position in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[position] ^= 1;
                assert_eq!(Identity::decode(&damaged), None, "byte {position}");
            }
            assert_eq!(Identity::decode(&bytes[..bytes.len() - 1]), None);
            assert_eq!(Identity::decode(b""), None);
        }
    }

    #[test]
    fn cluster_ids_fit_on_a_line() {
        assert!(is_cluster_id("3f2c-77"));
        for bad in ["", "two words", "two\nlines", &"x".repeat(129)] {
            assert!(!is_cluster_id(bad), "{bad:?}");
        }
    }
}
