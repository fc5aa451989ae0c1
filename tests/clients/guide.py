"""What people do with Docker's registry today works unchanged: the requests of a well-known guide, literally."""

import json
import secrets
import shutil
import socket
import subprocess
import tempfile

from drivers import Docker, client
from harness.cluster import Cluster, binary, wait_for
from harness.http_raw import Client
from harness.registry import DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, Registry, check, descriptor, encode, expect
from harness.shell import run
from scenarios import scenario

GUIDE_PORT = 5000
# The guide's commands; its host is replaced, and its credentials are tried with and without.
ACCEPT = '-H "Accept: application/vnd.docker.distribution.manifest.v2+json"'
DELETE = """
DIGEST=$(curl -s -u admin:pass \\
  -H "Accept: application/vnd.docker.distribution.manifest.v2+json" \\
  -I https://registry.example.com/v2/web/nginx/manifests/alpine \\
  | grep -i docker-content-digest | awk '{print $2}' | tr -d '\\r')
curl -s -o /dev/null -w '%{http_code}' -u admin:pass -X DELETE \\
  https://registry.example.com/v2/web/nginx/manifests/$DIGEST
"""
LIST_IMAGES = """#!/bin/bash
# list-images.sh — show all images and tags in the registry
REGISTRY="https://registry.example.com"
USER="admin"
PASS="S3cur3P@ssw0rd"
echo "=== Registry: $REGISTRY ==="
echo ""
# Get list of repositories
REPOS=$(curl -s -u $USER:$PASS $REGISTRY/v2/_catalog | \\
python3 -c "import sys,json; print('\\n'.join(json.load(sys.stdin)['repositories']))")
for repo in $REPOS; do
# Get tags for each repo
TAGS=$(curl -s -u $USER:$PASS $REGISTRY/v2/$repo/tags/list | \\
python3 -c "import sys,json; tags=json.load(sys.stdin).get('tags',[]); print(' '.join(tags or ['<no tags>']))")
echo "  $repo"
echo "    Tags: $TAGS"
echo ""
done
"""


def shell(script, url, credentials):
    script = script.replace("https://registry.example.com", url)
    if not credentials:
        script = script.replace("-u admin:pass ", "").replace("-u $USER:$PASS ", "")
    return run("bash", "-euo", "pipefail", "-c", script)


def docker_manifest(registry, name, *tags):
    """A Docker schema 2 manifest, as docker pushes it, under these tags; returns its bytes."""
    config, layer = encode({"os": "linux", "salt": secrets.token_hex(4)}), secrets.token_bytes(1000)
    registry.push_blob(name, config)
    registry.push_blob(name, layer)
    body = encode({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": descriptor(DOCKER_CONFIG, config),
                   "layers": [descriptor(DOCKER_LAYER, layer)]})
    for tag in tags:
        registry.push_manifest(name, tag, body, DOCKER_MANIFEST)
    return body


@scenario("guide-requests", "the guide's API, deletion and listing requests, and its list script")
def guide_requests():
    with Cluster() as cluster:
        registry = cluster.registry()
        for credentials, node in ((True, cluster.nodes[0]), (False, cluster.nodes[1])):
            guide_on(registry, node.url, credentials)


def guide_on(registry, url, credentials):
    def curl(path, options=""):
        return shell(f"curl -s -u admin:pass {options} https://registry.example.com{path}", url, credentials)

    for name in ("backend/api", "frontend/web", "backend/empty"):
        docker_manifest(registry, name, *([] if name.endswith("empty") else ["v1.2.3"]))
    body = docker_manifest(registry, "web/nginx", "alpine", "1.25", "latest")
    check(json.loads(curl("/v2/")) == {}, f"GET /v2/ gave {curl('/v2/')!r}")
    repositories = json.loads(curl("/v2/_catalog"))["repositories"]
    check({"backend/api", "frontend/web", "web/nginx"} <= set(repositories), f"catalog {repositories}")
    tags = json.loads(curl("/v2/web/nginx/tags/list"))
    check(tags == {"name": "web/nginx", "tags": ["1.25", "alpine", "latest"]}, f"tags {tags}")
    check(curl("/v2/web/nginx/manifests/alpine", ACCEPT).encode() == body, "the manifest has other bytes")
    listed = shell(LIST_IMAGES, url, credentials)
    for line in ("  web/nginx", "    Tags: 1.25 alpine latest", "  backend/api", "    Tags: v1.2.3"):
        check(line in listed.splitlines(), f"list-images.sh lacks {line!r}:\n{listed}")
    check(shell(DELETE, url, credentials) == "202", "the guide's delete was refused")
    expect(registry.manifest("web/nginx", "alpine"), 404)
    listed = shell(LIST_IMAGES, url, credentials)
    check("  backend/api" in listed.splitlines(), f"list-images.sh after the delete:\n{listed}")


@scenario("guide-start", "`argosy serve` without configuration is a registry on port 5000 with its data beside it")
def guide_start():
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", GUIDE_PORT))
        except OSError as error:
            raise AssertionError(f"port {GUIDE_PORT} is needed for this scenario: {error}") from None
    directory = tempfile.mkdtemp(prefix="argosy-guide-")
    url, registry = f"http://localhost:{GUIDE_PORT}", Registry(Client([f"http://127.0.0.1:{GUIDE_PORT}"]))
    try:
        with client(Docker) as one:
            image = one.make()
            for attempt in ("first start", "second start"):
                process = start_plain(directory)
                try:
                    wait_for(lambda: registry.request("GET", "/readyz").status == 200, attempt, 30)
                    check(run("curl", "-s", f"{url}/v2/") == "{}", "GET /v2/ is not {}")
                    if attempt == "first start":
                        one.push(image, f"localhost:{GUIDE_PORT}/web/app:v1")
                    got = one.pull(image, f"localhost:{GUIDE_PORT}/web/app:v1")
                    check(got == image, "another image came back")
                finally:
                    process.terminate()
                    code = process.wait(40)
                check(code == 0, f"SIGTERM gave exit code {code}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def start_plain(directory):
    """No flags, no file, no environment: as a newcomer starts it."""
    with open(f"{directory}/log", "ab") as log:
        return subprocess.Popen([binary(), "serve"], cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
