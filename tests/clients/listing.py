"""Lists while names come and go all the time."""

import contextlib
import threading
import time

from garbage import QUICK
from harness.cluster import Cluster
from harness.registry import check, expect, in_parallel, next_link
from scenarios import scenario

PAGE = 3
# Longer than a push takes on a busy machine; a repository vanishes from the catalog after that.
SETTINGS = QUICK.replace("grace_ms = 1000", "grace_ms = 2000").replace("undelete_ms = 1500", "undelete_ms = 100")
WALKS, SEEN, SECONDS = 60, 8, 120


class Names:
    """Names of which those with even numbers stand all the time and the others come and go."""

    def __init__(self, pattern, count):
        self.all = {pattern.format(number) for number in range(count)}
        self.coming = {pattern.format(number) for number in range(1, count, 2)}
        self.standing = self.all - self.coming
        self.walks, self.appeared, self.vanished, self.last = 0, 0, 0, set()
        self.lock = threading.Lock()

    def judge(self, listed):
        """One walk over all pages."""
        check(listed == sorted(set(listed)), f"not in lexical order, or twice: {listed}")
        missing, unknown = self.standing - set(listed), set(listed) - self.all
        check(not missing, f"{sorted(missing)} stood all the time and are not among {listed}")
        check(not unknown, f"nobody ever pushed {sorted(unknown)}")
        with self.lock:
            self.appeared += len(set(listed) - self.last)
            self.vanished += len(self.last - set(listed))
            self.last, self.walks = set(listed), self.walks + 1

    def enough(self):
        return self.walks >= WALKS and min(self.appeared - len(self.standing), self.vanished) >= SEEN


def walk(cluster, target, field, first):
    """Every page, each from the next node."""
    listed, turn = [], first
    while target is not None:
        answer = expect(cluster.nodes[turn % 3].registry().request("GET", target), 200)
        check(len(answer.json()[field]) <= PAGE, f"a page of {len(answer.json()[field])}")
        listed += answer.json()[field]
        target, turn = next_link(answer), turn + 1
    return listed


def change_tags(cluster, tags, image, stopping):
    registry = cluster.registry()
    while not stopping.is_set():
        for tag in sorted(tags.coming):
            registry.push_manifest("repo/00", tag, image.body)
        for tag in sorted(tags.coming):
            expect(registry.request("DELETE", f"/v2/repo/00/manifests/{tag}"), 202)


def change_catalog(cluster, name, stopping):
    """Pushes an image, deletes it, and waits until collection has taken the whole repository away."""
    registry = cluster.registry()
    while not stopping.is_set():
        image = registry.image(name, layers=0, push=False)
        # On a machine that is busy enough collection is faster.
        pushed = expect(registry.put_manifest(name, "v1", image.body), 201, 400, code="MANIFEST_BLOB_UNKNOWN")
        if pushed.status == 201:
            expect(registry.request("DELETE", f"/v2/{name}/manifests/{image.digest}"), 202)
        while registry.tags(name).status != 404 and not stopping.wait(0.2):
            pass


def read(cluster, first, wanted, stopping):
    """Walks over both lists until enough was seen."""
    deadline = time.monotonic() + SECONDS
    while not all(names.enough() for names, _, _ in wanted):
        seen = [(names.walks, names.appeared, names.vanished) for names, _, _ in wanted]
        check(time.monotonic() < deadline, f"walks, appeared and vanished after {SECONDS} s: {seen}")
        check(not stopping.is_set(), "what changes the names has failed")
        for names, target, field in wanted:
            names.judge(walk(cluster, target, field, first))


@contextlib.contextmanager
def going_on(jobs, stopping):
    """Runs functions of `stopping` beside what is done inside, and raises what they raised."""
    failures = []

    def run(job):
        try:
            job()
        except Exception as error:  # Whoever reads has to stop, too; the error is raised below.
            failures.append(error)
            stopping.set()

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]


@scenario("lists-changing", "pages of tags and of the catalog from three nodes while names come and go: in order, none twice, "
          "none missing (C07, F-81)")
def lists_changing():
    with Cluster(3, SETTINGS) as cluster:
        tags, repositories, stopping = Names("t{:02}", 21), Names("repo/{:02}", 21), threading.Event()
        image = cluster.registry().image("repo/00", layers=0)
        in_parallel(lambda tag: cluster.registry().push_manifest("repo/00", tag, image.body), tags.standing)
        in_parallel(lambda name: cluster.registry().image(name, "t00", layers=0), repositories.standing)
        wanted = [(tags, f"/v2/repo/00/tags/list?n={PAGE}", "tags"),
                  (repositories, f"/v2/_catalog?n={PAGE}", "repositories")]
        jobs = [lambda: change_tags(cluster, tags, image, stopping)]
        jobs += [lambda name=name: change_catalog(cluster, name, stopping) for name in repositories.coming]
        with going_on(jobs, stopping):
            in_parallel(lambda first: read(cluster, first, wanted, stopping), range(3))
        for names, _, field in wanted:
            print(f"      {field}: {names.walks} walks, {names.appeared} appeared, {names.vanished} vanished", flush=True)
