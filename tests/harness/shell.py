"""Running other programs, with their output in the complaint when they fail."""

import os
import subprocess

from .registry import Unexpected

# Machine-wide certificate settings are for other registries than the ones under test.
FOREIGN = ("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE",
           "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy")


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return {**kept, **more}


def run(*command, check=True, seconds=300, cwd=None, stdin=None, **more):
    """The standard output of a command that has to succeed (or a CompletedProcess with check=False)."""
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, cwd=cwd, env=environment(**more),
                              input=stdin, text=True, errors="replace")
    except FileNotFoundError:
        raise Unexpected(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Unexpected(f"{' '.join(command)} did not end within {seconds} s") from None
    if not check:
        return done
    if done.returncode != 0:
        output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise Unexpected(f"{' '.join(command)} failed with {done.returncode}:\n{output}")
    return done.stdout.strip()
