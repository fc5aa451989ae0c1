"""What an operator does: status, init, growing from one node, checking a configuration."""

import json
import os
import shutil
import subprocess
import tempfile

from faults import whole
from harness.cluster import Cluster, binary, wait_for
from harness.registry import check, expect
from harness.shell import run
from scenarios import scenario

WAITING = "[cluster]\nwait_for_init = true\n"


def clusterctl(node, *arguments, **named):
    return run(binary("clusterctl"), "--endpoints", node.grpc, *arguments, **named)


def status(node):
    return json.loads(clusterctl(node, "--output", "json", "status"))


def complete(node, copies):
    """Every blob has all the copies it should have."""
    facts = status(node)
    return facts["missing_copies"] == 0 and facts["copies"] == copies


@scenario("status", "clusterctl status: nodes, leader, totals and missing copies, as a table and as JSON")
def show_status():
    with Cluster() as cluster:
        first, second, third = cluster.nodes
        image = cluster.registry().image("team/app", "v1", layers=2)
        cluster.registry().push_manifest("team/app", "v2", image.body)
        wait_for(lambda: complete(first, 3), "three copies of every blob", 30)
        facts = status(second)
        check([node["id"] for node in facts["nodes"]] == [1, 2, 3], f"nodes {facts['nodes']}")
        check(all(node["reachable"] and node["ready"] for node in facts["nodes"]), f"nodes {facts['nodes']}")
        check(facts["leader"] in (1, 2, 3), f"leader {facts['leader']}")
        roles = sorted(node["role"] for node in facts["nodes"])
        check(roles == ["follower", "follower", "leader"], f"roles {roles}")
        totals = {name: facts[name] for name in ("repositories", "tags", "manifests", "blobs", "write_copies")}
        wanted = {"repositories": 1, "tags": 2, "manifests": 1, "blobs": 3, "write_copies": 2}
        check(totals == wanted, f"totals {totals}")
        table = clusterctl(first, "status")
        check(all(node.grpc in table for node in cluster.nodes), f"the table lacks a node:\n{table}")
        third.kill()
        wait_for(lambda: not status(first)["nodes"][2]["reachable"], "node 3 shown as unreachable", 20)
        silent = clusterctl(third, "status", check=False)
        check(silent.returncode == 3 and silent.stderr, f"exit code {silent.returncode} for a node that is dead")


@scenario("init", "nodes that wait for clusterctl init become a cluster, once")
def initialise():
    with Cluster(3, WAITING, members=False, start=False) as cluster:
        for node in cluster.nodes:
            node.start()
        first = cluster.nodes[0]
        first.wait_answers()
        check(first.registry().request("GET", "/readyz").status == 503, "ready before it was initialised")
        members = [f"--member={node.id}={node.grpc}" for node in cluster.nodes]
        clusterctl(first, "init", *members)
        cluster.wait_ready()
        image = cluster.registry().image("team/app", "v1")
        for node in cluster.nodes:
            whole(node.registry(), "team/app", image, "v1")
        again = clusterctl(first, "init", *members, check=False)
        check(again.returncode == 1 and again.stderr, f"a second init gave {again.returncode}")


@scenario("grow", "one node grows into a cluster of three, and nothing has to be pushed again")
def grow():
    with Cluster(3, members=False, start=False) as cluster:
        first, *others = cluster.nodes
        for node in others:
            with open(node.directory / "config.toml", "a") as file:
                file.write(WAITING)
        first.start()
        first.wait_ready()
        images = [first.registry().image("team/app", f"v{number}", layers=2) for number in range(5)]
        for node in others:
            node.start()
            node.wait_answers()
            said = clusterctl(first, "member", "add", f"{node.id}={node.grpc}")
            check("serves" in said, f"member add said {said!r}")
            # Not a moment later: success means that the node serves.
            expect(node.registry().request("GET", "/readyz"), 200)
            for number, image in enumerate(images):
                whole(node.registry(), "team/app", image, f"v{number}")
        for node in cluster.nodes:
            for number, image in enumerate(images):
                whole(node.registry(), "team/app", image, f"v{number}")
        wait_for(lambda: complete(others[0], 3), "three copies of what was there before", 60)
        first.kill()
        for node in others:
            for number, image in enumerate(images):
                whole(node.registry(), "team/app", image, f"v{number}")
        cluster.registry().image("team/app", "after")
        # The first node knows nobody to ask; those who know it call.
        shutil.rmtree(first.directory / "data")
        (first.directory / "data").mkdir()
        first.start()
        wait_for(lambda: first.process.poll() is not None, "node 1 without its disk refused", 30)
        code = first.process.returncode
        check(code == 1 and "replace the node" in first.tail(), f"{code}:\n{first.tail()}")
        first.kill()
        for node in others:
            whole(node.registry(), "team/app", images[0], "v0")


