#!/usr/bin/env python3
"""Runs the black-box behaviours against a registry that is already there.

With several endpoints each request goes to the next one, so a cluster has to behave as one registry does.
The last line is a plain total; the exit code is 1 if any row failed.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.http_raw import Broken, Client  # noqa: E402
from harness.registry import Registry, Unexpected  # noqa: E402
from rows import TABLE  # noqa: E402

import base, names, uploads, uploads_bad, mounts, pulls  # noqa: E401, E402, F401
import manifests, manifests_bad, deletes, lists, referrers, framing  # noqa: E401, E402, F401
import extensions, cluster, protocol  # noqa: E401, E402, F401


def run_row(row, client):
    """None if the row holds, otherwise the reason why it does not."""
    client.answers = []
    try:
        row.function(Registry(client))
    except Unexpected as error:
        return str(error)
    except (Broken, OSError) as error:
        return f"no usable answer: {error}"
    except Exception as error:  # A row must never take the others with it.
        return f"{type(error).__name__}: {error}"
    for method, target, response in client.answers:
        if response.status >= 500 and not row.server_errors:
            return f"{method} {target[:80]} answered {response}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", action="append", required=True, help="http://HOST:PORT; may be repeated")
    parser.add_argument("--only", default="", help="row ids or their beginnings, with commas")
    parser.add_argument("--without", default="", help="row ids or their beginnings to leave out, with commas")
    parser.add_argument("--failures", action="store_true", help="print only the rows that failed")
    options = parser.parse_args()

    client = Client(options.endpoint)
    only = tuple(filter(None, options.only.split(",")))
    without = tuple(filter(None, options.without.split(",")))
    chosen = [row for row in TABLE.values() if not only or row.id.startswith(only)]
    chosen = [row for row in chosen if not without or not row.id.startswith(without)]
    needy = [row for row in chosen if row.endpoints > len(client.endpoints)]
    if not chosen:
        parser.error("no such row")
    if needy:
        print(f"not in this run, they need more endpoints: {' '.join(row.id for row in needy)}")

    failed = 0
    chosen = [row for row in chosen if row not in needy]
    for row in chosen:
        started = time.monotonic()
        reason = run_row(row, client)
        seconds = time.monotonic() - started
        if reason is not None:
            failed += 1
            print(f"FAIL  {row.id:5} {row.level:6} {row.sentence}\n      {reason}", flush=True)
        elif not options.failures:
            print(f"ok    {row.id:5} {row.level:6} {row.sentence} ({seconds:.1f} s)", flush=True)
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
