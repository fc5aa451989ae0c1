"""Blob pulls: whole, in ranges, and conditional (G)."""

import os

from harness.registry import check, expect, sha256
from rows import COMPAT, MUST, SHOULD, row

SIZE = 2000


def stored(t):
    name, data = t.repository(), os.urandom(SIZE)
    return name, data, t.push_blob(name, data)


def ranged(t, name, digest, value, **more):
    return t.blob(name, digest, headers={"Range": value, **more})


def expect_part(response, data, first, last):
    expect(response, 206)
    wanted = f"bytes {first}-{last}/{len(data)}"
    check(response.header("Content-Range") == wanted, f"wanted {wanted}, got {response.header('Content-Range')}")
    check(response.header("Content-Length") == str(last - first + 1), "wrong Content-Length")
    check(response.body == data[first:last + 1], "other bytes")


def expect_unsatisfiable(response, size=SIZE):
    expect(response, 416)
    check(response.header("Content-Range") == f"bytes */{size}", f"Content-Range {response.header('Content-Range')}")


@row("G01", MUST, "GET of a blob: length, digest, bytes")
def get(t):
    name, data, digest = stored(t)
    response = expect(t.blob(name, digest), 200)
    check(response.header("Content-Length") == str(SIZE), f"Content-Length {response.header('Content-Length')}")
    check(response.header("Docker-Content-Digest") == digest, "wrong Docker-Content-Digest")
    check(response.body == data, "other bytes")


@row("G02", MUST, "HEAD of a blob: the same headers, no body")
def head(t):
    name, _, digest = stored(t)
    response = expect(t.blob(name, digest, "HEAD"), 200)
    check(response.header("Content-Length") == str(SIZE), f"Content-Length {response.header('Content-Length')}")
    check(response.header("Docker-Content-Digest") == digest, "wrong Docker-Content-Digest")
    check(not response.surplus, "a body after HEAD")


@row("G03", MUST, "an unknown blob is 404")
def unknown(t):
    name, _, _ = stored(t)
    missing = sha256(os.urandom(10))
    expect(t.blob(name, missing), 404, code="BLOB_UNKNOWN")
    expect(t.blob(name, missing, "HEAD"), 404)


@row("G04", SHOULD, "a malformed digest is refused")
def malformed(t):
    name, _, digest = stored(t)
    for value in (f"sha257:{digest[7:]}", "sha256:abc", "latest", "sha256:", digest.upper(), digest[7:]):
        response = expect(t.blob(name, value), 400, 404)
        if response.status == 400:
            check("DIGEST_INVALID" in response.codes(), f"{value[:16]}: {response}")


@row("G05", SHOULD, "a range in the middle")
def middle(t):
    name, data, digest = stored(t)
    expect_part(ranged(t, name, digest, "bytes=500-1499"), data, 500, 1499)


@row("G06", SHOULD, "open, suffix and overlong ranges are clamped")
def clamped(t):
    name, data, digest = stored(t)
    for value, first, last in (("bytes=500-", 500, 1999), ("bytes=-500", 1500, 1999), ("bytes=1500-9999", 1500, 1999),
                               ("bytes=-5000", 0, 1999), ("bytes=0-0", 0, 0), ("bytes=1999-1999", 1999, 1999)):
        expect_part(ranged(t, name, digest, value), data, first, last)


@row("G07", SHOULD, "a range past the end is 416 with the size")
def past_the_end(t):
    name, _, digest = stored(t)
    expect_unsatisfiable(ranged(t, name, digest, "bytes=5000-10000"))
    expect_unsatisfiable(ranged(t, name, digest, "bytes=2000-"))
    expect_unsatisfiable(ranged(t, name, digest, "bytes=-0"))


@row("G08", SHOULD, "a reversed range is 416")
def reversed_range(t):
    name, _, digest = stored(t)
    expect(ranged(t, name, digest, "bytes=500-0"), 416)


@row("G09", SHOULD, "several ranges give multipart or the whole blob")
def several(t):
    name, data, digest = stored(t)
    response = expect(ranged(t, name, digest, "bytes=0-1,4-5"), 206, 200)
    if response.status == 200:
        check(response.body == data, "other bytes")
    else:
        check("multipart/byteranges" in response.header("Content-Type", ""), "206 for two ranges is not multipart")


@row("G10", SHOULD, "Accept-Ranges is announced")
def accept_ranges(t):
    name, _, digest = stored(t)
    for method in ("GET", "HEAD"):
        value = t.blob(name, digest, method).header("Accept-Ranges")
        check(value == "bytes", f"{method}: Accept-Ranges {value}")


@row("G11", COMPAT, "ETag is the digest, and If-None-Match answers 304")
def entity_tag(t):
    name, _, digest = stored(t)
    value = t.blob(name, digest).header("ETag")
    check(value == f'"{digest}"', f"ETag {value}")
    for condition in (f'"{digest}"', f'"other", "{digest}"', f'W/"{digest}"', "*"):
        for method in ("GET", "HEAD"):
            response = expect(t.blob(name, digest, method, {"If-None-Match": condition}), 304)
            check(not response.body and not response.surplus, "304 with a body")
    expect(t.blob(name, digest, headers={"If-None-Match": '"other"'}), 200)


@row("G12", COMPAT, "a blob may be cached for a year")
def cache_control(t):
    name, _, digest = stored(t)
    value = t.blob(name, digest).header("Cache-Control") or ""
    check("max-age=31536000" in value, f"Cache-Control {value}")


@row("G13", SHOULD, "If-Range decides between the part and the whole")
def if_range(t):
    name, data, digest = stored(t)
    stale = expect(ranged(t, name, digest, "bytes=0-9", **{"If-Range": '"stale"'}), 200)
    check(stale.body == data, "other bytes")
    tag = t.blob(name, digest).header("ETag")
    expect_part(ranged(t, name, digest, "bytes=0-9", **{"If-Range": tag}), data, 0, 9)


@row("G14", MUST, "a blob is never compressed on its way")
def no_compression(t):
    name, data = t.repository(), b"compressible " * 10_000
    digest = t.push_blob(name, data)
    response = expect(t.blob(name, digest, headers={"Accept-Encoding": "gzip, deflate, br, zstd"}), 200)
    check(response.header("Content-Encoding") is None, f"Content-Encoding {response.header('Content-Encoding')}")
    check(response.header("Content-Length") == str(len(data)), "no or another Content-Length")
    check(response.body == data, "other bytes")
    image = t.image(name, "v1", annotations={"text": "compressible " * 10_000})
    manifest = expect(t.manifest(name, "v1", headers={"Accept-Encoding": "gzip"}), 200)
    check(manifest.header("Content-Encoding") is None and manifest.body == image.body, "the manifest was compressed")


@row("G15", SHOULD, "a blob's type is never sniffed")
def content_type(t):
    name = t.repository()
    digest = t.push_blob(name, b"<html><script>alert(1)</script></html>")
    value = t.blob(name, digest).header("Content-Type", "")
    check(value.startswith("application/") and "html" not in value, f"Content-Type {value}")


@row("G16", COMPAT, "?ns= is ignored")
def namespace_parameter(t):
    name = t.repository()
    image = t.image(name, "v1")
    expect(t.manifest(name, "v1?ns=docker.io"), 200)
    expect(t.blob(name, sha256(image.config) + "?ns=docker.io"), 200)
