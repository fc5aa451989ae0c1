"""Blob uploads that must be refused, and what survives the refusal (U)."""

import os

from harness.http_raw import with_query
from harness.registry import OCTETS, check, expect, expect_refused, sha256
from rows import MUST, SHOULD, row
from uploads import expect_range


def session_with(t, name, data):
    """An upload that has these bytes."""
    return expect(t.patch(t.start(name), data, f"0-{len(data) - 1}"), 202).location()


@row("U09", MUST, "a chunk that leaves a gap is 416 and the session lives on")
def gap(t):
    name, data = t.repository(), os.urandom(3000)
    target = session_with(t, name, data[:1000])
    expect(t.patch(target, data[2000:], "2000-2999"), 416)
    status = expect(t.request("GET", target), 204)
    expect_range(status, "0-999")
    right = expect(t.patch(status.location(), data[1000:], "1000-2999"), 202)
    expect(t.finish(right.location(), sha256(data)), 201)
    t.holds(name, sha256(data), data)


@row("U10", MUST, "a chunk sent again is 416")
def overlap(t):
    name, data = t.repository(), os.urandom(2000)
    target = session_with(t, name, data[:1000])
    expect(t.patch(target, data[:1000], "0-999"), 416)
    expect(t.patch(target, data[500:1500], "500-1499"), 416)
    expect_range(expect(t.request("GET", target), 204), "0-999")


@row("U11", MUST, "a first chunk that does not begin at 0 is 416")
def late_first_chunk(t):
    name = t.repository()
    expect(t.patch(t.start(name), os.urandom(20), "3-22"), 416)


@row("U12", SHOULD, "a Content-Range of another length than the body is refused and appends nothing")
def range_and_length_differ(t):
    name = t.repository()
    target = session_with(t, name, os.urandom(1000))
    for content_range in ("1000-1049", "1000-1199"):
        response = expect(t.patch(target, os.urandom(100), content_range), 400, 416)
        if response.status == 400:
            check("SIZE_INVALID" in response.codes(), f"got {response}")
    expect_range(expect(t.request("GET", target), 204), "0-999")


@row("U13", SHOULD, "a malformed Content-Range is refused")
def malformed_range(t):
    name = t.repository()
    for content_range in ("abc", "5", "9-3", "-5", "0-", "0-9/10", "0x0-0x9", " ", "0-9,10-19",
                          "0-18446744073709551616", "0--9"):
        expect(t.patch(t.start(name), os.urandom(10), content_range), 400, 416)


@row("U18", MUST, "a PUT without a digest is refused")
def no_digest(t):
    name = t.repository()
    expect(t.request("PUT", t.start(name), OCTETS, b"x"), 400, code="DIGEST_INVALID")


@row("U19", SHOULD, "a PUT with a wrong digest is refused and stores nothing")
def wrong_digest(t):
    name, data = t.repository(), os.urandom(1000)
    wrong = sha256(b"something else")
    expect(t.finish(t.start(name), wrong, data), 400, code="DIGEST_INVALID")
    t.absent(name, wrong)
    t.absent(name, sha256(data))


@row("U20", SHOULD, "malformed and unsupported digests are refused")
def bad_digests(t):
    name, data = t.repository(), b"data"
    hexadecimal = sha256(data)[7:]
    for digest in ("md5:8d777f385d3dfec8815d20f7496026dc", "sha1:a17c9aaa61e80a1bf71d0d850af4e5baa9800bbd",
                   "sha256:short", f"sha256:{hexadecimal.upper()}", f"SHA256:{hexadecimal}", hexadecimal,
                   f"sha256:{hexadecimal}0", f"sha512:{hexadecimal}", "sha256:", ":", "sha256:../../etc/passwd"):
        expect(t.finish(t.start(name), digest, data), 400, code="DIGEST_INVALID")


@row("U22", MUST, "a closing chunk out of order is 416 and the session stays usable")
def final_chunk_out_of_order(t):
    name, data = t.repository(), os.urandom(2000)
    target = session_with(t, name, data[:1000])
    headers = {**OCTETS, "Content-Range": "1500-1999"}
    expect(t.finish(target, sha256(data), data[1500:], headers), 416)
    right = {**OCTETS, "Content-Range": "1000-1999"}
    expect(t.finish(target, sha256(data), data[1000:], right), 201)
    t.holds(name, sha256(data), data)


@row("U23", SHOULD, "an unknown upload is 404 for PUT, PATCH and GET")
def unknown_upload(t):
    name = t.repository()
    real = t.start(name)
    expect(t.request("DELETE", real), 204)
    unknown = ("/v2/%s/blobs/uploads/00000000-0000-4000-8000-000000000000" % name, real.split("?")[0])
    for target in unknown:
        expect(t.finish(target, sha256(b"x"), b"x"), 404, code="BLOB_UPLOAD_UNKNOWN")
        expect(t.patch(target, b"x"), 404, code="BLOB_UPLOAD_UNKNOWN")
        expect(t.request("GET", target), 404, code="BLOB_UPLOAD_UNKNOWN")


@row("U24", MUST, "upload ids that are no ids are refused")
def strange_upload_ids(t):
    name = t.repository()
    for upload in ("../x", "%2e%2e/x", "", "%00", "..%2f..%2fetc%2fpasswd", "a%20b", "x" * 5000, "%ff"):
        for method in ("GET", "PATCH", "PUT", "DELETE"):
            target = f"/v2/{name}/blobs/uploads/{upload}"
            if method == "PUT":
                target = with_query(target, f"digest={sha256(b'x')}")
            response = t.request(method, target, OCTETS, None if method == "GET" else b"x")
            check(300 <= response.status < 500, f"{method} {upload[:20]!r}: got {response}")


@row("U25", SHOULD, "an upload cannot be used under another repository")
def foreign_session(t):
    first, second, data = t.repository(), t.repository(), os.urandom(1000)
    t.image(second, "v1")
    target = t.start(first).replace(first, second)
    expect_refused(t.finish(target, sha256(data), data), "PUT")
    expect_refused(t.patch(target, data), "PATCH")
    t.absent(first, sha256(data))
    t.absent(second, sha256(data))


@row("U26", SHOULD, "a finished upload is gone")
def finished_session(t):
    name, data = t.repository(), os.urandom(1000)
    target = t.start(name)
    expect(t.finish(target, sha256(data), data), 201)
    expect(t.finish(target, sha256(data), data), 404, code="BLOB_UPLOAD_UNKNOWN")
    other = os.urandom(1000)
    expect(t.request("GET", target), 404, code="BLOB_UPLOAD_UNKNOWN")
    expect(t.patch(target, other), 404, code="BLOB_UPLOAD_UNKNOWN")
    expect(t.finish(target, sha256(other), other), 404, code="BLOB_UPLOAD_UNKNOWN")
    t.absent(name, sha256(other))
