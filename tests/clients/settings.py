"""What the registry does under settings and limits that are not the default."""

import os
import time

from faults import whole
from harness.cluster import Cluster, wait_for
from harness.registry import OCI_INDEX, OCI_MANIFEST, OCTETS, check, descriptor, encode, expect, in_parallel, sha256
from scenarios import scenario

READ_ONLY = "\n[registry]\nread_only = true\n"


def switch(node, text, is_on):
    """Puts lines at the end of a node's configuration, or takes them away, and restarts the node."""
    path = node.directory / "config.toml"
    before = path.read_text()
    path.write_text(before + text if is_on else before.replace(text, ""))
    node.restart()
    node.wait_ready()


@scenario("read-only", "a read-only registry of one or three nodes: 405 for pushes and deletes, pulls work (K02)")
def read_only():
    for count in (1, 3):
        with Cluster(count) as cluster:
            image, data = cluster.registry().image("team/app", "v1"), os.urandom(1000)
            target = cluster.nodes[0].registry().start("team/app")
            expect(cluster.nodes[0].registry().patch(target, data, "0-999"), 202)
            for node in cluster.nodes:
                switch(node, READ_ONLY, True)
                # The nodes that are not switched yet take pushes, and this one still keeps its copies of them.
                for other in cluster.nodes[node.id:]:
                    whole(node.registry(), "team/app", other.registry().image("team/app", f"via{other.id}"))
            for node in cluster.nodes:
                refuses_changes(node.registry(), image, target)
                whole(node.registry(), "team/app", image, "v1")
                expect(node.registry().tags("team/app"), 200)
            for node in cluster.nodes:
                switch(node, READ_ONLY, False)
            for node in cluster.nodes:
                node.registry().image("team/app", f"again{node.id}")


def refuses_changes(registry, image, upload):
    """Every request that would change something is 405 UNSUPPORTED, whatever it is about."""
    layer, base = sha256(image.layers[0]), "/v2/team/app"
    for method, target, body in (
            ("POST", f"{base}/blobs/uploads/", None), ("POST", f"{base}/blobs/uploads/?digest={sha256(b'x')}", b"x"),
            ("POST", f"/v2/team/other/blobs/uploads/?mount={layer}&from=team/app", None),
            ("PATCH", upload, b"x"), ("PUT", f"{upload}?digest={sha256(b'x')}", b""), ("DELETE", upload, None),
            ("DELETE", f"{base}/manifests/v1", None), ("DELETE", f"{base}/manifests/{image.digest}", None),
            ("DELETE", f"{base}/blobs/{layer}", None)):
        response = registry.request(method, target, OCTETS if body is not None else {}, body)
        expect(response, 405, code="UNSUPPORTED")
        check(response.header("Allow"), f"{method} {target}: 405 without Allow")
    for reference in ("v1", "v2", image.digest):
        expect(registry.put_manifest("team/app", reference, image.body), 405, code="UNSUPPORTED")


@scenario("sparse-index", "sparse indexes allowed: 201, a missing child is 404 until it is pushed (K17)")
def sparse_index():
    for count in (1, 3):
        with Cluster(count, "[registry]\nsparse_indexes = true\n") as cluster:
            registry = cluster.registry()
            here, missing = registry.image("team/app"), registry.image("team/app", push=False)
            index = registry.index(here, missing)
            for node in cluster.nodes:
                expect(node.registry().put_manifest("team/app", f"v{node.id}", index, OCI_INDEX), 201)
            for node in cluster.nodes:
                check(expect(node.registry().manifest("team/app", "v1"), 200).body == index, "other bytes")
                expect(node.registry().manifest("team/app", here.digest), 200)
                expect(node.registry().manifest("team/app", missing.digest), 404, code="MANIFEST_UNKNOWN")
            # Only manifests may be missing, never blobs.
            body = encode({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [],
                           "config": descriptor("application/x-none", os.urandom(9))})
            expect(registry.put_manifest("team/app", "none", body), 400, code="MANIFEST_BLOB_UNKNOWN")
            registry.push_manifest("team/app", None, missing.body)
            for node in cluster.nodes:
                whole(node.registry(), "team/app", missing)
            expect(registry.request("DELETE", f"/v2/team/app/manifests/{missing.digest}"), 202)
            expect(registry.request("DELETE", f"/v2/team/app/manifests/{sha256(index)}"), 202)
            for node in cluster.nodes:
                expect(node.registry().manifest("team/app", "v1"), 404)
                whole(node.registry(), "team/app", here)


CHUNK_MIN_BYTES = 65_536


@scenario("chunk-minimum", "a configured smallest chunk is announced by every POST that opens an upload; the server takes "
          "smaller ones, too (K14)")
