"""What Argosy promises beyond the specification, and its limits (E), and rows that are free to be answered (K)."""

import os
import time

from harness.http_raw import build_head
from harness.registry import OCI_MANIFEST, OCTETS, check, descriptor, encode, expect, in_parallel, sha256
from rows import MAY, MUST, SHOULD, row

MANIFEST_LIMIT_BYTES = 4 << 20


def revision(response):
    value = response.header("Argosy-Revision")
    check(value is not None and value.isdigit(), f"Argosy-Revision {value} ({response})")
    return int(value)


def padded(t, name, size):
    """An image manifest of exactly this many bytes."""
    small = t.image(name, push=False, annotations={"fill": ""}).body
    return small.replace(b'"fill":""', b'"fill":"' + b"x" * (size - len(small)) + b'"')


@row("E01", MUST, "/healthz and /readyz answer without the API prefix")
def health(t):
    for endpoint in t.client.endpoints:
        expect(t.request("GET", "/healthz", endpoint=endpoint), 200)
        expect(t.request("GET", "/readyz", endpoint=endpoint), 200)


@row("E02", MUST, "answers that saw the state carry a revision that never goes back")
def revisions(t):
    name = t.repository()
    image = t.image(name, push=False)
    last = revision(expect(t.put_manifest(name, "v1", image.body), 201))
    for response in (t.manifest(name, "v1"), t.manifest(name, image.digest), t.manifest(name, "v1", "HEAD"),
                     t.tags(name), t.referrers(name, image.digest), t.manifest(name, "nosuch")):
        check(revision(response) >= last or response.status == 404, f"{revision(response)} after {last}")
    second = revision(expect(t.put_manifest(name, "v2", image.body), 201))
    check(second > last, f"a write at {second} after {last}")
    deleted = revision(expect(t.request("DELETE", f"/v2/{name}/manifests/v2"), 202))
    check(deleted > second, f"a delete at {deleted} after {second}")
    refusals_and_uploads(t, name, image, deleted)
    # What no state decided says nothing of one.
    for response in (t.request("GET", "/v2/"), t.manifest(name, "-bad-tag"), t.request("GET", f"/v2/{name}/tags/list?n=x")):
        check(response.header("Argosy-Revision") is None, f"a revision in {response}")


def refusals_and_uploads(t, name, image, last):
    """Answers that are no 200 saw the state, too, and each step is at least as new as the one before it."""
    layer = sha256(image.layers[0])
    some = {"Argosy-Min-Revision": str(last)}
    unknown = encode({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [],
                      "config": descriptor("application/x-none", os.urandom(9))})
    steps = [(t.blob(name, layer, headers={**some, "Range": "bytes=9999999-"}), 416),
             (t.blob(name, sha256(b"nowhere"), headers=some), 404),
             (t.request("DELETE", f"/v2/{name}/blobs/{layer}", some), 405),
             (t.put_manifest(name, "v3", unknown, headers=some), 400),
             (t.put_manifest(name, "v1", image.body, headers={**some, "If-None-Match": "*"}), 412),
             (t.request("DELETE", f"/v2/{name}/manifests/nosuch", some), 404)]
    opened = t.request("POST", f"/v2/{name}/blobs/uploads/", some)
    target = expect(opened, 202).location()
    steps += [(opened, 202), (t.request("PATCH", target, {**OCTETS, **some}, b"abc"), 202),
              (t.request("GET", target, some), 204), (t.request("DELETE", target, some), 204),
              (t.request("GET", target, some), 404)]
    for response, status in steps:
        check(revision(expect(response, status)) >= last, f"{response} saw {revision(response)}, not {last}")


