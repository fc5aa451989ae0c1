"""Three nodes behind HAProxy in round robin, without affinity, from the shipped configuration."""

import contextlib
import csv
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from drivers import Buildah, Docker, Podman, Skopeo, Umoci, client
from harness.cluster import Cluster, free_ports, wait_for
from harness.http_raw import Broken, Client
from harness.images import layout_digest, tar_of, write_layout
from harness.registry import Registry, Unexpected, check, expect, in_parallel, sha256
from harness.shell import run
from scenarios import scenario
from tools import pulled

SHIPPED = Path(__file__).resolve().parents[2] / "deploy/haproxy.cfg"
UPLOADS = 1000


def configuration(cluster, port, socket_path):
    """The shipped file with this test's addresses, a header that names the node that served, and a socket for counts."""
    text = SHIPPED.read_text()
    for number, node in enumerate(cluster.nodes, 1):
        text, count = re.subn(rf"server node{number} \S+", f"server node{number} {node.host}", text)
        check(count == 1, f"deploy/haproxy.cfg has no server node{number}")
    text, count = re.subn(r"bind :5000", f"bind 127.0.0.1:{port}", text)
    check(count == 1, "deploy/haproxy.cfg does not bind :5000")
    text, count = re.subn(r"(?m)^global$", f"global\n    stats socket {socket_path}", text)
    check(count == 1, "deploy/haproxy.cfg has no global section")
    return text.replace("    default_backend nodes\n",
                        "    default_backend nodes\n    http-response set-header X-Served-By %[srv_name]\n")


@dataclass
class Balancer:
    """A running HAProxy."""

    url: str
    socket_path: str

    @property
    def host(self):
        return self.url.removeprefix("http://")

    def requests(self):
        """How many requests each node has got from it, by its name; health checks do not count."""
        with socket.socket(socket.AF_UNIX) as stats:
            stats.connect(self.socket_path)
            stats.sendall(b"show stat\n")
            table = b"".join(iter(lambda: stats.recv(1 << 16), b"")).decode()
        rows = csv.DictReader(table.removeprefix("# ").splitlines())
        return {row["svname"]: int(row["stot"]) for row in rows if row["svname"].startswith("node")}


@contextlib.contextmanager
def balancer(cluster):
    """HAProxy in front of the cluster."""
    with tempfile.TemporaryDirectory(prefix="argosy-haproxy-") as directory:
        port, = free_ports(1)
        path = Path(directory) / "haproxy.cfg"
        path.write_text(configuration(cluster, port, f"{directory}/stats"))
        run("haproxy", "-c", "-q", "-f", path)
        with open(Path(directory) / "log", "wb") as log:
            process = subprocess.Popen(["haproxy", "-db", "-f", path], stdout=log, stderr=log)
        one = Balancer(f"http://127.0.0.1:{port}", f"{directory}/stats")
        try:
            wait_for(lambda: len(served_by(one.url)) == len(cluster.nodes), "every node behind HAProxy", 20)
            yield one
        finally:
            process.terminate()
            process.wait(10)


def served_by(url):
    return {Client([url]).request("GET", "/v2/").header("X-Served-By") for _ in range(6)}


@scenario("balanced-uploads", f"{UPLOADS} uploads whose POST, PATCHes and PUT each land on another node", slow=True)
def balanced_uploads():
    with Cluster() as cluster, balancer(cluster) as front:
        proxied, name, pushed = Registry(Client([front.url])), "team/app", {}
        for number in range(UPLOADS):
            data = os.urandom(600 + number)
            start = expect(proxied.request("POST", f"/v2/{name}/blobs/uploads/"), 202)
            one = expect(proxied.patch(start.location(), data[:200], "0-199"), 202)
            two = expect(proxied.patch(one.location(), data[200:400], "200-399"), 202)
            put = expect(proxied.finish(two.location(), sha256(data), data[400:]), 201)
            nodes = [answer.header("X-Served-By") for answer in (start, one, two, put)]
            check(all(before != after for before, after in zip(nodes, nodes[1:])), f"upload {number} went {nodes}")
            pushed[sha256(data)] = data
        direct = cluster.registry()
        in_parallel(lambda item: direct.holds(name, *item), pushed.items(), threads=8)