def chunk_minimum():
    for count in (1, 3):
        with Cluster(count, f"[registry]\nchunk_min_bytes = {CHUNK_MIN_BYTES}\n") as cluster:
            for node in cluster.nodes:
                for query in ("", f"?mount={sha256(b'nowhere')}&from=team/other"):
                    answer = expect(node.registry().request("POST", f"/v2/team/app/blobs/uploads/{query}"), 202)
                    announced = answer.all("OCI-Chunk-Min-Length")
                    check(announced == [str(CHUNK_MIN_BYTES)], f"node {node.id} announced {announced} for {query!r}")
            # What the specification asks of clients, with a last chunk of any length; then what it advises against.
            for lengths in ((CHUNK_MIN_BYTES, CHUNK_MIN_BYTES + 1, 1), (CHUNK_MIN_BYTES,), (1, CHUNK_MIN_BYTES - 1, 10, 1)):
                in_chunks(cluster.registry(), lengths)


def in_chunks(registry, lengths):
    """An upload in chunks of these lengths, the last one with the PUT, is whole."""
    data, at = os.urandom(sum(lengths)), 0
    target = registry.start("team/app")
    for length in lengths[:-1]:
        target = expect(registry.patch(target, data[at:at + length], f"{at}-{at + length - 1}"), 202).location()
        at += length
    last = {**OCTETS, "Content-Range": f"{at}-{len(data) - 1}"}
    expect(registry.finish(target, sha256(data), data[at:], last), 201)
    registry.holds("team/app", sha256(data), data)


@scenario("uploads-max", "one upload more than the limit is 429 with Retry-After through every node (K07)")
def uploads_max():
    for count in (1, 3):
        with Cluster(count, "[limits]\nuploads_max = 3\n") as cluster:
            owner, data = cluster.nodes[0].registry(), os.urandom(1000)
            targets = [owner.start("team/app") for _ in range(4)]
            for target in targets[:3]:
                expect(owner.patch(target, data, "0-999"), 202)
            for node in cluster.nodes:
                registry = node.registry()
                too_many(registry.patch(targets[3], data, "0-999"))
                too_many(registry.finish(targets[3], sha256(data), data))
            too_many(owner.request("POST", f"/v2/team/app/blobs/uploads/?digest={sha256(data)}", OCTETS, data))
            # Those that are open go on, and what ends makes room: first a cancelled one, then a finished one.
            through = cluster.nodes[-1].registry()
            more = os.urandom(500)
            expect(through.patch(targets[0], more, "1000-1499"), 202)
            expect(through.request("DELETE", targets[1]), 204)
            expect(through.patch(targets[3], data, "0-999"), 202)
            fifth = owner.start("team/app")
            too_many(through.patch(fifth, data, "0-999"))
            expect(through.finish(targets[0], sha256(data + more)), 201)
            expect(through.finish(fifth, sha256(data), data), 201)
            through.holds("team/app", sha256(data + more), data + more)


def too_many(response):
    expect(response, 429, code="TOOMANYREQUESTS")
    check(response.header("Retry-After"), "429 without Retry-After")


@scenario("upload-memory", "small uploads that find no memory wait in files, and none is lost")
def upload_memory():
    room, size, count = 250_000, 100_000, 40
    with Cluster(1, f"[storage]\ninline_memory_bytes = {room}\n") as cluster:
        registry, blobs = cluster.registry(), [os.urandom(size) for _ in range(count)]
        targets = [registry.start("team/app") for _ in blobs]
        for target, data in zip(targets, blobs):
            expect(registry.patch(target, data, f"0-{size - 1}"), 202)
        files = staged_files(cluster.nodes[0])
        check(len(files) == count - room // size, f"{len(files)} of {count} uploads are files")
        in_parallel(lambda pair: expect(registry.finish(pair[0], sha256(pair[1])), 201), list(zip(targets, blobs)))
        for data in blobs:
            registry.holds("team/app", sha256(data), data)
        check(not staged_files(cluster.nodes[0]), "files of finished uploads are left")


def staged_files(node):
    return [path for path in (node.directory / "data/blobs/uploads").rglob("*") if path.is_file()]


@scenario("idle-upload", "an idle upload is dropped with its bytes, one that gets bytes is not (K09)", slow=True)
def idle_upload():
    # Log time goes in steps of up to ten seconds: a shorter life could end between two bytes.
    with Cluster(1, "[registry]\nupload_ttl_ms = 15000\n") as cluster:
        registry, step = cluster.registry(), 200_000
        idle, busy = registry.start("team/app"), registry.start("team/app")
        expect(registry.patch(idle, os.urandom(1 << 20), f"0-{(1 << 20) - 1}"), 202)
        sent, deadline = b"", time.monotonic() + 120
        check(staged_files(cluster.nodes[0]), "the bytes are not in a file: nothing to be freed")
        while registry.request("GET", idle).status != 404:
            check(time.monotonic() < deadline, "the idle upload is still there")
            more = os.urandom(step)
            expect(registry.patch(busy, more, f"{len(sent)}-{len(sent) + step - 1}"), 202)
            sent += more
            time.sleep(1)
        gone = sha256(b"")
        expect(registry.request("GET", idle), 404, code="BLOB_UPLOAD_UNKNOWN")
        expect(registry.patch(idle, b"x"), 404, code="BLOB_UPLOAD_UNKNOWN")
        expect(registry.finish(idle, gone), 404, code="BLOB_UPLOAD_UNKNOWN")
        expect(registry.finish(busy, sha256(sent)), 201)
        wait_for(lambda: not staged_files(cluster.nodes[0]), "the bytes of the idle upload freed", 60)
