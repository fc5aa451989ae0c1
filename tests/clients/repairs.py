"""What a node that refuses its damaged directory tells its operator to type, typed."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

from damage import repair_commands, run_printed
from faults import whole
from harness.cluster import Cluster, binary, wait_for
from harness.registry import check
from operating import complete, status
from scenarios import scenario


def refuse(node):
    """Damages the log of a stopped node, which then does not start."""
    (node.directory / "data/raft/log/CURRENT").unlink()
    node.start()
    check(node.process.wait(30) == 1, "a damaged node started")
    node.process = None
    check("raft/log/CURRENT" in node.tail(), f"the file is not named:\n{node.tail()}")
    return repair_commands(node)


@scenario("repair-replace", "a damaged node of three is replaced by the very commands it prints")
def replaced():
    with Cluster() as cluster:
        first, _, third = cluster.nodes
        image = cluster.registry().image("team/app", "v1")
        wait_for(lambda: complete(first, 3), "three copies of every blob", 30)
        third.stop()
        commands = refuse(third)
        check(len(commands) == 3, f"commands {commands}")
        path = f"{Path(binary()).parent}:{os.environ['PATH']}"
        with open(third.log, "ab") as log:
            shell = subprocess.Popen(["sh", "-ec", "\n".join(commands)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                     env={**os.environ, "PATH": path}, cwd=third.directory, start_new_session=True)
            try:
                check(shell.wait(120) == 0, f"the commands failed:\n{third.tail()}")
                whole(third.registry(), "team/app", image, "v1")
                members = [(member["id"], member["ready"]) for member in status(first)["nodes"]]
                check(members == [(1, True), (2, True), (4, True)], f"members {members}")
                pushed = third.registry().image("team/app", "v2")
                whole(first.registry(), "team/app", pushed, "v2")
            finally:
                os.killpg(shell.pid, signal.SIGKILL)


@scenario("repair-restore", "a damaged registry of one node comes back from a copy by the very commands it prints")
def restored():
    with Cluster(1) as cluster:
        node, = cluster.nodes
        image = node.registry().image("team/app", "v1")
        node.stop()
        backup = node.directory / "backup"
        shutil.copytree(node.directory / "data", backup, symlinks=True)
        commands = refuse(node)
        run_printed("\n".join(commands).replace("BACKUP", str(backup)))
        node.start()
        node.wait_ready()
        whole(node.registry(), "team/app", image, "v1")
        node.registry().image("team/app", "v2")
