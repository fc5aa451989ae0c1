//! What the front makes of states that a healthy cluster never shows: broken disks, no quorum, limits reached.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use http::{HeaderMap, Method};
use metadata::command::Command;
use metadata::ids::{LogIndex, NodeId};
use metadata::log::{LogError, MetadataLog};
use metadata::memory::MemoryLog;
use metadata::response::Outcome;
use metadata::view::{MetadataView, ViewError};
use registry::RegistryOptions;
use replication::memory::MemoryNetwork;
use replication::{Replication, ReplicationOptions};
use runtime::Shutdown;
use storage::blob::MemoryBlobs;
use tower::ServiceExt as _;

use super::*;

const ME: NodeId = NodeId(1);

/// The log of a cluster of one, which can be broken.
struct FragileLog {
    inner: MemoryLog,
    is_disk_broken: AtomicBool,
    has_quorum: AtomicBool,
}

impl FragileLog {
    fn quorum(&self) -> Result<(), LogError> {
        match self.has_quorum.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(LogError::QuorumLost),
        }
    }
}

#[async_trait]
impl MetadataLog for FragileLog {
    async fn propose(
        &self,
        command: Command,
        subject: &str,
        deadline: Instant,
    ) -> Result<Outcome, LogError> {
        self.quorum()?;
        self.inner.propose(command, subject, deadline).await
    }

    async fn barrier(&self, deadline: Instant) -> Result<LogIndex, LogError> {
        self.quorum()?;
        self.inner.barrier(deadline).await
    }

    async fn wait_applied(&self, index: LogIndex, deadline: Instant) -> Result<(), LogError> {
        self.inner.wait_applied(index, deadline).await
    }

    fn read(
        &self,
        reader: &mut dyn FnMut(&dyn MetadataView) -> Result<(), ViewError>,
    ) -> Result<(), ViewError> {
        if self.is_disk_broken.load(Ordering::Relaxed) {
            let error = std::io::Error::other("/dev/secret: bad sector");
            return Err(ViewError(Box::new(error)));
        }
        self.inner.read(reader)
    }

    fn node_id(&self) -> NodeId {
        ME
    }

    fn is_leader(&self) -> bool {
        true
    }
}

struct Fixture {
    log: Arc<FragileLog>,
    clients: Clients,
    router: Router,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    /// The code of the first error.
    fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).expect("an error body");
        body["errors"][0]["code"]
            .as_str()
            .expect("a code")
            .to_owned()
    }
}

impl Fixture {
    fn new(options: RegistryOptions) -> Fixture {
        let inner = MemoryLog::with_nodes(&[ME], 1, 1).expect("a log");
        let log = Arc::new(FragileLog {
            inner,
            is_disk_broken: AtomicBool::new(false),
            has_quorum: AtomicBool::new(true),
        });
        let (blobs, work) = (Arc::new(MemoryBlobs::new()), Shutdown::new());
        let peers = MemoryNetwork::new().join(ME, blobs.clone());
        let replication = Replication::new(
            log.clone(),
            blobs.clone(),
            peers.clone(),
            ReplicationOptions::default(),
            work.clone(),
        );
        let registry = Registry::new(log.clone(), blobs, replication, peers, options, work);
        let options = FrontOptions {
            manifest_max_bytes: 4 << 20,
            page_max: 100,
            header_max_bytes: 200,
            request_deadline: Duration::from_millis(500),
            body_idle: Duration::from_secs(10),
            chunk_min_bytes: 0,
        };
        let metrics: Metrics = Arc::new(|| Box::pin(async { Ok(String::new()) }));
        let clients = Clients::default();
        let ready = Arc::new(|| Ok(()));
        let router = Front::new(registry, options, ready, metrics, clients.clone()).router();
        Fixture {
            log,
            clients,
            router,
        }
    }

