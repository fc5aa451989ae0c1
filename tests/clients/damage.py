"""Every kind of file of a data directory, damaged in every way: a node starts and serves everything, or says what is wrong.

The table of outcomes is OUTCOMES; node/docs/reliability.md explains it. `damage.py --print` measures it anew.
"""

import hashlib
import json
import os
import random
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.cluster import FORBIDDEN, Cluster, binary  # noqa: E402
from harness.http_raw import Broken  # noqa: E402
from harness.registry import check, expect, sha256  # noqa: E402
from harness.shell import run  # noqa: E402
from scenarios import scenario  # noqa: E402

SETTINGS = ("[storage]\nreserve_bytes = 1048576\n[raft]\ntick_ms = 200\n[gc]\ngrace_ms = 3000\nquarantine_ms = 0\n"
            "interval_ms = 300\nverify_interval_ms = 100\n")
LARGE, SMALL = 700_000, 3_000
DAMAGES = ("flip first", "flip middle", "flip last", "empty", "half", "removed", "swapped", "symlink", "directory")

# Files by kind. Of several, the one that holds most, or for write-ahead logs the last.
DATABASES = {"log": "raft/log", "state": "state/generation-*", "index": "local"}
PARTS = {"CURRENT": "CURRENT", "MANIFEST": "MANIFEST-*", "OPTIONS": "OPTIONS-*", "IDENTITY": "IDENTITY", "LOG": "LOG",
         "LOCK": "LOCK", "SST": "*.sst", "WAL": "*.log", "bodies": "*.blob"}
KINDS = {
    "lock": "lock", "format": "format", "raft identity": "raft/IDENTITY", "place": "raft/PLACE",
    "log mark": "raft/hwm", "reserve": "raft/reserve", "blobs identity": "blobs/IDENTITY", "index mark": "blobs/hwm",
    "state pointer": "state/current", "blob": "blobs/sha256/*/*", "trash": "blobs/trash/*", "upload": "blobs/uploads/*",
    **{f"{database} {part}": f"{directory}/{pattern}" for database, directory in DATABASES.items()
       for part, pattern in PARTS.items() if (database, part) not in (("log", "bodies"), ("state", "bodies"))},
}

CHOICES = {"*": "wr", "+": "rs", "?": "rsb"}
# w: starts and serves everything whole. r: refuses, and names the file. b: starts, and one blob is refused to readers.
# s: starts, and stops, with the same message, as soon as it reads what is damaged.
# u: starts; the bytes of an upload that was never finished are gone or end in DIGEST_INVALID. *: w or r, depending on
# which of two nodes got further. +: r or s, depending on what is read first. ?: that or b: what was hit is chance.
OUTCOMES = {
    "lock": "wwwwwwwrr",
    "format": "rrrrrrwrr",
    "raft identity": "rrrrrrrrr",
    "place": "rrrrrwrrr",
    "log mark": "wwwrwr*rr",
    "reserve": "wwwwwwwww",
    "blobs identity": "rrrrrrrrr",
    "index mark": "wwwrww*rr",
    "state pointer": "rrrrrrwrr",
    "blob": "bbbbbbbbb",
    "trash": "wwwwwwwww",
    "upload": "uuuuuuuuu",
    "log CURRENT": "rrrrrrwrr",
    "log MANIFEST": "rrrrrrrrr",
    "log OPTIONS": "wwwwwwwww",
    "log IDENTITY": "wwwwwwwwr",
    "log LOG": "wwwwwwwww",
    "log LOCK": "wwwwwwwwr",
    "log SST": "rrrrrrrrr",
    "log WAL": "rrrrrrrrr",
    "state CURRENT": "rrrrrrwrr",
    "state MANIFEST": "rrrrrrrrr",
    "state OPTIONS": "wwwwwwwww",
    "state IDENTITY": "wwwwwwwwr",
    "state LOG": "wwwwwwwww",
    "state LOCK": "wwwwwwwwr",
    "state SST": "++rrrrrrr",
    "state WAL": "wwwwwwrww",
    "index CURRENT": "rrrrrrwrr",
    "index MANIFEST": "rrrrrrrrr",
    "index OPTIONS": "wwwwwwwww",
    "index IDENTITY": "wwwwwwwwr",
    "index LOG": "wwwwwwwww",
    "index LOCK": "wwwwwwwwr",
    "index SST": "??rrrrrrr",
    "index WAL": "rrrrrrrrr",
    "index bodies": "bbbbbbbbb",
}


