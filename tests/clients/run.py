#!/usr/bin/env python3
"""Runs the scenarios with real clients and real faults. Each starts, and stops, its own nodes.

The last line is a plain total; the exit code is 1 if any scenario failed.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.cluster import own_copies  # noqa: E402
from harness.report import run_all  # noqa: E402
from scenarios import TABLE  # noqa: E402

import guide, tools, balanced, storms, interrupted, stops, sick  # noqa: E401, E402, F401
import faults, disks, damage, endless, listing, mounts, container, local, operating, leading, leaving, recovering, settings, tags, garbage, healing, logs, repairs  # noqa: E401, E402, F401


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names or their beginnings, with commas")
    parser.add_argument("--without", default="", help="names or their beginnings to leave out, with commas")
    parser.add_argument("--quick", action="store_true", help="leave out the slow ones")
    parser.add_argument("--thorough", action="store_true", help="take also those that last for many minutes")
    parser.add_argument("--list", action="store_true", help="print the scenarios and stop")
    options = parser.parse_args()
    only = tuple(filter(None, options.only.split(",")))
    without = tuple(filter(None, options.without.split(",")))
    chosen = [one for one in TABLE.values() if (not only or one.name.startswith(only))
              and not (without and one.name.startswith(without)) and not (options.quick and one.slow)
              and (options.thorough or not one.thorough)]
    if not chosen:
        parser.error("no such scenario")
    if options.list:
        for one in chosen:
            speed = "thorough" if one.thorough else "slow" if one.slow else ""
            print(f"{one.name:24} {speed:8} {one.sentence}")
        return 0
    left_out = [one.name for one in TABLE.values() if one not in chosen and not only]
    if left_out:
        print(f"left out: {', '.join(left_out)}", flush=True)
    with own_copies():
        return run_all([(f"{one.name:24} {one.sentence}", one.function) for one in chosen])


if __name__ == "__main__":
    sys.exit(main())
