"""HTTP/2 without TLS, as `curl --http2-prior-knowledge` speaks it (E11 to E14)."""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.http_raw import with_query
from harness.registry import OCI_MANIFEST, check, sha256
from harness.shell import run
from rows import MUST, row

CHUNK_BYTES = 256 << 10


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes


class Curl:
    """The real client; each request goes to the next endpoint unless one is named."""

    def __init__(self, t):
        self.t = t

    def url(self, target, endpoint=None):
        host, port = endpoint or self.t.client.next_endpoint()
        return f"http://{host}:{port}{target}"

    def request(self, target, *options, stdin=None, endpoint=None):
        with tempfile.TemporaryDirectory(prefix="argosy-curl-") as directory:
            head, body = Path(directory) / "head", Path(directory) / "body"
            run("curl", "--silent", "--show-error", "--http2-prior-knowledge", "--max-time", "120",
                "--dump-header", head, "--output", body, *options, self.url(target, endpoint), stdin=stdin)
            lines = head.read_bytes().decode("latin-1").split("\r\n\r\n")[-2].splitlines()
            check(lines[0].startswith("HTTP/2 "), f"not HTTP/2: {lines[0]}")
            pairs = (line.partition(": ") for line in lines[1:])
            headers = {name.lower(): value for name, _, value in pairs}
            return Answer(int(lines[0].split()[1]), headers, body.read_bytes() if body.exists() else b"")

    def expect(self, status, target, *options, **named):
        answer = self.request(target, *options, **named)
        check(answer.status == status, f"{target[:80]}: wanted {status}, got {answer.status} {answer.body[:200]!r}")
        return answer

    def push(self, name, data):
        """POST, one PATCH, PUT."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            started = self.expect(202, f"/v2/{name}/blobs/uploads/", "--request", "POST")
            patched = self.expect(202, started.headers["location"], "--request", "PATCH",
                                  "--header", "Content-Type: application/octet-stream",
                                  "--data-binary", f"@{file.name}")
            check(patched.headers["range"] == f"0-{len(data) - 1}", f"Range {patched.headers['range']}")
            self.expect(201, with_query(patched.headers["location"], f"digest={sha256(data)}"), "--request", "PUT")
        return sha256(data)


@row("E11", MUST, "HTTP/2: a large blob is pushed and pulled whole, in full and in ranges over chunk borders")
def large_blob(t):
    curl, name, data = Curl(t), t.repository(), os.urandom((20 << 20) + 4321)
    digest = curl.push(name, data)
    target = f"/v2/{name}/blobs/{digest}"
    for endpoint in t.client.endpoints:
        answer = curl.expect(200, target, endpoint=endpoint)
        check(answer.body == data, "other bytes")
        check(answer.headers["content-length"] == str(len(data)), f"length {answer.headers['content-length']}")
        check(answer.headers["docker-content-digest"] == digest, "another digest")
    for wanted, part in (("0-0", data[:1]), (f"{CHUNK_BYTES - 1}-{CHUNK_BYTES}", data[CHUNK_BYTES - 1:CHUNK_BYTES + 1]),
                         (f"{4 << 20}-", data[4 << 20:]), ("-777", data[-777:])):
        answer = curl.expect(206, target, "--range", wanted)
        check(answer.body == part, f"range {wanted}: other bytes")
        check(answer.headers["content-range"].endswith(f"/{len(data)}"), f"{answer.headers['content-range']}")
    refused = curl.expect(416, target, "--range", f"{len(data)}-")
    check(refused.headers["content-range"] == f"bytes */{len(data)}", f"{refused.headers['content-range']}")


@row("E12", MUST, "HTTP/2: HEAD has the headers of GET, and errors are the specification's")
def heads_and_errors(t):
    curl, name = Curl(t), t.repository()
    image = t.image(name, "v1")
    blob = sha256(image.layers[0])
    for target in (f"/v2/{name}/blobs/{blob}", f"/v2/{name}/manifests/v1", f"/v2/{name}/manifests/{image.digest}"):
        full, head = curl.expect(200, target), curl.expect(200, target, "--head")
        for header in ("content-length", "content-type", "docker-content-digest", "etag"):
            check(full.headers.get(header) == head.headers.get(header), f"{header} of {target} differs")
        check(head.headers["content-length"] == str(len(full.body)), "HEAD has another length")
        curl.expect(304, target, "--header", f"If-None-Match: {full.headers['etag']}")
    missing = curl.expect(404, f"/v2/{name}/manifests/nosuch")
    check(json.loads(missing.body)["errors"][0]["code"] == "MANIFEST_UNKNOWN", f"{missing.body}")
    curl.expect(404, f"/v2/{name}/manifests/nosuch", "--head")
    curl.expect(405, f"/v2/{name}/manifests/v1", "--request", "POST")


@row("E13", MUST, "HTTP/2: a manifest is pushed, tagged, pulled and deleted")
def manifests(t):
    curl, name = Curl(t), t.repository()
    image = t.image(name, push=False)
    put = curl.expect(201, f"/v2/{name}/manifests/v1", "--request", "PUT", "--header", f"Content-Type: {OCI_MANIFEST}",
                      "--data-binary", "@-", stdin=image.body.decode())
    check(put.headers["docker-content-digest"] == image.digest, "another digest")
    for endpoint in t.client.endpoints:
        check(curl.expect(200, f"/v2/{name}/manifests/v1", endpoint=endpoint).body == image.body, "other bytes")
    check(json.loads(curl.expect(200, f"/v2/{name}/tags/list").body)["tags"] == ["v1"], "another list")
    curl.expect(202, f"/v2/{name}/manifests/{image.digest}", "--request", "DELETE")
    curl.expect(404, f"/v2/{name}/manifests/v1")


@row("E14", MUST, "HTTP/2: a body of unknown length is taken")
def unknown_length(t):
    curl, name, text = Curl(t), t.repository(), os.urandom(300_000).hex()
    digest = sha256(text.encode())
    started = curl.expect(202, f"/v2/{name}/blobs/uploads/", "--request", "POST")
    # From standard input, so curl cannot know how much there is.
    curl.expect(201, with_query(started.headers["location"], f"digest={digest}"), "--upload-file", "-", stdin=text)
    t.holds(name, digest, text.encode())
