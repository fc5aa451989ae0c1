"""The registries that are measured: processes on loopback, each with its directory."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

TICKS = os.sysconf("SC_CLK_TCK")



def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Server:
    """A registry of one or more processes."""

    def __init__(self, name, home):
        self.name, self.home, self.processes, self.endpoints, self.grpc = name, home, [], [], []
        self.start_seconds = None
        os.makedirs(home)

    def spawn(self, command):
        log = open(os.path.join(self.home, f"log-{len(self.processes)}"), "w")
        self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=self.home))

    def wait(self, path):
        started = time.monotonic()
        for endpoint in self.endpoints:
            while True:
                try:
                    with urllib.request.urlopen(f"http://{endpoint}{path}", timeout=2) as answer:
                        if answer.status == 200:
                            break
                except OSError:
                    pass
                if time.monotonic() - started > 60:
                    sys.exit(f"{self.name} did not start; see {self.home}")
                time.sleep(0.005)
        self.start_seconds = time.monotonic() - started

    def cpu_seconds(self):
        total = 0
        for process in self.processes:
            fields = open(f"/proc/{process.pid}/stat").read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def memory_mib(self, key):
        """The largest of the processes: VmRSS now, VmHWM at its peak."""
        most = 0
        for process in self.processes:
            for line in open(f"/proc/{process.pid}/status"):
                if line.startswith(key + ":"):
                    most = max(most, int(line.split()[1]))
        return most / 1024

    def kill(self, number):
        self.processes[number].send_signal(signal.SIGKILL)
        self.processes[number].wait()

    def stop(self):
        for number in range(len(self.processes)):
            self.kill(number)
        shutil.rmtree(self.home, ignore_errors=True)


def start_peer(home):
    server = Server("docker-registry", home)
    (port,) = free_ports(1)
    server.endpoints = [f"127.0.0.1:{port}"]
    config = os.path.join(home, "config.yml")
    with open(config, "w") as file:
        file.write(
            "version: 0.1\nlog:\n  accesslog:\n    disabled: true\n  level: error\n"
            f"storage:\n  filesystem:\n    rootdirectory: {home}/data\n  delete:\n    enabled: true\n"
            f"  cache:\n    blobdescriptor: inmemory\nhttp:\n  addr: 127.0.0.1:{port}\n"
        )
    server.spawn(["docker-registry", "serve", config])
    server.wait("/v2/")
    return server


def start_argosy(home, binary, nodes, settings=""):
    """`settings` is TOML for every node."""
    server = Server(f"argosy x{nodes}", home)
    ports = free_ports(2 * nodes)
    members = ",".join(f'{{id={i + 1},grpc="127.0.0.1:{ports[nodes + i]}"}}' for i in range(nodes))
    server.endpoints = [f"127.0.0.1:{ports[i]}" for i in range(nodes)]
    server.grpc = [f"127.0.0.1:{ports[nodes + i]}" for i in range(nodes)]
    for i in range(nodes):
        config = os.path.join(home, f"node-{i + 1}.toml")
        with open(config, "w") as file:
            file.write(
                f'[node]\nid = {i + 1}\ndata_dir = "{home}/data-{i + 1}"\n'
                f'[http]\nlisten = "{server.endpoints[i]}"\n[grpc]\nlisten = "127.0.0.1:{ports[nodes + i]}"\n'
            )
            if nodes > 1:
                file.write(f"[cluster]\nmembers = [{members}]\n")
            file.write(settings)
        server.spawn([binary, "serve", "--config", config])
    server.wait("/readyz")
    return server
