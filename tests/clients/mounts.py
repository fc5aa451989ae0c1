"""Directories that are mounts of their own, that run out of inodes, that become read-only, that fail, and copies of them."""

import errno
import fcntl
import os
import shutil
import struct
from pathlib import Path

from disks import SmallDisks, empty, fill, goes_on
from harness.cluster import Cluster, binary, wait_for
from harness.registry import OCTETS, check, expect, sha256
from harness.shell import run
from operating import complete, status
from scenarios import scenario
from sick import roles

BLOB_BYTES = 2 << 20
FLOOR = "[storage]\nreserve_bytes = 1048576\n"
REPAIR = "[repair]\ninterval_ms = 500\ncheck_interval_ms = 3000\n"
# FS_IOC_SHUTDOWN: from now on the file system answers every request with EIO.
SHUTDOWN, WITHOUT_FLUSH = 0x8004587D, 2


class Mounted(Cluster):
    """A cluster whose nodes have parts of their data directories on mounts of their own."""

    def __init__(self, nodes, settings, mounts):
        """`mounts` says for each path below a data directory how to mount it; the last part is the path."""
        super().__init__(nodes, settings, start=False)
        self.mounts = mounts
        self.mounted = []

    def __enter__(self):
        check(os.geteuid() == 0, "mounting needs root")
        try:
            for node in self.nodes:
                for directory, how in self.mounts.items():
                    self.mount(node, directory, how)
            self.start()
        except BaseException:
            self.__exit__(AssertionError, None, None)
            raise
        return self

    def mount(self, node, directory, how):
        target = node.directory / "data" / directory
        target.mkdir(exist_ok=True)
        if how == "bind":
            source = node.directory / f"elsewhere-{directory}"
            source.mkdir()
            run("mount", "--bind", source, target)
        elif how == "ext4":
            image = node.directory / f"{directory}.img"
            with open(image, "wb") as file:
                file.truncate(96 << 20)
            run("mkfs.ext4", "-q", "-F", image)
            run("mount", "-o", "loop", image, target)
        else:
            run("mount", "-t", "tmpfs", "-o", how, "argosy-test", target)
        self.mounted.append(target)

    def __exit__(self, kind, value, traceback):
        self.kill(kind is not None)
        for target in self.mounted:
            run("umount", "--lazy", target, check=False)
        super().__exit__(kind, value, traceback)


def in_pieces(node, data):
    """Uploads in two requests, with a restart of the node in between."""
    half = len(data) // 2
    target = expect(node.registry().patch(node.registry().start("team/app"), data[:half], f"0-{half - 1}"), 202).location()
    node.restart()
    node.wait_ready()
    asked = expect(node.registry().request("GET", target), 204)
    check(asked.header("Range") == f"0-{half - 1}", f"resumed at {asked.header('Range')}")
    expect(node.registry().finish(target, sha256(data), data[half:]), 201)
    node.registry().holds("team/app", sha256(data), data)


@scenario("blobs-mount", "blobs on a mount of their own, another file system or the same one: pushes, resumes, deletes")
def blobs_on_a_mount():
    for how in ("size=96m", "bind"):
        with Mounted(1, FLOOR, {"blobs": how}) as cluster:
            node = cluster.nodes[0]
            for size in (BLOB_BYTES, 3000):
                data = os.urandom(size)
                node.registry().holds("team/app", node.registry().push_blob("team/app", data), data)
            in_pieces(node, os.urandom(BLOB_BYTES))
            image = node.registry().image("team/app", "v1")
            expect(node.registry().request("DELETE", f"/v2/team/app/manifests/{image.digest}"), 202)
            usage = status(node)["nodes"][0]["disk_total_bytes"]
            stat = os.statvfs(node.directory / "data/blobs")
            check(usage == stat.f_blocks * stat.f_frsize, f"status shows {usage}, which is another disk")


def use_up_inodes(directory):
    """Makes files until there can be no more; what to remove to have inodes again."""
    filler, count = directory / "filler", 0
    filler.mkdir()
    try:
        while True:
            (filler / str(count)).touch()
            count += 1
    except OSError as error:
        check(error.errno == errno.ENOSPC, f"{error}")
    return filler


def refuses_uploads(node):
    refused = node.registry().request("POST", "/v2/team/app/blobs/uploads/")
    if refused.status == 202:
        refused = node.registry().finish(refused.location(), sha256(b"x" * BLOB_BYTES), b"x" * BLOB_BYTES)
    check(refused.status in (503, 507) and refused.codes(), f"node {node.id}, an upload without inodes: {refused}")
    check(node.process.poll() is None, f"it stopped:\n{node.tail()}")


@scenario("inodes", "no inodes left on a follower, the leader, all nodes: no uploads there, the rest goes on, they come back (F-21)",
          slow=True)
