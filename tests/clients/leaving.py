"""Nodes that leave for good: drained and removed while the others serve, dead and removed, refused and forced."""

import json
import os
import random
import shutil
import threading
import time

from faults import whole
from harness.cluster import Cluster, wait_for
from harness.registry import check, sha256
from healing import blob_files
from operating import WAITING, clusterctl, complete, status
from scenarios import scenario

SOON = "[repair]\ninterval_ms = 200\nsuspect_after_ms = 1000\ndown_after_ms = 2000\n"


class Pushes:
    """Pushes images through the given nodes, one after the other, until the end. None may fail, or, when nodes die
    meanwhile, none when it is tried again through the others."""

    def __init__(self, nodes, prefix, attempts=1):
        self.nodes, self.prefix, self.images, self.failures = nodes, prefix, {}, []
        self.attempts = attempts
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.push)

    def push(self):
        number = 0
        while not self.stopped.is_set():
            number += 1
            errors = []
            while len(errors) < self.attempts:
                node, tag = self.nodes[(number + len(errors)) % len(self.nodes)], f"{self.prefix}{number}"
                try:
                    self.images[tag] = node.registry(10).image("team/app", tag, layers=2)
                    break
                except Exception as error:
                    errors.append(f"node {node.id}: {error}")
                    time.sleep(0.5 * (self.attempts > 1))
            else:
                self.failures.append("; ".join(errors))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.stopped.set()
        self.thread.join()
        if kind is None:
            check(not self.failures, f"{len(self.failures)} pushes failed: {self.failures[:3]}")
            check(self.images, "nothing was pushed meanwhile")


def ctl(node, *arguments):
    return json.loads(clusterctl(node, "--output", "json", *arguments))


def members(node):
    return [member["id"] for member in ctl(node, "member", "list")]


def refused(node, words, *arguments):
    """One clear line, the documented exit code."""
    said = clusterctl(node, *arguments, check=False)
    check(said.returncode == 1 and words in said.stderr, f"{arguments}: {said.returncode}, {said.stderr!r}")
    check(len(said.stderr.strip().splitlines()) == 1, f"{arguments} said {said.stderr!r}")


def leader_among(node, *wanted):
    """Has one of these nodes lead."""
    if status(node)["leader"] not in wanted:
        clusterctl(node, "leader", "transfer", str(wanted[0]))
    return status(node)["leader"]


@scenario("member-remove", "a node is drained and removed while pushes go on, and its number and its data are not taken back")
def member_remove():
    with Cluster(4, SOON) as cluster:
        *staying, leaving = cluster.nodes
        first, second, _ = staying
        # The leader removes others, and is removed by the next one.
        clusterctl(first, "leader", "transfer", "4")
        images = {f"v{number}": cluster.registry().image("team/app", f"v{number}", layers=2) for number in range(8)}
        refused(second, "node 4 is up", "member", "remove", "4")
        refused(second, "node 9 does not belong", "member", "remove", "9")
        refused(second, "node 9 does not belong", "member", "drain", "9")
        check(clusterctl(first, "member", "remove", check=False).returncode == 2, "half a command was taken")
        with Pushes(cluster.nodes, "draining") as pushes:
            begun = ctl(second, "member", "drain", "4", "--no-wait")
            check(begun["state"] == "draining", f"{begun}")
            check(ctl(first, "member", "drain", "4", "--undo")["state"] == "up", "a drain was not taken back")
            drained = ctl(second, "member", "drain", "4", "--timeout", "120")
            check(drained["needed_blobs"] == drained["needed_bytes"] == 0, f"{drained}")
        images.update(pushes.images)
        check(members(first) == [1, 2, 3, 4], "drained is not removed")
        with Pushes(staying, "removed") as pushes:
            removed = ctl(leaving, "member", "remove", "4")
            check(removed == {"removed": 4, "given_up_blobs": 0, "given_up": []}, f"{removed}")
            wait_for(lambda: all(members(node) == [1, 2, 3] for node in staying), "three members are left", 20)
            # As whoever was cut off before the answer would.
            again = ctl(first, "member", "remove", "4")
            check(again["given_up_blobs"] == 0, f"again: {again}")
        images.update(pushes.images)
        answer = leaving.registry().request("GET", "/readyz")
        check(answer.status == 503 and b"was removed" in answer.body, f"readiness of node 4: {answer.status} {answer.body}")
        wait_for(lambda: complete(first, 3), "three copies of everything", 60)
        shutil.rmtree(leaving.directory / "data/blobs")
        for tag, image in images.items():
            whole(first.registry(), "team/app", image, tag)
        refused(first, "never used again", "member", "add", f"4={leaving.grpc}")
        leaving.kill()
        for node in staying:
            node.restart()
            node.wait_ready()
        check(members(first) == [1, 2, 3], "a removed member came back with a restart")
        refused(first, "do not survive", "member", "remove", str(drain_one(first)))


