"""Runs named checks one after another and ends with a plain total."""

import sys
import time
import traceback
from pathlib import Path

from .http_raw import Broken


def reason_of(error):
    """One line for what was expected to fail, a traceback for what was not."""
    if isinstance(error, AssertionError):
        return str(error)
    if isinstance(error, (Broken, OSError)):
        places = [f"{Path(one.filename).name}:{one.lineno}" for one in traceback.extract_tb(error.__traceback__)]
        ours = [one for one in places if not one.startswith(("report.py", "socket.py", "http_raw.py"))]
        return f"no usable answer: {error} ({' '.join(ours)})"
    return "".join(traceback.format_exception(error)).strip()


def run_all(checks, only_failures=False):
    """`checks` are (title, function) pairs; a function fails by raising. Returns the exit code."""
    failed = 0
    for title, function in checks:
        started = time.monotonic()
        try:
            function()
        except Exception as error:  # One check must never take the others with it.
            failed += 1
            print(f"FAIL  {title}\n      " + reason_of(error).replace("\n", "\n      "), flush=True)
        else:
            if not only_failures:
                print(f"ok    {title} ({time.monotonic() - started:.1f} s)", flush=True)
        sys.stdout.flush()
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0
