"""What several nodes must do as one registry (C). Every request here names its node."""

import os

from harness.http_raw import with_query
from harness.registry import OCTETS, OCI_MANIFEST, check, expect, in_parallel, next_link, sha256
from rows import MUST, SHOULD, row


def nodes(t):
    return t.client.endpoints


@row("C01", MUST, "POST, PATCHes and PUT of one upload on different nodes", endpoints=2)
def spread_upload(t):
    name, data, count = t.repository(), os.urandom(5000), len(nodes(t))
    for first in range(count):
        at = [nodes(t)[(first + step) % count] for step in range(4)]
        target = t.start(name, endpoint=at[0])
        one = expect(t.patch(target, data[:2000], "0-1999", endpoint=at[1]), 202)
        two = expect(t.patch(one.location(), data[2000:4000], "2000-3999", endpoint=at[2]), 202)
        status = expect(t.request("GET", two.location(), endpoint=at[3]), 204)
        check(status.header("Range") == "0-3999", f"Range {status.header('Range')}")
        put = with_query(two.location(), f"digest={sha256(data)}")
        headers = {**OCTETS, "Content-Range": "4000-4999"}
        expect(t.request("PUT", put, headers, data[4000:], endpoint=at[3]), 201)
        for endpoint in nodes(t):
            got = expect(t.blob(name, sha256(data), endpoint=endpoint), 200)
            check(got.body == data, "other bytes")


@row("C02", MUST, "what one node acknowledged is on every other at once", endpoints=2)
def read_your_writes(t):
    name = t.repository()
    for number in range(20):
        image = t.image(name, push=False)
        writer = nodes(t)[number % len(nodes(t))]
        expect(t.put_manifest(name, "v1", image.body, endpoint=writer), 201)
        for endpoint in nodes(t):
            for reference in ("v1", image.digest):
                response = expect(t.manifest(name, reference, endpoint=endpoint), 200)
                check(response.body == image.body, f"an older manifest from {endpoint}")


@row("C04", MUST, "one tag pushed on all nodes at once ends the same everywhere", endpoints=2)
def one_winner(t):
    name = t.repository()
    images = [t.image(name) for _ in nodes(t)]
    for _ in range(10):
        pairs = list(zip(images, nodes(t)))
        in_parallel(lambda pair: expect(t.put_manifest(name, "v1", pair[0].body, endpoint=pair[1]), 201), pairs)
        bodies = {expect(t.manifest(name, "v1", endpoint=endpoint), 200).body for endpoint in nodes(t)}
        check(len(bodies) == 1, f"{len(bodies)} different manifests under one tag")


@row("C06", MUST, "what one node deleted is gone from every other at once", endpoints=2)
def delete_everywhere(t):
    name = t.repository()
    for number in range(20):
        image, blob = t.image(name, "v1"), t.push_blob(name)
        turn = number % len(nodes(t))
        at, others = nodes(t)[turn], nodes(t)[:turn] + nodes(t)[turn + 1:]
        expect(t.request("DELETE", f"/v2/{name}/manifests/{image.digest}", endpoint=at), 202)
        # Nothing in between: a node that is a moment behind must not answer from what it knew.
        for endpoint in others:
            expect(t.manifest(name, image.digest, endpoint=endpoint), 404)
            expect(t.manifest(name, "v1", endpoint=endpoint), 404)
        expect(t.request("DELETE", f"/v2/{name}/blobs/{blob}", endpoint=at), 202)
        for endpoint in others:
            expect(t.blob(name, blob, "HEAD", endpoint=endpoint), 404)


@row("C07", SHOULD, "a page's Link can be followed on another node", endpoints=2)
def spread_pages(t):
    name = t.repository()
    image = t.image(name)
    tags = [f"t{number:02}" for number in range(9)]
    for tag in tags:
        t.push_manifest(name, tag, image.body, OCI_MANIFEST)
    target, got, turn = f"/v2/{name}/tags/list?n=2", [], 0
    while target is not None and turn < 20:
        response = expect(t.request("GET", target, endpoint=nodes(t)[turn % len(nodes(t))]), 200)
        got += response.json()["tags"]
        target, turn = next_link(response), turn + 1
    check(got == tags, f"got {got}")
