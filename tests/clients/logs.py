"""What nodes write down: lines for people or for programs, with the ids of requests and without secrets."""

import contextlib
import json
import os
import re

from harness.cluster import Cluster, wait_for
from harness.http_raw import Client, Connection
from harness.registry import OCTETS, check, expect, sha256
from scenarios import scenario

CONNECTIONS = 40
SETTINGS = '[telemetry]\nformat = "{}"\nlevel = "trace"\n\n[limits]\nconnections_max = {}\n'
CANARY = "canary-4711"
# What a client may send although nobody here asks for it.
SECRETS = {"Authorization": f"Bearer {CANARY}-token", "Cookie": f"session={CANARY}-cookie",
           "Proxy-Authorization": f"Basic {CANARY}-basic"}
HUMAN = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z +(TRACE|DEBUG|INFO|WARN|ERROR) ")
BLOB_BYTES = 3_000_000


class Json:
    """Lines of a node as programs read them."""

    def __init__(self, node):
        self.lines = [json.loads(line) for line in node.log.read_text().splitlines()]
        for line in self.lines:
            check({"timestamp", "level", "target"} <= line.keys(), f"node {node.id} wrote {line}")

    def of(self, request_id):
        """What was said within a request."""
        return [line for line in self.lines if line.get("span", {}).get("request_id") == request_id]

    def answered(self, request_id):
        """The status in the line that ends a request."""
        return [line["status"] for line in self.of(request_id) if {"path", "status"} <= line.keys()]


class Human:
    """The same as people read them."""

    def __init__(self, node):
        self.lines = node.log.read_text().splitlines()
        for line in self.lines:
            check(HUMAN.match(line), f"node {node.id} wrote {line!r}")

    def of(self, request_id):
        return [line for line in self.lines if f'request_id="{request_id}"' in line]

    def answered(self, request_id):
        found = [re.search(r" path=\S+ status=(\d+)", line) for line in self.of(request_id)]
        return [int(one[1]) for one in found if one]


@scenario("logs", "log lines as JSON and for people: request ids on every node that works for a request, no secrets (S-11)")
def logs():
    for form, reader in (("json", Json), ("human", Human)):
        with Cluster(3, SETTINGS.format(form, CONNECTIONS)) as cluster:
            upload = push(cluster)
            refused = one_connection_too_many(cluster.nodes[1])
            names(cluster.nodes[0].registry())
            failed = without_quorum(cluster)
            node_1, node_2, node_3 = (reader(node) for node in cluster.nodes)
            check(node_1.answered("open-1") == [202], "node 1 has no line for the request that opened the upload")
            check(node_2.answered("patch-2") == [202], "node 2 has no line for its PATCH")
            check(node_3.answered("put-3") == [201], "node 3 has no line for its PUT")
            check(node_1.of("patch-2"), "the upload's owner does not name the request that another node passed on")
            check(node_1.of("put-3"), "the upload's owner does not name the PUT that another node passed on")
            check(node_2.of(refused), "the refused connection is in no line")
            check(node_1.answered(failed) == [503], "the failed request has no line with its status")
            without_secrets(cluster, upload)


def push(cluster):
    """One blob over three nodes, as a client would that sends secrets with every request. The path of the upload."""
    data = os.urandom(BLOB_BYTES)
    first, second, third = (node.registry() for node in cluster.nodes)

    def named(name):
        return {**OCTETS, **SECRETS, "X-Request-Id": name}

    opened = first.request("POST", f"/v2/team/app/blobs/uploads/?account={CANARY}-query", named("open-1"), b"")
    target = expect(opened, 202).location()
    sent = second.request("PATCH", target, named("patch-2"), data)
    check(sent.header("X-Request-Id") == "patch-2", f"answered to {sent.header('X-Request-Id')}")
    done = third.finish(expect(sent, 202).location(), sha256(data), headers=named("put-3"))
    expect(done, 201)
    second.holds("team/app", sha256(data), data)
    return target.split("?")[0]


def names(registry):
    """A name that could forge lines or headers is replaced, and so is none; each request gets another."""
    given = [registry.request("GET", "/v2/", {"X-Request-Id": name} if name else {}).header("X-Request-Id")
             for name in ("", "a b", 'x"y', "z" * 65, "")]
    check(all(re.fullmatch("[0-9a-f]{16}", one) for one in given), f"ids {given}")
    check(len(set(given)) == len(given), f"ids twice: {given}")
    kept = registry.request("GET", "/v2/", {"X-Request-Id": "z" * 64}).header("X-Request-Id")
    check(kept == "z" * 64, f"the longest name became {kept}")


def one_connection_too_many(node):
    """The id in the answer to a connection beyond the limit."""
    endpoint = Client([node.url]).next_endpoint()
    with contextlib.ExitStack() as held:
        for _ in range(CONNECTIONS):
            held.enter_context(Connection(endpoint))
        with Connection(endpoint) as surplus:
            refused = surplus.read()
    name = expect(refused, 503, code="UNAVAILABLE").header("X-Request-Id")
    check(refused.json()["errors"][0]["detail"]["request_id"] == name, f"{refused} names another request")
    wait_for(lambda: node.registry().alive() is None, "connections are free again", 30)
    return name


def without_quorum(cluster):
    """The id of a request that fails within the server."""
    for node in cluster.nodes[1:]:
        node.stop()
    failed = cluster.nodes[0].registry().request("GET", "/v2/team/app/manifests/v1", SECRETS)
    name = expect(failed, 503).header("X-Request-Id")
    check(failed.json()["errors"][0]["detail"]["request_id"] == name, f"{failed} names another request")
    return name


def without_secrets(cluster, upload):
    """Neither what clients sent nor the id by which an upload is written to is anywhere in the logs."""
    written = "".join(node.log.read_text() for node in cluster.nodes)
    id = upload.rsplit("/", 1)[1]
    check(id[:20] in written, "the upload is in no line at all")
    for secret in (CANARY, id, id[20:]):
        lines = [line for line in written.splitlines() if secret in line]
        check(not lines, f"{secret} was written down: {lines[:3]}")
