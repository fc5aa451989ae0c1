"""Garbage collection with real processes: what nothing needs goes from every disk, and nothing else does."""

import json
import os
import re
from pathlib import Path

from disks import SmallDisks
from faults import whole
from harness.cluster import Cluster, binary, wait_for
from harness.registry import OCI_LAYER, Unexpected, check, descriptor, encode, expect, sha256
from harness.shell import run
from scenarios import scenario

ROOT = Path(__file__).resolve().parent.parent.parent

# Log time of a tenth of a second, and everything due within two.
QUICK = """
[raft]
tick_ms = 100

[gc]
interval_ms = 200
grace_ms = 1000
quarantine_ms = 500
undelete_ms = 1500
verify_interval_ms = 100

[storage]
inline_max_bytes = 1024
"""
# Nothing by itself: only `clusterctl gc run`.
BY_HAND = QUICK.replace("[gc]\n", "[gc]\nenabled = false\n").replace("undelete_ms = 1500", "undelete_ms = 600000")
LAYER_BYTES = 300_000


def clusterctl(node, *arguments, **named):
    return run(binary("clusterctl"), "--endpoints", node.grpc, *arguments, **named)


def ask(node, *arguments):
    return json.loads(clusterctl(node, "--output", "json", *arguments))


def big_image(registry, name, tag):
    """An image with one layer that is a file on every node."""
    image = registry.image(name, layers=0, push=False)
    layer = os.urandom(LAYER_BYTES)
    registry.push_blob(name, layer)
    document = json.loads(image.body)
    document["layers"] = [descriptor(OCI_LAYER, layer)]
    image.body = encode(document)
    image.digest, image.layers = sha256(image.body), [layer]
    registry.push_manifest(name, tag, image.body)
    return image


def blob_file(node, data):
    """The file of a blob, if the node has one; what is in the trash is no blob any more."""
    name = sha256(data)[7:]
    return list((node.directory / "data/blobs/sha256").glob(f"*/{name}"))


def on_every_disk(cluster, data):
    return all(blob_file(node, data) for node in cluster.nodes)


def on_no_disk(cluster, data):
    return not any(blob_file(node, data) for node in cluster.nodes)


def delete(registry, name, image):
    expect(registry.request("DELETE", f"/v2/{name}/manifests/{image.digest}"), 202)


@scenario("gc", "a deleted image goes from the state and from every disk by itself; what shares its layers stays")
def collected():
    with Cluster(3, QUICK) as cluster:
        registry = cluster.registry()
        shared = os.urandom(LAYER_BYTES)
        image, kept = big_image(registry, "team/app", "v1"), big_image(registry, "team/app", "v2")
        registry.push_blob("team/other", shared)
        for data in (image.layers[0], kept.layers[0]):
            wait_for(lambda: on_every_disk(cluster, data), "three files of each layer", 30)
        delete(registry, "team/app", image)
        wait_for(lambda: on_no_disk(cluster, image.layers[0]), "the layer gone from all disks", 60)
        wait_for(lambda: on_no_disk(cluster, shared), "a blob that no manifest ever named gone, too", 60)
        for node in cluster.nodes:
            node.registry().absent("team/app", sha256(image.layers[0]))
            whole(node.registry(), "team/app", kept, "v2")
        collected = ask(cluster.nodes[1], "gc", "status")["collected"]
        wanted = LAYER_BYTES * 2 + len(image.config)
        check(collected["blob_bytes"] >= wanted and collected["blobs"] >= 3, f"collected {collected}")
        check(collected["copy_bytes"] == 3 * collected["blob_bytes"], f"collected {collected}")
        explained = clusterctl(cluster.nodes[2], "gc", "explain", sha256(image.layers[0]))
        check("deleted" in explained, f"explain said {explained}")
        explained = clusterctl(cluster.nodes[2], "gc", "explain", sha256(kept.layers[0]))
        check("tagged v2" in explained and "node 3: has" in explained, f"explain said {explained}")
        explained = clusterctl(cluster.nodes[0], "gc", "explain", image.digest)
        words = ("in team/app: deleted ", " ago by an anonymous client ", "tagged v1; purged ", "cannot be restored")
        check(all(word in explained for word in words), f"explain said {explained}")
        purged = ask(cluster.nodes[1], "gc", "explain", image.digest)["purged"]
        check([(one["repository"], one["tags"], one["deleted_by"]) for one in purged] == [("team/app", ["v1"], "")],
              f"purged {purged}")
        again = registry.push_blob("team/app", image.layers[0])
        registry.holds("team/app", again, image.layers[0])