@row("E03", MUST, "Argosy-Min-Revision is waited for, or 503 with Retry-After", server_errors=True)
def minimum_revision(t):
    name = t.repository()
    image = t.image(name, push=False)
    at = revision(expect(t.put_manifest(name, "v1", image.body), 201))
    for endpoint in t.client.endpoints:
        response = t.manifest(name, image.digest, headers={"Argosy-Min-Revision": str(at)}, endpoint=endpoint)
        check(revision(expect(response, 200)) >= at, "an older revision")
    started = time.monotonic()
    response = expect(t.manifest(name, image.digest, headers={"Argosy-Min-Revision": str(at + 10_000_000)}), 503)
    check(response.header("Retry-After"), "503 without Retry-After")
    check(time.monotonic() - started < 45, "the wait has no bound")
    expect(t.manifest(name, image.digest, headers={"Argosy-Min-Revision": "soon"}), 400)


@row("E04", MUST, "If-None-Match: * on one tag lets exactly one of many writers win")
def one_creator(t):
    name = t.repository()
    images = [t.image(name) for _ in range(8)]
    answers = in_parallel(lambda one: t.put_manifest(name, "v1", one.body, headers={"If-None-Match": "*"}), images, 8)
    statuses = sorted(response.status for response in answers)
    check(statuses == [201] + [412] * 7, f"got {statuses}")
    winner = images[[response.status for response in answers].index(201)]
    check(expect(t.manifest(name, "v1"), 200).body == winner.body, "the tag is not the winner's")


@row("E05", MUST, "a chain of If-Match writers never loses an update; deletes and conditions without a tag")
def compare_and_swap(t):
    name = t.repository()
    images = [t.image(name) for _ in range(6)]
    t.push_manifest(name, "v1", images[0].body)
    current = images[0]
    for image in images[1:]:
        expect(t.put_manifest(name, "v1", image.body, headers={"If-Match": f'"{current.digest}"'}), 201)
        expect(t.put_manifest(name, "v1", current.body, headers={"If-Match": f'"{current.digest}"'}), 412)
        current = image
    expect(t.request("DELETE", f"/v2/{name}/manifests/v1"), 202)
    expect(t.put_manifest(name, "v1", current.body, headers={"If-Match": f'"{current.digest}"'}), 412)
    conditional_delete(t, name)


def conditional_delete(t, name):
    """A delete is decided like a push, and a condition that means nothing is refused."""
    old, new = t.image(name, "v1"), t.image(name)
    match_old, match_new = ({"If-Match": f'"{image.digest}"'} for image in (old, new))
    t.push_manifest(name, "v1", new.body)
    stale = expect(t.request("DELETE", f"/v2/{name}/manifests/v1", match_old), 412)
    check(stale.header("Docker-Content-Digest") == new.digest, f"412 without the current digest: {stale}")
    check(expect(t.manifest(name, "v1"), 200).body == new.body, "deleted all the same")
    expect(t.request("DELETE", f"/v2/{name}/manifests/v1", match_new), 202)
    expect(t.request("DELETE", f"/v2/{name}/manifests/v1", match_new), 404, 412)
    expect(t.request("DELETE", f"/v2/{name}/manifests/{old.digest}", match_new), 412)
    expect(t.request("DELETE", f"/v2/{name}/manifests/{old.digest}", {"If-None-Match": "*"}), 400)
    expect(t.put_manifest(name, new.digest, new.body, headers={"If-None-Match": "*"}), 400)
    expect(t.put_manifest(name, new.digest, new.body, headers=match_new), 400)
    expect(t.manifest(name, old.digest), 200)
    expect(t.request("DELETE", f"/v2/{name}/manifests/{old.digest}", match_old), 202)
    expect(t.manifest(name, old.digest), 404)
    # A digest together with a tag: the condition is about the tag.
    expect(t.request("PUT", f"/v2/{name}/manifests/{new.digest}?tag=v4", {"Content-Type": OCI_MANIFEST, "If-None-Match": "*"},
                     new.body), 201)


@row("E06", MUST, "a manifest of the limit is taken, one byte more is 413")
def manifest_limit(t):
    name = t.repository()
    body = padded(t, name, MANIFEST_LIMIT_BYTES)
    expect(t.put_manifest(name, "v1", body), 201)
    for endpoint in t.client.endpoints:
        check(expect(t.manifest(name, "v1", endpoint=endpoint), 200).body == body, "other bytes")
    expect(t.put_manifest(name, "v2", padded(t, name, MANIFEST_LIMIT_BYTES + 1)), 413)
    expect(t.manifest(name, "v2"), 404)


