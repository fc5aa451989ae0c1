//! As little HTTP as the scenarios need, over one kept connection.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// Bytes read at once; a pulled blob is thrown away as it comes.
const READ_BYTES: usize = 256 * 1024;

/// One connection to one endpoint.
pub(crate) struct Client {
    endpoint: String,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `Location`, when there was one: path and query.
    pub(crate) location: Option<String>,
    /// Length of the body, which was read and dropped.
    pub(crate) body_bytes: u64,
}

impl Client {
    pub(crate) fn new(endpoint: &str) -> Client {
        Client {
            endpoint: endpoint.to_owned(),
            stream: None,
            buffer: vec![0; READ_BYTES],
        }
    }

    /// Sends a request and reads the whole answer. `headers` are complete lines.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[&[u8]],
    ) -> io::Result<Answer> {
        let length: usize = body.iter().map(|part| part.len()).sum();
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&self.endpoint)?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{headers}",
            self.endpoint
        );
        if length > 0 || method != "GET" {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        head.push_str("\r\n");
        // A small body travels with its head: two writes would be two segments and a delay.
        if length > 0 && length <= READ_BYTES / 2 {
            let mut whole = head.into_bytes();
            body.iter().for_each(|part| whole.extend_from_slice(part));
            stream.write_all(&whole)?;
        } else {
            stream.write_all(head.as_bytes())?;
            for part in body {
                stream.write_all(part)?;
            }
        }
        let (answer, keep) = self.read(&mut stream, method == "HEAD")?;
        if keep {
            self.stream = Some(stream);
        }
        Ok(answer)
    }

    fn read(&mut self, stream: &mut TcpStream, no_body: bool) -> io::Result<(Answer, bool)> {
        let mut filled = 0;
        let head_end = loop {
            let read = stream.read(&mut self.buffer[filled..])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if let Some(end) = self.buffer[..filled]
                .windows(4)
                .position(|at| at == b"\r\n\r\n")
            {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..head_end]).into_owned();
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let mut answer = Answer {
            status,
            location: None,
            body_bytes: 0,
        };
        let (mut keep, mut chunked) = (true, false);
        for line in head.lines().skip(1) {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => answer.body_bytes = value.parse().unwrap_or(0),
                "location" => answer.location = Some(path_of(value)),
                "connection" => keep = !value.eq_ignore_ascii_case("close"),
                "transfer-encoding" => chunked = true,
                _ => {}
            }
        }
        if no_body || status == 204 || status == 304 {
            return Ok((answer, keep));
        }
        let mut body = (filled - head_end) as u64;
        if chunked {
            // Only lists come chunked; they end with an empty chunk.
            while !self.buffer[..filled].ends_with(b"\r\n0\r\n\r\n") {
                let tail = self.buffer[filled.saturating_sub(7)..filled].to_vec();
                self.buffer[..tail.len()].copy_from_slice(&tail);
                let read = stream.read(&mut self.buffer[tail.len()..])?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                body += read as u64;
                filled = tail.len() + read;
            }
            answer.body_bytes = body;
            return Ok((answer, keep));
        }
        while body < answer.body_bytes {
            let read = stream.read(&mut self.buffer)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            body += read as u64;
        }
        Ok((answer, keep))
    }
}

/// Some registries answer with an absolute URL.
fn path_of(location: &str) -> String {
    match location.split_once("://") {
        Some((_, rest)) => rest
            .find('/')
            .map_or("/", |start| &rest[start..])
            .to_owned(),
        None => location.to_owned(),
    }
}
