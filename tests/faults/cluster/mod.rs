//! Some real nodes that are one registry, with the network between them.

pub(crate) mod disk;
pub(crate) mod node;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proto::admin::admin_client::AdminClient;
use proto::admin::gc_client::GcClient;
use proto::admin::heal_client::HealClient;
use proto::admin::{
    AddMemberRequest, CheckReply, CheckRequest, DrainReply, DrainRequest, GcRunRequest,
    RemoveMemberRequest, StartScrubRequest, StatusReply, StatusRequest,
};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

use crate::http;
use crate::proxy::Network;
use disk::Disk;
use node::Node;

/// How long one administrative question may take.
const ADMIN_TIME: Duration = Duration::from_secs(3);
/// How long a round of collection, or a change of the members, may take.
const GC_TIME: Duration = Duration::from_secs(20);
/// Reading a whole state takes longer.
const CHECK_TIME: Duration = Duration::from_secs(120);

/// How a cluster is made.
pub(crate) struct Plan {
    /// How many nodes.
    pub(crate) nodes: u64,
    /// First port of a range of 500.
    pub(crate) port_base: u16,
    /// Where everything is.
    pub(crate) directory: PathBuf,
    /// A file system of its own for each node, of this many bytes.
    pub(crate) disk_bytes: Option<u64>,
    /// Put libfaketime before each node.
    pub(crate) has_fake_clock: bool,
    /// Only the first node starts a cluster, the others wait to be added.
    pub(crate) grows: bool,
    /// TOML for every node.
    pub(crate) settings: String,
    pub(crate) seed: u64,
}

/// Running nodes.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) plan: Plan,
    runtime: Runtime,
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Plan {
    fn http(&self, node: u64) -> SocketAddr {
        address(self.port_base + u16::try_from(node).unwrap_or(0))
    }

    fn grpc(&self, node: u64) -> SocketAddr {
        address(self.port_base + 100 + u16::try_from(node).unwrap_or(0))
    }

    /// Where `from` finds `to`.
    fn proxy(&self, from: u64, to: u64) -> SocketAddr {
        address(self.port_base + 200 + u16::try_from(from * 10 + to).unwrap_or(0))
    }

    /// The configuration of `node`: it knows the others by the proxies of its pairs.
    pub(crate) fn configuration(&self, node: u64, data: &Path) -> String {
        self.configuration_at(node, data, self.http(node), self.grpc(node))
    }

    /// The same for a node that listens elsewhere and reaches nobody.
    pub(crate) fn configuration_alone(&self, node: u64, data: &Path) -> (String, SocketAddr) {
        let free = |offset| address(self.port_base + 300 + offset);
        (self.configuration_at(node, data, free(1), free(2)), free(2))
    }

    fn configuration_at(
        &self,
        node: u64,
        data: &Path,
        http: SocketAddr,
        grpc: SocketAddr,
    ) -> String {
        let is_alone = grpc != self.grpc(node);
        let members: String = (1..=self.nodes)
            .map(|member| {
                let at = if member == node {
                    grpc
                } else if is_alone {
                    address(self.port_base + 400 + u16::try_from(member).unwrap_or(0))
                } else {
                    self.proxy(node, member)
                };
                format!("    {{ id = {member}, grpc = \"{at}\" }},\n")
            })
            .collect();
        let cluster = match (self.grows, node) {
            (true, 1) => String::new(),
            (true, _) => "wait_for_init = true\n".to_owned(),
            (false, _) => format!("members = [\n{members}]\n"),
        };
        format!(
            "[node]\nid = {node}\ndata_dir = \"{}\"\n\n[http]\nlisten = \"{http}\"\n\n[grpc]\nlisten = \"{grpc}\"\n\n\
             [cluster]\n{cluster}\n{}",
            data.display(),
            self.settings
        )
    }
}

impl Cluster {
    /// Makes disks, configurations and the network, and starts every node.
    pub(crate) fn start(plan: Plan) -> Result<Cluster> {
        let cluster = Cluster::prepare(plan)?;
        for node in &cluster.nodes {
            node.start()?;
        }
        Ok(cluster)
    }

