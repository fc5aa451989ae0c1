"""docker, podman, buildah, skopeo and umoci against three nodes, one of which dies."""

import json
import secrets
import subprocess
import time

from drivers import INSECURE, Buildah, Docker, Podman, Skopeo, Umoci, client
from harness.cluster import Cluster
from harness.images import layout_digest, tar_of, write_layout
from harness.registry import check
from harness.shell import environment, run
from scenarios import scenario


def pulled(one, identity, reference):
    got = one.pull(identity, reference)
    check(got == identity, f"{reference} gave {got}, {identity} was pushed")


def survives_a_node(kind):
    """Push to node 1, pull from node 2 at once, lose node 1, pull from node 3, push without it."""
    with Cluster() as cluster, client(kind) as one:
        first, second, third = cluster.nodes
        image = one.make()
        one.push(image, f"{first.host}/team/app:v1")
        pulled(one, image, f"{second.host}/team/app:v1")
        first.kill()
        pulled(one, image, f"{third.host}/team/app:v1")
        later = one.make()
        one.push(later, f"{second.host}/team/app:v2")
        pulled(one, later, f"{third.host}/team/app:v2")
        first.start()
        first.wait_ready()
        pulled(one, later, f"{first.host}/team/app:v2")


@scenario("docker", "docker: push to 1, pull from 2, kill 1, pull from 3, push with one dead")
def with_docker():
    survives_a_node(Docker)


@scenario("skopeo", "skopeo: the same, every blob hashed again")
def with_skopeo():
    survives_a_node(Skopeo)


@scenario("podman", "podman: the same", slow=True)
def with_podman():
    survives_a_node(Podman)


@scenario("buildah", "buildah: the same", slow=True)
def with_buildah():
    survives_a_node(Buildah)


@scenario("umoci", "umoci layouts: the same, unpacked again", slow=True)
def with_umoci():
    survives_a_node(Umoci)


@scenario("manifest-list", "buildah pushes a list of two platforms, skopeo copies it whole", slow=True)
def manifest_list():
    with Cluster() as cluster, client(Buildah) as one:
        first, second, _ = cluster.nodes
        one.buildah("manifest", "create", "both")
        for architecture in ("amd64", "arm64"):
            one.buildah("manifest", "add", "--arch", architecture, "--os", "linux", "both", one.make())
        one.buildah("manifest", "push", "--all", INSECURE, "both", f"docker://{first.host}/team/both:v1")
        index = json.loads(run("skopeo", "inspect", "--raw", INSECURE, f"docker://{second.host}/team/both:v1"))
        found = sorted(entry["platform"]["architecture"] for entry in index["manifests"])
        check(found == ["amd64", "arm64"], f"platforms {found}")
        copy = ["skopeo", "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false"]
        run(*copy, f"docker://{first.host}/team/both:v1", f"docker://{second.host}/other/both:v1")
        again = json.loads(run("skopeo", "inspect", "--raw", INSECURE, f"docker://{first.host}/other/both:v1"))
        check(again == index, "the copied index is another one")


@scenario("skopeo-lists", "skopeo lists tags and deletes through other nodes")
def skopeo_lists():
    with Cluster() as cluster, client(Skopeo) as one:
        first, second, third = cluster.nodes
        image = one.make()
        for tag in ("a", "b"):
            one.push(image, f"{first.host}/team/app:{tag}")
        listed = json.loads(run("skopeo", "list-tags", INSECURE, f"docker://{second.host}/team/app"))
        check(listed["Tags"] == ["a", "b"], f"tags {listed['Tags']}")
        run("skopeo", "delete", INSECURE, f"docker://{third.host}/team/app:a")
        gone = run("skopeo", "inspect", INSECURE, f"docker://{first.host}/team/app:a", check=False)
        check(gone.returncode != 0, "the deleted image is still there")


@scenario("push-interrupted", "a push that is killed in the middle of a layer succeeds the second time")
def interrupted_push():
    with Cluster() as cluster, client(Skopeo) as one:
        first, second, _ = cluster.nodes
        layout = one.fresh("layout")
        digest = write_layout(layout, [tar_of({"bulk": secrets.token_bytes(48 << 20)}), tar_of({"x": b"x"})])
        command = ["skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}:v1",
                   f"docker://{first.host}/team/app:v1"]
        for seconds in (0.05, 0.1, 0.2, 0.3, 0.4):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
            time.sleep(seconds)
            process.kill()
            process.wait()
        run(*command)
        copied = one.fresh("pulled")
        run("skopeo", "copy", "--src-tls-verify=false", f"docker://{second.host}/team/app:v1", f"oci:{copied}:v1")
        check(layout_digest(copied) == digest, "another image came back")
