"""Manifests that must work (M)."""

import os

from harness.registry import (
    ALL_MANIFESTS, DOCKER_CONFIG, DOCKER_LAYER, DOCKER_LIST, DOCKER_MANIFEST, OCI_CONFIG, OCI_EMPTY, OCI_INDEX,
    OCI_LAYER, OCI_MANIFEST, check, descriptor, encode, expect, in_parallel, sha256, sha512)
from rows import COMPAT, MAY, MUST, SHOULD, row

FOREIGN_LAYER = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"


def served(t, name, reference, body, media_type, **named):
    """The manifest comes back byte for byte with its type, length and digest."""
    response = expect(t.manifest(name, reference, **named), 200)
    check(response.body == body, f"{reference[:20]}: other bytes")
    check(response.header("Content-Type") == media_type, f"Content-Type {response.header('Content-Type')}")
    check(response.header("Content-Length") == str(len(body)), f"Content-Length {response.header('Content-Length')}")
    return response


@row("M01", MUST, "PUT by tag: 201, Location, digest")
def put_by_tag(t):
    name = t.repository()
    image = t.image(name, push=False)
    response = expect(t.put_manifest(name, "v1", image.body), 201)
    check(response.header("Docker-Content-Digest") == image.digest, "wrong Docker-Content-Digest")
    located = expect(t.request("GET", response.location(), {"Accept": ALL_MANIFESTS}), 200)
    check(located.body == image.body, "the Location serves other bytes")


@row("M02", MUST, "PUT by digest, and one that does not match is refused")
def put_by_digest(t):
    name = t.repository()
    image = t.image(name)
    served(t, name, image.digest, image.body, OCI_MANIFEST)
    wrong = sha256(b"something else")
    expect(t.put_manifest(name, wrong, image.body), 400, code="DIGEST_INVALID")
    expect(t.manifest(name, wrong), 404)


@row("M04", MUST, "the exact bytes are kept")
def exact_bytes(t):
    name = t.repository()
    image = t.image(name, push=False)
    odd = b'\n{ "zeta" :  [1, 2.50,1e3 , null],\t"unknown": {"\\u00e9": "\xc3\xa9"},\n'
    odd += image.body.strip()[1:-1] + b" \r\n}\n\n"
    t.push_manifest(name, "v1", odd)
    served(t, name, "v1", odd, OCI_MANIFEST)
    served(t, name, sha256(odd), odd, OCI_MANIFEST)


@row("M05", MUST, "GET headers")
def get_headers(t):
    name = t.repository()
    image = t.image(name, "v1")
    for reference in ("v1", image.digest):
        response = served(t, name, reference, image.body, OCI_MANIFEST)
        check(response.header("Docker-Content-Digest") == image.digest, "wrong Docker-Content-Digest")


@row("M06", MUST, "HEAD by tag and digest: the same headers, no body")
def head(t):
    name = t.repository()
    image = t.image(name, "v1")
    for reference in ("v1", image.digest):
        response = expect(t.manifest(name, reference, "HEAD"), 200)
        check(not response.surplus, "a body after HEAD")
        check(response.header("Docker-Content-Digest") == image.digest, "wrong Docker-Content-Digest")
        check(response.header("Content-Type") == OCI_MANIFEST, f"Content-Type {response.header('Content-Type')}")
        check(response.header("Content-Length") == str(len(image.body)), "wrong Content-Length")


@row("M08", SHOULD, "parameters of the Content-Type are dropped")
def type_parameters(t):
    name = t.repository()
    image = t.image(name, push=False)
    expect(t.put_manifest(name, "v1", image.body, OCI_MANIFEST + "; charset=utf-8"), 201)
    served(t, name, "v1", image.body, OCI_MANIFEST)


@row("M14", MUST, "foreign layers with urls need not be pushed")
def foreign_layers(t):
    name, config = t.repository(), b"{}"
    t.push_blob(name, config)
    layer = descriptor(FOREIGN_LAYER, os.urandom(10), urls=["https://example.org/layer"])
    body = encode({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(OCI_CONFIG, config),
                   "layers": [layer]})
    t.push_manifest(name, "v1", body)
    served(t, name, "v1", body, OCI_MANIFEST)


@row("M15", MUST, "an artifact with the empty config")
def artifact(t):
    name = t.repository()
    t.push_blob(name, b"{}")
    empty = descriptor(OCI_EMPTY, b"{}")
    body = encode({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/vnd.example+json",
                   "config": empty, "layers": [empty]})
    t.push_manifest(name, "v1", body)
    served(t, name, "v1", body, OCI_MANIFEST)