def drain_one(node):
    """Drains a node that does not lead."""
    chosen = 3 if leader_among(node, 1, 2) != 3 else 2
    clusterctl(node, "member", "drain", str(chosen))
    return chosen


@scenario("member-votes", "a member without a vote serves and keeps copies; votes are given and taken, the leader's too")
def member_votes():
    with Cluster(5, SOON, members=False, start=False) as cluster:
        first, second, third, fourth, new = cluster.nodes
        grown(cluster, 4)
        new.start()
        new.wait_answers()
        said = ctl(second, "member", "add", "--learner", f"5={new.grpc}")
        check(said == {"added": 5, "role": "learner"}, f"{said}")

        def voters():
            return [member["id"] for member in ctl(first, "member", "list") if member["voter"]]

        check(voters() == [1, 2, 3, 4], f"voters {voters()}")
        images = [new.registry().image("team/app", f"v{number}", layers=3) for number in range(6)]
        wait_for(lambda: complete(first, 3), "three copies of everything", 60)
        check(status(first)["nodes"][4]["blobs"] > 0, "a learner keeps no copies")
        leader = leader_among(first, 2, 3, 4)
        check(ctl(third, "member", "demote", str(leader)) == {"node": leader, "voter": False}, "the leader kept its vote")
        check(voters() == sorted({1, 2, 3, 4} - {leader}), f"voters {voters()}")
        next_one = next(node for node in (4, 3, 2) if node != leader)
        refused(first, "do not survive", "member", "demote", str(next_one))
        refused(first, "node 9 does not belong", "member", "promote", "9")
        ctl(second, "member", "promote", "5")
        check(voters() == sorted({1, 2, 3, 4, 5} - {leader}), f"voters {voters()}")
        for node in cluster.nodes:
            for number, image in enumerate(images):
                whole(node.registry(), "team/app", image, f"v{number}")


def grown(cluster, count):
    """The first nodes form a cluster, and the rest wait to be added."""
    first = cluster.nodes[0]
    for node in cluster.nodes[1:]:
        with open(node.directory / "config.toml", "a") as file:
            file.write("\n" + WAITING)
    first.start()
    first.wait_ready()
    for node in cluster.nodes[1:count]:
        add(first, node)
    return cluster.nodes[:count]


def add(asked, node):
    if node.process is None:
        node.start()
    node.wait_answers()
    clusterctl(asked, "member", "add", f"{node.id}={node.grpc}")


def insist(nodes, *arguments):
    """Types a command again, to one node after the other, until it succeeds: its node or the leader may be gone."""
    deadline, said = time.monotonic() + 120, None
    while time.monotonic() < deadline:
        for node in nodes:
            said = clusterctl(node, *arguments, check=False)
            if said.returncode == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"{arguments}: {said}")


def rounds(count):
    """Three nodes become five and three others again and again, and in each round the leader is killed three times, in
    the middle of an addition, of a drain and of a removal."""
    with Cluster(3 + 2 * count, SOON, members=False, start=False) as cluster:
        grown(cluster, 3)
        present, waiting, images = cluster.nodes[:3], cluster.nodes[3:], {}
        for number in range(count):
            new, waiting = waiting[:2], waiting[2:]
            leaving, staying = present[:2], present[2:] + new
            for node in new:
                node.start()
                node.wait_answers()
            with Pushes(present[2:], f"round{number}-", attempts=40) as pushes:
                for node in new:
                    killed_meanwhile(cluster, present, "member", "add", f"{node.id}={node.grpc}")
                for node in leaving:
                    killed_meanwhile(cluster, staying, "member", "drain", str(node.id))
                    killed_meanwhile(cluster, staying, "member", "remove", str(node.id))
            images.update(pushes.images)
            wanted = sorted(node.id for node in staying)
            for node in staying:
                node.wait_ready()
                wait_for(lambda: sorted(members(node)) == wanted, f"node {node.id} knows the members {wanted}", 30)
            for node in leaving:
                node.kill()
                shutil.rmtree(node.directory / "data")
            present = staying
            wait_for(lambda: complete(present[0], 3), "three copies of everything", 90)
        for node in present:
            for tag, image in images.items():
                whole(node.registry(), "team/app", image, tag)
        clusterctl(present[0], "check")


