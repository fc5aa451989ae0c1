"""The quorum is lost for good: one node goes on as another cluster, and what is lost is listed."""

import json
import shutil

from faults import whole
from harness.cluster import Cluster, binary, wait_for
from harness.registry import check, sha256
from harness.shell import run
from healing import blob_files
from operating import WAITING, clusterctl, complete, status
from scenarios import scenario

SETTINGS = "[repair]\ninterval_ms = 200\ncheck_interval_ms = 500\n"
BLOB_BYTES = 300_000


def recover(node, *lost):
    return run(binary(), "recover", "--config", str(node.directory / "config.toml"), "--without", ",".join(lost), check=False)


@scenario("recover", "two of three disks are lost: the third goes on alone, lists what is lost, and grows again")
def recovered():
    with Cluster(5, SETTINGS, start=False) as cluster:
        first, second, third, *new = cluster.nodes
        configure(cluster, first, second, third)
        for node in (first, second, third):
            node.start()
        cluster.wait_ready()
        images = {f"v{number}": cluster.registry().image("team/app", f"v{number}", layers=2) for number in range(5)}
        wait_for(lambda: complete(first, 3), "three copies of every blob", 60)
        lost = bytes(BLOB_BYTES)
        digest = second.registry().push_blob("team/app", lost)
        old_name = status(first)["cluster_id"]
        check("in use" in recover(first, "2", "3").stderr or recover(first, "2", "3").returncode == 1, "while it runs")
        for node in (second, third, first):
            node.stop()
        # Nobody but the lost nodes has this one.
        for path in blob_files(first):
            if path.name == sha256(lost).split(":")[1]:
                path.unlink()
        shutil.rmtree(third.directory / "data")
        wrong = recover(first, "2")
        check(wrong.returncode == 1 and "the other voters are 2,3" in wrong.stderr, f"{wrong}")
        done = recover(first, "2", "3")
        check(done.returncode == 0 and "clusterctl member remove 2 --force" in done.stdout, f"{done}")
        check(recover(first, "2", "3").returncode == 0, "it cannot be repeated")
        first.start()
        first.wait_ready()
        check(status(first)["cluster_id"] != old_name, "the old cluster has its name still")
        for tag, image in images.items():
            whole(first.registry(), "team/app", image, tag)
        images["after"] = first.registry().image("team/app", "after")
        # The other one was not that lost: it finds no cluster of its own any more.
        second.start()
        second.wait_answers()
        check(second.registry().request("GET", "/readyz").status == 503, "a node of the old cluster is ready")
        second.stop()
        wait_for(lambda: status(first)["nodes"][0]["ready"], "node 1 is ready", 30)
        given_up = []
        for node in (2, 3):
            wait_for(lambda: removed(first, node, given_up), f"node {node} is removed", 30)
        lost_blobs = {blob["digest"] for blob in given_up if blob["copies"] == 0}
        check(lost_blobs == {digest}, f"given up: {given_up}")
        # Pushed again, it is whole again.
        first.registry().push_blob("team/app", lost)
        for node in new:
            node.start()
            node.wait_answers()
            clusterctl(first, "member", "add", f"{node.id}={node.grpc}")
        wait_for(lambda: complete(first, 3), "three copies of everything", 60)
        for node in (first, *new):
            for tag, image in images.items():
                whole(node.registry(), "team/app", image, tag)
            node.registry().holds("team/app", digest, lost)
        clusterctl(first, "check")


def configure(cluster, *members):
    """The first nodes form a cluster, the others wait to be added."""
    listed = "".join(f'    {{ id = {node.id}, grpc = "{node.grpc}" }},\n' for node in members)
    for node in cluster.nodes:
        text = cluster.configuration(node, "").split("[cluster]")[0]
        members_text = f"[cluster]\nmembers = [\n{listed}]\n\n" if node in members else WAITING + "\n"
        (node.directory / "config.toml").write_text(text + members_text + SETTINGS)


def removed(asked, node, given_up):
    said = clusterctl(asked, "--output", "json", "member", "remove", str(node), "--force", check=False)
    if said.returncode == 0:
        given_up.extend(json.loads(said.stdout)["given_up"])
    return said.returncode == 0