def no_inodes():
    with Mounted(3, FLOOR, {"blobs": "size=96m,nr_inodes=600", "raft": "size=96m,nr_inodes=200",
                            "local": "size=96m,nr_inodes=200"}) as cluster:
        leader, followers = roles(cluster)
        data = os.urandom(BLOB_BYTES)
        digest = cluster.registry().push_blob("team/app", data)
        wait_for(lambda: complete(leader, 3), "three copies", 30)
        for name, sick in (("follower", followers[:1]), ("leader", [leader]), ("all", cluster.nodes)):
            for directory in ("blobs", "local"):
                fillers = [use_up_inodes(node.directory / "data" / directory) for node in sick]
                for node in sick:
                    refuses_uploads(node)
                if name != "all":
                    goes_on([node for node in cluster.nodes if node not in sick], f"{name}-{directory}-without")
                for node in sick:
                    node.registry().holds("team/app", digest, data)
                for filler in fillers:
                    shutil.rmtree(filler)
                for node in sick:
                    wait_for(lambda: node.registry().push_blob("team/app", os.urandom(BLOB_BYTES)), "uploads work again", 60)
                goes_on(cluster.nodes, f"{name}-{directory}-again")
        # They may have had no room for the cluster's name either.
        for place in (node.directory / "data" / part / "IDENTITY" for node in cluster.nodes for part in ("raft", "blobs")):
            wait_for(lambda: "cluster" in place.read_text(), f"{place} bound to its cluster", 30)