@row("E07", MUST, "an endless manifest is 413 and the connection ends")
def endless_manifest(t):
    for endpoint in t.client.endpoints:
        name = t.repository()
        answer, _ = t.client.endless("PUT", f"/v2/{name}/manifests/v1", {"Content-Type": OCI_MANIFEST}, b" " * 65536,
                                     64 << 20, endpoint)
        expect(answer, 413, code="MANIFEST_INVALID")
        expect(t.manifest(name, "v1"), 404)
    t.alive()


@row("E08", MUST, "a blob pushed in many small streamed pieces is whole")
def many_pieces(t):
    name, data = t.repository(), os.urandom(1 << 20)
    pieces = [data[at:at + 997] for at in range(0, len(data), 997)]
    response = expect(t.request("PATCH", t.start(name), pieces=pieces), 202)
    expect(t.finish(response.location(), sha256(data)), 201)
    t.holds(name, sha256(data), data)


@row("E09", MUST, "a large blob is whole, in full and in ranges over chunk borders")
def large_blob(t):
    name, data, chunk = t.repository(), os.urandom((5 << 20) + 12345), 256 << 10
    digest = t.push_blob(name, data)
    for _ in t.client.endpoints:
        t.holds(name, digest, data)
    for first, last in ((chunk - 1, chunk), (chunk, 2 * chunk - 1), (chunk - 1, 2 * chunk), (0, chunk - 1),
                        (len(data) - 1, len(data) - 1), (4 << 20, len(data) - 1), (1, len(data) - 2)):
        response = expect(t.blob(name, digest, headers={"Range": f"bytes={first}-{last}"}), 206)
        check(response.body == data[first:last + 1], f"bytes={first}-{last}: other bytes")


@row("K12", MAY, "a hundred tags on one PUT are taken or refused as a whole")
def hundred_tags(t):
    name = t.repository()
    image = t.image(name)
    tags = [f"t{number:03}" for number in range(100)]
    query = "&".join(f"tag={tag}" for tag in tags)
    response = expect(t.put_manifest(name, f"{image.digest}?{query}", image.body), 201, 414, 400)
    check(t.tag_names(name) == (tags if response.status == 201 else []), "some of the tags")


@row("K14", MAY, "OCI-Chunk-Min-Length, if announced, is a number, and a last chunk may be any size")
def chunk_minimum(t):
    name = t.repository()
    response = expect(t.request("POST", f"/v2/{name}/blobs/uploads/"), 202)
    announced = response.header("OCI-Chunk-Min-Length")
    check(announced is None or announced.isdigit(), f"OCI-Chunk-Min-Length {announced}")
    first = os.urandom(int(announced or 0) or 1000)
    patched = expect(t.patch(response.location(), first, f"0-{len(first) - 1}"), 202)
    last = {"Content-Type": "application/octet-stream", "Content-Range": f"{len(first)}-{len(first)}"}
    expect(t.finish(patched.location(), sha256(first + b"x"), b"x", last), 201)


@row("K16", MUST, "Location is usable behind a proxy that ends TLS")
def forwarded(t):
    name, host = t.repository(), "registry.example.test"
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": host}
    location = t.request("POST", f"/v2/{name}/blobs/uploads/", headers, host=host).header("Location", "")
    check(location.startswith(("/v2/", f"https://{host}/v2/")), f"Location {location}")


@row("E10", SHOULD, "a client that goes away in mid-upload costs nothing")
def client_gone(t):
    name, data = t.repository(), os.urandom(500_000)
    for _ in range(20):
        with t.client.connect() as connection:
            head = build_head("PATCH", t.start(name), "x", {"Content-Length": str(2 * len(data))})
            connection.send(head + data)
            connection.abort()
    t.alive()
    t.absent(name, sha256(data))
