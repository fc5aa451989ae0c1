"""Real `argosy` processes on loopback, each test with its own, stopped by what started them."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .http_raw import Broken, Client
from .registry import Registry, check

READY_SECONDS = 60
STOP_SECONDS = 40
PROGRAMS = ("argosy", "clusterctl")
# What a healthy node never prints, whatever happens to its peers.
FORBIDDEN = ("panicked at", "fatal runtime error", "pthread lock: Invalid argument")


def build_directory():
    """Where `cargo build` puts what it makes."""
    return Path(os.environ.get("CARGO_TARGET_DIR") or os.path.expanduser("~/.cache/argosy/target"))


def binary(name="argosy"):
    """The program under test: ARGOSY_BIN_DIR, or where `cargo build` puts it."""
    path = Path(os.environ.get("ARGOSY_BIN_DIR") or build_directory() / "debug") / name
    check(path.exists(), f"{path} does not exist; build it, or set ARGOSY_BIN_DIR")
    return str(path)


@contextlib.contextmanager
def own_copies():
    """Without ARGOSY_BIN_DIR: copies of the programs until the end, as a test that builds replaces those of `cargo build`."""
    if os.environ.get("ARGOSY_BIN_DIR"):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="argosy-programs-") as directory:
        for name in PROGRAMS:
            shutil.copy(binary(name), directory)
        os.environ["ARGOSY_BIN_DIR"] = directory
        yield


def free_ports(count):
    """Distinct free ports on loopback; held together so that none is named twice."""
    holders = [socket.socket() for _ in range(count)]
    try:
        for holder in holders:
            holder.bind(("127.0.0.1", 0))
        return [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()


def wait_for(condition, what, seconds):
    """Asks until true; the last error is part of the complaint."""
    deadline, last = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except (Broken, OSError, AssertionError) as error:
            last = f" ({error})"
        time.sleep(0.05)
    raise AssertionError(f"{what}: not after {seconds} s{last}")


class Node:
    """One process with its directory and ports; both stay the same over restarts."""

    def __init__(self, id, directory, http_port, grpc_port):
        self.id, self.directory = id, Path(directory)
        self.url = f"http://127.0.0.1:{http_port}"
        self.host = f"127.0.0.1:{http_port}"
        self.grpc = f"127.0.0.1:{grpc_port}"
        self.process = None
        self.wrapper = []
        self.environment = {}

    @property
    def log(self):
        return self.directory / "log"

    def start(self):
        check(self.process is None, f"node {self.id} runs already")
        command = [*self.wrapper, binary(), "serve", "--config", str(self.directory / "config.toml")]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd=self.directory, env={**os.environ, **self.environment})

    def ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"node {self.id} exited with {self.process.returncode}:\n{self.tail()}")
        return Client([self.url], timeout=5).request("GET", "/readyz").status == 200

    def wait_ready(self, seconds=READY_SECONDS):
        wait_for(self.ready, f"node {self.id} ready", seconds)

    def wait_answers(self, seconds=20):
        """It runs and answers, though it may belong to no cluster yet."""
        wait_for(lambda: self.registry().request("GET", "/healthz").status == 200, f"node {self.id} answers", seconds)

    def stop(self):
        """SIGTERM, as an operator would; returns the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self):
        return self._end(signal.SIGKILL)

    def _end(self, number):
        process, self.process = self.process, None
        if process is None:
            return None
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"node {self.id} did not stop within {STOP_SECONDS} s") from None

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def restart(self):
        self.stop()
        self.start()

    def registry(self, timeout=60):
        """A driver that speaks to this node only."""
        return Registry(Client([self.url], timeout))

    def forbidden_lines(self):
        """What the node must not have logged, named by node."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return [f"node {self.id}: {line}" for line in text.splitlines() if any(word in line for word in FORBIDDEN)]

    def show_end(self):
        """A node that ended by itself says in its log why: the first thing to know of a test that failed."""
        if self.process is not None and self.process.poll() is not None:
            end = self.tail(12).replace("\n", "\n        ")
            print(f"      node {self.id} ended by itself with {self.process.returncode}:\n        {end}", flush=True)

    def tail(self, lines=25):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Cluster:
    """Some nodes that are one registry. Use it with `with`; logs are kept when the test fails."""

    def __init__(self, nodes=3, settings="", members=True, start=True):
        """`settings` is TOML for every node; without `members` no node knows of the others."""
        self.starts_itself = start
        self.members = members and nodes > 1
        self.directory = Path(tempfile.mkdtemp(prefix="argosy-test-"))
        ports = free_ports(2 * nodes)
        self.nodes = [Node(number + 1, self.directory / f"node-{number + 1}", ports[2 * number], ports[2 * number + 1])
                      for number in range(nodes)]
        for node in self.nodes:
            (node.directory / "data").mkdir(parents=True)
            (node.directory / "config.toml").write_text(self.configuration(node, settings))

    def configuration(self, node, settings):
        text = (f'[node]\nid = {node.id}\ndata_dir = "{node.directory}/data"\n\n'
                f'[http]\nlisten = "{node.host}"\n\n[grpc]\nlisten = "{node.grpc}"\n\n')
        if self.members:
            members = "".join(f'    {{ id = {one.id}, grpc = "{one.grpc}" }},\n' for one in self.nodes)
            text += f"[cluster]\nmembers = [\n{members}]\n\n"
        return text + settings

    def start(self):
        for node in self.nodes:
            node.start()
        self.wait_ready()

    def wait_ready(self):
        for node in self.running():
            node.wait_ready()

    def running(self):
        return [node for node in self.nodes if node.process is not None]

    def registry(self, timeout=60):
        """A driver that goes round robin over the nodes that run."""
        return Registry(Client([node.url for node in self.running()], timeout))

    def __enter__(self):
        try:
            if self.starts_itself:
                self.start()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, _value, _traceback):
        self.kill(kind is not None)
        broken = [line for node in self.nodes for line in node.forbidden_lines()]
        if kind is not None or broken:
            self.keep_logs()
        shutil.rmtree(self.directory, ignore_errors=True)
        if kind is None and broken:
            raise AssertionError("; ".join(broken))

    def kill(self, has_failed):
        """How nodes stop in order is what some scenarios are about; at the end it would only cost time."""
        for node in self.nodes:
            if has_failed:
                node.show_end()
            node.kill()

    def keep_logs(self):
        """Copies the logs to where they outlive the test."""
        keep = Path(os.environ.get("ARGOSY_TEST_LOGS") or tempfile.gettempdir()) / f"kept-{self.directory.name}"
        keep.mkdir(parents=True, exist_ok=True)
        for node in self.nodes:
            if node.log.exists():
                shutil.copy(node.log, keep / f"node-{node.id}.log")
        print(f"      the nodes' logs are kept in {keep}", flush=True)
