"""Mounts across repositories, and isolation between them (X)."""

import os

from harness.registry import check, expect, sha256
from rows import MAY, MUST, SHOULD, row


def mount(t, name, digest, source=None):
    query = f"mount={digest}" + (f"&from={source}" if source is not None else "")
    return t.request("POST", f"/v2/{name}/blobs/uploads/?{query}")


def usable(t, name, response):
    """A 202 must open an upload that works."""
    data = os.urandom(100)
    expect(t.finish(expect(response, 202).location(), sha256(data), data), 201)
    t.holds(name, sha256(data), data)


@row("X01", MUST, "a blob is mounted from another repository")
def mount_blob(t):
    source, target, data = t.repository(), t.repository(), os.urandom(1000)
    digest = t.push_blob(source, data)
    response = expect(mount(t, target, digest, source), 201)
    check(response.header("Docker-Content-Digest") == digest, f"digest {response.header('Docker-Content-Digest')}")
    check(expect(t.request("GET", response.location()), 200).body == data, "the Location serves other bytes")
    t.holds(target, digest, data)


@row("X02", SHOULD, "a mount of something missing opens an upload instead")
def mount_missing(t):
    source, target = t.repository(), t.repository()
    t.push_blob(source)
    usable(t, target, mount(t, target, sha256(os.urandom(10)), source))
    usable(t, target, mount(t, target, sha256(os.urandom(10)), t.repository()))


@row("X03", MAY, "a mount without from mounts or opens an upload")
def mount_from_anywhere(t):
    source, target, data = t.repository(), t.repository(), os.urandom(1000)
    digest = t.push_blob(source, data)
    response = expect(mount(t, target, digest), 201, 202)
    if response.status == 201:
        t.holds(target, digest, data)
    else:
        usable(t, target, response)
    usable(t, target, mount(t, target, sha256(os.urandom(10))))


@row("X04", SHOULD, "a mount with a malformed digest or source is refused or opens an upload")
def mount_malformed(t):
    source, target = t.repository(), t.repository()
    digest = t.push_blob(source)
    for wanted, origin in (("sha256:short", source), ("nonsense", source), ("", source), (digest, "UPPER"),
                           (digest, "a/../b"), (digest, "%00")):
        expect(mount(t, target, wanted, origin), 400, 202)


@row("X05", MUST, "a blob of one repository is not readable through another")
def isolation(t):
    first, second = t.repository(), t.repository()
    t.image(second, "v1")
    digest = t.push_blob(first)
    for method in ("HEAD", "GET"):
        response = expect(t.blob(second, digest, method), 404)
        check(method == "HEAD" or "BLOB_UNKNOWN" in response.codes(), f"got {response}")


@row("X06", SHOULD, "deleting the source leaves the mounted blob")
def delete_source(t):
    source, target, data = t.repository(), t.repository(), os.urandom(1000)
    digest = t.push_blob(source, data)
    expect(mount(t, target, digest, source), 201)
    expect(t.request("DELETE", f"/v2/{source}/blobs/{digest}"), 202)
    t.absent(source, digest)
    t.holds(target, digest, data)
