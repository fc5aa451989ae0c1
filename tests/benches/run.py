#!/usr/bin/env python3
"""Measures one-node and three-node Argosy against Debian's docker-registry, on the same disk, in the same run.

Prints each figure and its ratio to docker-registry. The parts `commits`, `gc`, `repair`, `tending` and `cost` measure
Argosy against itself, each with a cluster of its own (tending.py). Nothing here passes or fails by time: a shared machine is no
stopwatch, only the ratio within one run says something.
"""

import argparse
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

import tending
from servers import start_argosy, start_peer

MIB = 1 << 20
PARTS = ["small", "reads", "large"]


class Bench:
    def __init__(self, options):
        self.options, self.seed, self.pulled = options, int(time.time()) % 100_000, {}
        self.load_binary = os.path.join(options.binaries, "load")

    def load(self, server, scenario, **keys):
        """Runs one scenario; returns operations and bytes a second and the server's CPU nanoseconds a byte."""
        self.seed += 1
        keys = {"endpoints": ",".join(server.endpoints), "seed": self.seed, **keys}
        before = server.cpu_seconds()
        arguments = [f"{key}={value}" for key, value in keys.items()]
        done = subprocess.run([self.load_binary, scenario, *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{server.name}: {done.stderr.strip()}; logs in {server.home}")
        result = json.loads(done.stdout)
        cpu = server.cpu_seconds() - before
        seconds = max(result["seconds"], 1e-9)
        return {
            "ops": result["operations"] / seconds,
            "mbs": result["bytes"] / seconds / 1e6,
            "cpu": cpu / result["bytes"] * 1e9 if result["bytes"] else None,
            "p50": result["p50_ms"], "p99": result["p99_ms"],
            "cpu_op": cpu / max(result["operations"], 1) * 1e6,
        }

    def row(self, title, unit, values):
        cells = []
        for name, value in values.items():
            ratio = value / values["docker-registry"] if values.get("docker-registry") else float("nan")
            cells.append(f"{name} {value:,.2f} ({ratio:.2f}x)")
        print(f"{title:44} {unit:10} " + "   ".join(cells), flush=True)

    def measure(self, servers, title, unit, figure, scenario, cpu=False, **keys):
        results = {server.name: self.load(server, scenario, **keys) for server in servers}
        self.row(title, unit, {name: result[figure] for name, result in results.items()})
        if cpu:
            self.row(f"  {title}: CPU", "ns/byte", {name: result["cpu"] for name, result in results.items()})

    def large(self, servers):
        size = self.options.size_mib * MIB
        for clients in self.options.clients:
            count = max(clients, 4)
            self.measure(servers, f"push {self.options.size_mib} MiB, {clients} clients", "MB/s", "mbs", "push",
                         cpu=True, clients=clients, count=count, size=size)
        for clients in self.options.clients:
            results = {}
            for server in servers:
                digest = self.push_one(server, size)
                results[server.name] = self.load(server, "pull", clients=clients, count=max(2 * clients, 8),
                                                 path=f"/v2/bench/pull/blobs/{digest}")
            title = f"pull {self.options.size_mib} MiB, {clients} clients"
            self.row(title, "MB/s", {name: result["mbs"] for name, result in results.items()})
            self.row(f"  {title}: CPU", "ns/byte", {name: result["cpu"] for name, result in results.items()})

    def push_one(self, server, size):
        """The digest of a blob on `server` that is there to be pulled."""
        if server.name not in self.pulled:
            body = os.urandom(size)
            digest = "sha256:" + hashlib.sha256(body).hexdigest()
            push_bytes(server.endpoints[0], "bench/pull", digest, body)
            self.pulled[server.name] = digest
        return self.pulled[server.name]

    def small(self, servers):
        for clients in (8, 32):
            self.measure(servers, f"images of 5 x 64 KiB layers, {clients} clients", "images/s", "ops", "images",
                         clients=clients, count=self.options.images, size=65536, repository=f"bench/images{clients}")
        self.measure(servers, "mounts, 8 clients", "1/s", "ops", "mounts", clients=8, count=400)
        self.measure(servers, "manifest deletes, 8 clients", "1/s", "ops", "deletes", clients=8, count=400,
                     repository="bench/deletes")

    def reads(self, servers):
        accept = "application/vnd.docker.distribution.manifest.v2+json"
        for server in servers:
            self.load(server, "tags", clients=16, count=self.options.tags, repository="bench/tags")
            self.load(server, "repositories", clients=16, count=self.options.repositories, repository="bench/many")
        digests = {server.name: head_digest(server.endpoints[0], "bench/tags", "tag-000000") for server in servers}
        slow, fast = self.options.gets // 10, self.options.gets
        for title, reference in (("tag", None), ("digest", digests)):
            results = {}
            for server in servers:
                name = reference[server.name] if reference else "tag-000000"
                results[server.name] = self.load(server, "manifests", clients=32, accept=accept,
                                                 count=slow if server.name == "docker-registry" else fast,
                                                 path=f"/v2/bench/tags/manifests/{name}")["ops"]
            self.row(f"manifest GET by {title}, 32 clients", "1/s", results)
        for title, path in (("tag list, 10,000 tags" if self.options.tags == 10_000 else "tag list", "/v2/bench/tags/tags/list?n=1000"),
                            ("catalog page", "/v2/_catalog?n=1000")):
            results = {}
            for server in servers:
                count = 20 if server.name == "docker-registry" else 4000
                results[server.name] = self.load(server, "list", clients=8, count=count, path=path)["ops"]
            self.row(title, "1/s", results)


def push_bytes(endpoint, repository, digest, body):
    host, port = endpoint.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=120)
    connection.request("POST", f"/v2/{repository}/blobs/uploads/", headers={"Content-Length": "0"})
    answer = connection.getresponse()
    answer.read()
    location = answer.headers["Location"]
    location = location[location.index("/v2/"):]
    sign = "&" if "?" in location else "?"
    connection.request("PUT", f"{location}{sign}digest={digest}", body=body,
                       headers={"Content-Type": "application/octet-stream"})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 201:
        sys.exit(f"push to {endpoint}: {answer.status} {text[:200]}")


def head_digest(endpoint, repository, tag):
    request = urllib.request.Request(
        f"http://{endpoint}/v2/{repository}/manifests/{tag}", method="HEAD",
        headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers["Docker-Content-Digest"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", required=True, help="directory of argosy and load")
    parser.add_argument("--dir", default=None, help="where the servers keep their data (default: a temporary directory)")
    parser.add_argument("--only", type=lambda text: text.split(","), action="extend", metavar="PART[,PART]",
                        help=f"leave out the others of: {', '.join([*PARTS, *tending.PARTS])}")
    parser.add_argument("--all", action="store_true",
                        help=f"take every part; without it and --only these: {', '.join(PARTS)}")
    parser.add_argument("--nodes", default="0,1,3", help="0: docker-registry; 1, 3: Argosy of that many nodes")
    parser.add_argument("--size-mib", type=int, default=256)
    parser.add_argument("--clients", type=lambda text: [int(part) for part in text.split(",")], default=[1, 8, 32])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--tags", type=int, default=10_000)
    parser.add_argument("--repositories", type=int, default=2_000)
    parser.add_argument("--gets", type=int, default=100_000)
    parser.add_argument("--state-images", type=int, default=200_000, help="images of the state of the part `cost`")
    options = parser.parse_args()
    parts = [*PARTS, *tending.PARTS] if options.all else options.only or PARTS
    unknown = [part for part in parts if part not in (*PARTS, *tending.PARTS)]
    if unknown:
        parser.error(f"no part is called {', '.join(unknown)}")
    bench = Bench(options)
    for part in parts:
        if part in tending.PARTS:
            tending.PARTS[part](bench)
    if any(part in PARTS for part in parts):
        compare(bench, options, [part for part in parts if part in PARTS])


def compare(bench, options, parts):
    """Argosy and docker-registry, side by side."""
    home = tempfile.mkdtemp(prefix="argosy-bench-", dir=options.dir)
    servers = []
    try:
        for nodes in options.nodes.split(","):
            where = os.path.join(home, nodes)
            servers.append(start_peer(where) if nodes == "0" else
                           start_argosy(where, os.path.join(options.binaries, "argosy"), int(nodes)))
        bench.row("start until ready", "s", {server.name: server.start_seconds for server in servers})
        time.sleep(2)
        bench.row("memory idle", "MiB", {server.name: server.memory_mib("VmRSS") for server in servers})
        for part in parts:
            getattr(bench, part)(servers)
        bench.row("memory at its peak", "MiB", {server.name: server.memory_mib("VmHWM") for server in servers})
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
