"""HTTP framing (H)."""

import threading

from harness.http_raw import Broken, build_head
from harness.registry import check, expect, sha256
from rows import MUST, SHOULD, row


@row("H01", MUST, "after an error with an unread body the next request is answered rightly")
def keep_alive_after_error(t):
    body = b"GET /v2/smuggled/tags/list HTTP/1.1\r\nHost: x\r\n\r\n" * 170_000
    for method, target in (("POST", "/v2/UPPER/blobs/uploads/"), ("PUT", f"/v2/{t.repository()}/manifests/.bad"),
                           ("PATCH", f"/v2/{t.repository()}/blobs/uploads/nosuch")):
        headers = {"Content-Length": str(len(body)), "Connection": "keep-alive"}
        with t.client.connect() as connection:
            payload = build_head(method, target, "x", headers) + body
            sender = threading.Thread(target=send_quietly, args=(connection, payload))
            sender.start()
            first = connection.read(method)
            check(400 <= first.status < 500, f"{method} {target}: got {first}")
            sender.join(30)
            try:
                connection.send(build_head("GET", "/v2/", "x"))
                second = connection.read()
            except (Broken, OSError):
                second = t.request("GET", "/v2/")
            expect(second, 200)
    t.alive()


def send_quietly(connection, payload):
    """The peer may close at any time: that is its right after an error."""
    try:
        connection.socket.sendall(payload)
    except OSError:
        pass


@row("H02", SHOULD, "Location follows the Host the client used")
def location_host(t):
    name, host = t.repository(), "registry.example.test:8443"
    image = t.image(name, push=False)
    answers = [t.request("POST", f"/v2/{name}/blobs/uploads/", host=host),
               t.request("PUT", f"/v2/{name}/manifests/v1", {"Content-Type": image.media_type}, image.body, host=host)]
    for response in answers:
        location = response.header("Location", "")
        check(location.startswith(("/v2/", f"http://{host}/v2/", f"https://{host}/v2/")), f"Location {location}")


@row("H03", SHOULD, "Date and Content-Length are there, and no Transfer-Encoding on HEAD")
def standard_headers(t):
    name = t.repository()
    image = t.image(name, "v1")
    digest = sha256(image.config)
    for method, target in (("GET", "/v2/"), ("GET", f"/v2/{name}/blobs/{digest}"),
                           ("HEAD", f"/v2/{name}/blobs/{digest}"),
                           ("GET", f"/v2/{name}/manifests/v1"), ("HEAD", f"/v2/{name}/manifests/v1"),
                           ("GET", f"/v2/{name}/manifests/nosuch"), ("POST", f"/v2/{name}/blobs/uploads/"),
                           ("GET", f"/v2/{name}/tags/list"), ("GET", "/nowhere")):
        response = t.request(method, target)
        what = f"{method} {target}"
        check(response.header("Date"), f"{what}: no Date")
        chunked = response.header("Transfer-Encoding")
        check(chunked or response.header("Content-Length") is not None, f"{what}: no Content-Length")
        check(not (method == "HEAD" and chunked), f"{what}: Transfer-Encoding on HEAD")


@row("H04", SHOULD, "contradictory framing is refused")
def contradictory(t):
    target = f"/v2/{t.repository()}/blobs/uploads/"
    length, chunked = "Content-Length: 5", "Transfer-Encoding: chunked"
    # RFC 9112 section 6.1: refuse it, or go by Transfer-Encoding alone and close the connection in any case.
    for lines in ([length, chunked], [chunked, length]):
        head = "\r\n".join([f"POST {target} HTTP/1.1", "Host: x", *lines])
        try:
            response = t.client.raw(f"{head}\r\n\r\n0\r\n\r\n".encode(), "POST")
        except Broken:
            continue
        check(response.header("Connection") == "close", f"{lines}: {response} leaves the connection open")
    for lines in (["Content-Length: -1"],
                  ["Content-Length: 5", "Content-Length: 6"], ["Content-Length: 5x"],
                  ["Transfer-Encoding: chunked, identity"], ["Content-Length : 5"]):
        head = "\r\n".join([f"POST {target} HTTP/1.1", "Host: x", "Connection: close", *lines])
        try:
            response = t.client.raw(f"{head}\r\n\r\n0\r\n\r\n".encode(), "POST")
        except Broken:
            continue
        check(not 200 <= response.status < 300, f"{lines}: got {response}")
        check(response.status < 500 or response.status == 501, f"{lines}: got {response}")
    t.alive()


@row("H05", SHOULD, "Warning headers have the one form the specification allows")
def warnings(t):
    name = t.repository()
    image = t.image(name, "v1")
    blob = t.blob(name, sha256(image.config))
    for response in (t.request("GET", "/v2/"), t.manifest(name, "v1"), blob, t.tags(name)):
        values = response.all("Warning")
        check(all(value.startswith('299 - "') for value in values), f"Warning {values}")
        check(sum(map(len, values)) <= 4096, "warnings above 4096 bytes")
