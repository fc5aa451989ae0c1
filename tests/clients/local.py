"""deploy/local/up and down, as the README's first command. Other scenarios run copies of the programs: these build anew."""

import contextlib
import os
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path

from harness.cluster import build_directory, free_ports
from harness.http_raw import Client
from harness.registry import Registry, check, expect
from harness.shell import run
from scenarios import scenario

LOCAL = Path(__file__).resolve().parents[2] / "deploy/local"
# A build that has to be made takes minutes; "in seconds", with room for a machine that does other things.
SOON_SECONDS = 30


def port_base(nodes):
    """A base whose ports are free."""
    for _ in range(50):
        base = free_ports(1)[0]
        if base > 60_000:
            continue
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in (base + offset + number for number in range(1, nodes + 1) for offset in (0, 100)):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return base
    raise AssertionError("no free ports")


class Local:
    """A cluster that `up` starts with these options; stopped and removed at the end."""

    def __init__(self, nodes, *options):
        self.nodes, self.options = range(1, nodes + 1), options
        self.directory, self.base = Path(tempfile.mkdtemp(prefix="argosy-local-")), port_base(nodes)
        self.urls = [f"http://127.0.0.1:{self.base + number}" for number in self.nodes]
        self.registry = Registry(Client(self.urls))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        run(LOCAL / "down", "--dir", self.directory, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def up(self, *options, check=True):
        return run(LOCAL / "up", *self.options, "--dir", self.directory, "--port-base", self.base, *options, check=check,
                   seconds=3000)

    def up_again(self, *options):
        """With nothing changed since the last time: no build."""
        started = time.monotonic()
        self.up(*options)
        took = time.monotonic() - started
        print(f"      up with nothing changed: {took:.1f} s", flush=True)
        check(took < SOON_SECONDS, f"up with nothing changed took {took:.0f} s")

    def down(self):
        run(LOCAL / "down", "--dir", self.directory)
        for url in self.urls:
            check(not answers(url), f"{url} still answers after down")

    def pids(self):
        return [int((self.directory / f"node-{number}/pid").read_text()) for number in self.nodes]

    def check_said(self, said):
        """What `up` prints: every address, and things to try of which one is tried."""
        for url in self.urls:
            check(url in said, f"{url} is not among what it printed:\n{said}")
        check("docker push" in said and "docker pull" in said, f"no things to try in:\n{said}")
        tried = next(line for line in said.splitlines() if "clusterctl" in line)
        status = run("bash", "-c", tried)
        listed = [line for line in status.splitlines() if f":{self.base + 100}" in line or "127.0.0.1" in line]
        check(len(listed) >= len(self.nodes), f"{tried.strip()} printed:\n{status}")

    def check_image(self, image):
        """Every node serves the image."""
        for url in self.urls:
            response = expect(Registry(Client([url])).manifest("team/app", "v1"), 200)
            check(response.body == image.body, f"{url} has other bytes")

    def check_program(self, profile):
        """Every node runs the program of that build."""
        wanted = (build_directory() / profile / "argosy").resolve()
        for pid in self.pids():
            runs = Path(f"/proc/{pid}/exe").resolve()
            check(runs == wanted, f"a node runs {runs}, not {wanted}")


def answers(url):
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@scenario("local", "deploy/local/up and down: ready, the data survives, killed nodes come back, bad wishes are refused")
def local():
    with Local(3, "--debug") as one:
        one.check_said(one.up())
        one.check_program("debug")
        image, pids = one.registry.image("team/app", "v1"), one.pids()
        one.up_again()
        check(one.pids() == pids, "a second up with nothing changed restarted nodes")
        os.kill(pids[1], signal.SIGKILL)
        one.up_again()
        check([one.pids()[0], one.pids()[2]] == [pids[0], pids[2]], "an up restarted nodes that ran")
        one.check_image(image)
        one.down()
        refused(one)
        one.up_again()
        one.check_image(image)


@scenario("local-one", "deploy/local/up --nodes 1: one node without members, the data survives, it stays one node")
def local_one():
    with Local(1, "--debug", "--nodes", "1") as one:
        one.check_said(one.up())
        check(not (one.directory / "node-2").exists(), "there is a second node")
        check("members" not in (one.directory / "node-1/config.toml").read_text(), "its configuration names members")
        image, pids = one.registry.image("team/app", "v1"), one.pids()
        one.up_again()
        check(one.pids() == pids, "a second up with nothing changed restarted the node")
        other = one.up("--nodes", "3", check=False)
        check(other.returncode != 0 and "1 nodes" in other.stderr, f"--nodes 3 said {other.stderr[-300:]}")
        check(one.pids() == pids, "a refused up restarted the node")
        os.kill(pids[0], signal.SIGKILL)
        one.up_again()
        one.check_image(image)
        one.down()
        one.up_again()
        one.check_image(image)


@scenario("local-release", "deploy/local/up without options and with --release: the optimised build, here made if it is missing; "
          "--debug takes over its data", thorough=True)
def local_release():
    with Local(3) as one:
        one.check_said(one.up())
        one.check_program("release")
        image, pids = one.registry.image("team/app", "v1"), one.pids()
        one.up_again("--release")
        check(one.pids() == pids, "a second up with nothing changed restarted nodes")
        one.down()
        one.up_again("--release")
        one.check_image(image)
        one.up("--debug")
        one.check_program("debug")
        one.check_image(image)


def refused(one):
    """A taken port, another number of nodes, nonsense: each a clear refusal that starts nothing."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", one.base + 2))
        holder.listen()
        taken = one.up(check=False)
        check(taken.returncode != 0 and f"port {one.base + 2} is taken" in taken.stderr, f"said {taken.stderr[-300:]}")
    for options, word in ((("--nodes", "5"), "3 nodes"), (("--nodes", "0"), "--nodes"), (("--nodes", "x"), "--nodes"),
                          (("--colour",), "--colour")):
        other = one.up(*options, check=False)
        check(other.returncode != 0 and word in other.stderr, f"{options} said {other.stderr[-300:]}")
    for url in one.urls:
        check(not answers(url), "a refused up left a node running")
