"""Protocol faults from outside (F-86 to F-98)."""

import json
import os

from harness.http_raw import Broken, build_head, encode_chunks, with_query
from harness.registry import (
    OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, OCTETS, check, descriptor, encode, expect, in_parallel, next_link,
    sha256)
from pulls import expect_part, expect_unsatisfiable, ranged
from rows import MUST, row
from uploads import expect_range
from uploads_bad import session_with


@row("F-86", MUST, "wrong chunks: 416 with Range, 400 for bad syntax, SIZE_INVALID for a wrong length")
def wrong_chunks(t):
    name = t.repository()
    target = session_with(t, name, os.urandom(1000))
    for content_range, size in (("2000-2099", 100), ("0-99", 100), ("500-1499", 1000), ("0-999", 1000)):
        expect_range(expect(t.patch(target, os.urandom(size), content_range), 416), "0-999")
    for content_range in ("abc", "5", "9-3", "1000-1009/2000", "1000-"):
        expect(t.patch(target, os.urandom(10), content_range), 400)
    for content_range in ("1000-1049", "1000-1199"):
        expect(t.patch(target, os.urandom(100), content_range), 400, code="SIZE_INVALID")
    expect_range(expect(t.request("GET", target), 204), "0-999")


@row("F-87", MUST, "after a wrong digest the session is gone, or ends with the right one")
def wrong_then_right(t):
    name, data = t.repository(), os.urandom(1000)
    target = session_with(t, name, data)
    wrong = sha256(os.urandom(9))
    expect(t.finish(target, wrong), 400, code="DIGEST_INVALID")
    t.absent(name, wrong)
    response = expect(t.finish(target, sha256(data)), 404, 201)
    if response.status == 201:
        t.holds(name, sha256(data), data)
    else:
        t.absent(name, sha256(data))


@row("F-88", MUST, "no range of an empty blob is satisfiable")
def empty_blob_range(t):
    name = t.repository()
    digest = t.push_blob(name, b"")
    check(expect(t.blob(name, digest), 200).body == b"", "a body")
    for value in ("bytes=0-0", "bytes=0-", "bytes=-1"):
        expect_unsatisfiable(ranged(t, name, digest, value), 0)


@row("F-89", MUST, "of two PATCHes at once on one session one wins whole")
def patches_at_once(t):
    for _ in range(5):
        name, bodies = t.repository(), [os.urandom(400_000) for _ in range(2)]
        target = t.start(name)
        answers = in_parallel(lambda data: t.patch(target, data, f"0-{len(data) - 1}"), bodies, threads=2)
        statuses = sorted(response.status for response in answers)
        check(statuses == [202, 416], f"got {statuses}")
        winner = bodies[[response.status for response in answers].index(202)]
        expect(t.finish(target, sha256(winner)), 201)
        t.holds(name, sha256(winner), winner)


@row("F-90", MUST, "every kind of Range is answered as RFC 9110 says")
def ranges(t):
    name, data = t.repository(), os.urandom(2000)
    digest = t.push_blob(name, data)
    expect_part(ranged(t, name, digest, "bytes=0-0"), data, 0, 0)
    expect_part(ranged(t, name, digest, "bytes=-1"), data, 1999, 1999)
    expect_part(ranged(t, name, digest, "bytes=10-18446744073709551615"), data, 10, 1999)
    for value in ("bytes=2000-2000", "bytes=-0", "bytes=18446744073709551615-"):
        expect_unsatisfiable(ranged(t, name, digest, value))
    for value in ("bytes=0-18446744073709551616", "bytes=18446744073709551616-", "bytes=-18446744073709551616",
                  "bytes=" + "9" * 400 + "-", "bytes=5-2", "bytes=0-1,5-6", "bytes=a-b", "lines=0-1", "bytes", "bytes=",
                  "bytes=,", "bytes=--1", "bytes=" + "0-0," * 1000 + "0-0"):
        response = expect(ranged(t, name, digest, value), 200, 206, 416)
        check(response.status != 200 or response.body == data, f"{value[:30]}: other bytes")