@scenario("gc-explain-uploads", "gc explain tells of bytes that only an open upload keeps, and on which nodes they are")
def explained_uploads():
    # Three copies or none, so that an upload stays open while one node is away.
    settings = ("[replication]\ncopies = 3\nwrite_copies = 3\nallow_weak_durability = true\ncopies_timeout_ms = 1000\n")
    with Cluster(3, settings) as cluster:
        first, second, third = cluster.nodes
        registry, data = first.registry(), os.urandom(LAYER_BYTES)
        third.stop()
        session = registry.start("team/app")
        expect(registry.finish(session, sha256(data), data), 503)
        told = ask(second, "gc", "explain", sha256(data))
        check(told["blob"] is None and not told["manifests"], f"the cluster knows it already: {told}")
        kinds = {one["id"]: [ticket["kind"] for ticket in one.get("open_tickets", [])] for one in told["nodes"]}
        check(kinds == {1: kinds[1], 2: ["upload"], 3: []}, f"open tickets: {told['nodes']}")
        words = clusterctl(first, "gc", "explain", sha256(data))
        check("node 2: has 292.9 KiB, kept for the open upload ticket " in words and "of node 1, which expires in " in words
              and "node 3: did not answer" in words, f"explain said {words}")
        third.start()
        cluster.wait_ready()
        wait_for(lambda: registry.finish(session, sha256(data), b"").status == 201, "the upload ends", 30)
        told = ask(third, "gc", "explain", sha256(data))
        check(told["blob"]["holders"] == [1, 2, 3], f"counted copies: {told}")
        check(all(one["size_bytes"] == LAYER_BYTES and not one["open_tickets"] for one in told["nodes"]),
              f"copies: {told['nodes']}")


def metrics(node):
    return expect(node.registry().request("GET", "/metrics"), 200).body.decode()


def metric(node, name):
    return float(next(line.split()[1] for line in metrics(node).splitlines() if line.startswith(name + " ")))


