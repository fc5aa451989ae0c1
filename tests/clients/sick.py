"""Disks that are slow, that hang, or that cannot read one file. Failpoints make them: no disk here can be told to."""

import os
import statistics
import time

from harness.cluster import Cluster, wait_for
from harness.registry import check, sha256
from operating import complete, status
from scenarios import scenario

BLOB_BYTES = 1 << 20
FOREVER_MS = 600_000
# Where bytes become durable: the Raft log, the local index, the files of uploads.
SYNCS = ("raft_before_sync", "index_before_sync", "tmp_before_fsync")


class SickDisks(Cluster):
    """A cluster whose disks do what `sicken` says, from when it says so."""

    def __init__(self, settings=""):
        super().__init__(3, settings)
        for node in self.nodes:
            node.environment["FAILPOINTS_FILE"] = str(node.directory / "failpoints")


def sicken(node, *actions):
    """From now on the node's disk does this; nothing special without actions."""
    part, marker = node.directory / "failpoints.part", f"set {time.monotonic_ns()}"
    part.write_text("\n".join([*actions, marker]))
    part.rename(node.directory / "failpoints")
    wait_for(lambda: marker in node.log.read_text(errors="replace"), "the failpoints are set", 10)


def leader_of(cluster, asked):
    """The node that leads, as another says."""
    leader = status(asked)["leader"]
    return next((node for node in cluster.nodes if node.id == leader), None)


def roles(cluster):
    """The leader and the other two."""
    wait_for(lambda: leader_of(cluster, cluster.nodes[0]), "a leader", 20)
    leader = leader_of(cluster, cluster.nodes[0])
    return leader, [node for node in cluster.nodes if node is not leader]


@scenario("failing-read", "one blob of a node gives errors when it is read: served from a peer, then repaired (F-23)")
def failing_read():
    with SickDisks("[repair]\ninterval_ms = 500\n") as cluster:
        data = os.urandom(BLOB_BYTES)
        digest = cluster.registry().push_blob("team/app", data)
        wait_for(lambda: complete(cluster.nodes[0], 3), "three copies", 30)
        node = cluster.nodes[1]
        sicken(node, "blob_before_read=return(EIO)")
        node.registry().holds("team/app", digest, data)
        check("failpoint blob_before_read fired" in node.log.read_text(), "nothing was read from the disk")
        check("a blob cannot be read" in node.log.read_text(), "the error is not in the log")
        wait_for(lambda: "quarantine" in node.log.read_text(), "the copy in quarantine", 60)
        sicken(node)
        wait_for(lambda: complete(cluster.nodes[0], 3), "three copies again", 60)
        node.registry().holds("team/app", digest, data)


def push_times(registry, count):
    """Milliseconds that each of some small pushes took."""
    times = []
    for _ in range(count):
        started = time.monotonic()
        registry.image("team/app", "latest")
        times.append((time.monotonic() - started) * 1000)
    return times


@scenario("slow-disk", "each sync of one node takes half a second: pushes go on, whoever it is (F-25)", slow=True)
def slow_disk():
    with SickDisks() as cluster:
        leader, followers = roles(cluster)
        healthy = statistics.median(push_times(followers[0].registry(), 20))
        slow = [f"{point}=return(delay 500)" for point in SYNCS]
        for sick, asked, name in ((followers[1], followers[0], "a follower"), (leader, followers[0], "the leader")):
            sicken(sick, *slow)
            times = push_times(asked.registry(), 20)
            print(f"      {name} slow: push median {statistics.median(times):.0f} ms, slowest {max(times):.0f} ms; "
                  f"healthy {healthy:.0f} ms", flush=True)
            check(leader_of(cluster, asked) is not None, "nobody leads")
            sicken(sick)
        wait_for(lambda: complete(cluster.nodes[0], 3), "three copies of everything", 60)


@scenario("hung-disk", "syncs of the leader's disk never return: another leads, pushes go on, it comes back (F-26)", slow=True)
def hung_disk():
    with SickDisks("[raft]\nsync_max_ms = 2000\n") as cluster:
        leader, followers = roles(cluster)
        before = cluster.registry().image("team/app", "before")
        wait_for(lambda: complete(cluster.nodes[0], 3), "three copies", 30)
        sicken(leader, *(f"{point}=return(delay {FOREVER_MS})" for point in SYNCS))
        registry, images = followers[0].registry(timeout=20), []

        def pushed():
            images.append(registry.image("team/app", f"v{len(images)}"))
            return True

        started = time.monotonic()
        wait_for(pushed, "a push while the leader's disk hangs", 30)
        print(f"      the first push after {time.monotonic() - started:.1f} s", flush=True)
        wait_for(lambda: leader_of(cluster, followers[0]) in followers, "another leader", 20)
        for _ in range(10):
            pushed()
        wait_for(lambda: not leader.ready(), "the node whose disk hangs is not ready", 10)
        leader.kill()
        (leader.directory / "failpoints").write_text("")
        leader.start()
        cluster.wait_ready()
        for node in cluster.nodes:
            for image in [before, *images]:
                got = node.registry().manifest("team/app", image.digest)
                check(got.status == 200 and sha256(got.body) == image.digest, f"node {node.id}: {got.status}")
        wait_for(lambda: complete(cluster.nodes[0], 3), "three copies of everything", 60)