@scenario("read-only-blobs", "a blob directory becomes read-only: shown, out of placement, back when writable (F-24)", slow=True)
def read_only_blobs():
    with Mounted(3, REPAIR, {"blobs": "size=96m"}) as cluster:
        node, *others = cluster.nodes
        target = node.directory / "data/blobs"
        data = os.urandom(BLOB_BYTES)
        digest = cluster.registry().push_blob("team/app", data)
        begun = node.registry().start("team/app")
        expect(node.registry().patch(begun, data[:BLOB_BYTES // 2], f"0-{BLOB_BYTES // 2 - 1}"), 202)
        wait_for(lambda: complete(node, 3), "three copies", 30)
        # Not while a file is open for writing: after a restart the upload has none open.
        node.restart()
        node.wait_ready()
        wait_for(lambda: run("mount", "-o", "remount,ro", target, check=False).returncode == 0, "remounted", 60)
        shows_trouble(node, others[0], "read-only")
        refused = node.registry().request("POST", "/v2/team/app/blobs/uploads/")
        check(refused.status == 503 and refused.codes() == ["UNAVAILABLE"], f"an upload: {refused}")
        late = node.registry().patch(begun, data[BLOB_BYTES // 2:], f"{BLOB_BYTES // 2}-{BLOB_BYTES - 1}")
        check(late.status == 503 and late.codes() == ["UNAVAILABLE"], f"the rest of an upload: {late}")
        goes_on(others, "elsewhere")
        node.registry().holds("team/app", digest, data)
        node.restart()
        wait_for(lambda: "read-only" in not_ready(node), "it starts all the same", 30)
        node.registry().holds("team/app", digest, data)
        run("mount", "-o", "remount,rw", target)
        node.wait_ready(20)
        wait_for(lambda: complete(node, 3), "the copies it missed", 60)
        goes_on(cluster.nodes, "again")


def not_ready(node):
    answer = node.registry().request("GET", "/readyz")
    return answer.body.decode() if answer.status == 503 else ""


def shows_trouble(node, other, word):
    wait_for(lambda: word in not_ready(node), f"/readyz says {word}", 20)
    shown = next(one for one in status(other)["nodes"] if one["id"] == node.id)
    check(not shown["ready"] and word in shown["reason"], f"clusterctl status shows {shown}")


@scenario("failing-blobs", "the disk of the blobs gives errors: shown, nothing wrong served, back after a repair (F-22)", slow=True)
def failing_blobs():
    with Mounted(3, REPAIR, {"blobs": "ext4"}) as cluster:
        node, *others = cluster.nodes
        data = os.urandom(BLOB_BYTES)
        digest = cluster.registry().push_blob("team/app", data)
        wait_for(lambda: complete(node, 3), "three copies", 30)
        shut_down(node.directory / "data/blobs")
        refused = node.registry().request("POST", "/v2/team/app/blobs/uploads/")
        if refused.status == 202:
            refused = node.registry().finish(refused.location(), sha256(b"y" * BLOB_BYTES), b"y" * BLOB_BYTES)
        check(refused.status == 503 and refused.codes() == ["UNAVAILABLE"], f"an upload: {refused}")
        shows_trouble(node, others[0], "blob directory")
        goes_on(others, "elsewhere")
        # Its own copy cannot be read: another node has one.
        node.registry().holds("team/app", digest, data)
        node.stop()
        remount(node, "blobs")
        node.start()
        cluster.wait_ready()
        wait_for(lambda: complete(node, 3), "the copies it missed", 60)


def shut_down(mount):
    handle = os.open(mount, os.O_RDONLY)
    try:
        fcntl.ioctl(handle, SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
    finally:
        os.close(handle)


def remount(node, directory):
    """What mending a disk comes down to: the journal is replayed."""
    target = node.directory / "data" / directory
    run("umount", target)
    run("mount", "-o", "loop", node.directory / f"{directory}.img", target)


@scenario("failing-raft", "the disk of the Raft log gives errors: the node stops and says so, the others go on (F-19, F-22)",
          slow=True)
def failing_raft():
    with Mounted(3, FLOOR, {"raft": "ext4"}) as cluster:
        image = cluster.registry().image("team/app", "before")
        for node in cluster.nodes:
            others = [one for one in cluster.nodes if one is not node]
            shut_down(node.directory / "data/raft")
            wait_for(lambda: node.process.poll() is not None, "it stops", 30)
            code, text = node.process.returncode, node.tail()
            check(code == 1, f"exit code {code}:\n{text}")
            _, _, reason = text.partition("argosy: ")
            # A node that has just joined may meet the disk at its IDENTITY before it meets it at the log.
            check("log" in reason or "data/raft/" in reason, f"it does not say where:\n{text}")
            check("Input/output error" in reason, f"it does not say why:\n{text}")
            goes_on(others, f"without-{node.id}")
            node.kill()
            remount(node, "raft")
            node.start()
            cluster.wait_ready()
            check(node.registry().manifest("team/app", "before").body == image.body, "other bytes")
            check(node.registry().manifest("team/app", f"without-{node.id}-1").status == 200, "it missed what happened")


@scenario("disk-full-upload", "a disk that fills during uploads: 507 or 503, and they go on once there is room (F-20)", slow=True)
def full_during_uploads():
    with SmallDisks(1, "[storage]\nmin_free_bytes = 16777216\n") as cluster:
        node = cluster.nodes[0]
        registry, half = node.registry(), BLOB_BYTES // 2
        uploads = []
        for _ in range(6):
            data = os.urandom(BLOB_BYTES)
            uploads.append((expect(registry.patch(registry.start("team/app"), data[:half], f"0-{half - 1}"), 202).location(), data))
        fill(node)
        for number, (target, data) in enumerate(uploads):
            if number % 2:
                refused = registry.patch(target, data[half:], f"{half}-{BLOB_BYTES - 1}")
            else:
                refused = registry.finish(target, sha256(data), data[half:])
            check(refused.status in (503, 507) and refused.codes() == ["UNAVAILABLE"], f"upload {number}: {refused}")
            check(refused.header("Retry-After"), f"upload {number}: no Retry-After")
        empty(node)
        node.wait_ready()
        for target, data in uploads:
            wait_for(lambda: registry.request("GET", target).status == 204, "the upload is there", 30)
            at = int(registry.request("GET", target).header("Range").split("-")[1]) + 1
            check(half <= at <= BLOB_BYTES, f"it stands at {at}")
            wait_for(lambda: expect(registry.finish(target, sha256(data), data[at:], OCTETS), 201), "it ends", 60)
            registry.holds("team/app", sha256(data), data)


@scenario("copied-directory", "a copy of a data directory is refused, also while the original runs, until it is accepted (F-35)")
def copied_directory():
    with Cluster(1) as cluster:
        node = cluster.nodes[0]
        image = node.registry().image("team/app", "v1")
        node.stop()
        data, copy = node.directory / "data", node.directory / "copy"
        shutil.copytree(data, copy)
        configuration = (node.directory / "config.toml").read_text()
        node.start()
        node.wait_ready()
        refused_copy(node, copy, configuration)
        node.stop()
        refused_copy(node, copy, configuration)
        kept = run(binary(), "accept-copy", "--data", copy, check=False)
        check(kept.returncode == 1 and str(data) in kept.stderr, f"accepted beside the original: {kept}")
        # Moving within a file system is no copy.
        moved = node.directory / "moved"
        data.rename(moved)
        starts_on(node, moved, configuration, image)
        shutil.rmtree(moved)
        refused_copy(node, copy, configuration)
        run(binary(), "accept-copy", "--data", copy)
        starts_on(node, copy, configuration, image)


def refused_copy(node, copy, configuration):
    other = node.directory / "other.toml"
    free = configuration.replace(node.host, "127.0.0.1:0").replace(node.grpc, "127.0.0.1:0")
    other.write_text(free.replace(f"{node.directory}/data", str(copy)))
    done = run(binary(), "serve", "--config", other, check=False, seconds=20)
    check(done.returncode == 1 and "is a copy of" in done.stderr and "accept-copy" in done.stderr, f"not refused: {done}")


def starts_on(node, directory, configuration, image):
    Path(node.directory / "config.toml").write_text(configuration.replace(f"{node.directory}/data", str(directory)))
    node.start()
    node.wait_ready()
    check(node.registry().manifest("team/app", "v1").body == image.body, "other bytes")
    node.stop()