@scenario("gc-operator", "gc dry-run, run, pause, resume, explain; tag and manifest restore, asked of any node")
def operated():
    with Cluster(3, BY_HAND) as cluster:
        first, second, third = cluster.nodes
        registry = cluster.registry()
        image = big_image(registry, "team/app", "v1")
        delete(registry, "team/app", image)
        plan = ask(second, "gc", "dry-run")["candidates"]
        check([one["digest"] for one in plan] == [image.digest] and not plan[0]["is_due"], f"dry run {plan}")
        for node in cluster.nodes:
            done = ask(node, "gc", "run")
            check(done["deleted_blobs"] == 0 and done["purged_manifests"] == 0, f"run on node {node.id}: {done}")
        listed = ask(third, "manifest", "list-deleted")
        check([one["digest"] for one in listed] == [image.digest] and listed[0]["tags"] == ["v1"], f"deleted {listed}")
        check(ask(second, "tag", "restore", "team/app", "v1")["is_manifest_restored"], "the manifest did not come back")
        for node in cluster.nodes:
            whole(node.registry(), "team/app", image, "v1")
        history = ask(first, "tag", "history", "team/app", "v1")
        check([bool(one["digest"]) for one in history] == [True, False, True], f"history {history}")
        delete(registry, "team/app", image)
        check(ask(third, "manifest", "restore", "team/app", image.digest)["tags"] == ["v1"], "no tag came back")
        whole(second.registry(), "team/app", image, "v1")

        lone = os.urandom(LAYER_BYTES)
        registry.push_blob("team/app", lone)
        wait_for(lambda: on_every_disk(cluster, lone), "three files of the blob", 30)
        clusterctl(second, "gc", "pause", "--reason", "looking")
        refused = clusterctl(third, "gc", "run", check=False)
        check(refused.returncode == 1 and "looking" in refused.stderr, f"a paused run gave {refused}")
        check("PAUSED: looking" in clusterctl(first, "gc", "status"), "the status does not say that it is paused")
        check(all(metric(node, "argosy_gc_paused") == 1 for node in cluster.nodes), "the metrics do not say it")
        clusterctl(third, "gc", "resume")
        wait_for(lambda: all(metric(node, "argosy_gc_paused") == 0 for node in cluster.nodes), "gone from the metrics", 10)
        documented = re.findall(r"`(argosy_[a-z_]+)", (ROOT / "deploy/README.md").read_text())
        page = metrics(first)
        check(documented and all(f"\n{name}" in page for name in documented), f"not every one of {documented} is told")
        freed = {"deleted_blobs": 0, "blob_bytes": 0, "copy_bytes": 0}

        def run_until_freed():
            done = ask(second, "gc", "run")
            for key in freed:
                freed[key] += done[key]
            return freed["deleted_blobs"] == 1

        wait_for(run_until_freed, "the lone blob deleted", 60)
        check((freed["blob_bytes"], freed["copy_bytes"]) == (LAYER_BYTES, 3 * LAYER_BYTES), f"freed {freed}")
        wait_for(lambda: on_no_disk(cluster, lone), "the blob gone from all disks", 30)
        whole(third.registry(), "team/app", image, "v1")
        unknown = clusterctl(first, "manifest", "restore", "team/app", sha256(b"never"), check=False)
        check(unknown.returncode == 1 and unknown.stderr, f"restoring nothing gave {unknown.returncode}")


@scenario("gc-kills", "nodes killed while images are pushed, deleted and collected: what was kept is whole", slow=True)
def killed():
    with Cluster(3, QUICK) as cluster:
        kept, deleted = [], []
        for round in range(9):
            victim = cluster.nodes[round % 3]
            registry = cluster.nodes[(round + 1) % 3].registry()
            name = f"team/app{round % 2}"
            images = [big_image(registry, name, f"r{round}-{number}") for number in range(3)]
            for image in images[1:]:
                delete(registry, name, image)
                deleted.append(image)
            kept.append((name, f"r{round}-0", images[0]))
            victim.kill()
            other = cluster.nodes[(round + 2) % 3].registry(timeout=40)
            kept.append((name, f"s{round}", big_image(other, name, f"s{round}")))
            victim.start()
            cluster.wait_ready()
        for image in deleted:
            wait_for(lambda: on_no_disk(cluster, image.layers[0]), "deleted layers gone from all disks", 90)
        for node in cluster.nodes:
            for name, tag, image in kept:
                whole(node.registry(), name, image, tag)
        status = ask(cluster.nodes[0], "gc", "status")
        check(status["paused"] is None, f"paused: {status['paused']}")


@scenario("gc-full-disk", "on full disks deletes and collection go on, and pushes work again (F-20, F-65)", slow=True)
def full_disks():
    with SmallDisks(3, QUICK) as cluster:
        registry, operator = cluster.registry(), cluster.nodes[0]
        image = big_image(registry, "team/app", "v1")
        clusterctl(operator, "gc", "pause")
        layers = []
        while len(layers) < 100:
            layers.append(os.urandom(4 << 20))
            try:
                registry.push_blob("team/app", layers[-1])
            except Unexpected:
                break
        check(5 < len(layers) < 100, f"{len(layers)} pushes of 4 MiB until the disks were full")
        delete(registry, "team/app", image)
        clusterctl(operator, "gc", "resume")
        for layer in (image.layers[0], *layers):
            wait_for(lambda: on_no_disk(cluster, layer), "the blobs gone from full disks", 90)
        layer = os.urandom(4 << 20)
        wait_for(lambda: registry.push_blob("team/app", layer), "pushes work again", 60)
