"""The container image and the compose file, as shipped."""

import json
import os
import re
import secrets
import tempfile
from pathlib import Path

from drivers import Docker, client
from harness.cluster import binary, free_ports, wait_for
from harness.http_raw import Client
from harness.registry import Registry, check
from harness.shell import run
from scenarios import scenario

IMAGE = os.environ.get("ARGOSY_IMAGE", "argosy:latest")
IMAGE_LIMIT_BYTES = 40_000_000
COMPOSE_FILE = Path(__file__).resolve().parents[2] / "deploy/compose.yaml"


def image_facts():
    found = run("docker", "image", "inspect", IMAGE, check=False)
    check(found.returncode == 0, f"there is no image {IMAGE}; build it with deploy/build/image")
    return json.loads(found.stdout)[0]


@scenario("image", "the image is below 40 MB, runs read-only without privileges, and stops by itself", slow=True)
def image():
    facts = image_facts()
    check(facts["Size"] < IMAGE_LIMIT_BYTES, f"the image has {facts['Size']} bytes")
    check(facts["Config"]["User"] not in ("", "0", "root"), "it runs as root")
    port, name = free_ports(1)[0], f"argosy-test-{secrets.token_hex(4)}"
    registry = Registry(Client([f"http://127.0.0.1:{port}"]))
    run("docker", "run", "--detach", "--name", name, "--read-only", "--cap-drop", "ALL",
        "--publish", f"127.0.0.1:{port}:5000", IMAGE)
    try:
        wait_for(lambda: registry.request("GET", "/readyz").status == 200, "the container ready", 30)
        pushed = registry.image("team/app", "v1")
        run("docker", "restart", "--time", "40", name)
        wait_for(lambda: registry.request("GET", "/readyz").status == 200, "the container ready again", 30)
        check(registry.manifest("team/app", "v1").body == pushed.body, "the data did not survive a restart")
        run("docker", "stop", "--time", "40", name)
        code = run("docker", "inspect", "--format", "{{.State.ExitCode}}", name)
        check(code == "0", f"exit code {code}")
    finally:
        run("docker", "rm", "--force", "--volumes", name, check=False)


FAILPOINTS = Path(__file__).resolve().parents[2] / "node/docs/failpoints.md"


def points_in(program):
    """The failpoints of the table whose names are in a program."""
    _, _, table = FAILPOINTS.read_text().partition("| point | where |")
    points = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    check(len(points) > 70, f"the table has {points}")
    code = Path(program).read_bytes()
    return [point for point in points if point.encode() in code]


@scenario("no-failpoints", "the program in the image has no failpoint, however one asks for it", slow=True)
def no_failpoints():
    image_facts()
    name = f"argosy-test-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="argosy-image-") as directory:
        program = Path(directory) / "argosy"
        run("docker", "create", "--name", name, IMAGE)
        try:
            run("docker", "cp", f"{name}:/argosy", program)
        finally:
            run("docker", "rm", "--force", "--volumes", name, check=False)
        check(len(points_in(binary())) > 70, "the program under test should have failpoints: build it with them")
        check(points_in(program) == [], f"the image has {points_in(program)}")
        told = run(program, "config", "check", FAILPOINTS="hwm_before_write=return(abort)", check=False)
        check(told.returncode == 0 and "failpoint" not in told.stdout + told.stderr, f"it heeded FAILPOINTS: {told}")


@scenario("compose", "deploy/compose.yaml: push to 1, pull from 2, kill 1, pull from 3", slow=True)
def compose():
    image_facts()
    ports, project = free_ports(3), f"argosy-test-{secrets.token_hex(4)}"
    settings = {f"ARGOSY_PORT_{number}": str(port) for number, port in enumerate(ports, 1)}
    plug_in = run("docker", "compose", "version", check=False).returncode == 0
    base = ["docker", "compose"] if plug_in else ["docker-compose"]
    base += ["--project-name", project, "--file", COMPOSE_FILE]
    hosts = [f"127.0.0.1:{port}" for port in ports]
    try:
        run(*base, "up", "--detach", **settings)
        for host in hosts:
            registry = Registry(Client([f"http://{host}"], timeout=10))
            wait_for(lambda: registry.request("GET", "/readyz").status == 200, f"{host} ready", 60)
        with client(Docker) as one:
            image = one.make()
            one.push(image, f"{hosts[0]}/team/app:v1")
            check(one.pull(image, f"{hosts[1]}/team/app:v1") == image, "another image from node 2")
            run(*base, "kill", "node1", **settings)
            check(one.pull(image, f"{hosts[2]}/team/app:v1") == image, "another image from node 3")
    finally:
        run(*base, "down", "--volumes", "--timeout", "40", check=False, **settings)