# What can be mended in place; the rest is replaced.
REPAIRED = ("lock", "format", "raft identity", "place", "blobs identity", "log LOCK", "state LOCK", "index LOCK")


def repair_commands(node):
    """What a node that refuses tells its operator to type."""
    _, found, told = node.log.read_text(errors="replace").rpartition("argosy: to repair it:\n")
    return [line.strip() for line in told.splitlines() if line.startswith("    ")] if found else []


def run_printed(script):
    """As if typed, by somebody who has the programs on the path."""
    path = f"{Path(binary()).parent}:{os.environ['PATH']}"
    return run("sh", "-ec", script, PATH=path)


class Subject:
    """A cluster of one node, what it acknowledged, and its directory as it was after a clean stop."""

    def __init__(self, cluster, seed):
        self.cluster, self.node, self.seed = cluster, cluster.nodes[0], seed
        self.data = self.node.directory / "data"
        self.saved = self.node.directory / f"saved-{seed}"
        self.images, self.blobs, self.upload, self.part = {}, {}, None, b""

    def fill(self):
        """Three runs, so that every database has both tables and a write-ahead log."""
        source = random.Random(self.seed)
        registry = self.node.registry()
        for round_ in range(3):
            self.node.start()
            self.node.wait_ready()
            for size in (LARGE, SMALL, LARGE // 3, SMALL * 20):
                data = source.randbytes(size + round_)
                self.blobs[registry.push_blob("team/app", data)] = data
            image = registry.image("team/app", f"v{round_}")
            self.images[f"v{round_}"] = image.body
            registry.push_manifest("team/app", f"gone{round_}", image.body)
            expect(registry.request("DELETE", f"/v2/team/app/manifests/gone{round_}"), 202)
            # A manifest keeps the blobs, and one that nothing keeps goes to the trash.
            self.keep(registry, round_)
            registry.push_blob("team/other", source.randbytes(400_000 + round_))
            if round_ == 2:
                self.part = source.randbytes(900_000)
                start = expect(registry.request("POST", "/v2/team/app/blobs/uploads/"), 202)
                headers = {"Content-Range": f"0-{len(self.part) - 1}", "Content-Type": "application/octet-stream"}
                done = expect(registry.request("PATCH", start.location(), headers, self.part), 202)
                self.upload = done.location()
                self.wait_for_trash()
            else:
                time.sleep(1.2)
            self.node.stop()
        self.save()

    def keep(self, registry, round_):
        layers = [{"mediaType": "application/octet-stream", "digest": digest, "size": len(data)}
                  for digest, data in self.blobs.items()]
        config = registry.push_blob("team/app", b"{}")
        body = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                           "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
                           "layers": layers}).encode()
        registry.push_manifest("team/app", f"all{round_}", body)
        self.images[f"all{round_}"] = body

    def wait_for_trash(self):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not any((self.data / "blobs/trash").iterdir()):
            time.sleep(0.1)
        check(any((self.data / "blobs/trash").iterdir()), "nothing went to the trash")

    def save(self):
        shutil.copytree(self.data, self.saved, symlinks=True)

    def restore(self):
        """Puts everything back but PLACE, which says that this is no copy."""
        place = (self.data / "raft/PLACE")
        for path in sorted(self.data.rglob("*"), reverse=True):
            if path != place and path != place.parent:
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        if not place.is_file() or place.read_bytes() != (self.saved / "raft/PLACE").read_bytes():
            check(False, "PLACE was changed and not put back")
        for path in sorted(self.saved.rglob("*")):
            target = self.data / path.relative_to(self.saved)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            elif target != place:
                shutil.copy2(path, target)

    def find(self, kind):
        found = [path for path in self.data.glob(KINDS[kind]) if path.is_file()]
        if kind.endswith("WAL"):
            found = [path for path in found if path.stat().st_size]
        check(found, f"the directory has no file of the kind {kind}")
        if kind.endswith("WAL"):
            return max(found)
        return max(found, key=lambda path: (path.stat().st_size, path))

    def digests_at(self, kind, path):
        """The blobs that have bytes in a file."""
        if kind in ("index bodies", "index SST"):
            return {digest for digest, data in self.blobs.items() if len(data) < 131_072}
        return {f"sha256:{path.name}"} if kind == "blob" else set()


