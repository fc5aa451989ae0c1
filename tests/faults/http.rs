//! As little HTTP as the clients need: one request on one connection, and a careful look at how it ended.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The whole request may take this long; the node itself gives up after 15 s without a quorum.
const REQUEST_TIME: Duration = Duration::from_secs(40);
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// Larger answers are an error: nothing here is that large.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No connection: surely nothing happened.
    NotSent,
    /// It may or may not have been carried out.
    Broken(String),
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// `Argosy-Revision`.
    pub(crate) fn revision(&self) -> Option<u64> {
        self.header("argosy-revision")?.parse().ok()
    }

    /// Codes of the specification in the body of an error.
    pub(crate) fn codes(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(300)]).into_owned()
    }
}

/// One request to one node.
#[derive(Default)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// Complete lines.
    pub(crate) headers: String,
    pub(crate) body: &'a [u8],
}

/// Sends `request` to `node` on a connection of its own.
pub(crate) fn send(node: SocketAddr, request: &Request<'_>) -> Result<Answer, Failure> {
    let deadline = Instant::now() + REQUEST_TIME;
    let mut stream =
        TcpStream::connect_timeout(&node, CONNECT_TIME).map_err(|_| Failure::NotSent)?;
    let broken = |error: io::Error| Failure::Broken(error.to_string());
    let _ = stream.set_nodelay(true);
    stream
        .set_write_timeout(Some(REQUEST_TIME))
        .map_err(broken)?;
    let Request {
        method,
        path,
        headers,
        body,
    } = request;
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {node}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    // A node that refuses early answers before it has read everything: the answer counts, not the broken pipe.
    let small = body.len() <= 64 << 10;
    if small {
        head.extend_from_slice(body);
    }
    let mut written = stream.write_all(&head);
    if !small {
        written = written.and_then(|()| stream.write_all(body));
    }
    let bytes = match read_all(&mut stream, deadline) {
        Ok(bytes) => bytes,
        Err(error) => return Err(broken(written.err().unwrap_or(error))),
    };
    parse(&bytes, *method == "HEAD").map_err(|reason| Failure::Broken(reason.to_owned()))
}

fn read_all(stream: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || bytes.len() > ANSWER_MAX_BYTES {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            // What came before a reset may still be a whole answer.
            Err(error) if bytes.is_empty() => return Err(error),
            Err(_) => return Ok(bytes),
        }
    }
}

fn parse(bytes: &[u8], is_head: bool) -> Result<Answer, &'static str> {
    let head_end = bytes.windows(4).position(|at| at == b"\r\n\r\n");
    let head_end = head_end.ok_or("no complete head")?;
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status: u16 = status.ok_or("no status")?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let rest = &bytes[head_end + 4..];
    if status == 100 {
        return parse(rest, is_head);
    }
    let header = |name: &str| {
        let found = headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    };
    let body = if is_head || status == 204 || status == 304 {
        Vec::new()
    } else if header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        unchunk(rest)?
    } else {
        let length = header("content-length").and_then(|value| value.parse::<usize>().ok());
        match length {
            Some(length) if rest.len() < length => return Err("the body ended early"),
            Some(length) => rest[..length].to_vec(),
            None => rest.to_vec(),
        }
    };
    Ok(Answer {
        status,
        headers,
        body,
    })
}

fn unchunk(mut rest: &[u8]) -> Result<Vec<u8>, &'static str> {
    const EARLY: &str = "the chunked body ended early";
    let mut body = Vec::new();
    loop {
        let line_end = rest.windows(2).position(|at| at == b"\r\n").ok_or(EARLY)?;
        let line = std::str::from_utf8(&rest[..line_end]).map_err(|_| "a bad chunk head")?;
        let size = line.split(';').next().unwrap_or("").trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| "a bad chunk size")?;
        rest = &rest[line_end + 2..];
        if size == 0 {
            return Ok(body);
        }
        if rest.len() < size + 2 {
            return Err(EARLY);
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_answers_count() {
        let whole = b"HTTP/1.1 200 OK\r\nArgosy-Revision: 7\r\nContent-Length: 3\r\n\r\nabc";
        let answer = parse(whole, false).unwrap();
        assert_eq!(
            (answer.status, answer.revision(), answer.body.as_slice()),
            (200, Some(7), &b"abc"[..])
        );
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut], false).is_err(), "cut at {cut}");
        }
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        assert_eq!(parse(chunked, false).unwrap().body, b"abc");
        let early = &chunked[..chunked.len() - 6];
        assert!(parse(early, false).is_err());
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(parse(head, true).unwrap().status, 200);
    }
}
