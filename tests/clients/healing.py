"""Copies that are lost or rot on the disks of real nodes: pulls go on, and the copies come back."""

import json
import os
import threading
from pathlib import Path

from harness.cluster import Cluster, binary, wait_for
from harness.http_raw import Client
from harness.registry import check, sha256
from harness.shell import run
from scenarios import scenario

SETTINGS = "[repair]\ninterval_ms = 500\ncheck_interval_ms = 3000\n"
BLOB_BYTES = 1 << 20
BLOBS = 24


def clusterctl(cluster, *arguments):
    endpoints = ",".join(node.grpc for node in cluster.nodes)
    return run(binary("clusterctl"), "--endpoints", endpoints, *arguments)


def asked(cluster, *arguments):
    return json.loads(clusterctl(cluster, "--output", "json", *arguments))["nodes"]


def blob_files(node):
    """The blob files of a node, without its quarantine and trash."""
    root = Path(node.directory / "data/blobs")
    kept = (root / "quarantine", root / "trash")
    return [path for path in root.rglob("*") if path.is_file() and len(path.name) == 64
            and not any(one in path.parents for one in kept)]


class Pulls:
    """Pulls every blob again and again from the given nodes, until told to stop."""

    def __init__(self, nodes, blobs):
        self.nodes, self.blobs, self.failures, self.count = nodes, blobs, [], 0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.pull)

    def pull(self):
        while not self.stopped.is_set():
            for node in self.nodes:
                for digest, data in self.blobs.items():
                    try:
                        node.registry().holds("team/app", digest, data)
                        self.count += 1
                    except Exception as error:
                        self.failures.append(f"node {node.id}, {digest}: {error}")

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.stopped.set()
        self.thread.join()
        if kind is None:
            check(not self.failures, f"{len(self.failures)} pulls failed: {self.failures[:3]}")
            check(self.count > 0, "nothing was pulled meanwhile")


def pushed(cluster):
    blobs = [os.urandom(BLOB_BYTES) for _ in range(BLOBS)]
    for data in blobs:
        cluster.registry().push_blob("team/app", data)
    for node in cluster.nodes:
        wait_for(lambda: len(blob_files(node)) == BLOBS, f"node {node.id} holds every blob", 60)
    return {sha256(data): data for data in blobs}


def is_whole(node, blobs):
    files = {path.name: path for path in blob_files(node)}
    return all(files.get(digest.split(":")[1]) is not None
               and files[digest.split(":")[1]].read_bytes() == data for digest, data in blobs.items())


@scenario("heal-lost-files", "the blob files of one node are deleted under load: pulls go on, the copies come back (F-29)")
def lost_files():
    with Cluster(3, SETTINGS) as cluster:
        blobs, victim = pushed(cluster), cluster.nodes[1]
        with Pulls(cluster.nodes, blobs):
            for path in blob_files(victim):
                path.unlink()
            wait_for(lambda: is_whole(victim, blobs), "every copy is back", 90)
        wait_for(lambda: all(one["missing_copies"] == 0 for one in asked(cluster, "repair", "status")),
                 "no copy is missing", 30)
        states = {one["state"] for node in asked(cluster, "repair", "status") for one in node["states"]}
        check(states == {"up"}, f"a node that lost files is not down: {states}")
        compared = [f"node {node.id}: directory compared with the state " for node in cluster.nodes]
        wait_for(lambda: all(words in clusterctl(cluster, "repair", "status") for words in compared),
                 "every node tells of its checks", 30)
        lost = f"node {victim.id}: 0 suspect copies are being read again; since the start {BLOBS} were found damaged or missing"
        wait_for(lambda: lost in clusterctl(cluster, "repair", "status"), "the lost copies are told of", 30)
        page = Client([victim.url]).request("GET", "/metrics")
        check(page.status == 200 and b"argosy_heal_repairs_done" in page.body, f"no metrics: {page}")


@scenario("heal-first-check", "files that go while a node is stopped are missed and made again soon after its start")
def first_check():
    # The next check would come after an hour.
    settings = "[repair]\ninterval_ms = 500\ncheck_first_ms = 2000\n"
    with Cluster(3, settings) as cluster:
        blobs, victim = pushed(cluster), cluster.nodes[2]
        victim.stop()
        for path in blob_files(victim):
            path.unlink()
        victim.start()
        victim.wait_ready()
        wait_for(lambda: is_whole(victim, blobs), "every copy is back", 60)
        counted = asked(cluster, "repair", "status")[2]
        check(counted["checks"] == 1 and counted["next_check_ms"] > 3_000_000, f"more than the first check: {counted}")


@scenario("heal-flipped-bits", "bits flip on all disks but one: no wrong byte, the scrub finds and repairs them (F-27, F-28)")
def flipped_bits():
    with Cluster(3, SETTINGS) as cluster:
        blobs = pushed(cluster)
        for node in cluster.nodes[:2]:
            for path in blob_files(node):
                with open(path, "r+b") as file:
                    file.seek(BLOB_BYTES // 2)
                    byte = file.read(1)[0]
                    file.seek(BLOB_BYTES // 2)
                    file.write(bytes([byte ^ 1]))
        with Pulls(cluster.nodes, blobs):
            clusterctl(cluster, "scrub", "start")
            for node in cluster.nodes[:2]:
                wait_for(lambda: is_whole(node, blobs), f"every copy of node {node.id} is whole", 120)
            wait_for(lambda: all(one["pass"] > 0 and not one["running"] for one in asked(cluster, "scrub", "status")),
                     "every scrub has ended", 60)
        for one in asked(cluster, "scrub", "status"):
            check(not one["unrecoverable"] and not one["damaged_manifests"], f"not repaired: {one}")
        kept = sum(one["quarantine_files"] for one in asked(cluster, "scrub", "status"))
        check(kept == 2 * BLOBS, f"{kept} damaged copies are in quarantine, {2 * BLOBS} were damaged")
        clusterctl(cluster, "scrub", "status")
        clusterctl(cluster, "repair", "status")


@scenario("heal-down-node", "a node that stays away is down: its copies are made elsewhere, and trimmed when it is back",
          slow=True)
def down_node():
    settings = ("[raft]\ntick_ms = 200\n[replication]\ncopies = 3\nwrite_copies = 3\n"
                "[repair]\ninterval_ms = 500\nsuspect_after_ms = 1000\ndown_after_ms = 4000\ntrim_delay_ms = 3000\n")
    with Cluster(5, settings) as cluster:
        for _ in range(12):
            cluster.registry().push_blob("team/app", os.urandom(BLOB_BYTES))
        victim, others = cluster.nodes[4], cluster.nodes[:4]

        def copies(nodes):
            return sum(len(blob_files(node)) for node in nodes)

        wait_for(lambda: copies(cluster.nodes) == 36, "three copies each", 60)
        # A short absence copies nothing.
        held = copies(others)
        victim.stop()
        victim.start()
        victim.wait_ready()
        check(copies(others) == held, "a short absence made copies")
        victim.stop()
        wait_for(lambda: copies(others) == 36, "three copies each on the nodes that are left", 90)
        victim.start()
        victim.wait_ready()
        wait_for(lambda: copies(cluster.nodes) == 36, "no copy too many", 90)
