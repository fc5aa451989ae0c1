"""Deletes (D)."""

import os

from harness.registry import check, expect, sha256
from rows import MAY, MUST, SHOULD, row


def delete(t, name, kind, reference):
    return t.request("DELETE", f"/v2/{name}/{kind}/{reference}")


@row("D01", SHOULD, "deleting a tag leaves the manifest")
def delete_tag(t):
    name = t.repository()
    image = t.image(name, "a")
    t.push_manifest(name, "b", image.body)
    response = expect(delete(t, name, "manifests", "a"), 202)
    check(not response.body, "a body")
    expect(t.manifest(name, "a"), 404)
    expect(t.manifest(name, image.digest), 200)
    expect(t.manifest(name, "b"), 200)
    check(t.tag_names(name) == ["b"], f"tags {t.tag_names(name)}")


@row("D02", SHOULD, "deleting a manifest takes every tag on it")
def delete_manifest(t):
    name = t.repository()
    image = t.image(name, "a")
    t.push_manifest(name, "b", image.body)
    other = t.image(name, "c")
    expect(delete(t, name, "manifests", image.digest), 202)
    for reference in (image.digest, "a", "b"):
        expect(t.manifest(name, reference), 404, code="MANIFEST_UNKNOWN")
    check(t.tag_names(name) == ["c"], f"tags {t.tag_names(name)}")
    expect(t.manifest(name, other.digest), 200)


@row("D03", MUST, "deleting what is not there is 404")
def delete_missing(t):
    name, digest = t.repository(), sha256(os.urandom(9))
    t.image(name, "v1")
    for repository in (name, t.repository()):
        for reference in ("nosuch", digest):
            expect(delete(t, repository, "manifests", reference), 404, code=["MANIFEST_UNKNOWN", "NAME_UNKNOWN"])
        expect(delete(t, repository, "blobs", digest), 404, code=["BLOB_UNKNOWN", "NAME_UNKNOWN"])


@row("D04", SHOULD, "a deleted blob is gone at once, and deleting it again is 404")
def delete_blob(t):
    name = t.repository()
    digest = t.push_blob(name)
    expect(delete(t, name, "blobs", digest), 202)
    for _ in range(3):
        t.absent(name, digest)
    expect(delete(t, name, "blobs", digest), 404, code="BLOB_UNKNOWN")


@row("D05", MUST, "what was deleted can be pushed again")
def push_again(t):
    name, data = t.repository(), os.urandom(500)
    for _ in range(3):
        digest = t.push_blob(name, data)
        t.holds(name, digest, data)
        expect(delete(t, name, "blobs", digest), 202)
        t.absent(name, digest)
    image = t.image(name, "v1")
    for _ in range(3):
        expect(delete(t, name, "manifests", image.digest), 202)
        expect(t.manifest(name, image.digest), 404)
        t.push_manifest(name, "v1", image.body)
        check(expect(t.manifest(name, "v1"), 200).body == image.body, "other bytes")


@row("D06", MAY, "deleting a blob that a manifest names is refused, or done")
def delete_referenced_blob(t):
    name = t.repository()
    image = t.image(name, "v1")
    digest = sha256(image.layers[0])
    response = expect(delete(t, name, "blobs", digest), 405, 403, 202)
    if response.status != 202:
        check("DENIED" in response.codes(), f"got {response}")
        t.holds(name, digest, image.layers[0])
        expect(delete(t, name, "manifests", image.digest), 202)
        expect(delete(t, name, "blobs", digest), 202)


@row("D07", MUST, "deleting by a malformed digest is refused")
def delete_malformed(t):
    name = t.repository()
    image = t.image(name, "v1")
    for digest in ("sha256:short", "sha257:" + image.digest[7:], image.digest.upper()):
        for kind in ("blobs", "manifests"):
            expect(delete(t, name, kind, digest), 400, 404)
    expect(t.manifest(name, "v1"), 200)