@scenario("member-add-late", "member add of a node that does not come: an error that says how far it is")
def member_add_late():
    with Cluster(2, members=False, start=False) as cluster:
        first, second = cluster.nodes
        with open(second.directory / "config.toml", "a") as file:
            file.write(WAITING)
        first.start()
        first.wait_ready()
        add = ("member", "add", f"{second.id}={second.grpc}", "--timeout", "4")
        late = clusterctl(first, *add, check=False)
        check(late.returncode == 1 and "does not answer" in late.stderr, f"{late.returncode}: {late.stderr!r}")
        first.registry().image("team/app", "v1")
        # The same again once the node runs.
        second.start()
        second.wait_answers()
        clusterctl(first, *add[:-1], "60")
        expect(second.registry().manifest("team/app", "v1"), 200)


@scenario("member-add-wrong", "member add with a wrong address, a node of another cluster, or twice at once: refused, nothing changes")
def member_add_wrong():
    with Cluster(2, members=False) as cluster:
        first, second = cluster.nodes
        for address, number, words in ((first.grpc, 9, "another node is meant"), (second.grpc, 9, "another node is meant"),
                                       (second.grpc, 2, "belongs to another cluster")):
            said = clusterctl(first, "member", "add", f"{number}={address}", check=False)
            check(said.returncode == 1 and f"node {number} is not at {address}: " in said.stderr, f"{said}")
            check(words in said.stderr, f"{said}")
        with subprocess.Popen([binary("clusterctl"), "--endpoints", first.grpc, "member", "add", "7=127.0.0.1:9"],
                              stderr=subprocess.PIPE, text=True) as waiting:
            check("node 7 does not answer" in waiting.stderr.readline(), "member add does not say what it waits for")
            second_one = clusterctl(first, "member", "add", "8=127.0.0.1:9", check=False)
            waiting.kill()
        check(second_one.returncode == 1 and "another membership change is under way" in second_one.stderr, f"{second_one}")
        check(len(status(first)["nodes"]) == 1, f"members {status(first)['nodes']}")
        for node in cluster.nodes:
            node.registry().image("team/app", "v1")


@scenario("members-differ", "a member that is configured with another list is refused and says why")
def members_differ():
    with Cluster(3, start=False) as cluster:
        first, second, third = cluster.nodes
        good = (third.directory / "config.toml").read_text()
        other = good.replace("members = [\n", 'members = [\n    { id = 4, grpc = "127.0.0.1:1" },\n')
        (third.directory / "config.toml").write_text(other)
        for node in (first, second):
            node.start()
            node.wait_answers()
        wait_for(lambda: f"3={third.grpc}" in first.tail(), "the log says who does not answer", 20)
        check(first.registry().request("GET", "/readyz").status == 503, "two of three formed a cluster by themselves")
        clusterctl(first, "init", *[f"--member={node.id}={node.grpc}" for node in cluster.nodes])
        cluster.wait_ready()
        third.start()
        wait_for(lambda: third.process.poll() is not None, "node 3 refused", 30)
        code = third.process.returncode
        check(code == 1 and "configured with other members" in third.tail(), f"{code}:\n{third.tail()}")
        third.kill()
        (third.directory / "config.toml").write_text(good)
        third.start()
        cluster.wait_ready()
        cluster.registry().image("team/app", "v1")


@scenario("config", "argosy config check and show: unknown keys and unsafe choices are refused where they stand")
def configuration():
    with tempfile.TemporaryDirectory(prefix="argosy-config-") as directory:
        path = os.path.join(directory, "config.toml")

        def argosy(text, command="check", **environment):
            with open(path, "w") as file:
                file.write(text)
            return run(binary(), "config", command, "--config", path, check=False, **environment)

        members = "".join(f'{{ id = {number}, grpc = "127.0.0.1:{5100 + number}" }},' for number in (1, 2, 3))
        good = f'[node]\nid = 2\n\n[cluster]\nmembers = [{members}]\n'
        done = argosy(good)
        check(done.returncode == 0, f"a good file was refused: {done.stderr}")
        shown = argosy(good, "show", ARGOSY__RAFT__HEARTBEAT_MS="150")
        check("150" in shown.stdout and "ARGOSY__RAFT__HEARTBEAT_MS" in shown.stdout, f"show said {shown.stdout[:500]}")
        for text, word in (("[node]\nid = 1\ncolour = 2\n", "line 3"), ("[nodes]\nid = 1\n", "line 1"),
                           ("[node\n", "line 1"), ('[node]\nid = "x"\n', "line 2"),
                           (good + "\n[replication]\nwrite_copies = 1\n", "write_copies"),
                           (good + "\n[replication]\nwrite_copies = 3\n", "write_copies"),
                           (good + "\n[replication]\ncopies = 9\n", "copies")):
            refused = argosy(text)
            check(refused.returncode != 0 and word in refused.stderr, f"{text!r} gave {refused.stderr!r}")
        variable = argosy(good, ARGOSY__NODE__COLOUR="x")
        check(variable.returncode != 0 and "ARGOSY__NODE__COLOUR" in variable.stderr, f"it said {variable.stderr!r}")
        serve = run(binary(), "serve", "--config", "/nowhere.toml", check=False)
        check(serve.returncode != 0 and "/nowhere.toml" in serve.stderr, f"serve said {serve.stderr!r}")
