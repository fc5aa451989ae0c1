"""Nodes that die, pause and lose their quorum: what was acknowledged stays whole, the rest fails clearly."""

import os
import random
import threading
import time

from harness.cluster import Cluster, wait_for
from harness.http_raw import Broken
from harness.registry import (
    OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Unexpected, check, descriptor, encode, expect, sha256)
from scenarios import scenario

# Short deadlines for the scenario without a quorum: every write in it waits for its own.
IMPATIENT = ("[limits]\nrequest_deadline_ms = 2000\n\n[replication]\ncopies_timeout_ms = 4000\n\n"
             "[registry]\noffline_reads_ms = 8000\n")
# Longer than any of these: a node that answers later than this hangs.
DEADLINE_SECONDS = 10


def whole(registry, name, image, tag=None):
    """The manifest and everything it names can be read."""
    response = expect(registry.manifest(name, tag or image.digest), 200)
    check(response.body == image.body, "the manifest has other bytes")
    for data in [image.config, *image.layers]:
        registry.holds(name, sha256(data), data)


def unavailable(registry, method, target, body=None):
    """A clean refusal for want of a quorum, in time."""
    started = time.monotonic()
    headers = {"Content-Type": OCI_MANIFEST} if "/manifests/" in target and body else {}
    response = expect(registry.request(method, target, headers, body), 503)
    check(response.header("Retry-After"), f"{method} {target}: 503 without Retry-After")
    took = time.monotonic() - started
    check(took < DEADLINE_SECONDS, f"{method} {target} took {took:.0f} s")


@scenario("acknowledged", "what any node acknowledged survives the kill of that node (C03)")
def acknowledged_survives():
    with Cluster() as cluster:
        for node in cluster.nodes:
            images = [node.registry().image("team/app", f"v{node.id}", layers=3) for _ in range(3)]
            node.kill()
            for other in cluster.nodes:
                if other is not node:
                    for image in images:
                        whole(other.registry(), "team/app", image)
                    check(other.registry().manifest("team/app", f"v{node.id}").body == images[-1].body, "another tag")
            node.start()
            node.wait_ready()
            whole(node.registry(), "team/app", images[-1])


@scenario("no-quorum", "without a quorum writes and manifests are 503 in time, blobs soon after, and it heals (C05)")
def no_quorum():
    with Cluster(3, IMPATIENT) as cluster:
        registry = cluster.registry()
        images = [registry.image("team/app", f"v{number}") for number in range(3)]
        blob = registry.push_blob("team/app")
        for survivor in cluster.nodes:
            others = [node for node in cluster.nodes if node is not survivor]
            whole(survivor.registry(), "team/app", images[0])
            for node in others:
                node.pause()
            try:
                minority(survivor.registry(), images, blob)
            finally:
                for node in others:
                    node.resume()
            cluster.wait_ready()
            image = survivor.registry().image("team/app", "after")
            for node in cluster.nodes:
                whole(node.registry(), "team/app", image, "after")
                whole(node.registry(), "team/app", images[0], "v0")


def minority(alone, images, blob):
    """What one node of three has to answer."""
    for data in (images[0].config, images[0].layers[0]):
        alone.holds("team/app", sha256(data), data)
    unavailable(alone, "PUT", "/v2/team/app/manifests/new", images[0].body)
    unavailable(alone, "DELETE", "/v2/team/app/manifests/v0")
    unavailable(alone, "DELETE", f"/v2/team/app/blobs/{blob}")
    # What the others delete meanwhile would be here for ever.
    for target in (f"manifests/{images[0].digest}", "manifests/v0", "tags/list"):
        unavailable(alone, "GET", f"/v2/team/app/{target}")
    layer = f"/v2/team/app/blobs/{sha256(images[0].layers[0])}"
    wait_for(lambda: alone.request("GET", layer).status == 503, "blobs are 503 after offline_reads_ms", 20)
    unavailable(alone, "HEAD", layer)
    wait_for(lambda: alone.request("GET", "/readyz").status == 503, "/readyz is 503", 10)
    expect(alone.request("GET", "/healthz"), 200)
    upload = alone.request("POST", "/v2/team/app/blobs/uploads/")
    if upload.status == 202:
        data = os.urandom(1000)
        put = alone.finish(upload.location(), sha256(data), data)
        check(put.status == 503 and put.header("Retry-After"), f"a blob without a quorum: {put}")
    else:
        check(upload.status == 503 and upload.header("Retry-After"), f"an upload without a quorum: {upload}")


@scenario("leader-paused", "each node paused in turn, the leader too: the others go on, and it catches up", slow=True)
def paused_nodes():
    with Cluster() as cluster:
        for node in cluster.nodes:
            others = [one for one in cluster.nodes if one is not node]
            node.pause()
            images = {}
            try:
                for number in range(4):
                    tag = f"n{node.id}-{number}"
                    images[tag] = others[number % 2].registry().image("team/app", tag)
            finally:
                node.resume()
            for tag, image in images.items():
                # A node that was asleep must not answer from what it knew before.
                whole(node.registry(), "team/app", image, tag)


