"""Several tags in one push, while the leader dies (F-99)."""

import random
import statistics
import threading
import time

from harness.cluster import Cluster
from harness.http_raw import Broken
from harness.registry import check, expect
from operating import status
from scenarios import scenario


@scenario("tags-atomic", "a PUT of ten tags, the leader killed in the middle, 20 times: all or none (F-99)", slow=True)
def tags_atomic():
    kill_the_leader(20)


@scenario("tags-atomic-200", "the same 200 times", thorough=True)
def tags_atomic_often():
    kill_the_leader(200)


def kill_the_leader(rounds):
    rng = random.Random(99)
    with Cluster() as cluster:
        image = cluster.registry().image("team/app", "base")
        usual = usual_seconds(cluster, image)
        outcomes = {"acknowledged": 0, "all without an answer": 0, "none": 0}
        for round in range(rounds):
            leader = status(cluster.nodes[round % 3])["leader"]
            victim, writer = cluster.nodes[leader - 1], cluster.nodes[(leader + round) % 3]
            tags = [f"r{round:03}-{number}" for number in range(10)]
            timer = threading.Timer(rng.uniform(0.0, 1.5 * usual), victim.kill)
            timer.start()
            answer = put_tags(writer, image, tags)
            timer.join()
            victim.start()
            cluster.wait_ready()
            outcomes[seen_everywhere(cluster, round, tags, answer)] += 1
        print(f"      {outcomes}", flush=True)


def usual_seconds(cluster, image):
    """How long such a push takes when nobody dies."""
    took = []
    for number in range(9):
        started = time.monotonic()
        answer = put_tags(cluster.nodes[number % 3], image, [f"w{number}-{one}" for one in range(10)])
        check(answer == 201, f"a push of ten tags gave {answer}")
        took.append(time.monotonic() - started)
    return statistics.median(took)


def put_tags(node, image, tags):
    """The status, or None without an answer."""
    query = "&".join(f"tag={tag}" for tag in tags)
    try:
        return node.registry(timeout=40).put_manifest("team/app", f"{image.digest}?{query}", image.body).status
    except (Broken, OSError):
        return None


def seen_everywhere(cluster, round, tags, answer):
    """All of the tags or none of them, and the same on every node."""
    found = []
    for node in cluster.nodes:
        have = [tag for tag in node.registry().tag_names("team/app", f"last=r{round:03}&n=10") if tag in tags]
        check(have in ([], tags), f"round {round}: {len(have)} of 10 tags on node {node.id}")
        found.append(have)
    check(all(have == found[0] for have in found), f"round {round}: {[len(have) for have in found]} tags on the nodes")
    if found[0]:
        for tag in tags:
            expect(cluster.registry().manifest("team/app", tag, "HEAD"), 200)
    check(answer != 201 or found[0], f"round {round}: 201, but no tags")
    if answer == 201:
        return "acknowledged"
    return "all without an answer" if found[0] else "none"
