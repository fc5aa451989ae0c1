"""Disks that are full, and blobs that rot on one of them."""

import contextlib
import os
from pathlib import Path

from harness.cluster import Cluster, wait_for
from harness.http_raw import Broken
from harness.registry import check, expect, in_parallel, sha256
from harness.shell import run
from scenarios import scenario

DISK_BYTES = 160 << 20
# The default reserve is larger than these disks.
FLOOR = "[storage]\nmin_free_bytes = 16777216\n"
BLOB_BYTES = 3 << 20


class SmallDisks(Cluster):
    """A cluster whose data directories are small file systems in memory."""

    def __enter__(self):
        check(os.geteuid() == 0, "mounting a small disk needs root")
        for node in self.nodes:
            run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "argosy-test", node.directory / "data")
        return super().__enter__()

    def __exit__(self, kind, value, traceback):
        # Nodes first: a disk in use cannot be unmounted.
        self.kill(kind is not None)
        for node in self.nodes:
            run("umount", "--lazy", node.directory / "data", check=False)
        super().__exit__(kind, value, traceback)


def fill(node):
    """Takes every free byte of the node's disk."""
    with open(node.directory / "data/filler", "wb") as filler, contextlib.suppress(OSError):
        while True:
            filler.write(b"\0" * (1 << 20))
            filler.flush()


def leave_a_little(node):
    """Fills the disk into its reserve: too little for uploads, enough for the log."""
    fill(node)
    with open(node.directory / "data/filler", "r+b") as filler:
        filler.truncate(max(0, os.path.getsize(filler.name) - (8 << 20)))


def empty(node):
    (node.directory / "data/filler").unlink()


def refused_cleanly(registry, data):
    """A blob that finds no room: an error with a body, nothing stored, and the connection in order."""
    digest = sha256(data)
    response = registry.request("POST", "/v2/team/app/blobs/uploads/")
    if response.status == 202:
        response = registry.finish(response.location(), digest, data)
    check(response.status in (429, 503, 507), f"wanted 429, 503 or 507, got {response}")
    check(response.codes(), f"no error body: {response.body[:100]!r}")
    registry.absent("team/app", digest)


@scenario("disk-full-one", "a full disk on one node: the others go on, it serves reads, and it comes back", slow=True)
def one_disk_full():
    with SmallDisks(3, FLOOR) as cluster:
        before = cluster.registry().image("team/app", "before")
        data = os.urandom(BLOB_BYTES)
        digest = cluster.registry().push_blob("team/app", data)
        for node in cluster.nodes:
            others = [one for one in cluster.nodes if one is not node]
            leave_a_little(node)
            goes_on(others, f"low{node.id}")
            node.registry().holds("team/app", digest, data)
            check(node.registry().manifest("team/app", "before").body == before.body, "other bytes")
            expect(node.registry().request("DELETE", f"/v2/team/app/manifests/low{node.id}-0"), 202)
            # Now without room even for the log: this node may stop, but it has to come back.
            fill(node)
            goes_on(others, f"full{node.id}")
            empty(node)
            if node.process.poll() is not None:
                node.kill()
                node.start()
            cluster.wait_ready()
            node.registry().holds("team/app", digest, data)
            check(node.registry().manifest("team/app", f"full{node.id}-1").status == 200, "it missed what happened")


def goes_on(nodes, tag):
    """Images are pushed through each of these nodes and readable from each of them."""
    for number, node in enumerate(nodes):
        image = node.registry().image("team/app", f"{tag}-{number}")
        for other in nodes:
            check(other.registry().manifest("team/app", image.digest).body == image.body, "other bytes")
            other.registry().holds("team/app", sha256(image.layers[0]), image.layers[0])


@scenario("disk-full-all", "full disks: uploads fail cleanly, reads and deletes go on, it heals", slow=True)
def all_disks_full():
    with SmallDisks(3, FLOOR) as cluster:
        data, other = os.urandom(BLOB_BYTES), os.urandom(BLOB_BYTES)
        digest = cluster.registry().push_blob("team/app", data)
        image = cluster.registry().image("team/app", "v1")
        cluster.registry().push_manifest("team/app", "v2", image.body)
        for node in cluster.nodes:
            leave_a_little(node)
        for node in cluster.nodes:
            refused_cleanly(node.registry(), other)
        for node in cluster.nodes:
            node.registry().holds("team/app", digest, data)
            check(node.registry().manifest("team/app", "v1").body == image.body, "other bytes")
        # Deletes are how room is made: they must not need the room they make.
        expect(cluster.registry().request("DELETE", "/v2/team/app/manifests/v2"), 202)
        expect(cluster.registry().request("DELETE", f"/v2/team/app/manifests/{image.digest}"), 202)
        for node in cluster.nodes:
            empty(node)
        wait_for(lambda: cluster.registry().push_blob("team/app", other), "uploads work again", 60)


def files_holding(node, data):
    """The files under the node's data directory that hold this blob."""
    probe, found = data[300_000:300_064], []
    for path in Path(node.directory / "data").rglob("*"):
        if path.is_file() and path.stat().st_size >= len(data) and probe in path.read_bytes():
            found.append(path)
    return found


@scenario("damaged-blob", "a blob that rots on one disk is never served wrong, and comes from another node")
def damaged_blob():
    with Cluster() as cluster:
        for damage in ("flip", "truncate", "remove"):
            data = os.urandom(BLOB_BYTES)
            digest = cluster.registry().push_blob("team/app", data)
            for node in cluster.nodes:
                wait_for(lambda: files_holding(node, data), f"node {node.id} holds its copy", 30)
            victim = cluster.nodes[0]
            spoil(files_holding(victim, data), damage, data)
            ranges = ((0, BLOB_BYTES - 1), (1_000_000, 1_000_063), (299_900, 300_100), (3_000_000, 3_000_001))
            for first, last in ranges:
                never_wrong(victim.registry(), digest, data, first, last)
            victim.registry().holds("team/app", digest, data)


def spoil(paths, damage, data):
    for path in paths:
        if damage == "remove":
            path.unlink()
            continue
        at = path.read_bytes().index(data[300_000:300_064])
        with open(path, "r+b") as file:
            if damage == "truncate":
                file.truncate(at)
            else:
                file.seek(at)
                file.write(bytes([data[300_000] ^ 1]))


def never_wrong(registry, digest, data, first, last):
    """A part may fail, but no wrong byte is ever sent."""
    try:
        response = registry.blob("team/app", digest, headers={"Range": f"bytes={first}-{last}"})
    except Broken:
        return
    expect(response, 206)
    check(response.body == data[first:last + 1], f"bytes={first}-{last}: wrong bytes were sent")


@scenario("lost-disk-read", "a node without its copy fetches it once for many clients at the same time", slow=True)
def fetch_on_miss():
    with Cluster(3, "[replication]\ncopies = 2\nwrite_copies = 2\n") as cluster:
        data = os.urandom(24 << 20)
        digest = cluster.nodes[0].registry().push_blob("team/app", data)
        missing = [node for node in cluster.nodes if not files_holding(node, data)]
        check(missing, "every node holds the blob although two copies were asked for")
        in_parallel(lambda _: missing[0].registry().holds("team/app", digest, data), range(12), threads=12)