def spoil(path, damage, other):
    """Damages a file. One that is empty gets a byte."""
    size = path.stat().st_size
    if size == 0 and (damage.startswith("flip") or damage == "half"):
        path.write_bytes(b"?")
    elif damage.startswith("flip"):
        at = {"first": min(10, size - 1), "middle": size // 2, "last": size - 1}[damage.split()[1]]
        with open(path, "r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 4]))
    elif damage in ("empty", "half"):
        os.truncate(path, 0 if damage == "empty" else size // 2)
    elif damage == "removed":
        path.unlink()
    elif damage == "swapped":
        # The same file of another node.
        with open(path, "r+b") as file:
            data = other.read_bytes()
            file.write(data)
            file.truncate(len(data))
    else:
        path.rename(path.with_name("away"))
        if damage == "symlink":
            path.symlink_to("/etc/passwd")
        else:
            path.mkdir()


def tree(root):
    """What fsck must not change."""
    def of(path):
        if path.is_symlink():
            return os.readlink(path)
        return "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    return {str(path.relative_to(root)): of(path) for path in root.rglob("*")}


class Case:
    """One kind of file, damaged in one way."""

    def __init__(self, subject, other, kind, damage):
        self.subject, self.node = subject, subject.node
        self.kind, self.damage, self.name = kind, damage, f"{kind}, {damage}"
        subject.restore()
        self.path = subject.find(kind)
        if kind == "place":
            self.kept = subject.data / "raft/kept"
            os.rename(self.path, self.kept)
            shutil.copy2(self.kept, self.path)
        partner = other.saved / self.path.relative_to(subject.data)
        if not partner.is_file():
            partner = other.saved / other.find(kind).relative_to(other.data)
        spoil(self.path, damage, partner)

    def outcome(self):
        try:
            told = self.fsck()
            outcome = self.serve()
            if outcome in "rbs":
                check(told, f"{self.name}: fsck finds nothing wrong")
            return outcome
        finally:
            self.node.kill()
            if self.kind == "place":
                if self.path.is_dir() and not self.path.is_symlink():
                    self.path.rmdir()
                os.replace(self.kept, self.path)

    def names_it(self, text):
        relative = self.path.relative_to(self.subject.data)
        directory = relative.parent
        # A database is named by its directory at least; RocksDB says which file, where it knows.
        places = {str(relative)} if str(directory) in (".", "raft", "blobs", "state") else {str(directory)}
        places |= self.subject.digests_at(self.kind, self.path)
        return any(place in text for place in places)

    def fsck(self):
        before = tree(self.subject.data)
        done = run(binary(), "fsck", "--data", self.subject.data, check=False)
        check(tree(self.subject.data) == before, f"{self.name}: fsck changed the directory")
        check("panicked" not in done.stderr, f"{self.name}: fsck panicked: {done.stderr}")
        if done.returncode:
            check(self.names_it(done.stdout), f"{self.name}: fsck does not name it:\n{done.stdout}")
        # A copy is nothing wrong, as long as no node runs on it.
        return done.returncode != 0 or "is a copy of" in done.stdout

    def serve(self):
        self.node.log.write_bytes(b"")
        self.node.start()
        deadline = time.monotonic() + 30
        while True:
            code = self.node.process.poll()
            if code is not None:
                return self.refused(code)
            try:
                if self.node.registry(5).request("GET", "/readyz").status == 200:
                    return self.served()
            except (Broken, OSError):
                pass
            except AssertionError:
                # Damage that a read met is answered with an error, and ends the process.
                if not self.stops():
                    raise
                self.refused(self.node.process.returncode)
                return "s"
            check(time.monotonic() < deadline, f"{self.name}: neither ready nor refused:\n{self.node.tail()}")
            time.sleep(0.03)

    def stops(self):
        deadline = time.monotonic() + 3
        while self.node.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.node.process.poll() is not None

    def refused(self, code):
        text = self.node.log.read_text(errors="replace")
        check(code == 1, f"{self.name}: exit code {code}:\n{text}")
        check(not any(word in text for word in FORBIDDEN), f"{self.name}: it panicked:\n{text}")
        message = [line for line in text.splitlines() if line.startswith("argosy: ")]
        check(len(message) in (2, 3), f"{self.name}: no message and what to do:\n{text}")
        check(self.names_it(message[0]), f"{self.name}: the message does not name it: {message[0]}")
        check("argosy fsck" in message[1] and "README" in message[1], f"{self.name}: what to do is not said: {message}")
        commands = repair_commands(self.node)
        if self.kind in REPAIRED and not any(command.startswith("mv ") for command in commands):
            self.repair(commands)
        else:
            check(any("cp -a BACKUP" in command for command in commands), f"{self.name}: no command repairs it:\n{text}")
        return "r"

    def repair(self, commands):
        """Does what is printed, and nothing else."""
        check(commands, f"{self.name}: no command repairs it")
        self.node.kill()
        run_printed("\n".join(commands))
        self.node.log.write_bytes(b"")
        self.node.start()
        self.node.wait_ready(30)
        for tag, body in self.subject.images.items():
            got = self.node.registry(10).manifest("team/app", tag)
            check(got.status == 200 and got.body == body, f"{self.name}: {tag} after {commands}: {got}")

    def served(self):
        registry = self.node.registry(10)
        lost = [digest for digest, data in self.subject.blobs.items() if not self.is_whole(registry, digest, data)]
        if lost and self.stops():
            raise AssertionError(f"{self.name}: it stopped")
        for tag, body in self.subject.images.items():
            for reference in (tag, sha256(body)):
                got = registry.manifest("team/app", reference)
                check(got.status == 200 and got.body == body, f"{self.name}: {reference}: {got}")
        tags = registry.request("GET", "/v2/team/app/tags/list").json()["tags"]
        check(tags == sorted(self.subject.images), f"{self.name}: tags {tags}")
        allowed = self.subject.digests_at(self.kind, self.path)
        check(set(lost) <= allowed, f"{self.name}: not served: {lost}")
        text = self.node.log.read_text(errors="replace")
        check(not any(word in text for word in FORBIDDEN), f"{self.name}: it panicked:\n{text}")
        if lost:
            check(lost[0] in text, f"{self.name}: the log does not name {lost[0]}")
            return "b"
        return "w" if self.upload_goes_on(registry) else "u"

    def is_whole(self, registry, digest, data):
        """A blob may be refused, but is never wrong."""
        try:
            got = registry.blob("team/app", digest)
        except (Broken, OSError):
            return False
        if got.status >= 500:
            return False
        check(got.status == 200 and got.body == data, f"{self.name}: {digest}: {got.status}, wrong bytes")
        return True

    def upload_goes_on(self, registry):
        """What was told to the client is there, or the client is told that it is not."""
        part, last = self.subject.part, b"the end"
        location = self.subject.upload
        asked = registry.request("GET", location)
        check(asked.status == 204, f"{self.name}: the upload is {asked}")
        if asked.header("Range") != f"0-{len(part) - 1}":
            return False
        done = registry.finish(location, sha256(part + last), last)
        if done.status == 201:
            registry.holds("team/app", sha256(part + last), part + last)
            return True
        check(done.status == 400 and done.codes() == ["DIGEST_INVALID"], f"{self.name}: the upload ends in {done}")
        registry.push_blob("team/app", part + last)
        return False


def measure(kinds, damages, complain):
    """Outcomes by kind, one letter for each damage."""
    table = {}
    with Cluster(1, SETTINGS, start=False) as other_cluster, Cluster(1, SETTINGS, start=False) as cluster:
        subject, other = Subject(cluster, 1), Subject(other_cluster, 2)
        other.fill()
        subject.fill()
        for kind in kinds:
            table[kind] = ""
            for damage in damages:
                try:
                    table[kind] += Case(subject, other, kind, damage).outcome()
                except (AssertionError, OSError) as error:
                    complain(str(error))
                    table[kind] += "!"
            cluster.nodes[0].log.write_bytes(b"")
    return table


def every_file(part):
    complaints = []
    kinds = [kind for kind in KINDS if (kind in OUTCOMES) and part(kind)]
    measured = measure(kinds, DAMAGES, complaints.append)
    for kind in kinds:
        print(f"      {kind:16} {measured[kind]}", flush=True)
    check(not complaints, f"{len(complaints)} cases: " + "\n".join(complaints[:5]))
    for kind in kinds:
        fits = (found in CHOICES.get(wanted, wanted) for found, wanted in zip(measured[kind], OUTCOMES[kind]))
        check(all(fits), f"{kind}: {measured[kind]} instead of {OUTCOMES[kind]} ({DAMAGES})")


@scenario("damage-files", "every file beside the databases, damaged in nine ways: served whole, or refused by name (F-30, F-32)")
def damaged_files():
    every_file(lambda kind: kind.split()[0] not in DATABASES or kind == "log mark")


@scenario("damage-databases", "every file of the three databases, damaged in nine ways (F-30, F-31)", slow=True)
def damaged_databases():
    every_file(lambda kind: kind.split()[0] in DATABASES and kind != "log mark")


if __name__ == "__main__":
    chosen = [kind for kind in KINDS if not sys.argv[1:] or any(kind.startswith(word) for word in sys.argv[1:])]
    print(json.dumps(measure(chosen, DAMAGES, lambda text: print(f"  !! {text}", flush=True)), indent=4))
