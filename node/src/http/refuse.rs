//! An answer for connections that find no place: a load balancer and a client learn at once that they should ask again
//! or ask another node, and need not wait in a queue that nobody sees.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use oci::ErrorCode;
use runtime::RequestScope;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::error::HttpError;
use super::trace;

/// Refusals at the same time. Whoever comes beyond them waits to be accepted.
const AT_ONCE: usize = 32;
/// How long a client may take to read it. A connection that is closed while its client still sends is reset, and the
/// answer lost.
const PATIENCE: Duration = Duration::from_millis(500);
const DISCARD_BYTES: usize = 4096;

/// Refuses connections, some at a time.
pub(super) struct Refusals {
    places: Arc<Semaphore>,
}

impl Refusals {
    pub(super) fn new() -> Refusals {
        Refusals {
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Answers and closes in the background; waits only while too many are being refused.
    pub(super) async fn refuse(&self, stream: TcpStream) {
        let Ok(place) = self.places.clone().acquire_owned().await else {
            return;
        };
        tokio::spawn(RequestScope::fresh().run(async move {
            tracing::debug!("too many connections, one is refused");
            if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, answer(stream)).await {
                tracing::debug!(%error, "a refused connection ended early");
            }
            drop(place);
        }));
    }
}

/// What is said, whatever was asked: the request is not read.
fn refusal(request_id: &str) -> String {
    let error = HttpError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Unavailable,
        "this node has too many connections, try again",
    );
    let body = error.body(request_id);
    let length = body.len();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Retry-After: 1\r\nX-Request-Id: {request_id}\r\nConnection: close\r\n\r\n{body}"
    )
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream
        .write_all(refusal(&trace::request_id()).as_bytes())
        .await?;
    stream.shutdown().await?;
    let mut discarded = [0; DISCARD_BYTES];
    while stream.read(&mut discarded).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::refusal;

    #[test]
    fn a_refusal_is_whole_and_names_the_request() {
        let refusal = refusal("request-7");
        let (head, body) = refusal.split_once("\r\n\r\n").expect("a head and a body");
        let has = |line: String| head.split("\r\n").any(|one| one == line);
        assert!(has(format!("Content-Length: {}", body.len())), "{head}");
        assert!(has("X-Request-Id: request-7".to_owned()), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["errors"][0]["code"], "UNAVAILABLE");
        assert_eq!(body["errors"][0]["detail"]["request_id"], "request-7");
    }
}
