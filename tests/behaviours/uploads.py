"""Blob uploads: the ways that work, and resuming (U)."""

import os

from harness.http_raw import build_head, encode_chunks, with_query
from harness.registry import OCTETS, check, expect, in_parallel, sha256, sha512
from rows import COMPAT, MAY, MUST, SHOULD, row


def expect_range(response, wanted):
    check(response.header("Range") == wanted, f"wanted Range {wanted}, got {response.header('Range')} ({response})")


def expect_stored(t, name, response, digest, data):
    """201 with the digest, and a Location that can be pulled."""
    expect(response, 201)
    check(response.header("Docker-Content-Digest") == digest, f"digest {response.header('Docker-Content-Digest')}")
    check(expect(t.request("GET", response.location()), 200).body == data, "the Location serves other bytes")
    t.holds(name, digest, data)


@row("U01", MUST, "POST opens an upload: 202 and a Location")
def start(t):
    expect(t.request("POST", f"/v2/{t.repository()}/blobs/uploads/"), 202).location()


@row("U02", COMPAT, "POST answers with Range, Docker-Upload-UUID and an empty body")
def start_headers(t):
    response = expect(t.request("POST", f"/v2/{t.repository()}/blobs/uploads/"), 202)
    expect_range(response, "0-0")
    check(response.header("Docker-Upload-UUID"), "no Docker-Upload-UUID")
    check(response.header("Content-Length") == "0", f"Content-Length {response.header('Content-Length')}")


@row("U03", MUST, "POST then PUT stores a blob")
def post_put(t):
    name, data = t.repository(), os.urandom(5000)
    expect_stored(t, name, t.finish(t.start(name), sha256(data), data), sha256(data), data)


@row("U04", MAY, "a single POST with a digest and the body stores it, or opens an upload")
def single_post(t):
    name, data = t.repository(), os.urandom(5000)
    response = t.request("POST", f"/v2/{name}/blobs/uploads/?digest={sha256(data)}", OCTETS, data)
    expect(response, 201, 202)
    if response.status == 201:
        expect_stored(t, name, response, sha256(data), data)
    else:
        response.location()


@row("U05", SHOULD, "a single POST with a wrong digest is refused and stores nothing")
def single_post_wrong(t):
    name, data = t.repository(), os.urandom(5000)
    wrong = sha256(b"something else")
    response = t.request("POST", f"/v2/{name}/blobs/uploads/?digest={wrong}", OCTETS, data)
    expect(response, 400, code="DIGEST_INVALID")
    t.absent(name, wrong)
    t.absent(name, sha256(data))


@row("U06", MUST, "a PATCH streamed in chunked coding, then PUT")
def streamed_patch(t):
    name, data = t.repository(), os.urandom(300_000)
    pieces = [data[at:at + 7001] for at in range(0, len(data), 7001)]
    response = expect(t.request("PATCH", t.start(name), OCTETS, pieces=pieces), 202)
    expect_range(response, f"0-{len(data) - 1}")
    expect_stored(t, name, t.finish(response.location(), sha256(data)), sha256(data), data)


@row("U07", MUST, "a closing PUT streamed in chunked coding")
def streamed_put(t):
    name, data = t.repository(), os.urandom(100_000)
    target = with_query(t.start(name), f"digest={sha256(data)}")
    response = t.request("PUT", target, OCTETS, pieces=[data[:40_000], data[40_000:]])
    expect_stored(t, name, response, sha256(data), data)


@row("U08", MUST, "two chunks in order")
def two_chunks(t):
    name, data = t.repository(), os.urandom(2000)
    first = expect(t.patch(t.start(name), data[:1000], "0-999"), 202)
    expect_range(first, "0-999")
    second = expect(t.patch(first.location(), data[1000:], "1000-1999"), 202)
    expect_range(second, "0-1999")
    expect_stored(t, name, t.finish(second.location(), sha256(data)), sha256(data), data)


@row("U14", COMPAT, "the status of a fresh upload")
def fresh_status(t):
    response = expect(t.request("GET", t.start(t.repository())), 204)
    expect_range(response, "0-0")
    response.location()


@row("U15", MUST, "the first Location still tells the status after a chunk")
def stale_location(t):
    name = t.repository()
    target = t.start(name)
    expect(t.patch(target, os.urandom(1000), "0-999"), 202)
    expect_range(expect(t.request("GET", target), 204), "0-999")


@row("U16", SHOULD, "a PATCH cut off in the middle can be resumed from the reported range")
def resume_after_cut(t):
    name, data = t.repository(), os.urandom(3 << 20)
    target = t.start(name)
    endpoint = t.client.next_endpoint()
    with t.client.connect(endpoint) as connection:
        head = build_head("PATCH", target, "registry", {"Content-Length": str(len(data))})
        connection.send(head + data[: 2 << 20])
        connection.abort()
    have, (reported, target) = None, reported_bytes(t, target)
    # Behind a proxy the last bytes of the request that was cut off may still arrive: then more is reported afterwards.
    while have != reported:
        have = reported
        check(have <= 2 << 20, f"{have} bytes reported, {2 << 20} were sent")
        rest = expect(t.patch(target, data[have:], f"{have}-{len(data) - 1}"), 202, 416)
        if rest.status == 202:
            break
        reported, target = reported_bytes(t, target)
    expect(rest, 202)
    expect_stored(t, name, t.finish(rest.location(), sha256(data)), sha256(data), data)


