"""What looking after itself costs Argosy: group commit, collection, repair, and what clients feel of them.

Each part has a cluster of its own and measures it against itself, or against the same disk without a registry.
"""

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from servers import start_argosy

MIB = 1 << 20
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
# Log time of a tenth of a second.
TICKS = "[raft]\ntick_ms = 100\n"
# Clients of each kind while others work: few, so that a queue of their own is not what is measured.
CLIENTS = 2
FOREGROUND_SECONDS = 15

# A disk whose syncs take some milliseconds, as those of clouds and of spinning disks do: every sync of a process waits.
SLOW_SYNC_MS = 4
SLOW_SYNC = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
static int slowly(const char *name, int file) {
    usleep(%d * 1000);
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(file);
}
int fsync(int file) { return slowly("fsync", file); }
int fdatasync(int file) { return slowly("fdatasync", file); }
"""


@contextlib.contextmanager
def argosy(bench, nodes, settings=""):
    home = tempfile.mkdtemp(prefix="argosy-bench-", dir=bench.options.dir)
    server = start_argosy(os.path.join(home, "nodes"), os.path.join(bench.options.binaries, "argosy"), nodes, settings)
    try:
        time.sleep(2)
        yield server
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


def ask(bench, server, *arguments, nodes=None):
    """What clusterctl says, as JSON, of the nodes that are asked: all, unless numbers from 0 are given."""
    asked = server.grpc if nodes is None else [server.grpc[node] for node in nodes]
    command = [os.path.join(bench.options.binaries, "clusterctl"), "--endpoints", ",".join(asked), "--output", "json"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"clusterctl {' '.join(arguments)}: {done.stderr.strip()}; logs in {server.home}")
    return json.loads(done.stdout) if done.stdout.lstrip().startswith(("{", "[")) else done.stdout


def until(condition, what, seconds=300, pause=0.2):
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            sys.exit(f"never: {what}")
        time.sleep(pause)
    return time.monotonic() - started


def say(title, text):
    print(f"{title:44} {text}", flush=True)


def files_below(directory):
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield os.path.join(folder, name), os.stat(os.path.join(folder, name))


def allocated_mib(directory):
    return sum(stat.st_blocks for _, stat in files_below(directory)) * 512 / MIB


def blob_files(server, node):
    """Paths and lengths of the blobs of a node (from 0) that are files, without the trash and the quarantine."""
    found = files_below(f"{server.home}/data-{node + 1}/blobs/sha256")
    return [(path, stat.st_size) for path, stat in found if len(os.path.basename(path)) == 64]


@contextlib.contextmanager
def slow_syncs(bench, milliseconds):
    """Processes started meanwhile wait so long at every sync."""
    if not milliseconds:
        yield
        return
    with tempfile.TemporaryDirectory(dir=bench.options.dir) as home:
        library = os.path.join(home, "slow_sync.so")
        subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", library, "-ldl"],
                       input=SLOW_SYNC % milliseconds, text=True, check=True)
        os.environ["LD_PRELOAD"] = library
        try:
            yield
        finally:
            os.environ.pop("LD_PRELOAD", None)


def commits(bench):
    """How many small pushes share a sync of the log, on this disk and on one whose syncs take longer."""
    for nodes, milliseconds in ((1, 0), (3, 0), (1, SLOW_SYNC_MS), (3, SLOW_SYNC_MS)):
        with slow_syncs(bench, milliseconds), argosy(bench, nodes) as server:
            disk = f", syncs {milliseconds} ms longer" if milliseconds else ""
            bench.load(server, "push", clients=8, count=200, size=4096)
            one = bench.load(server, "push", clients=1, count=300, size=4096)
            many = bench.load(server, "push", clients=64, count=6400, size=4096)
            say(f"push of 4 KiB, {nodes} nodes, 1 and 64 clients{disk}",
                f"{one['ops']:,.0f}/s and {many['ops']:,.0f}/s: {many['ops'] / one['ops']:.1f}x "
                f"(p99 {one['p99']:.1f} and {many['p99']:.1f} ms)")


def digests_of_tags(server, repository, tags):
    host, port = server.endpoints[0].split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    for tag in tags:
        connection.request("HEAD", f"/v2/{repository}/manifests/{tag}", headers={"Accept": MANIFEST})
        answer = connection.getresponse()
        answer.read()
        yield answer.headers["Docker-Content-Digest"]


def delete_images(server, repository, count):
    host, port = server.endpoints[0].split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    for digest in digests_of_tags(server, repository, [f"image-{number}" for number in range(count)]):
        connection.request("DELETE", f"/v2/{repository}/manifests/{digest}")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 202:
            sys.exit(f"DELETE {digest}: {answer.status}")


def gc(bench):
    """Rounds and time from the end of the grace until the disk has its space back."""
    grace_ms, images = 3000, 1000
    settings = (f"{TICKS}[gc]\nenabled = false\ninterval_ms = 1000\ngrace_ms = {grace_ms}\nundelete_ms = 0\n"
                "quarantine_ms = 0\n[storage]\ntrash_ttl_ms = 0\n")
    with argosy(bench, 1, settings) as server:
        data = f"{server.home}/data-1/blobs"
        empty = allocated_mib(data)
        bench.load(server, "images", clients=16, count=images, size=160 * 1024, repository="bench/gc")
        full = allocated_mib(data)
        delete_images(server, "bench/gc", images)
        time.sleep(grace_ms / 1000 + 1)
        before = ask(bench, server, "status")
        started, rounds = time.monotonic(), []
        while len(rounds) < 5 and sum(done["deleted_blobs"] for done in rounds) < images * 6:
            rounds.append(ask(bench, server, "gc", "run"))
        decided = time.monotonic() - started
        entries = applied(ask(bench, server, "status")) - applied(before)
        until(lambda: allocated_mib(data) - empty <= (full - empty) / 100, "the space back")
        seconds = time.monotonic() - started
        freed = (full - allocated_mib(data)) / (full - empty)
        say(f"delete of {images} images, {full - empty:,.0f} MiB",
            f"{sum(done['deleted_blobs'] for done in rounds)} blobs deleted by {len(rounds)} round(s) after the grace in "
            f"{decided:.1f} s, {entries} log entries with ticks; {freed:.1%} of the space back after {seconds:.1f} s")


def applied(status):
    return max(node.get("applied_index") or 0 for node in status["nodes"])


def copy_speed(bench, sources, parallel):
    """Bytes a second of plain copies of these files, each synced, so many at once."""
    home = tempfile.mkdtemp(prefix="argosy-copy-", dir=bench.options.dir)
    left, lock = list(enumerate(sources)), threading.Lock()
    copied_bytes = sum(os.path.getsize(path) for path in sources)

    def work():
        while True:
            with lock:
                if not left:
                    return
                number, path = left.pop()
            with open(path, "rb", buffering=0) as file, open(os.path.join(home, str(number)), "wb", buffering=0) as copy:
                while piece := file.read(MIB):
                    copy.write(piece)
                os.fsync(copy.fileno())

    os.sync()
    started = time.monotonic()
    workers = [threading.Thread(target=work) for _ in range(parallel)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.monotonic() - started
    shutil.rmtree(home)
    return copied_bytes / seconds


def small_files(directory, count, size):
    """The paths of new files."""
    paths = [os.path.join(directory, str(number)) for number in range(count)]
    for path in paths:
        with open(path, "wb") as file:
            file.write(os.urandom(size))
    return paths


def repair(bench):
    """Making the copies of one lost node of four again, compared with plain copies of as many bytes on this disk."""
    settings = (f"{TICKS}[repair]\ninterval_ms = 500\nsuspect_after_ms = 1000\ndown_after_ms = 2000\n"
                "trim_delay_ms = 86400000\n[replication]\ncopies = 3\nwrite_copies = 2\n")
    for count, size in ((192, 16 * MIB), (4000, 16 * 1024)):
        with argosy(bench, 4, settings) as server:
            bench.load(server, "push", clients=8, count=count, size=size)

            def missing(nodes):
                return max(node["missing_copies"] for node in ask(bench, server, "repair", "status", nodes=nodes)["nodes"])

            until(lambda: missing(None) == 0, "three copies of each")
            repaired = [node["repaired"] + node["adopted"] for node in ask(bench, server, "repair", "status")["nodes"]]
            with tempfile.TemporaryDirectory(prefix="argosy-source-", dir=bench.options.dir) as directory:
                # Blobs of up to 128 KiB are no files of their own.
                held = [path for path, _ in blob_files(server, 3)] or small_files(directory, count * 3 // 4, size)
                speed = copy_speed(bench, held, 12)
            server.kill(3)
            rest = [0, 1, 2]
            until(lambda: missing(rest) > 0, "the node down", 60, 0.05)
            lost = missing(rest)
            indexes = applied(ask(bench, server, "status", nodes=rest))
            until(lambda: missing(rest) < lost, "the first copy", 60, 0.1)
            begun, first = time.monotonic(), missing(rest)
            until(lambda: missing(rest) == 0, "all copies", 300, 0.1)
            seconds = max(time.monotonic() - begun, 0.001)
            entries = applied(ask(bench, server, "status", nodes=rest)) - indexes
            rate = first * size / seconds
            say(f"repair of {lost} copies of {size // 1024:,} KiB",
                f"{rate / 1e6:,.0f} MB/s, {first / seconds:,.0f} copies/s; plain copies {speed / 1e6:,.0f} MB/s: "
                f"{rate / speed:.0%}; {entries / max(lost, 1):.1f} log entries a copy (before: {sum(repaired)} repaired)")


def foreground(bench, server, path):
    """Pulls and pushes at the same time for a while; 99 of 100 of each took no longer than this, in milliseconds."""
    results = {}

    def run(name, scenario, **keys):
        results[name] = bench.load(server, scenario, clients=CLIENTS, seconds=FOREGROUND_SECONDS, **keys)

    kinds = [threading.Thread(target=run, args=("pull", "pull"), kwargs={"count": 10_000_000, "path": path}),
             threading.Thread(target=run, args=("push", "push"), kwargs={"count": 6000, "size": 65536})]
    for kind in kinds:
        kind.start()
        time.sleep(0.1)  # Each takes a seed of its own.
    for kind in kinds:
        kind.join()
    return results


def pushed_layer(server, repository):
    """The path of a layer that `images` pushed."""
    host, port = server.endpoints[0].split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.request("GET", f"/v2/{repository}/manifests/image-0", headers={"Accept": MANIFEST})
    manifest = json.loads(connection.getresponse().read())
    return f"/v2/{repository}/blobs/{manifest['layers'][0]['digest']}"


def tending(bench):
    """What clients feel while one node gets all its copies again, every node scrubs, and garbage is collected."""
    settings = (f"{TICKS}[gc]\ninterval_ms = 1000\ngrace_ms = 10000\nundelete_ms = 0\nquarantine_ms = 0\n"
                "verify_interval_ms = 1000\n[storage]\ntrash_ttl_ms = 0\n[repair]\ncheck_interval_ms = 1000\n")
    quiet = settings.replace("[gc]\n", "[gc]\nenabled = false\n").replace("check_interval_ms = 1000\n", "")
    for title, chosen in (("quiet", quiet), ("tended", settings)):
        with argosy(bench, 3, chosen) as server:
            bench.load(server, "images", clients=2, count=30, size=4 * MIB, repository="bench/kept")
            bench.load(server, "images", clients=4, count=200, size=160 * 1024, repository="bench/gone")
            path = pushed_layer(server, "bench/kept")

            def missing():
                return max(node["missing_copies"] for node in ask(bench, server, "repair", "status")["nodes"])

            until(lambda: missing() == 0, "three copies of each")
            if title == "quiet":
                without = foreground(bench, server, path)
                continue
            delete_images(server, "bench/gone", 200)
            lost = blob_files(server, 2)
            for file, _ in lost:
                with contextlib.suppress(FileNotFoundError):
                    os.remove(file)
            ask(bench, server, "scrub", "start")
            until(lambda: missing() > 0, "the loss is seen", 60, 0.05)
            start = missing()
            during = foreground(bench, server, path)
            end = missing()
            rounds = ask(bench, server, "gc", "status")["collected"]
            say("tended meanwhile", f"missing copies {start} at the start, {end} at the end of {FOREGROUND_SECONDS} s; "
                f"{len(lost)} files lost; {rounds['blobs']} blobs collected")
    for name in ("pull", "push"):
        before, after = without[name], during[name]
        say(f"{name}, p99 without and with", f"{before['p99']:.1f} and {after['p99']:.1f} ms: "
            f"{after['p99'] / before['p99']:.2f}x; {before['ops']:,.0f} and {after['ops']:,.0f}/s")


def cost(bench):
    """Collecting a hundredth of a large state, and as much of one a tenth as large."""
    command = [os.path.join(bench.options.binaries, "collect"), "--images", str(bench.options.state_images)]
    if bench.options.dir:
        command += ["--dir", bench.options.dir]
    if subprocess.run(command).returncode != 0:
        sys.exit("collect failed")


PARTS = {"commits": commits, "gc": gc, "repair": repair, "tending": tending, "cost": cost}