@row("M16", MUST, "unknown media types of config and layers, and no layers at all")
def unknown_types(t):
    name, config, layer = t.repository(), os.urandom(10), os.urandom(10)
    t.push_blob(name, config)
    t.push_blob(name, layer)
    for layers in ([descriptor("application/vnd.example.layer", layer)], []):
        body = encode({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers,
                       "config": descriptor("application/vnd.example.config.v9+toml", config)})
        t.push_manifest(name, "v1", body)
        served(t, name, "v1", body, OCI_MANIFEST)


@row("M17", MUST, "an OCI manifest without the mediaType field is typed by the header")
def no_media_type_field(t):
    name, config = t.repository(), os.urandom(10)
    t.push_blob(name, config)
    body = encode({"schemaVersion": 2, "config": descriptor(OCI_CONFIG, config), "layers": []})
    t.push_manifest(name, "v1", body)
    served(t, name, "v1", body, OCI_MANIFEST)
    index = encode({"schemaVersion": 2, "manifests": []})
    t.push_manifest(name, "v2", index, OCI_INDEX)
    served(t, name, "v2", index, OCI_INDEX)


@row("M18", SHOULD, "a manifest of 4,000,000 bytes")
def large(t):
    name = t.repository()
    small = t.image(name, push=False, annotations={"fill": ""})
    body = small.body.replace(b'"fill":""', b'"fill":"' + b"x" * (4_000_000 - len(small.body)) + b'"')
    check(len(body) == 4_000_000, "the test made another size")
    t.push_manifest(name, "v1", body)
    served(t, name, "v1", body, OCI_MANIFEST)


@row("M20", COMPAT, "Docker schema 2 manifests and lists keep their type")
def docker_types(t):
    name, config, layer = t.repository(), encode({"os": "linux"}), os.urandom(100)
    t.push_blob(name, config)
    t.push_blob(name, layer)
    body = encode({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": descriptor(DOCKER_CONFIG, config),
                   "layers": [descriptor(DOCKER_LAYER, layer)]})
    t.push_manifest(name, "v1", body, DOCKER_MANIFEST)
    served(t, name, "v1", body, DOCKER_MANIFEST)
    platform = {"architecture": "amd64", "os": "linux"}
    many = encode({"schemaVersion": 2, "mediaType": DOCKER_LIST,
                   "manifests": [descriptor(DOCKER_MANIFEST, body, platform=platform)]})
    t.push_manifest(name, "list", many, DOCKER_LIST)
    served(t, name, "list", many, DOCKER_LIST)


@row("M22", MUST, "a moved tag serves the new bytes at once, the old digest stays")
def moved_tag(t):
    name = t.repository()
    old = t.image(name, "v1")
    new = t.image(name, "v1")
    for _ in range(4):
        served(t, name, "v1", new.body, OCI_MANIFEST)
        served(t, name, old.digest, old.body, OCI_MANIFEST)


@row("M23", MUST, "pushing the same manifest again works")
def push_again(t):
    name = t.repository()
    image = t.image(name, "v1")
    for _ in range(2):
        response = expect(t.put_manifest(name, "v1", image.body), 201)
        check(response.header("Docker-Content-Digest") == image.digest, "another digest")


@row("M24", COMPAT, "manifests have an ETag and answer 304")
def entity_tag(t):
    name = t.repository()
    image = t.image(name, "v1")
    for reference in ("v1", image.digest):
        value = t.manifest(name, reference).header("ETag")
        check(value == f'"{image.digest}"', f"ETag {value}")
        for method in ("GET", "HEAD"):
            response = expect(t.manifest(name, reference, method, headers={"If-None-Match": value}), 304)
            check(not response.body and not response.surplus, "304 with a body")


@row("M25", MAY, "a tag PUT may be conditional")
def conditional_put(t):
    name = t.repository()
    old = t.image(name, "v1")
    new = t.image(name)
    expect(t.put_manifest(name, "v1", new.body, headers={"If-None-Match": "*"}), 412)
    expect(t.put_manifest(name, "v1", new.body, headers={"If-Match": f'"{new.digest}"'}), 412)
    served(t, name, "v1", old.body, OCI_MANIFEST)
    expect(t.put_manifest(name, "v1", new.body, headers={"If-Match": f'"{old.digest}"'}), 201)
    served(t, name, "v1", new.body, OCI_MANIFEST)
    expect(t.put_manifest(name, "v2", new.body, headers={"If-None-Match": "*"}), 201)
    expect(t.put_manifest(name, "v3", new.body, headers={"If-Match": f'"{old.digest}"'}), 412)