@scenario("balanced-pushes", "25 pushes at once of images that share layers, through the balancer", slow=True)
def balanced_pushes():
    with Cluster() as cluster, balancer(cluster) as front, client(Skopeo) as one:
        shared = [tar_of({f"shared-{number}": os.urandom(700_000)}) for number in range(3)]
        layouts = [one.fresh("layout") for _ in range(25)]
        digests = [write_layout(path, [*shared, tar_of({"own": os.urandom(50_000)})]) for path in layouts]

        def push(number):
            run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layouts[number]}:v1",
                f"docker://{front.host}/team/app{number % 5}:v{number}")

        in_parallel(push, range(25), threads=25)
        for number, digest in enumerate(digests):
            copied, node = one.fresh("pulled"), cluster.nodes[number % 3]
            run("skopeo", "copy", "--src-tls-verify=false", f"docker://{node.host}/team/app{number % 5}:v{number}",
                f"oci:{copied}:v1")
            check(layout_digest(copied) == digest, f"push {number} came back as another image")


@scenario("balanced-clients", "docker, podman, buildah, skopeo and umoci push and pull through the balancer, their requests on "
          "all nodes (C09)", slow=True)
def balanced_clients():
    with Cluster() as cluster, balancer(cluster) as front:
        for kind in (Docker, Podman, Buildah, Skopeo, Umoci):
            with client(kind) as one:
                image, reference = one.make(), f"{front.host}/team/{kind.__name__.lower()}:v1"
                spread(front, f"the push of {kind.__name__}", lambda: one.push(image, reference))
                spread(front, f"the pull of {kind.__name__}", lambda: pulled(one, image, reference))


def spread(front, what, function):
    """Does it, and insists that each node got some of its requests."""
    before = front.requests()
    function()
    got = {name: count - before[name] for name, count in front.requests().items()}
    check(len(got) == 3 and all(got.values()), f"{what} sent its requests to {got}")


BEHAVIOURS = Path(__file__).resolve().parents[1] / "behaviours/run.py"


@scenario("balanced-behaviours", "the black-box behaviours through the balancer, as through one node (C09)", slow=True)
def balanced_behaviours():
    with Cluster() as cluster, balancer(cluster) as front:
        before = front.requests()
        said = run(BEHAVIOURS, "--endpoint", front.url, "--failures", seconds=900)
        got = {name: count - before[name] for name, count in front.requests().items()}
        print(f"      {said.splitlines()[-1]}; requests {got}", flush=True)
        check(min(got.values()) > 100, f"the requests went to {got}")


class Traffic:
    """Pushes and pulls in several threads; remembers what failed, and when the work it belongs to began."""

    def __init__(self, url, threads):
        self.url, self.stopping = url, threading.Event()
        self.done, self.failures = [], []
        self.threads = [threading.Thread(target=self.work, args=(number,)) for number in range(threads)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def work(self, number):
        registry = Registry(Client([self.url], timeout=40))
        name, known = f"team/worker{number}", None
        while not self.stopping.is_set():
            data = os.urandom(20_000)
            if self.attempt("upload", lambda: self.upload(registry, name, data)):
                known = data
            if known is not None:
                self.attempt("pull", lambda: registry.holds(name, sha256(known), known))
            self.attempt("image", lambda: registry.image(name, "latest"))

    def upload(self, registry, name, data):
        start = expect(registry.request("POST", f"/v2/{name}/blobs/uploads/"), 202)
        patched = expect(registry.patch(start.location(), data[:9000], "0-8999"), 202)
        expect(registry.finish(patched.location(), sha256(data), data[9000:]), 201)

    def attempt(self, what, function):
        started = time.monotonic()
        try:
            function()
        except (Unexpected, Broken, OSError) as error:
            self.failures.append((what, started, time.monotonic(), str(error)))
            return False
        self.done.append((what, started, time.monotonic()))
        return True


@scenario("balanced-kill", "one node killed under load: only work in flight at that moment may fail", slow=True)
def balanced_kill():
    with Cluster() as cluster, balancer(cluster) as front:
        for node in cluster.nodes:
            with Traffic(front.url, threads=6) as traffic:
                time.sleep(3)
                alive = time.monotonic()
                node.kill()
                dead = time.monotonic()
                time.sleep(6)
                node.start()
                node.wait_ready()
                time.sleep(2)
            late = [failure for failure in traffic.failures if failure[1] > dead or failure[2] < alive]
            check(not late, f"node {node.id}: {len(late)} failures of work that was not in flight: {late[:3]}")
            check(len(traffic.failures) <= 6, f"{len(traffic.failures)} failures for 6 threads")
            after = [one for one in traffic.done if one[1] > dead]
            check(len(after) > 20, f"only {len(after)} pieces of work after the kill")