@row("F-91", MUST, "manifests with odd references: as specified, and ten thousand layers work")
def odd_references(t):
    name = t.repository()
    blobs = [os.urandom(20) for _ in range(20)]
    for data in blobs:
        t.push_blob(name, data)
    config, layers = descriptor(OCI_CONFIG, blobs[0]), [descriptor(OCI_LAYER, data) for data in blobs[1:]]

    def manifest(layers, **fields):
        return encode({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers, **fields})

    for body in (manifest([layers[0]] * 3), manifest([layers[number % 19] for number in range(10_000)]),
                 manifest(layers, subject=descriptor(OCI_MANIFEST, b"nowhere"))):
        t.push_manifest(name, "v1", body)
        check(expect(t.manifest(name, "v1"), 200).body == body, "other bytes")
    missing = manifest([descriptor(OCI_LAYER, b"%d" % number) for number in range(10_000)])
    expect(t.put_manifest(name, "v2", missing), 400, 404, code="MANIFEST_BLOB_UNKNOWN")
    bad_digest = manifest([{**layers[0], "digest": "sha256:short"}])
    expect(t.put_manifest(name, "v2", bad_digest), 400, code=["MANIFEST_INVALID", "DIGEST_INVALID"])
    bad_subject = manifest(layers, subject={"mediaType": OCI_MANIFEST, "digest": "nonsense", "size": 1})
    expect(t.put_manifest(name, "v2", bad_subject), 400, code=["MANIFEST_INVALID", "DIGEST_INVALID"])
    expect(t.manifest(name, "v2"), 404)