@row("M26", SHOULD, "any way to say Accept gives the stored type")
def accept_forms(t):
    name = t.repository()
    image = t.image(name, "v1")
    target = f"/v2/{name}/manifests/v1"
    for headers in ([], [("Accept", "*/*")], [("Accept", DOCKER_MANIFEST), ("Accept", OCI_MANIFEST)],
                    [("Accept", f"{DOCKER_MANIFEST}, {OCI_INDEX};q=0.5, {OCI_MANIFEST};q=0.9")],
                    [("Accept", "application/*")]):
        response = expect(t.request("GET", target, headers), 200)
        check(response.header("Content-Type") == OCI_MANIFEST and response.body == image.body, f"{headers}: {response}")


@row("M27", SHOULD, "an OCI manifest is never converted for a Docker client")
def no_conversion(t):
    name = t.repository()
    image = t.image(name, "v1")
    response = expect(t.manifest(name, "v1", accept=DOCKER_MANIFEST), 200, 404, 406)
    if response.status == 200:
        check(response.body == image.body and response.header("Content-Type") == OCI_MANIFEST, "converted")


@row("M28", SHOULD, "an index is returned as it is, or not at all")
def no_platform_choice(t):
    name = t.repository()
    index = t.index(t.image(name))
    t.push_manifest(name, "v1", index, OCI_INDEX)
    response = expect(t.manifest(name, "v1", accept=OCI_MANIFEST), 200, 404)
    if response.status == 200:
        check(response.body == index and response.header("Content-Type") == OCI_INDEX, "another document")


@row("M30", MAY, "PUT by digest with several tags")
def several_tags(t):
    name = t.repository()
    image = t.image(name, push=False)
    response = expect(t.put_manifest(name, f"{image.digest}?tag=a&tag=b", image.body), 201)
    named = {tag.strip() for value in response.all("OCI-Tag") for tag in value.split(",")}
    check(named == {"a", "b"}, f"OCI-Tag {response.all('OCI-Tag')}")
    for tag in ("a", "b"):
        served(t, name, tag, image.body, OCI_MANIFEST)


@row("M32", MUST, "sha512 manifests, and an index that names its children by sha512")
def sha512_manifests(t):
    name = t.repository()
    image = t.image(name, push=False)
    t.push_manifest(name, sha512(image.body), image.body)
    response = served(t, name, sha512(image.body), image.body, OCI_MANIFEST)
    check(response.header("Docker-Content-Digest") == sha512(image.body), "another digest")
    child = {"mediaType": OCI_MANIFEST, "digest": sha512(image.body), "size": len(image.body)}
    index = encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]})
    t.push_manifest(name, sha512(index), index, OCI_INDEX)
    served(t, name, sha512(index), index, OCI_INDEX)
    expect(t.manifest(name, sha512(index), "HEAD"), 200)
    layer = os.urandom(100)
    expect(t.finish(t.start(name), sha512(layer), layer), 201)
    config = descriptor(OCI_CONFIG, image.config)
    body = encode({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [
        {"mediaType": OCI_LAYER, "digest": sha512(layer), "size": len(layer)}]})
    t.push_manifest(name, "mixed", body)


@row("M33", SHOULD, "sixteen tags pushed at once all stay")
def tags_at_once(t):
    name = t.repository()
    image = t.image(name)
    tags = [f"t{number:02}" for number in range(16)]
    in_parallel(lambda tag: t.push_manifest(name, tag, image.body), tags)
    check(sorted(t.tag_names(name)) == tags, f"{len(t.tag_names(name))} of 16 tags")


@row("M34", SHOULD, "one tag pushed twelve times at once ends as one of them")
def one_tag_at_once(t):
    name = t.repository()
    images = [t.image(name) for _ in range(12)]
    in_parallel(lambda image: t.push_manifest(name, "v1", image.body), images, threads=12)
    bodies = {expect(t.manifest(name, "v1"), 200).body for _ in range(6)}
    check(len(bodies) == 1 and bodies <= {image.body for image in images}, f"{len(bodies)} different answers")