    async fn ask(&self, method: Method, target: &str, body: &'static str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "registry.test")
            .header("x-request-id", "request-7")
            .body(Body::from(body))
            .expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("served");
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).expect("text"),
        }
    }

    /// Pushes an empty index under the tag `v1`.
    async fn push(&self) -> Answer {
        let index = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
        self.ask(Method::PUT, "/v2/team/app/manifests/v1", index)
            .await
    }

    /// Opens an upload and returns its path.
    async fn start(&self) -> String {
        let started = self
            .ask(Method::POST, "/v2/team/app/blobs/uploads/", "")
            .await;
        assert_eq!(started.status, StatusCode::ACCEPTED);
        let location = started.headers[http::header::LOCATION].to_str();
        location.expect("text").to_owned()
    }
}

/// K11: what cannot be read is not "unknown", and the answer says nothing of the inside.
#[tokio::test]
async fn a_storage_error_is_500_with_the_request_id_and_never_404() {
    let fixture = Fixture::new(RegistryOptions::default());
    assert_eq!(fixture.push().await.status, StatusCode::CREATED);
    fixture.log.is_disk_broken.store(true, Ordering::Relaxed);
    for target in ["manifests/v1", "manifests/nosuch", "tags/list"] {
        let answer = fixture
            .ask(Method::GET, &format!("/v2/team/app/{target}"), "")
            .await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{target}");
        assert_eq!(answer.code(), "INTERNAL");
        assert!(answer.body.contains("request-7"), "{}", answer.body);
        assert!(!answer.body.contains("secret"), "{}", answer.body);
        assert_eq!(answer.headers["x-request-id"], "request-7");
    }
    let head = fixture
        .ask(Method::HEAD, "/v2/team/app/manifests/v1", "")
        .await;
    assert_eq!(head.status, StatusCode::INTERNAL_SERVER_ERROR);
    fixture.log.is_disk_broken.store(false, Ordering::Relaxed);
    let again = fixture
        .ask(Method::GET, "/v2/team/app/manifests/v1", "")
        .await;
    assert_eq!(again.status, StatusCode::OK);
}

/// K11: without a quorum nobody knows what a tag is.
#[tokio::test]
async fn without_a_quorum_a_tag_is_503_and_never_404() {
    let fixture = Fixture::new(RegistryOptions::default());
    assert_eq!(fixture.push().await.status, StatusCode::CREATED);
    fixture.log.has_quorum.store(false, Ordering::Relaxed);
    for (method, target) in [
        (Method::GET, "manifests/v1"),
        (Method::GET, "manifests/nosuch"),
        (Method::DELETE, "manifests/v1"),
        (Method::GET, "tags/list"),
    ] {
        let answer = fixture
            .ask(method, &format!("/v2/team/app/{target}"), "")
            .await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{target}");
        assert_eq!(answer.code(), "UNAVAILABLE");
        assert!(answer.headers.contains_key(http::header::RETRY_AFTER));
        assert!(answer.body.contains("request-7"), "{}", answer.body);
    }
}

/// K02: all routes that change something, and none that reads.
#[tokio::test]
async fn a_read_only_front_refuses_every_push_and_delete() {
    let fixture = Fixture::new(RegistryOptions {
        read_only: true,
        ..RegistryOptions::default()
    });
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for (method, target) in [
        (Method::POST, "blobs/uploads/".to_owned()),
        (Method::POST, format!("blobs/uploads/?digest={digest}")),
        (
            Method::POST,
            format!("blobs/uploads/?mount={digest}&from=a"),
        ),
        (Method::PATCH, "blobs/uploads/AAAA".to_owned()),
        (Method::PUT, format!("blobs/uploads/AAAA?digest={digest}")),
        (Method::DELETE, "blobs/uploads/AAAA".to_owned()),
        (Method::DELETE, format!("blobs/{digest}")),
        (Method::DELETE, format!("manifests/{digest}")),
        (Method::DELETE, "manifests/v1".to_owned()),
    ] {
        let answer = fixture
            .ask(method.clone(), &format!("/v2/team/app/{target}"), "")
            .await;
        let wanted = StatusCode::METHOD_NOT_ALLOWED;
        assert_eq!(answer.status, wanted, "{method} {target}: {}", answer.body);
        assert_eq!(answer.code(), "UNSUPPORTED", "{method} {target}");
        assert_eq!(answer.headers[http::header::ALLOW], "GET, HEAD");
    }
    assert_eq!(fixture.push().await.code(), "UNSUPPORTED");
    let missing = fixture
        .ask(Method::GET, "/v2/team/app/manifests/v1", "")
        .await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let base = fixture.ask(Method::GET, "/v2/", "").await;
    assert_eq!(base.status, StatusCode::OK);
}

