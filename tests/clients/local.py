"""deploy/local/up and down, as the README's first command."""

import contextlib
import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path

from harness.cluster import free_ports
from harness.http_raw import Client
from harness.registry import Registry, check, expect
from harness.shell import run
from scenarios import scenario

LOCAL = Path(__file__).resolve().parents[2] / "deploy/local"


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


def up(directory, base, *options, check=True):
    return run(LOCAL / "up", "--debug", "--dir", directory, "--port-base", base, *options, check=check, seconds=3000)


@scenario("local", "deploy/local/up and down: ready, the data survives, killed nodes come back, bad wishes are refused")
def local():
    directory, base = tempfile.mkdtemp(prefix="argosy-local-"), port_base(3)
    urls = [f"http://127.0.0.1:{base + number}" for number in (1, 2, 3)]
    try:
        said = up(directory, base)
        for url in urls:
            check(url in said, f"{url} is not among what it printed:\n{said}")
        check("docker push" in said and "clusterctl" in said, f"no things to try in:\n{said}")
        tried = next(line for line in said.splitlines() if "clusterctl" in line)
        status = run("bash", "-c", tried)
        check(status, "clusterctl printed nothing")
        registry = Registry(Client(urls))
        image = registry.image("team/app", "v1")
        pids = [int(Path(directory, f"node-{number}/pid").read_text()) for number in (1, 2, 3)]
        up(directory, base)
        same = [int(Path(directory, f"node-{number}/pid").read_text()) for number in (1, 2, 3)]
        check(pids == same, "a second up with nothing changed restarted nodes")
        os.kill(pids[1], signal.SIGKILL)
        up(directory, base)
        check(registry.manifest("team/app", "v1").body == image.body, "other bytes")
        run(LOCAL / "down", "--dir", directory)
        refused(directory, base)
        up(directory, base)
        for url in urls:
            response = expect(Registry(Client([url])).manifest("team/app", "v1"), 200)
            check(response.body == image.body, "the data did not survive down and up")
    finally:
        run(LOCAL / "down", "--dir", directory, check=False)
        shutil.rmtree(directory, ignore_errors=True)


def refused(directory, base):
    """A taken port, another number of nodes, nonsense: each a clear refusal that starts nothing."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", base + 2))
        holder.listen()
        taken = up(directory, base, check=False)
        check(taken.returncode != 0 and f"port {base + 2} is taken" in taken.stderr, f"said {taken.stderr[-300:]}")
    for options, word in ((("--nodes", "5"), "3 nodes"), (("--nodes", "x"), "--nodes"), (("--colour",), "--colour")):
        other = up(directory, base, *options, check=False)
        check(other.returncode != 0 and word in other.stderr, f"{options} said {other.stderr[-300:]}")
    for number in (1, 2, 3):
        with socket.socket() as probe:
            check(probe.connect_ex(("127.0.0.1", base + number)) != 0, "a refused up left a node running")