def reported_bytes(t, target):
    """How many bytes have arrived, and where the upload goes on, by its status."""
    status = expect(t.request("GET", target), 204)
    end = int(status.header("Range").split("-")[1])
    return end + 1 if end else 0, status.location()


@row("U17", SHOULD, "a cancelled upload is gone")
def cancel(t):
    target = t.start(t.repository())
    expect(t.request("DELETE", target), 204)
    expect(t.request("GET", target), 404, code="BLOB_UPLOAD_UNKNOWN")
    expect(t.patch(target, b"x"), 404, code="BLOB_UPLOAD_UNKNOWN")
    expect(t.finish(target, sha256(b"x"), b"x"), 404, code="BLOB_UPLOAD_UNKNOWN")


@row("U21", MUST, "the closing PUT may carry the last chunk")
def final_chunk(t):
    name, data = t.repository(), os.urandom(2000)
    first = expect(t.patch(t.start(name), data[:1500], "0-1499"), 202)
    headers = {**OCTETS, "Content-Range": "1500-1999"}
    response = t.finish(first.location(), sha256(data), data[1500:], headers)
    expect_stored(t, name, response, sha256(data), data)


@row("U27", MUST, "a blob of zero bytes")
def empty_blob(t):
    name = t.repository()
    digest = t.push_blob(name, b"")
    for method in ("HEAD", "GET"):
        response = expect(t.blob(name, digest, method), 200)
        check(response.header("Content-Length") == "0", f"{method}: {response.header('Content-Length')}")
        check(not response.body and not response.surplus, f"{method}: a body")


@row("U28", MUST, "pushing a blob again works and gives the same Location")
def push_again(t):
    name, data = t.repository(), os.urandom(1000)
    first, second = (expect(t.finish(t.start(name), sha256(data), data), 201) for _ in range(2))
    check(first.location() == second.location(), f"{first.location()} then {second.location()}")
    t.holds(name, sha256(data), data)


@row("U29", MUST, "a sha512 blob announced only by the PUT")
def sha512_put(t):
    name, data = t.repository(), os.urandom(4000)
    expect_stored(t, name, t.finish(t.start(name), sha512(data), data), sha512(data), data)
    head = expect(t.blob(name, sha512(data), "HEAD"), 200)
    check(head.header("Content-Length") == "4000", f"Content-Length {head.header('Content-Length')}")


@row("U30", MUST, "a sha512 blob in two chunks, announced only by the PUT")
def sha512_chunks(t):
    name, data = t.repository(), os.urandom(4000)
    first = expect(t.patch(t.start(name), data[:2500], "0-2499"), 202)
    second = expect(t.patch(first.location(), data[2500:], "2500-3999"), 202)
    expect_stored(t, name, t.finish(second.location(), sha512(data)), sha512(data), data)


@row("U31", SHOULD, "the digest algorithm may be announced, and an unknown one is refused")
def announced_algorithm(t):
    name, data = t.repository(), os.urandom(4000)
    target = t.start(name, "digest-algorithm=sha512")
    expect_stored(t, name, t.finish(target, sha512(data), data), sha512(data), data)
    expect(t.request("POST", f"/v2/{name}/blobs/uploads/?digest-algorithm=nonsense"), 400)


@row("U32", SHOULD, "eight uploads of the same blob at once")
def same_blob_at_once(t):
    name, data = t.repository(), os.urandom(200_000)
    in_parallel(lambda _: t.push_blob(name, data), range(8), threads=8)
    t.holds(name, sha256(data), data)


@row("U33", SHOULD, "Expect: 100-continue gets its 100 and then 201")
def expect_continue(t):
    name, data = t.repository(), os.urandom(2 << 20)
    target = with_query(t.start(name), f"digest={sha256(data)}")
    headers = {**OCTETS, "Content-Length": str(len(data)), "Expect": "100-continue"}
    with t.client.connect() as connection:
        connection.send(build_head("PUT", target, "registry", headers))
        interim = connection._head()
        check(interim.status == 100, f"before the body: {interim}")
        connection.send(data)
        expect(connection.read("PUT"), 201)
    t.holds(name, sha256(data), data)


@row("U34", MUST, "a body shorter than its Content-Length never becomes a blob")
def short_body(t):
    name, data = t.repository(), os.urandom(200_000)
    target = with_query(t.start(name), f"digest={sha256(data[:100_000])}")
    with t.client.connect() as connection:
        connection.send(build_head("PUT", target, "registry", {"Content-Length": str(len(data))}) + data[:100_000])
        connection.abort()
    with t.client.connect() as connection:
        head = build_head("PATCH", t.start(name), "registry", {"Transfer-Encoding": "chunked"})
        connection.send(head + encode_chunks([data])[:-5])
        connection.abort()
    t.absent(name, sha256(data[:100_000]))
    t.absent(name, sha256(data))
    t.alive()
