"""Who leads and who belongs, as an operator asks and decides."""

import json
import subprocess
import tempfile
import time
from pathlib import Path

from faults import whole
from harness.cluster import Cluster, binary, wait_for
from harness.registry import check
from harness.shell import run
from operating import clusterctl, status
from scenarios import scenario


@scenario("leader-transfer", "clusterctl leader transfer: to whom it is asked for, from any node, while pushes go on")
def leader_transfer():
    with Cluster() as cluster:
        first, second, third = cluster.nodes
        registry = cluster.registry()
        for number, (asked, wanted) in enumerate(zip((first, second, third, first), (3, 1, 2, 3))):
            said = clusterctl(asked, "leader", "transfer", str(wanted))
            check(said.strip() == f"node {wanted} leads", f"transfer to {wanted} said {said!r}")
            check(status(asked)["leader"] == wanted, f"leader {status(asked)['leader']}, not {wanted}")
            image = registry.image("team/app", f"v{number}")
            for node in cluster.nodes:
                whole(node.registry(), "team/app", image, f"v{number}")
        again = json.loads(clusterctl(first, "--output", "json", "leader", "transfer", "3"))
        check(again == {"leader": 3}, f"to the one that leads: {again}")
        other = json.loads(clusterctl(third, "--output", "json", "leader", "transfer"))["leader"]
        check(other in (1, 2), f"to anybody else: {other}")
        unknown = clusterctl(first, "leader", "transfer", "9", check=False)
        check(unknown.returncode == 1 and "node 9 has no vote" in unknown.stderr, f"{unknown}")
        typed = clusterctl(first, "leader", "transfer", "0", check=False)
        check(typed.returncode == 2 and len(typed.stderr.strip()) > 0, f"{typed}")
        dead = cluster.nodes[2 - other]
        dead.kill()
        # Before the leader misses it, the transfer begins, and ends in an election.
        time.sleep(4)
        silent = clusterctl(third, "leader", "transfer", str(dead.id), "--timeout", "5", check=False)
        check(silent.returncode == 1 and len(silent.stderr.splitlines()) == 1, f"to a dead node: {silent}")
        check(status(third)["leader"] == other, "a transfer that was refused changed the leader")
        cluster.registry().image("team/app", "after")


@scenario("member-list", "clusterctl member list, status --watch, completions and manual pages")
def member_list():
    with Cluster() as cluster:
        first, _, third = cluster.nodes
        third.kill()
        wait_for(lambda: not status(first)["nodes"][2]["reachable"], "node 3 shown as unreachable", 20)
        members = json.loads(clusterctl(first, "--output", "json", "member", "list"))
        check([member["id"] for member in members] == [1, 2, 3], f"{members}")
        check(all(member["voter"] for member in members), f"{members}")
        check([member["ready"] for member in members] == [True, True, False], f"{members}")
        check(sum(member["leader"] for member in members) == 1, f"{members}")
        table = clusterctl(first, "member", "list")
        check("unreachable" in table and all(node.grpc in table for node in cluster.nodes), table)
        command = [binary("clusterctl"), "--endpoints", first.grpc, "--output", "json", "status", "--watch", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
            looks = [json.loads(watching.stdout.readline()) for _ in range(3)]
            watching.kill()
        check(all(look["cluster_id"] == looks[0]["cluster_id"] for look in looks), f"{looks}")
    for shell in ("bash", "zsh", "fish"):
        check("transfer" in run(binary("clusterctl"), "completions", shell), f"nothing for {shell}")
    with tempfile.TemporaryDirectory() as home:
        script = Path(home) / "clusterctl.bash"
        script.write_text(run(binary("clusterctl"), "completions", "bash"))
        half = 'source "$0"; COMP_WORDS=(clusterctl leader tr); COMP_CWORD=2; COMPREPLY=(); ' \
               '_clusterctl clusterctl tr leader; echo "${COMPREPLY[@]}"'
        completed = run("bash", "-c", half, script).strip()
        check(completed == "transfer", f"`clusterctl leader tr` became {completed!r}")
        run(binary("clusterctl"), "man", "--dir", home)
        pages = sorted(page.name for page in Path(home).glob("*.1"))
        check("clusterctl.1" in pages and "clusterctl-leader-transfer.1" in pages, f"{pages}")
    check(run(binary("clusterctl"), "man").startswith(".ie"), "no manual page")
