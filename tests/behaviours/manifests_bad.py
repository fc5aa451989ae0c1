"""Manifests that must be refused (M)."""

import json
import os

from harness.registry import (
    OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, DOCKER_MANIFEST, check, descriptor, encode, expect,
    expect_refused, sha256)
from rows import MUST, SHOULD, row


@row("M03", MUST, "a malformed digest as reference is refused")
def malformed_digest(t):
    name = t.repository()
    image = t.image(name)
    for reference in ("sha256:baddigeststring", "sha256:", "sha256:" + "a" * 63, image.digest.upper()):
        expect(t.put_manifest(name, reference, image.body), 400)
        expect(t.manifest(name, reference), 400, 404)
        expect(t.manifest(name, reference, "HEAD"), 400, 404)


@row("M07", SHOULD, "a Content-Type that differs from the mediaType is refused")
def types_differ(t):
    name = t.repository()
    image = t.image(name, push=False)
    for media_type in (DOCKER_MANIFEST, OCI_INDEX):
        expect(t.put_manifest(name, "v1", image.body, media_type), 400, code="MANIFEST_INVALID")
    expect(t.manifest(name, "v1"), 404)


@row("M09", SHOULD, "no Content-Type: typed from the body, or refused")
def no_content_type(t):
    name = t.repository()
    image = t.image(name, push=False)
    response = expect(t.put_manifest(name, "v1", image.body, None), 201, 400, 415)
    if response.status == 201:
        check(t.manifest(name, "v1").header("Content-Type") == OCI_MANIFEST, "typed otherwise")


@row("M10", MUST, "what is no manifest is refused")
def no_manifest(t):
    name = t.repository()
    image = t.image(name)
    document = json.loads(image.body)
    unversioned = encode({key: value for key, value in document.items() if key != "schemaVersion"})
    for what, body in (("invalid", b"{nonsense"), ("empty", b""), ("array", b"[]"), ("no version", unversioned),
                       ("null", b"null"), ("string", b'"x"'), ("number", b"2"), ("no fields", b"{}"),
                       ("version 3", encode({**document, "schemaVersion": 3})),
                       ("config a string", encode({**document, "config": "x"})),
                       ("no config", encode({**document, "config": None})),
                       ("layers an object", encode({**document, "layers": {}})),
                       ("negative size", encode({**document, "config": {**document["config"], "size": -1}}))):
        response = t.put_manifest(name, "v1", body)
        check(response.status == 400 and "MANIFEST_INVALID" in response.codes(), f"{what}: got {response}")
    expect(t.manifest(name, "v1"), 404)


@row("M11", SHOULD, "each missing blob is named")
def missing_blobs(t):
    name = t.repository()
    body = encode({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(OCI_CONFIG, os.urandom(9)),
                   "layers": [descriptor(OCI_LAYER, os.urandom(9)) for _ in range(2)]})
    response = expect(t.put_manifest(name, "v1", body), 400, 404)
    check(response.codes() == ["MANIFEST_BLOB_UNKNOWN"] * 3, f"got {response}")
    detail = json.dumps(response.json())
    for one in [json.loads(body)["config"], *json.loads(body)["layers"]]:
        check(one["digest"] in detail, "a missing digest is not named")


@row("M12", SHOULD, "an index whose child is missing is refused")
def missing_child(t):
    name = t.repository()
    index = encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(OCI_MANIFEST, b"{}")]})
    expect(t.put_manifest(name, "v1", index, OCI_INDEX), 400, code="MANIFEST_BLOB_UNKNOWN")


@row("M13", MUST, "a blob of another repository is not good enough")
def foreign_blob(t):
    first, second = t.repository(), t.repository()
    image = t.image(first, "v1")
    response = expect(t.put_manifest(second, "v1", image.body), 400, 404)
    check("MANIFEST_BLOB_UNKNOWN" in response.codes(), f"got {response}")
    t.push_blob(second, image.config)
    response = expect(t.put_manifest(second, "v1", image.body), 400, 404)
    check(response.codes() == ["MANIFEST_BLOB_UNKNOWN"], f"with the config pushed: got {response}")
    expect(t.put_manifest(second, "v2", t.index(image), OCI_INDEX), 400, code="MANIFEST_BLOB_UNKNOWN")


@row("M19", SHOULD, "a manifest of 16 MiB is 413")
def too_large(t):
    name = t.repository()
    image = t.image(name, push=False, annotations={"fill": "x" * (16 << 20)})
    expect(t.put_manifest(name, "v1", image.body), 413)
    t.alive()


@row("M21", SHOULD, "an unknown manifest type is refused or kept as it is")
def unknown_type(t):
    name = t.repository()
    image = t.image(name, push=False)
    schema_1 = encode({"schemaVersion": 1, "name": name, "tag": "v1", "fsLayers": [], "history": []})
    for media_type in ("application/vnd.docker.distribution.manifest.v1+prettyjws",
                       "application/vnd.docker.distribution.manifest.v1+json", "application/json"):
        refused = expect(t.put_manifest(name, "odd", schema_1, media_type), 400, code="MANIFEST_INVALID")
        check("schema 1" in refused.json()["errors"][0]["message"], f"no word of why: {refused}")
    for media_type, body in (("text/plain", b"hello"), ("application/json", b"{}")):
        response = expect(t.put_manifest(name, "odd", body, media_type), 201, 400, 415)
        if response.status == 201:
            check(t.manifest(name, "odd", accept="*/*").body == body, "stored otherwise")
    expect_refused(t.put_manifest(name, "odd", image.body, "text/plain"))


@row("M29", MUST, "what is missing is 404 with the right code")
def missing(t):
    name, nowhere = t.repository(), t.repository()
    t.image(name, "v1")
    digest = sha256(os.urandom(9))
    for reference in ("nosuch", digest):
        expect(t.manifest(name, reference), 404, code="MANIFEST_UNKNOWN")
        expect(t.manifest(nowhere, reference), 404, code=["NAME_UNKNOWN", "MANIFEST_UNKNOWN"])


@row("M31", SHOULD, "PUT by digest with an invalid tag tags nothing")
def invalid_tag(t):
    name = t.repository()
    image = t.image(name, "first")
    for query in ("tag=good&tag=.bad", "tag=", "tag=a%20b", f"tag={'x' * 129}"):
        expect(t.put_manifest(name, f"{image.digest}?{query}", image.body), 400)
    check(t.tag_names(name) == ["first"], f"tags {t.tag_names(name)}")


@row("M35", MUST, "a descriptor with another size than the blob is refused or not checked")
def wrong_size(t):
    name, config, layer = t.repository(), os.urandom(9), os.urandom(9)
    t.push_blob(name, config)
    t.push_blob(name, layer)
    body = encode({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(OCI_CONFIG, config),
                   "layers": [descriptor(OCI_LAYER, layer, size=1000)]})
    expect(t.put_manifest(name, "v1", body), 201, 400, code=["MANIFEST_INVALID", "SIZE_INVALID"])
