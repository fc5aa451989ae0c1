"""Many clients at once on one tag, one image or one layer; manifests of the largest size; a log that must not grow."""

import contextlib
import json
import os
import resource
import select
import socket
import time
from pathlib import Path

from faults import whole
from harness.cluster import Cluster, wait_for
from harness.http_raw import Broken, build_head
from harness.registry import OCI_CONFIG, OCI_MANIFEST, check, descriptor, encode, expect, in_parallel, sha256
from healing import blob_files
from operating import clusterctl, complete, status
from scenarios import scenario

# More than there are connections to one node at a time on a small machine, fewer than its limits.
THREADS = 100
LAYER_BYTES = 300_000
LARGEST_BYTES = 4 << 20


def manifest_of(config, note):
    """A manifest that no other note gives."""
    return encode({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(OCI_CONFIG, config),
                   "layers": [], "annotations": {"note": note}})


def no_leftovers(cluster):
    """No node has bytes of an upload that is over."""
    directories = [node.directory / "data/blobs/uploads" for node in cluster.nodes]
    check(all(directory.is_dir() for directory in directories), "uploads are kept elsewhere")
    return not any(path.is_file() for directory in directories for path in directory.rglob("*"))


def copies(cluster, digest):
    """Files with this digest, over all nodes."""
    return sum(path.name == digest.split(":")[1] for node in cluster.nodes for path in blob_files(node))


@scenario("tag-storm", "1,000 PUTs at once of one tag through three nodes: all 201, the tag is the last of the log (F-77)",
          slow=True)
def tag_storm():
    with Cluster() as cluster:
        config = encode({"architecture": "amd64", "os": "linux"})
        cluster.registry().push_blob("team/app", config)
        bodies = [manifest_of(config, f"storm {number}") for number in range(1000)]

        def put(number):
            registry = cluster.nodes[number % 3].registry()
            answer = expect(registry.put_manifest("team/app", "latest", bodies[number]), 201, 429)
            return answer.status, int(answer.header("Argosy-Revision") or 0), sha256(bodies[number])

        answers = in_parallel(put, range(len(bodies)), THREADS)
        moved = [(revision, digest) for status, revision, digest in answers if status == 201]
        check(len(moved) > 900, f"only {len(moved)} of 1,000 pushes got 201")
        check(len({revision for revision, _ in moved}) == len(moved), "two pushes have one revision")
        last = max(moved)
        for node in cluster.nodes:
            found = expect(node.registry().manifest("team/app", "latest"), 200)
            check(sha256(found.body) == last[1], f"node {node.id}: the tag is not the push of revision {last[0]}")
            check(int(found.header("Argosy-Revision")) >= last[0], f"node {node.id}: an older revision")
        clusterctl(cluster.nodes[0], "check")


@scenario("same-image", "1,000 pushes at once of one image: all 201, one copy a node, nothing left behind (F-78)", slow=True)
def same_image():
    with Cluster() as cluster:
        image = cluster.registry().image("other/app", layers=0, push=False)
        layer = os.urandom(LAYER_BYTES)
        document = json.loads(image.body)
        document["layers"] = [descriptor("application/vnd.oci.image.layer.v1.tar", layer)]
        image.body = encode(document)
        image.digest, image.layers = sha256(image.body), [layer]

        def push(number):
            registry = cluster.nodes[number % 3].registry(timeout=120)
            for data in (image.config, layer):
                registry.push_blob("team/app", data)
            registry.push_manifest("team/app", "latest", image.body)

        in_parallel(push, range(1000), THREADS)
        for node in cluster.nodes:
            whole(node.registry(), "team/app", image, "latest")
        wait_for(lambda: complete(cluster.nodes[0], 3), "three copies of every blob", 60)
        check(copies(cluster, sha256(layer)) == 3, f"{copies(cluster, sha256(layer))} files of the layer")
        wait_for(lambda: no_leftovers(cluster), "no bytes of uploads left", 30)
        clusterctl(cluster.nodes[0], "check")


@scenario("same-layer", "one layer pushed at once into 200 repositories: every link is there, one copy a node (F-79)",
          slow=True)