@scenario("restart-upload", "a node restarted in mid-upload goes on from a durable offset (C08)")
def restart_mid_upload():
    with Cluster() as cluster:
        data = os.urandom(3_000_000)
        for node in cluster.nodes:
            for end in (node.kill, node.stop):
                name = f"team/app{node.id}"
                target = node.registry().start(name)
                expect(node.registry().patch(target, data[:2_000_000], "0-1999999"), 202)
                end()
                node.start()
                cluster.wait_ready()
                for other in cluster.nodes:
                    status = expect(other.registry().request("GET", target), 204, 404)
                check(status.status == 204, "the session did not survive the restart of its node")
                have = int(status.header("Range").split("-")[1]) + 1
                check(have <= 2_000_000, f"{have} bytes reported, 2000000 were sent")
                have = 0 if have == 1 else have
                rest = other.registry().patch(status.location(), data[have:], f"{have}-{len(data) - 1}")
                expect(other.registry().finish(expect(rest, 202).location(), sha256(data)), 201)
                other.registry().holds(name, sha256(data), data)


@scenario("restart-all", "all nodes stopped, and all killed, at once: everything is still there")
def restart_all():
    with Cluster() as cluster:
        images = [cluster.registry().image("team/app", f"v{number}", layers=2) for number in range(10)]
        for end in ("stop", "kill", "kill"):
            for code in [getattr(node, end)() for node in cluster.nodes]:
                check(end == "kill" or code == 0, f"SIGTERM gave exit code {code}")
            cluster.start()
            for node in cluster.nodes:
                for number, image in enumerate(images):
                    whole(node.registry(), "team/app", image, f"v{number}")
            images.append(cluster.registry().image("team/app", f"v{len(images)}"))


@scenario("kill-anywhere", "nodes killed at every step of pushes: what got a 201 is whole on every node", slow=True)
def kill_anywhere():
    rng = random.Random(20261123)
    with Cluster() as cluster:
        acknowledged = []
        for round in range(15):
            victim = cluster.nodes[round % 3]
            timer = threading.Timer(rng.uniform(0.0, 0.35), victim.kill)
            pushers = [threading.Thread(target=push_images, args=(node, round, acknowledged)) for node in cluster.nodes]
            timer.start()
            for thread in pushers:
                thread.start()
            for thread in [timer, *pushers]:
                thread.join()
            victim.start()
            cluster.wait_ready()
        check(len(acknowledged) > 15, f"only {len(acknowledged)} pushes were acknowledged")
        for node in cluster.nodes:
            for name, image in acknowledged:
                whole(node.registry(), name, image)


def push_images(node, round, acknowledged):
    """A few images through one node; remembers those whose manifest got its 201."""
    registry, name = node.registry(timeout=40), f"team/app{round}"
    for _ in range(5):
        try:
            acknowledged.append((name, registry.image(name, f"n{node.id}", layers=3)))
        except (Unexpected, Broken, OSError):
            return


@scenario("deletes-off", "with deletes disabled every DELETE is 405 and everything stays (K01)")
def deletes_off():
    with Cluster(1, "[registry]\ndeletes_enabled = false\n") as cluster:
        registry = cluster.registry()
        image = registry.image("team/app", "v1")
        for target in ("manifests/v1", f"manifests/{image.digest}", f"blobs/{sha256(image.config)}"):
            expect(registry.request("DELETE", f"/v2/team/app/{target}"), 405, code="UNSUPPORTED")
        whole(registry, "team/app", image, "v1")


@scenario("truncated", "bodies cut off through every node never become blobs, and the nodes stay well")
def truncated():
    with Cluster() as cluster:
        data = os.urandom(1 << 20)
        for node in cluster.nodes:
            registry = node.registry()
            target = registry.start("team/app")
            for cut in (0, 1, 65_536, 999_999):
                with registry.client.connect() as connection:
                    head = f"PUT {target}{'&' if '?' in target else '?'}digest={sha256(data)} HTTP/1.1\r\nHost: x\r\n"
                    connection.send(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data[:cut])
                    connection.abort()
        for node in cluster.nodes:
            node.registry().absent("team/app", sha256(data))
            image = node.registry().image("team/app", "v1")
            whole(node.registry(), "team/app", image, "v1")


@scenario("foreign-blob", "a manifest that names a blob of another repository is refused on every node")
def foreign_blob():
    with Cluster() as cluster:
        first, second, third = (node.registry() for node in cluster.nodes)
        layer, config = os.urandom(1000), os.urandom(100)
        first.push_blob("team/one", layer)
        second.push_blob("team/two", config)
        body = encode({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(OCI_CONFIG, config),
                       "layers": [descriptor(OCI_LAYER, layer)]})
        for registry in (first, second, third):
            expect(registry.put_manifest("team/two", "v1", body), 400, 404, code="MANIFEST_BLOB_UNKNOWN")
        expect(third.request("POST", f"/v2/team/two/blobs/uploads/?mount={sha256(layer)}&from=team/one"), 201)
        expect(second.put_manifest("team/two", "v1", body), 201)
