"""Bodies without end: refused with 413, the connection ends, and neither memory nor disk pays for them."""

import os
import threading
from pathlib import Path

from harness.cluster import Cluster, wait_for
from harness.registry import OCI_MANIFEST, OCTETS, check, expect, in_parallel, sha256
from scenarios import scenario
from storms import memory_mib, no_leftovers

MIB = 1 << 20
BLOB_MAX_BYTES = 8 * MIB
MANIFEST_MAX_BYTES = 4 * MIB
# What a node reads of a refused body before it answers, and what lies between it and the client.
BEYOND_BYTES = 64 * MIB
# Whoever gets rid of this much has found no end.
MOST_BYTES = 256 * MIB
PIECE = os.urandom(64 << 10)
ROUNDS = 4


class Watch:
    """The most memory and the most bytes of unfinished uploads that any node had while this was open, over the start."""

    def __init__(self, nodes):
        self.nodes, self.done = nodes, threading.Event()
        self.before = [memory_mib(node) for node in nodes]
        self.memory_mib, self.staged_bytes = 0, 0
        self.thread = threading.Thread(target=self.look)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()

    def look(self):
        while not self.done.wait(0.02):
            for node, before in zip(self.nodes, self.before):
                self.memory_mib = max(self.memory_mib, memory_mib(node) - before)
                self.staged_bytes = max(self.staged_bytes, staged_bytes(node))


def staged_bytes(node):
    """Bytes in files of unfinished uploads; a file may go while it is looked at."""
    total = 0
    for path in (node.directory / "data/blobs/uploads").rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            pass
    return total


def disk_bytes(node):
    return sum(path.stat().st_size for path in Path(node.directory, "data").rglob("*") if path.is_file())


def endless(node, method, target, headers, limit_bytes, code):
    """The body is refused with 413 soon after the limit."""
    answer, sent = node.registry().client.endless(method, target, headers, PIECE, MOST_BYTES)
    expect(answer, 413, code=code)
    check(sent <= limit_bytes + BEYOND_BYTES, f"{method} {target[:60]}: {sent >> 20} MiB were taken before the end")


def endless_blob(owner, node, way):
    """One of the three requests that bring bytes; the session is over afterwards."""
    target = owner.registry().start("team/app")
    method, where = {"append": ("PATCH", target), "finish": ("PUT", f"{target}?digest={sha256(b'x')}"),
                     "push": ("POST", f"/v2/team/app/blobs/uploads/?digest={sha256(b'x')}")}[way]
    endless(node, method, where, OCTETS, BLOB_MAX_BYTES, "SIZE_INVALID")
    if way != "push":
        for one in (owner, node):
            expect(one.registry().request("GET", target), 404, code="BLOB_UPLOAD_UNKNOWN")


@scenario("endless-uploads", f"endless chunked uploads with blob_max_bytes: 413, the connection ends, nothing stays")
def endless_uploads():
    for count in (1, 3):
        with Cluster(count, f"[limits]\nblob_max_bytes = {BLOB_MAX_BYTES}\n") as cluster:
            owner, used = cluster.nodes[0], [disk_bytes(node) for node in cluster.nodes]
            jobs = [(node, way) for node in cluster.nodes for way in ("append", "finish", "push")] * ROUNDS
            with Watch(cluster.nodes) as watch:
                in_parallel(lambda job: endless_blob(owner, *job), jobs, threads=len(jobs))
            wait_for(lambda: no_leftovers(cluster), "no bytes of refused uploads", 10)
            grown = max(disk_bytes(node) - before for node, before in zip(cluster.nodes, used))
            print(f"      {count} nodes, {len(jobs)} uploads: {watch.memory_mib} MiB more memory, at most "
                  f"{watch.staged_bytes >> 20} MiB staged, {grown >> 10} KiB on disk afterwards", flush=True)
            check(watch.staged_bytes <= len(jobs) * BLOB_MAX_BYTES, "more was staged than the limit allows")
            check(watch.memory_mib < 4 * len(jobs) + 48, f"{watch.memory_mib} MiB more memory")
            check(grown < 4 * MIB, f"{grown >> 10} KiB stay on disk")
            largest_pass(cluster)


def largest_pass(cluster):
    """A blob of the limit is taken through every node, one byte more is not, announced or not."""
    for node in cluster.nodes:
        registry, data = node.registry(), os.urandom(BLOB_MAX_BYTES)
        registry.push_blob("team/app", data)
        registry.holds("team/app", sha256(data), data)
        longer = data + b"x"
        for pieces in (None, [data, b"x"]):
            target = cluster.nodes[0].registry().start("team/app")
            answer = registry.request("PATCH", target, OCTETS, longer if pieces is None else None, pieces)
            expect(answer, 413, code="SIZE_INVALID")
            expect(registry.request("GET", target), 404, code="BLOB_UPLOAD_UNKNOWN")
        registry.absent("team/app", sha256(longer))


@scenario("endless-manifests", "endless manifests, many at once: 413, the connection ends, memory is bounded")
def endless_manifests():
    for count in (1, 3):
        with Cluster(count) as cluster:
            jobs = cluster.nodes * (ROUNDS * 9 // count)
            with Watch(cluster.nodes) as watch:
                in_parallel(lambda node: endless(node, "PUT", "/v2/team/app/manifests/v1", {"Content-Type": OCI_MANIFEST},
                                                 MANIFEST_MAX_BYTES, "MANIFEST_INVALID"), jobs, threads=len(jobs))
            print(f"      {count} nodes, {len(jobs)} manifests: {watch.memory_mib} MiB more memory", flush=True)
            # A manifest is collected whole; beyond its limit nothing is kept.
            allowed = len(jobs) // count * (MANIFEST_MAX_BYTES // MIB + 2) + 64
            check(watch.memory_mib < allowed, f"{watch.memory_mib} MiB more memory, {allowed} are allowed")
            check(no_leftovers(cluster), "a manifest left bytes of an upload")
            expect(cluster.registry().manifest("team/app", "v1"), 404)
