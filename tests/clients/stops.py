"""Stopping a node on purpose: nobody notices."""

import os
import threading
import time

from harness.cluster import Cluster
from harness.http_raw import Broken, build_head, with_query
from harness.registry import OCTETS, check, expect, sha256
from operating import status
from scenarios import scenario

BLOB_BYTES = 32 << 20


@scenario("graceful-stop", "SIGTERM: readiness goes off, transfers in flight end whole, exit code 0")
def graceful_stop():
    with Cluster() as cluster:
        for node in cluster.nodes:
            registry, data = node.registry(), os.urandom(BLOB_BYTES)
            digest = registry.push_blob("team/app", data)
            upload = with_query(registry.start("team/app"), f"digest={sha256(data + b'!')}")
            codes = []
            with registry.client.connect() as download, registry.client.connect() as push:
                download.send(build_head("GET", f"/v2/team/app/blobs/{digest}", "x"))
                headers = {**OCTETS, "Content-Length": str(len(data) + 1)}
                push.send(build_head("PUT", upload, "x", headers) + data[:1000])
                time.sleep(0.5)
                stopper = threading.Thread(target=lambda: codes.append(node.stop()))
                stopper.start()
                time.sleep(0.5)
                check(not_ready(node), "a stopping node still says that it is ready")
                push.send(data[1000:] + b"!")
                expect(push.read("PUT"), 201)
                check(download.read().body == data, "the download was cut off")
            stopper.join()
            check(codes == [0], f"exit codes {codes}")
            for other in cluster.nodes:
                if other is not node:
                    other.registry().holds("team/app", sha256(data + b"!"), data + b"!")
            node.start()
            node.wait_ready()


@scenario("stop-alone", "SIGTERM of a leader whose peers are dead: it does not wait for them")
def stop_alone():
    with Cluster() as cluster:
        for first in (0, 1):
            survivor, others = cluster.nodes[first], cluster.nodes[:first] + cluster.nodes[first + 1:]
            lead(cluster, survivor)
            for node in others:
                node.kill()
            code = survivor.stop()
            check(code == 0, f"exit code {code}")
            check("was not taken over in time" not in survivor.log.read_text(), "it waited for peers that are dead")
            cluster.start()


def lead(cluster, wanted):
    """Makes this node the leader by restarting those that are."""
    for _ in range(30):
        leader = status(wanted)["leader"]
        if leader == wanted.id:
            return
        if leader is not None:
            cluster.nodes[leader - 1].restart()
            cluster.wait_ready()
    check(False, f"node {wanted.id} never led")


def not_ready(node):
    """503, or not even listening any more."""
    try:
        return node.registry(timeout=5).request("GET", "/readyz").status == 503
    except (Broken, OSError):
        return True


@scenario("rolling-restart", "nodes restarted one by one under load: nothing fails through the others", slow=True)
def rolling_restart():
    with Cluster() as cluster:
        for node in cluster.nodes:
            others = [one for one in cluster.nodes if one is not node]
            failures, stopping = [], threading.Event()

            def push(one):
                while not stopping.is_set():
                    try:
                        one.registry().image(f"team/app{one.id}", "latest")
                    except Exception as error:  # Collected: a thread cannot fail the scenario itself.
                        failures.append(f"through node {one.id}: {error}")

            threads = [threading.Thread(target=push, args=(one,)) for one in others]
            for thread in threads:
                thread.start()
            time.sleep(1)
            code = node.stop()
            node.start()
            node.wait_ready()
            stopping.set()
            for thread in threads:
                thread.join()
            check(code == 0, f"exit code {code}")
            check(not failures, f"{len(failures)} failures while node {node.id} restarted: {failures[:2]}")
