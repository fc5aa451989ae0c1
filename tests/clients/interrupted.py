"""Interrupted again and again: nodes in their start, transfers in their middle, nodes that come and go."""

import os
import random
import time

from faults import whole
from harness.cluster import Cluster, wait_for
from harness.http_raw import build_head
from harness.registry import OCTETS, check, expect, sha256
from healing import blob_files
from operating import clusterctl, status
from scenarios import scenario

STEPS = 100
TRANSFER_BYTES = 10 << 20


@scenario("kill-starting", "a node killed 50 times while it starts and replays its log: it starts, and nothing is lost (F-04)",
          slow=True)
def kill_starting():
    rng = random.Random(4)
    settings = "[raft]\nsnapshot_entries = 100\nkeep_entries = 10\n"
    with Cluster(3, settings) as cluster:
        images = [cluster.registry().image("team/app", f"v{number}") for number in range(20)]
        victim, others = cluster.nodes[0], cluster.nodes[1:]
        victim.kill()
        for number in range(50):
            # There is always more to replay, or a snapshot to install.
            images.append(others[number % 2].registry().image("team/app", f"v{len(images)}"))
            victim.start()
            time.sleep(rng.choice((0.02, 0.1, 0.3, 0.6)) * rng.random())
            check(victim.process.poll() is None, f"start {number} ended by itself:\n{victim.tail()}")
            victim.kill()
        victim.start()
        victim.wait_ready()
        for number, image in enumerate(images):
            whole(victim.registry(), "team/app", image, f"v{number}")
        clusterctl(others[0], "check")


@scenario("paused-long", "a follower that stands still for a minute is not missed, and catches up by a snapshot (F-06)",
          slow=True)
def paused_long():
    settings = "[raft]\nsnapshot_entries = 100\nkeep_entries = 20\n"
    with Cluster(3, settings) as cluster:
        leader = status(cluster.nodes[0])["leader"]
        victim = next(node for node in cluster.nodes if node.id != leader)
        others = [node for node in cluster.nodes if node is not victim]
        images, slowest, term = {}, 0.0, status(others[0])["term"]
        victim.pause()
        try:
            until = time.monotonic() + 60
            while time.monotonic() < until:
                started, tag = time.monotonic(), f"v{len(images)}"
                images[tag] = others[len(images) % 2].registry().image("team/app", tag)
                slowest = max(slowest, time.monotonic() - started)
                time.sleep(0.1)
            check(status(others[0])["term"] == term, "the leader changed")
        finally:
            victim.resume()
        print(f"      {len(images)} images meanwhile, the slowest took {slowest:.1f} s", flush=True)
        check(len(images) > 30, f"only {len(images)} images in a minute")
        for tag, image in images.items():
            whole(victim.registry(), "team/app", image, tag)
        clusterctl(others[0], "check")


@scenario("cut-uploads", "an upload cut after every hundredth goes on through another node, and its digest is right (F-47)",
          slow=True)
def cut_uploads():
    with Cluster() as cluster:
        data = os.urandom(TRANSFER_BYTES)
        target, have = cluster.registry().start("team/app"), 0
        for step in range(1, STEPS):
            node, end = cluster.nodes[step % 3], step * TRANSFER_BYTES // STEPS
            registry = node.registry()
            headers = {**OCTETS, "Content-Length": str(len(data) - have), "Content-Range": f"{have}-{len(data) - 1}"}
            with registry.client.connect() as connection:
                connection.send(build_head("PATCH", target, node.host, headers) + data[have:end])
                connection.abort()
            answer = settled(cluster.nodes[(step + 1) % 3].registry(), target)
            target, before, have = answer.location(), have, offset(answer)
            check(before <= have <= end, f"after {end} bytes the session stands at {have}, before at {before}")
        check(have > 0, "not one byte of 99 interrupted requests was kept")
        rest = cluster.registry().patch(target, data[have:], f"{have}-{len(data) - 1}")
        expect(cluster.registry().finish(expect(rest, 202).location(), sha256(data)), 201)
        for node in cluster.nodes:
            node.registry().holds("team/app", sha256(data), data)


def offset(answer):
    """Bytes that the session has; nothing at all is said as `0-0`, like one byte."""
    last = int(answer.header("Range").split("-")[1])
    return last + 1 if last else 0


def settled(registry, target):
    """The status of a session, once the request that died is no longer being read."""
    last = expect(registry.request("GET", target), 204)
    while True:
        time.sleep(0.02)
        answer = expect(registry.request("GET", target), 204)
        if answer.header("Range") == last.header("Range"):
            return answer
        last = answer


@scenario("cut-downloads", "a download cut after every hundredth goes on by Range through another node (F-47)")
def cut_downloads():
    with Cluster() as cluster:
        data = os.urandom(TRANSFER_BYTES)
        digest, have = cluster.registry().push_blob("team/app", data), b""
        for step in range(1, STEPS + 1):
            node, end = cluster.nodes[step % 3], step * TRANSFER_BYTES // STEPS
            with node.registry().client.connect() as connection:
                headers = {"Range": f"bytes={len(have)}-"}
                connection.send(build_head("GET", f"/v2/team/app/blobs/{digest}", node.host, headers))
                head = connection._head()
                wanted = f"bytes {len(have)}-{len(data) - 1}/{len(data)}"
                check((head.status, head.header("Content-Range")) == (206, wanted), f"{head} {head.headers}")
                have += connection._exactly(end - len(have))
                connection.abort()
        check(sha256(have) == digest, "the pieces are not the blob")
        for node in cluster.nodes:
            node.registry().alive()


@scenario("heal-flapping", "a node that goes and comes ten times: nothing is copied for it, nothing is left over (F-63)",
          slow=True)
def flapping():
    settings = ("[raft]\ntick_ms = 200\n[replication]\ncopies = 3\n"
                "[repair]\ninterval_ms = 500\nsuspect_after_ms = 1000\ndown_after_ms = 15000\ntrim_delay_ms = 3000\n")
    with Cluster(5, settings) as cluster:
        for _ in range(12):
            cluster.registry().push_blob("team/app", os.urandom(1 << 20))

        def count(nodes):
            return sum(len(blob_files(node)) for node in nodes)

        wait_for(lambda: count(cluster.nodes) == 36, "three copies each", 60)
        victim, others = cluster.nodes[4], cluster.nodes[:4]
        held = count(others)
        for _ in range(10):
            victim.kill()
            # Long enough to be suspected, too short to be down.
            time.sleep(2.5)
            check(count(others) == held, f"{count(others) - held} copies were made for a short absence")
            victim.start()
            victim.wait_ready()
        wait_for(lambda: count(cluster.nodes) == 36, "three copies each, and none too many", 30)
        check(count(others) == held, "copies moved")
