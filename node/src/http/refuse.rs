//! An answer for connections that find no place: a load balancer and a client learn at once that they should ask again
//! or ask another node, and need not wait in a queue that nobody sees.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// What is said, whatever was asked: the request is not read.
const ANSWER: &str = "HTTP/1.1 503 Service Unavailable\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 93\r\n\
    Retry-After: 1\r\n\
    Connection: close\r\n\r\n\
    {\"errors\":[{\"code\":\"UNAVAILABLE\",\"message\":\"this node has too many connections, try again\"}]}";
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
        tokio::spawn(async move {
            if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, answer(stream)).await {
                tracing::debug!(%error, "a refused connection ended early");
            }
            drop(place);
        });
    }
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(ANSWER.as_bytes()).await?;
    stream.shutdown().await?;
    let mut discarded = [0; DISCARD_BYTES];
    while stream.read(&mut discarded).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::ANSWER;

    #[test]
    fn the_length_is_right() {
        let (head, body) = ANSWER.split_once("\r\n\r\n").expect("a head and a body");
        assert!(
            head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
            "{}",
            body.len()
        );
    }
}