def same_layer():
    with Cluster() as cluster:
        layer = os.urandom(LAYER_BYTES)
        digest = sha256(layer)

        def push(number):
            cluster.nodes[number % 3].registry(timeout=120).push_blob(f"team/app{number}", layer)

        in_parallel(push, range(200), THREADS)
        for node in cluster.nodes:
            registry = node.registry()
            for number in range(200):
                expect(registry.blob(f"team/app{number}", digest, "HEAD"), 200)
            registry.holds("team/app7", digest, layer)
        wait_for(lambda: complete(cluster.nodes[0], 3), "three copies of every blob", 60)
        facts = status(cluster.nodes[0])
        check((facts["blobs"], facts["repositories"]) == (1, 200), f"totals {facts}")
        check(copies(cluster, digest) == 3, f"{copies(cluster, digest)} files of the layer")
        wait_for(lambda: no_leftovers(cluster), "no bytes of uploads left", 30)


def size_of(directory):
    """Bytes of all files below; a file that goes meanwhile counts nothing."""
    total = 0
    for path in Path(directory).rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


@scenario("log-bound", "300 MB of small writes: the log is compacted, and a restart is quick (F-84)", slow=True)
def log_bound():
    settings = "[raft]\nsnapshot_entries = 200\nkeep_entries = 50\n"
    with Cluster(3, settings) as cluster:
        config = encode({"architecture": "amd64", "os": "linux"})
        cluster.registry().push_blob("team/app", config)
        # The state holds each of the two once; the log holds every push.
        bodies = [manifest_of(config, letter * 100_000) for letter in "ab"]

        def put(number):
            registry = cluster.nodes[number % 3].registry()
            expect(registry.put_manifest("team/app", f"t{number % 10}", bodies[number // 10 % 2]), 201)

        in_parallel(put, range(3000), 16)
        for node in cluster.nodes:
            size = size_of(node.directory / "data/raft")
            check(size < 150 << 20, f"node {node.id}: {size >> 20} MiB of log and state after 300 MB of pushes")
        for node in cluster.nodes:
            node.stop()
            started = time.monotonic()
            node.start()
            node.wait_ready(30)
            print(f"      node {node.id}: {size_of(node.directory / 'data/raft') >> 20} MiB, ready after "
                  f"{time.monotonic() - started:.1f} s", flush=True)
            expect(node.registry().manifest("team/app", "t3"), 200)


@scenario("large-manifests", "40 manifests of 4 MiB reach every node, one that was away by a snapshot (F-85)", slow=True)
def large_manifests():
    settings = "[raft]\nsnapshot_entries = 100\nkeep_entries = 5\n"
    with Cluster(3, settings) as cluster:
        registry, away = cluster.registry(), cluster.nodes[2]
        config = encode({"architecture": "amd64", "os": "linux"})
        registry.push_blob("team/app", config)
        room = LARGEST_BYTES - len(manifest_of(config, ""))
        bodies = [manifest_of(config, f"{number:03}" + "x" * (room - 3)) for number in range(40)]
        check(all(len(body) == LARGEST_BYTES for body in bodies), "not the largest size")
        for number, body in enumerate(bodies[:20]):
            registry.push_manifest("team/app", f"v{number}", body)
        away.kill()
        for number, body in enumerate(bodies[20:], 20):
            cluster.nodes[number % 2].registry().push_manifest("team/app", f"v{number}", body)
        # So many entries that what it lacks is no longer in the log of the others.
        for number in range(150):
            cluster.nodes[number % 2].registry().push_manifest("team/app", f"small{number % 5}", manifest_of(config, "s"))
        away.start()
        cluster.wait_ready()
        for node in cluster.nodes:
            for number, body in enumerate(bodies):
                found = expect(node.registry().manifest("team/app", f"v{number}"), 200)
                check(found.body == body, f"node {node.id}: v{number} has other bytes")
        clusterctl(cluster.nodes[0], "check")


# Enough for the files of the database and some connections.
FEW_FILES = 256


@scenario("few-descriptors", "256 file descriptors and 600 connections: refusals, no crash, and it recovers (F-83)", slow=True)
def few_descriptors():
    with Cluster(start=False) as cluster:
        for node in cluster.nodes:
            node.wrapper = ["prlimit", f"--nofile={FEW_FILES}:{FEW_FILES}"]
        cluster.start()
        image = cluster.registry().image("team/app", "before")
        for node in cluster.nodes:
            connections = []
            try:
                for _ in range(600):
                    connections.append(node.registry(timeout=3).client.connect())
            except (Broken, OSError):
                pass
            check(len(connections) > FEW_FILES, f"only {len(connections)} connections could be opened")
            refused = refusals(connections)
            check(refused > len(connections) // 2, f"only {refused} connections were refused")
            outcomes = [crowded(node, image) for _ in range(3)]
            check(node.process.poll() is None, f"node {node.id} ended")
            others = [one for one in cluster.nodes if one is not node]
            for other in others:
                other.registry().image("team/app", f"with{node.id}")
            for connection in connections:
                connection.socket.close()
            print(f"      node {node.id}: {refused} of {len(connections)} connections got 503, answers meanwhile {outcomes}",
                  flush=True)
            wait_for(lambda: node.registry(timeout=5).manifest("team/app", "before").status == 200, "it serves again", 60)
            whole(node.registry(), "team/app", node.registry().image("team/app", f"after{node.id}"))
        clusterctl(cluster.nodes[0], "check")


def refusals(connections):
    """How many were answered with 503 although they asked nothing; done when none was for a while."""
    waiting, refused = [connection.socket for connection in connections], 0
    while ready := select.select(waiting, [], [], 3)[0]:
        refused += sum(one.recv(4096).startswith(b"HTTP/1.1 503") for one in ready)
        waiting = [one for one in waiting if one not in ready]
    return refused


def crowded(node, image):
    """What a client gets from a node without room: bytes or a clean refusal."""
    answer = node.registry(timeout=20).manifest("team/app", "before")
    check(answer.status in (200, 429, 503), f"node {node.id} gave {answer}")
    check(answer.status != 200 or answer.body == image.body, "other bytes")
    return answer.status


IDLE, SLOW = 3000, 300
SLOW_BYTES = 8 << 20


def memory_mib(node):
    """What the process holds in memory now."""
    lines = Path(f"/proc/{node.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) >> 10


@scenario("slow-readers", f"{IDLE} idle connections and {SLOW} readers of 1 KB/s: others are served, memory is bounded (F-80)",
          slow=True)
def slow_readers():
    wanted = IDLE + SLOW + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    check(hard >= wanted, f"needs {wanted} file descriptors, the limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    with Cluster() as cluster, contextlib.ExitStack() as held:
        node, data = cluster.nodes[0], os.urandom(SLOW_BYTES)
        digest = node.registry().push_blob("team/app", data)
        usual = sorted(timed_push(cluster) for _ in range(40))
        before = memory_mib(node)
        readers = []
        for _ in range(SLOW):
            connection = held.enter_context(node.registry().client.connect())
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.send(build_head("GET", f"/v2/team/app/blobs/{digest}", node.host))
            readers.append(connection)
        for _ in range(IDLE):
            held.enter_context(node.registry().client.connect())
        meanwhile, until = [], time.monotonic() + 20
        while time.monotonic() < until:
            for connection in readers:
                connection.socket.recv(20)
            meanwhile.append(timed_push(cluster))
        meanwhile.sort()
        grown = memory_mib(node) - before
        print(f"      push: median {usual[20] * 1000:.0f} ms alone, {meanwhile[len(meanwhile) // 2] * 1000:.0f} ms "
              f"meanwhile, slowest {meanwhile[-1] * 1000:.0f} ms; {grown} MiB more memory", flush=True)
        check(len(meanwhile) > 20, f"only {len(meanwhile)} images were pushed in 20 s")
        check(grown < SLOW, f"{grown} MiB more memory for {SLOW} slow readers")
        expect(node.registry().blob("team/app", digest, "HEAD"), 200)


def timed_push(cluster):
    """Pushes an image and pulls a blob of it through the nodes in turn; gives the seconds."""
    started, registry = time.monotonic(), cluster.registry(timeout=30)
    image = registry.image("team/app", "latest")
    registry.holds("team/app", sha256(image.layers[0]), image.layers[0])
    return time.monotonic() - started