def killed_meanwhile(cluster, asked, *arguments):
    """Kills the leader while a command runs, starts it again, and types the command until it succeeds."""
    wait_for(lambda: status(asked[0])["leader"], "a leader", 30)
    leader = status(asked[0])["leader"]
    victim = next(node for node in cluster.nodes if node.id == leader)
    command = threading.Thread(target=lambda: clusterctl(asked[-1], *arguments, check=False))
    command.start()
    time.sleep(random.uniform(0, 0.5))
    victim.kill()
    time.sleep(0.5)
    victim.start()
    command.join()
    insist(asked, *arguments)


@scenario("member-rounds", "3 nodes, 5, 3 others, twice, under load, the leader killed in the middle of every command", slow=True)
def member_rounds():
    rounds(2)


@scenario("member-ten-rounds", "the same ten times", slow=True, thorough=True)
def member_ten_rounds():
    rounds(10)


@scenario("member-replace-dead", "a dead node is replaced under load by one with another number, and comes back to nobody")
def member_replace_dead():
    with Cluster(5, SOON, members=False, start=False) as cluster:
        first, second, third, dead, new = cluster.nodes
        grown(cluster, 4)
        images = [first.registry().image("team/app", f"v{number}", layers=2) for number in range(8)]
        leader_among(first, 1, 2, 3)
        dead.kill()
        refused(second, "node 4 is up", "member", "remove", "4")
        new.start()
        new.wait_answers()
        with Pushes([first, second, third], "meanwhile") as pushes:
            replaced = ctl(third, "member", "replace", "4", f"5={new.grpc}")
        check(replaced == {"removed": 4, "given_up_blobs": 0, "given_up": []}, f"{replaced}")
        again = ctl(second, "member", "replace", "4", f"5={new.grpc}")
        check(again == replaced, f"the same again: {again}")
        same = clusterctl(second, "member", "replace", "5", f"5={new.grpc}", check=False)
        check(same.returncode == 2 and "never used again" in same.stderr, f"itself: {same}")
        wait_for(lambda: complete(first, 3), "three copies of everything", 60)
        # It comes back from the repair shop and finds nobody who listens.
        dead.start()
        images = {f"v{number}": image for number, image in enumerate(images)} | pushes.images
        for tag, image in images.items():
            for node in (first, second, third, new):
                whole(node.registry(), "team/app", image, tag)
        wait_for(lambda: b"was removed" in dead.registry().request("GET", "/readyz").body, "node 4 knows what it is", 30)
        check(dead.registry().request("GET", "/readyz").status == 503, "a removed node is ready")
        check(members(first) == [1, 2, 3, 5], f"members {members(first)}")


@scenario("member-remove-force", "a node with the last copies is not removed but by force, which lists what is lost")
def member_remove_force():
    settings = SOON + "check_interval_ms = 500\n\n[replication]\ncopies = 2\nwrite_copies = 2\n"
    with Cluster(4, settings) as cluster:
        *staying, leaving = cluster.nodes
        first = staying[0]
        leader_among(first, 1, 2, 3)
        contents = [os.urandom(300_000) for _ in range(3)]
        digests = sorted(leaving.registry().push_blob("team/app", data) for data in contents)
        kept = first.registry().image("team/app", "kept", layers=2)
        wait_for(lambda: complete(first, 2), "two copies of every blob", 30)
        leaving.kill()
        names = {digest.split(":")[1] for digest in digests}
        lost = [path for node in staying for path in blob_files(node) if path.name in names]
        check(len(lost) == len(names), f"copies outside of node 4: {lost}")
        for path in lost:
            path.unlink()

        def says_how_many():
            said = clusterctl(first, "member", "remove", "4", check=False)
            return "of 3 of them none" in said.stderr

        wait_for(says_how_many, "the last copies keep node 4", 90)
        check(members(first) == [1, 2, 3, 4], "a refused removal changed the members")
        removed = ctl(first, "member", "remove", "4", "--force")
        listed = sorted(blob["digest"] for blob in removed["given_up"] if blob["copies"] == 0)
        check(listed == digests, f"listed {listed}, not {digests}")
        check(members(first) == [1, 2, 3], f"members {members(first)}")
        whole(first.registry(), "team/app", kept, "kept")
        for data in contents:
            first.registry().push_blob("team/app", data)
        for node in staying:
            for data in contents:
                node.registry().holds("team/app", sha256(data), data)