@row("F-92", MUST, "broken JSON is MANIFEST_INVALID")
def broken_json(t):
    name = t.repository()
    body = t.image(name, push=False).body
    for what, broken in (
            ("truncated", body[:-5]), ("byte order mark", b"\xef\xbb\xbf" + body), ("trailing garbage", body + b"x"),
            ("two documents", body + body), ("NaN", body[:-1] + b',"annotations":{"a":NaN}}'),
            ("deep nesting", body[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
            ("deep nesting, open", b"[" * 1_000_000), ("duplicate key", body[:-1] + b',"schemaVersion":2}'),
            ("duplicate config", body[:-1] + b',"config":' + json.dumps(json.loads(body)["config"]).encode() + b"}"),
            ("not UTF-8", body[:-1] + b',"annotations":{"a":"\xff\xfe"}}'),
            ("UTF-16", body.decode().encode("utf-16")),
            ("lone surrogate", body[:-1] + b',"annotations":{"a":"\\ud800"}}'), ("NUL", body + b"\0")):
        response = t.put_manifest(name, "v1", broken)
        check(response.status == 400 and "MANIFEST_INVALID" in response.codes(), f"{what}: got {response}")
    expect(t.manifest(name, "v1"), 404)


@row("F-93", MUST, "a push by a wrong or unsupported digest is refused")
def wrong_digest(t):
    name = t.repository()
    image = t.image(name)
    expect(t.put_manifest(name, sha256(b"other"), image.body), 400, code="DIGEST_INVALID")
    for digest in ("md5:" + "a" * 32, "sha384:" + "a" * 96, "blake3:" + "a" * 64, "sha256+b64u:" + "a" * 43):
        expect(t.put_manifest(name, digest, image.body), 400)


ENCODINGS = (
    "%2e%2e%2f", "..%2f", "%2e%2e/", "%252e%252e%252f", "..%252f", "..;/", "..%3b/", "..\\", "..%5c", "%2e%2e%5c",
    "%c0%ae%c0%ae/", "%c0%ae%c0%af", "%e0%80%ae%e0%80%ae/", "..%c0%af", "..%ef%bc%8f", "%uff0e%uff0e/", "....//",
    "...//", ".%00./", "%00", "..%00/", "%0d%0a", "%0a", "%09", "%20", "//", "%2f", "%2F%2F..%2F", "./", "%2e/",
    "~root/", "%7eroot/", "*", "%2a", "%3f", "%23", "%25", "%", "%2", "%zz", "\u00ff", "%ff", "%80", "|", "%7c", "`id`",
    "$(id)", "%24%7bjndi%7d", "'", "%22", "<x>", "%3cx%3e", "{x}", "[x]", "^", ":", "@", ",", "=", "+", "&x", "!")


@row("F-94", MUST, "no spelling of a path reaches a file, and none is a server error")
def path_corpus(t):
    for piece in ENCODINGS:
        for target in (f"/{piece}etc/passwd", f"/v2/{piece}etc/passwd/manifests/x", f"/v2/a/{piece}/blobs/uploads/",
                       f"/v2/a/manifests/{piece}etc", f"/v2/a/blobs/sha256:{piece}etc/passwd",
                       f"/v2/a/tags/{piece}list", f"/v2/a/referrers/{piece}", f"/v2/a/blobs/uploads/{piece}"):
            response = t.request("GET", target)
            check(b"root:" not in response.body, f"{target}: a file came back")
            check(300 <= response.status < 500, f"{target}: got {response}")
    for name in ("Repo", "repo%0a", "%ef%bd%81", "a" * 257, "/".join("a" * 1000), "v2", "_catalog", "a//b", "a/"):
        response = t.request("POST", f"/v2/{name}/blobs/uploads/")
        check(response.status < 500, f"{name[:20]}: got {response}")
        check(name == "v2" or response.status >= 300, f"{name[:20]}: got {response}")
    for digest in ("sha256:../../etc/passwd", "SHA256:" + "a" * 64, "sha256:" + "a" * 63, "sha256:" + "a" * 65,
                   "sha256:" + "A" * 64, "sha256:", "sha512:" + "a" * 64, "md5:" + "a" * 32, ":", "sha256:" + "g" * 64):
        # With slashes in it the path is no blob's path at all.
        expect(t.blob(t.repository(), digest), *([400, 404] if "/" in digest else [400]))
    t.alive()


@row("F-95", MUST, "odd n and last are 400 or a bounded page")
def page_corpus(t):
    name = t.repository()
    image = t.image(name)
    for tag in ("a", "b"):
        t.push_manifest(name, tag, image.body)
    for target in ("/v2/_catalog", f"/v2/{name}/tags/list"):
        for number in ("2147483647", "4294967296", "18446744073709551616", "-9223372036854775808", "1e3", "0x1", "%31",
                       "NaN", "1,2", "%00", "%ff", "9" * 5000, " ", "+1"):
            response = expect(t.request("GET", f"{target}?n={number.replace(' ', '%20')}"), 200, 400, 414)
            if response.status == 200:
                document = response.json()
                entries = document.get("tags", document.get("repositories"))
                check(len(entries) <= 1000, f"n={number[:20]}: {len(entries)} entries")
                check(len(entries) < 1000 or next_link(response), "a full page without Link")
        for last in ("%00", "%ff%fe", "../../x", "a" * 5000, "%F0%9F%9A%A2", "&n=1&n=2", "%2525"):
            expect(t.request("GET", f"{target}?last={last}"), 200, 400, 414)


@row("F-96", MUST, "methods a route does not have are 405 with Allow, and HEAD has the length of GET")
def methods(t):
    name = t.repository()
    image = t.image(name, "v1")
    digest, upload = sha256(image.config), t.start(name).split("?")[0]
    routes = {"/v2/": ("PUT",), "/v2/_catalog": ("PUT", "POST", "DELETE"), f"/v2/{name}/tags/list": ("PUT", "POST"),
              f"/v2/{name}/manifests/v1": ("POST", "PATCH"), f"/v2/{name}/blobs/{digest}": ("PUT", "POST", "PATCH"),
              f"/v2/{name}/blobs/uploads/": ("PUT",), upload: ("POST",),
              f"/v2/{name}/referrers/{digest}": ("PUT", "POST", "DELETE")}
    for target, undefined in routes.items():
        for method in ("TRACE", "FOO", *undefined):
            response = expect(t.request(method, target), 405)
            check(response.header("Allow"), f"{method} {target}: no Allow")
        expect(t.request("CONNECT", target), 405, 400)
    for target in (f"/v2/{name}/manifests/v1", f"/v2/{name}/blobs/{digest}"):
        get, head = t.request("GET", target), t.request("HEAD", target)
        check(not head.surplus, f"HEAD {target}: a body")
        check(head.header("Content-Length") == get.header("Content-Length"), f"HEAD {target}: another length")
    for target in ("/v2/", f"/v2/{name}/tags/list", "/v2/_catalog", f"/v2/{name}/referrers/{digest}"):
        check(not expect(t.request("HEAD", target), 200, 405).surplus, f"HEAD {target}: a body")


# `limits.header_max_bytes`, as it is by default.
HEADERS_MAX_BYTES = 65536


@row("F-97", MUST, "HTTP/1.0, pipelining, trailers and large headers are answered rightly")
def http_corners(t):
    name = t.repository()
    image = t.image(name, "v1")
    old = t.client.raw(f"GET /v2/{name}/manifests/v1 HTTP/1.0\r\n\r\n".encode())
    check(expect(old, 200).body == image.body, "HTTP/1.0: other bytes")
    check("chunked" not in (old.header("Transfer-Encoding") or ""), "chunked coding to an HTTP/1.0 client")
    with t.client.connect() as connection:
        targets = [f"/v2/{name}/manifests/v1", "/v2/", f"/v2/{name}/manifests/nosuch",
                   f"/v2/{name}/blobs/{sha256(image.config)}"]
        heads = [build_head("GET", target, "x", {"Connection": "keep-alive"}) for target in targets]
        connection.send(b"".join(heads))
        answers = [connection.read() for _ in targets]
        check([one.status for one in answers] == [200, 200, 404, 200], f"pipelined: {[str(one) for one in answers]}")
        check(answers[0].body == image.body and answers[3].body == image.config, "pipelined: other bytes")
    data = os.urandom(5000)
    target = t.start(name)
    head = build_head("PATCH", target, "x", {"Transfer-Encoding": "chunked", "Trailer": "X-Late", **OCTETS})
    expect(t.client.raw(head + encode_chunks([data])[:-2] + b"X-Late: 1\r\n\r\n", "PATCH"), 202)
    expect(t.finish(target, sha256(data)), 201)
    t.holds(name, sha256(data), data)
    for count, size in ((100, 8192), (500, 10), (1, 100_000)):
        headers = [(f"X-Fill-{number}", "x" * size) for number in range(count)]
        try:
            allowed = (400, 431) if count * size > HEADERS_MAX_BYTES else (200, 400, 431)
            expect(t.request("GET", "/v2/", headers), *allowed)
        except (Broken, ConnectionError):
            pass  # Closing on a flood of headers is a refusal too.
    t.alive()


@row("F-98", MUST, "unknown parameters are ignored, a huge URL is refused")
def unknown_and_huge(t):
    name = t.repository()
    t.image(name, "v1")
    odd = {"X-Unknown": "1", "Accept-Language": "xx", "Cookie": "a=b", "Range": "bytes=0-1"}
    expect(t.request("GET", f"/v2/{name}/tags/list?colour=blue&n=1&%ff", odd), 200, 206)
    expect(t.request("GET", f"/v2/{name}/manifests/v1?x=1&y&=z&&", {"Accept": "*/*"}), 200)
    target = with_query(t.start(name, "colour=blue"), "colour=blue")
    expect(t.finish(target, sha256(b"x"), b"x"), 201)
    for size in (70_000, 1_000_000):
        for url in (f"/v2/{'a' * size}/tags/list", f"/v2/{name}/tags/list?last={'a' * size}"):
            # 431 is what a server says that bounds the whole head before it looks at the request line.
            expect(t.request("GET", url), 414, 400, 431)
    t.alive()
