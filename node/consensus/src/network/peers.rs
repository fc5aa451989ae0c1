//! Connections to the other nodes: made when first used, remade after a failure, one for each purpose.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use metadata::ids::NodeId;
use proto::raft::raft_client::RaftClient;
use runtime::{REQUEST_ID_HEADER, RequestScope};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{ConnectError, Request, Status};

use crate::options::{MAX_MESSAGE_BYTES, Member};

/// Header with the node that is meant.
pub(crate) const TARGET_HEADER: &str = "argosy-target";
/// Header with the disk that the caller knows to be the target's, once one is registered.
pub(crate) const DISK_HEADER: &str = "argosy-disk";
/// Header with the name of the caller's cluster.
pub(crate) const CLUSTER_HEADER: &str = "argosy-cluster";

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A peer that answers no ping for this long is gone (a cut cable, a stopped process), whatever TCP thinks.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// Lets an 8 MiB message pass without a round trip for each 64 KiB.
const WINDOW_BYTES: u32 = 4 << 20;

/// What a connection is for. A heartbeat must never queue behind megabytes of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Heartbeats, votes, read indexes, probes: small and urgent.
    Control,
    /// Entries from the leader.
    Entries,
    /// Proposals to the leader.
    Proposals,
    /// Snapshots.
    Snapshots,
}

/// The other nodes.
pub(crate) struct Peers {
    /// Configured addresses win over those in the membership: an address may change while the node is down.
    configured: HashMap<u64, String>,
    /// The name of this cluster, once known.
    cluster: OnceLock<MetadataValue<Ascii>>,
    /// The disks registered for the nodes, as far as this node has looked.
    disks: RwLock<HashMap<u64, MetadataValue<Ascii>>>,
    channels: Mutex<HashMap<(Lane, String), Channel>>,
}

impl Peers {
    pub(crate) fn new(members: &[Member]) -> Peers {
        let configured = members
            .iter()
            .map(|member| (member.node.0, member.grpc_address.clone()))
            .collect();
        Peers {
            configured,
            cluster: OnceLock::new(),
            disks: RwLock::default(),
            channels: Mutex::default(),
        }
    }

    /// From now on calls carry this name. The first name stays.
    pub(crate) fn set_cluster(&self, cluster_id: &str) {
        if let Ok(value) = cluster_id.parse() {
            let _ = self.cluster.set(value);
        }
    }

    /// From now on calls to these nodes say which disk is meant.
    pub(crate) fn set_disks<'a>(&self, disks: impl Iterator<Item = (NodeId, &'a str)>) {
        let disks = disks.filter_map(|(node, disk_id)| Some((node.0, disk_id.parse().ok()?)));
        *self.disks.write().unwrap_or_else(PoisonError::into_inner) = disks.collect();
    }

    /// The name of this cluster, once known.
    pub(crate) fn cluster(&self) -> Option<&str> {
        self.cluster.get().and_then(|value| value.to_str().ok())
    }

    /// Where `node` is reached: as configured, else as the membership says.
    pub(crate) fn address(&self, node: u64, in_membership: Option<&str>) -> Option<String> {
        self.configured
            .get(&node)
            .map(String::as_str)
            .or(in_membership)
            .map(str::to_owned)
    }

    /// A client for one call. Connecting happens with the call.
    pub(crate) fn client(&self, lane: Lane, address: &str) -> Result<RaftClient<Channel>, Status> {
        let channel = self.channel(lane, address)?;
        Ok(RaftClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    fn channel(&self, lane: Lane, address: &str) -> Result<Channel, Status> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&(lane, address.to_owned())) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| Status::invalid_argument(format!("address {address}: {error}")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let channel = endpoint.connect_lazy();
        channels.insert((lane, address.to_owned()), channel.clone());
        Ok(channel)
    }

    /// `message` for `target`, with the headers every call carries.
    pub(crate) fn request<T>(&self, target: NodeId, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert(TARGET_HEADER, MetadataValue::from(target.0));
        if let Some(cluster) = self.cluster.get() {
            request
                .metadata_mut()
                .insert(CLUSTER_HEADER, cluster.clone());
        }
        // The target's log lines shall carry the id of the request, if this is done for one.
        if let Some(id) = RequestScope::current().and_then(|caller| caller.id().parse().ok()) {
            request.metadata_mut().insert(REQUEST_ID_HEADER, id);
        }
        let disks = self.disks.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(disk) = disks.get(&target.0) {
            request.metadata_mut().insert(DISK_HEADER, disk.clone());
        }
        request
    }
}

/// Whether a call failed before anything was sent: no connection could be made.
pub(crate) fn was_not_sent(status: &Status) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