    /// Makes everything that nodes need, and starts none.
    pub(crate) fn prepare(plan: Plan) -> Result<Cluster> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let ids: Vec<u64> = (1..=plan.nodes).collect();
        let network = Network::start(
            &ids,
            |from, to| plan.proxy(from, to),
            |to| plan.grpc(to),
            plan.seed,
        );
        let network = runtime
            .block_on(network)
            .with_context(|| format!("ports from {} are taken", plan.port_base))?;
        let mut nodes = Vec::new();
        for id in ids {
            let directory = plan.directory.join(format!("node-{id}"));
            fs::create_dir_all(&directory)?;
            let disk = match plan.disk_bytes {
                None => None,
                Some(bytes) => Some(Disk::create(&directory, id, bytes)?),
            };
            let root = disk
                .as_ref()
                .map_or(directory.clone(), |disk| disk.mount_point().to_owned());
            let data = root.join("data");
            fs::create_dir_all(&data)?;
            fs::write(directory.join("config.toml"), plan.configuration(id, &data))?;
            nodes.push(Node::new(
                id,
                plan.http(id),
                plan.grpc(id),
                directory,
                data,
                disk,
                plan.has_fake_clock,
            ));
        }
        Ok(Cluster {
            nodes,
            network,
            plan,
            runtime,
        })
    }

    pub(crate) fn node(&self, id: u64) -> &Node {
        &self.nodes[usize::try_from(id - 1).unwrap_or(0)]
    }

    /// Waits until every node answers that it is ready. A node that ended by itself is an error at once.
    pub(crate) fn wait_ready(&self, bound: Duration) -> Result<()> {
        let deadline = Instant::now() + bound;
        for node in &self.nodes {
            self.wait_ready_of(node.id, deadline.saturating_duration_since(Instant::now()))?;
        }
        Ok(())
    }

    /// The same for one node.
    pub(crate) fn wait_ready_of(&self, id: u64, bound: Duration) -> Result<()> {
        let (node, deadline) = (self.node(id), Instant::now() + bound);
        loop {
            node.check_alive()?;
            if self.is_ready(node) {
                return Ok(());
            }
            let reason = self
                .status(id)
                .map_or_else(|| "it does not answer".to_owned(), |status| status.reason);
            ensure!(
                Instant::now() < deadline,
                "node {id} is not ready in time: {reason}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn is_ready(&self, node: &Node) -> bool {
        let request = http::Request {
            method: "GET",
            path: "/readyz",
            ..http::Request::default()
        };
        http::send(node.http, &request).is_ok_and(|answer| answer.status == 200)
    }

    /// What a node says of itself; `None` when it does not answer.
    pub(crate) fn status(&self, id: u64) -> Option<StatusReply> {
        self.status_at(self.node(id).grpc)
    }

    /// The same of whoever listens there.
    pub(crate) fn status_at(&self, grpc: SocketAddr) -> Option<StatusReply> {
        self.runtime.block_on(async {
            let asked = async {
                let mut client = admin(grpc).await?;
                Ok::<_, anyhow::Error>(client.status(StatusRequest {}).await?.into_inner())
            };
            tokio::time::timeout(ADMIN_TIME, asked).await.ok()?.ok()
        })
    }

    /// The fingerprint of a node's state, and the laws it breaks.
    pub(crate) fn check(&self, id: u64) -> Result<CheckReply> {
        let grpc = self.node(id).grpc;
        self.runtime.block_on(async {
            let asked = async {
                let mut client = admin(grpc).await?;
                Ok::<_, anyhow::Error>(client.check(CheckRequest {}).await?.into_inner())
            };
            tokio::time::timeout(CHECK_TIME, asked).await?
        })
    }

    /// Asks a node for a round of garbage collection; finished when it is over, or refused.
    pub(crate) fn start_round(&self, id: u64) -> JoinHandle<()> {
        let grpc = self.node(id).grpc;
        self.runtime.spawn(async move {
            let asked = async {
                let mut client = GcClient::new(channel(grpc).await?);
                client.run(GcRunRequest {}).await?;
                Ok::<_, anyhow::Error>(())
            };
            // How it went is nobody's business: the node is about to die.
            let _ = tokio::time::timeout(CHECK_TIME, asked).await;
        })
    }

    /// One round of garbage collection, now.
    pub(crate) fn collect_garbage(&self, id: u64) -> Result<()> {
        let grpc = self.node(id).grpc;
        self.runtime.block_on(async {
            let asked = async {
                let mut client = GcClient::new(channel(grpc).await?);
                client.run(GcRunRequest {}).await?;
                Ok(())
            };
            tokio::time::timeout(GC_TIME, asked).await?
        })
    }

    /// Has a node read everything it has.
    pub(crate) fn scrub(&self, id: u64) -> Result<()> {
        let grpc = self.node(id).grpc;
        self.runtime.block_on(async {
            let asked = async {
                let mut client = HealClient::new(channel(grpc).await?);
                client.start_scrub(StartScrubRequest {}).await?;
                Ok(())
            };
            tokio::time::timeout(ADMIN_TIME, asked).await?
        })
    }

    /// Makes `new` a member; asks node `id`.
    pub(crate) fn add_member(&self, id: u64, new: u64) -> Result<()> {
        let (grpc, grpc_address) = (self.node(id).grpc, self.node(new).grpc.to_string());
        let wanted = AddMemberRequest {
            id: new,
            grpc_address,
            learner: false,
        };
        self.runtime.block_on(async {
            let asked = async {
                let mut client = admin(grpc).await?;
                client.add_member(wanted).await?;
                Ok(())
            };
            tokio::time::timeout(GC_TIME, asked).await?
        })
    }

    /// Lets `leaving` drain, and says how far it is; asks node `id`.
    pub(crate) fn drain(&self, id: u64, leaving: u64) -> Result<DrainReply> {
        let grpc = self.node(id).grpc;
        let wanted = DrainRequest {
            node_id: leaving,
            draining: Some(true),
        };
        self.runtime.block_on(async {
            let asked = async { Ok(admin(grpc).await?.drain(wanted).await?.into_inner()) };
            tokio::time::timeout(ADMIN_TIME, asked).await?
        })
    }

    /// Removes a node that drained, whose copies others have; asks node `id`.
    pub(crate) fn remove_member(&self, id: u64, leaving: u64) -> Result<()> {
        let grpc = self.node(id).grpc;
        let wanted = RemoveMemberRequest {
            node_id: leaving,
            force: false,
            allow_few: true,
        };
        self.runtime.block_on(async {
            let asked = async {
                admin(grpc).await?.remove_member(wanted).await?;
                Ok(())
            };
            tokio::time::timeout(GC_TIME, asked).await?
        })
    }

    /// The node that leads in the newest term, as far as one answers.
    pub(crate) fn leader(&self) -> Option<u64> {
        let running = self.nodes.iter().filter(|node| node.is_running());
        let leaders = running.filter_map(|node| {
            let status = self.status(node.id)?;
            (status.role == "leader").then_some((status.term, node.id))
        });
        leaders.max().map(|(_, id)| id)
    }

    /// Ends every fault that a node or the network can be in.
    pub(crate) fn heal(&self) -> Result<()> {
        self.network.heal();
        for node in &self.nodes {
            node.resume();
            if let Some(disk) = &node.disk {
                disk.empty()?;
            }
            if !node.is_running() {
                node.start()?;
            }
        }
        Ok(())
    }

    /// Ends all processes and gives the disks back.
    pub(crate) fn destroy(&self) {
        for node in &self.nodes {
            node.kill();
            if let Some(disk) = &node.disk {
                let _ = disk.unmount();
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.destroy();
    }
}

async fn admin(grpc: SocketAddr) -> Result<AdminClient<Channel>> {
    Ok(AdminClient::new(channel(grpc).await?))
}

async fn channel(grpc: SocketAddr) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{grpc}"))?;
    Ok(endpoint.connect().await?)
}
