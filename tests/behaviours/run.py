#!/usr/bin/env python3
"""Runs the black-box behaviours against a registry that is already there, or against nodes started for it.

With several endpoints each request goes to the next one, so a cluster has to behave as one registry does.
The last line is a plain total; the exit code is 1 if any row failed.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.cluster import Cluster  # noqa: E402
from harness.http_raw import Client  # noqa: E402
from harness.registry import Registry, check  # noqa: E402
from harness.report import run_all  # noqa: E402
from rows import TABLE  # noqa: E402

import base, names, uploads, uploads_bad, mounts, pulls  # noqa: E401, E402, F401
import manifests, manifests_bad, deletes, lists, referrers, framing  # noqa: E401, E402, F401
import extensions, cluster, protocol, http2  # noqa: E401, E402, F401


def check_of(row, client):
    """The row's title and a function that raises if the row does not hold."""

    def run():
        client.answers = []
        row.function(Registry(client))
        for method, target, response in client.answers:
            check(response.status < 500 or row.server_errors, f"{method} {target[:80]} answered {response}")

    return f"{row.id:5} {row.level:6} {row.sentence}", run


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", action="append", default=[], help="http://HOST:PORT; may be repeated")
    parser.add_argument("--nodes", type=int, default=0, help="start a cluster of this many nodes instead")
    parser.add_argument("--only", default="", help="row ids or their beginnings, with commas")
    parser.add_argument("--without", default="", help="row ids or their beginnings to leave out, with commas")
    parser.add_argument("--failures", action="store_true", help="print only the rows that failed")
    options = parser.parse_args()

    if bool(options.endpoint) == bool(options.nodes):
        parser.error("give either --endpoint or --nodes")
    if options.endpoint:
        return run(parser, options, options.endpoint)
    with Cluster(options.nodes) as cluster:
        code = run(parser, options, [node.url for node in cluster.nodes])
        if code != 0:
            cluster.keep_logs()
        return code


def run(parser, options, endpoints):
    client = Client(endpoints)
    only = tuple(filter(None, options.only.split(",")))
    without = tuple(filter(None, options.without.split(",")))
    chosen = [row for row in TABLE.values() if not only or row.id.startswith(only)]
    chosen = [row for row in chosen if not without or not row.id.startswith(without)]
    needy = [row for row in chosen if row.endpoints > len(client.endpoints)]
    if not chosen:
        parser.error("no such row")
    if needy:
        print(f"not in this run, they need more endpoints: {' '.join(row.id for row in needy)}")

    checks = [check_of(row, client) for row in chosen if row not in needy]
    return run_all(checks, options.failures)


if __name__ == "__main__":
    sys.exit(main())
