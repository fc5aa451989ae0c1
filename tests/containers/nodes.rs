//! Three nodes in containers, and what can happen to them.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use testcontainers::core::IntoContainerPort;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};

use crate::http::{self, Answer};

const HTTP_PORT: u16 = 5000;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCTETS: &str = "application/octet-stream";
/// SHA-256 of the config `{}`.
const EMPTY_CONFIG: &str =
    "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

struct Node {
    container: ContainerAsync<GenericImage>,
    name: String,
    port: u16,
}

pub(crate) struct Cluster {
    network: String,
    nodes: Vec<Node>,
}

/// An acknowledged manifest.
pub(crate) struct Pushed {
    tag: String,
    body: Vec<u8>,
}

fn docker(arguments: &[&str]) {
    let output = Command::new("docker")
        .args(arguments)
        .output()
        .expect("docker runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {text}");
}

/// Free at this moment; a container must keep its port when it is started again.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

impl Cluster {
    pub(crate) async fn start() -> Cluster {
        let network = format!("argosy-containers-{}", std::process::id());
        docker(&["network", "create", &network]);
        let name = |node: u64| format!("{network}-{node}");
        let members: Vec<String> = (1..=3)
            .map(|node| format!("{{id={node},grpc=\"{}:5100\"}}", name(node)))
            .collect();
        let members = format!("[{}]", members.join(","));
        let mut nodes = Vec::new();
        for node in 1..=3 {
            let (name, port) = (name(node), free_port());
            let container = GenericImage::new("argosy", "latest")
                .with_container_name(&name)
                .with_network(&network)
                .with_mapped_port(port, HTTP_PORT.tcp())
                .with_env_var("ARGOSY__NODE__ID", node.to_string())
                .with_env_var("ARGOSY__GRPC__ADVERTISE", format!("{name}:5100"))
                .with_env_var("ARGOSY__CLUSTER__MEMBERS", &members)
                .start()
                .await
                .expect("the image argosy:latest starts; build it with deploy/build/image");
            nodes.push(Node {
                container,
                name,
                port,
            });
        }
        Cluster { network, nodes }
    }

    fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    async fn send(
        &self,
        node: usize,
        method: &'static str,
        path: &str,
        content_type: &'static str,
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let (port, path, body) = (self.node(node).port, path.to_owned(), body.to_vec());
        let call = move || http::request(port, method, &path, content_type, &body);
        tokio::task::spawn_blocking(call)
            .await
            .expect("the request thread")
    }

    pub(crate) async fn wait_ready(&self, node: usize, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            if let Ok(answer) = self.send(node, "GET", "/readyz", OCTETS, b"").await
                && answer.status == 200
            {
                return;
            }
            assert!(Instant::now() < deadline, "node {node} is not ready");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub(crate) async fn wait_all_ready(&self, patience: Duration) {
        for node in 1..=3 {
            self.wait_ready(node, patience).await;
        }
    }

    /// Pushes a small image; `None` when any step was not answered as it should be.
    async fn try_push(&self, node: usize, tag: &str) -> Option<Pushed> {
        let start = "/v2/team/app/blobs/uploads/";
        let session = self.send(node, "POST", start, OCTETS, b"").await.ok()?;
        let location = session.header("location")?.to_owned();
        let path = format!("{location}?digest={EMPTY_CONFIG}");
        let stored = self.send(node, "PUT", &path, OCTETS, b"{}").await.ok()?;
        let body = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST}\",\"annotations\":{{\"tag\":\"{tag}\"}},\
             \"config\":{{\"mediaType\":\"application/vnd.oci.empty.v1+json\",\"size\":2,\
             \"digest\":\"{EMPTY_CONFIG}\"}},\"layers\":[]}}"
        );
        let path = format!("/v2/team/app/manifests/{tag}");
        let put = self
            .send(node, "PUT", &path, MANIFEST, body.as_bytes())
            .await
            .ok()?;
        let is_pushed = stored.status == 201 && put.status == 201;
        is_pushed.then(|| Pushed {
            tag: tag.to_owned(),
            body: body.into_bytes(),
        })
    }

    pub(crate) async fn push(&self, node: usize, tag: &str) -> Pushed {
        self.try_push(node, tag)
            .await
            .expect("a healthy cluster takes a push")
    }

    /// Pushes to these nodes in turn until one takes it: an election may be under way.
    pub(crate) async fn push_patiently(
        &self,
        nodes: &[usize],
        tag: &str,
        patience: Duration,
    ) -> Pushed {
        let deadline = Instant::now() + patience;
        for node in nodes.iter().cycle() {
            if let Some(pushed) = self.try_push(*node, tag).await {
                return pushed;
            }
            assert!(Instant::now() < deadline, "nodes {nodes:?} take no push");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        unreachable!("the cycle of a list that is not empty never ends")
    }

    pub(crate) async fn expect_on(&self, node: usize, pushed: &Pushed) {
        let path = format!("/v2/team/app/manifests/{}", pushed.tag);
        let answer = self
            .send(node, "GET", &path, OCTETS, b"")
            .await
            .expect("an answer");
        assert_eq!(answer.status, 200, "node {node}, tag {}", pushed.tag);
        assert!(answer.body == pushed.body, "node {node} serves other bytes");
        let path = format!("/v2/team/app/blobs/{EMPTY_CONFIG}");
        let blob = self
            .send(node, "GET", &path, OCTETS, b"")
            .await
            .expect("an answer");
        assert_eq!(
            (blob.status, blob.body.as_slice()),
            (200, b"{}".as_slice()),
            "node {node}"
        );
    }

    pub(crate) async fn kill(&self, node: usize) {
        let container = &self.node(node).container;
        container.stop_with_timeout(Some(0)).await.expect("killed");
    }

    pub(crate) async fn start_again(&self, node: usize) {
        self.node(node)
            .container
            .start()
            .await
            .expect("started again");
    }

    pub(crate) async fn pause(&self, node: usize) {
        self.node(node).container.pause().await.expect("paused");
    }

    pub(crate) async fn unpause(&self, node: usize) {
        self.node(node).container.unpause().await.expect("unpaused");
    }

    pub(crate) fn disconnect(&self, node: usize) {
        docker(&[
            "network",
            "disconnect",
            &self.network,
            &self.node(node).name,
        ]);
    }

    pub(crate) fn connect(&self, node: usize) {
        docker(&["network", "connect", &self.network, &self.node(node).name]);
    }

    pub(crate) async fn remove(self) {
        for node in self.nodes {
            node.container.rm().await.expect("removed");
        }
        docker(&["network", "rm", &self.network]);
    }
}