/// K07: the limit is on uploads with bytes; what ends makes room.
#[tokio::test]
async fn one_upload_more_than_the_limit_is_429_until_another_ends() {
    let fixture = Fixture::new(RegistryOptions {
        uploads_max: 2,
        ..RegistryOptions::default()
    });
    let (first, second, third) = (
        fixture.start().await,
        fixture.start().await,
        fixture.start().await,
    );
    for target in [&first, &second] {
        let patched = fixture.ask(Method::PATCH, target, "bytes").await;
        assert_eq!(patched.status, StatusCode::ACCEPTED);
    }
    let refused = fixture.ask(Method::PATCH, &third, "bytes").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.code(), "TOOMANYREQUESTS");
    assert!(refused.headers.contains_key(http::header::RETRY_AFTER));
    let going_on = fixture.ask(Method::PATCH, &first, " more").await;
    assert_eq!(going_on.status, StatusCode::ACCEPTED);
    let cancelled = fixture.ask(Method::DELETE, &second, "").await;
    assert_eq!(cancelled.status, StatusCode::NO_CONTENT);
    let patched = fixture.ask(Method::PATCH, &third, "bytes").await;
    assert_eq!(patched.status, StatusCode::ACCEPTED);
}

/// K17: the choice of the node that takes the push.
#[tokio::test]
async fn a_sparse_index_is_taken_only_when_allowed() {
    let index = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}]}"#;
    for (sparse_indexes, wanted) in [
        (false, StatusCode::BAD_REQUEST),
        (true, StatusCode::CREATED),
    ] {
        let fixture = Fixture::new(RegistryOptions {
            sparse_indexes,
            ..RegistryOptions::default()
        });
        let answer = fixture
            .ask(Method::PUT, "/v2/team/app/manifests/v1", index)
            .await;
        assert_eq!(answer.status, wanted, "{}", answer.body);
        if !sparse_indexes {
            assert_eq!(answer.code(), "MANIFEST_BLOB_UNKNOWN");
        }
    }
}

/// Repair stands back for clients; health checks and metrics, which never end, are none.
#[tokio::test(start_paused = true)]
async fn looks_at_the_node_are_no_clients() {
    let fixture = Fixture::new(RegistryOptions::default());
    for target in ["/healthz", "/readyz", "/metrics"] {
        let answer = fixture.ask(Method::GET, target, "").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(!fixture.clients.are_here(), "{target}");
    }
    fixture.push().await;
    assert!(fixture.clients.are_here());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!fixture.clients.are_here(), "its answer was sent");
    let request = Request::get("/v2/team/app/manifests/v1").body(Body::empty());
    let pull = fixture.router.clone().oneshot(request.expect("a request"));
    let answer = pull.await.expect("served");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(fixture.clients.are_here(), "it has not read the answer");
    drop(answer);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!fixture.clients.are_here(), "it has left");
}

#[tokio::test]
async fn headers_of_the_allowed_length_pass_and_one_byte_more_is_431() {
    let fixture = Fixture::new(RegistryOptions::default());
    for (length, wanted) in [
        (200, StatusCode::OK),
        (201, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
    ] {
        let name = "x-filler";
        let value = "f".repeat(length - name.len());
        let request = Request::get("/v2/").header(name, value).body(Body::empty());
        let answer = fixture.router.clone().oneshot(request.expect("a request"));
        assert_eq!(
            answer.await.expect("served").status(),
            wanted,
            "{length} bytes"
        );
    }
}
