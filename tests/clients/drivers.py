"""Five real clients behind one small interface: make an image, push it, pull it back and say what came.

An image is known by its identity: whatever that client calls the content (an image id or a manifest digest).
Pulling always starts from a client that has forgotten the image, so that the bytes really travel.
"""

import contextlib
import json
import secrets
import shutil
import tempfile
from pathlib import Path

from harness.images import layout_digest, root_file_system, tar_of, write_layout
from harness.registry import check
from harness.shell import run

CONTAINERFILE = "FROM scratch\nADD rootfs.tar /\nCOPY extra /extra\nCMD [\"/bin/cat\", \"/salt\"]\n"
INSECURE = "--tls-verify=false"


class Client:
    """A client with a directory of its own."""

    def __init__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="argosy-client-"))

    def fresh(self, name="work"):
        path = self.directory / f"{name}-{secrets.token_hex(4)}"
        path.mkdir()
        return path

    def build_context(self, salt):
        """A directory with a Containerfile, a root file system and one more file."""
        context = self.fresh("context")
        run("tar", "-C", root_file_system(self.fresh("rootfs"), salt), "-cf", context / "rootfs.tar", ".")
        (context / "extra").write_text(salt * 1000)
        (context / "Dockerfile").write_text(CONTAINERFILE)
        return context

    def close(self):
        shutil.rmtree(self.directory, ignore_errors=True)


class Docker(Client):
    """The docker daemon; its images are shared with the machine, so each is removed again."""

    def __init__(self):
        super().__init__()
        self.salts, self.identities = [], []

    def make(self):
        name = f"argosy-test-{secrets.token_hex(6)}"
        run("docker", "build", "--quiet", "--tag", name, self.build_context(name), DOCKER_BUILDKIT="0")
        self.salts.append(name)
        self.identities.append(run("docker", "image", "inspect", "--format", "{{.Id}}", name))
        return self.identities[-1]

    def push(self, identity, reference):
        run("docker", "tag", identity, reference)
        run("docker", "push", reference)

    def pull(self, identity, reference):
        self.forget(identity)
        run("docker", "pull", reference)
        pulled = run("docker", "image", "inspect", "--format", "{{.Id}}", reference)
        salt = run("docker", "run", "--rm", "--network", "none", reference)
        check(salt in self.salts, f"the pulled image ran and said {salt[:40]!r}")
        return pulled

    def forget(self, identity):
        run("docker", "rmi", "--force", identity, check=False)
        gone = run("docker", "image", "inspect", identity, check=False)
        check(gone.returncode != 0, f"docker still has {identity}")

    def close(self):
        for identity in self.identities:
            run("docker", "rmi", "--force", identity, check=False)
        super().close()


class Podman(Client):
    """podman with its own storage; the vfs driver needs nothing from the kernel."""

    def __init__(self):
        super().__init__()
        self.base = ["podman", "--root", self.directory / "root", "--runroot", self.directory / "run",
                     "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]

    def podman(self, *arguments, **named):
        return run(*self.base, *arguments, **named)

    def make(self):
        name = f"localhost/argosy-test-{secrets.token_hex(6)}"
        context = self.build_context(name)
        self.podman("import", "--quiet", context / "rootfs.tar", name)
        return self.podman("image", "inspect", "--format", "{{.Id}}", name)

    def push(self, identity, reference):
        self.podman("push", "--quiet", INSECURE, identity, f"docker://{reference}")

    def pull(self, identity, reference):
        self.podman("rmi", "--force", identity, check=False)
        self.podman("pull", "--quiet", INSECURE, f"docker://{reference}")
        return self.podman("image", "inspect", "--format", "{{.Id}}", reference)


class Buildah(Client):
    """buildah with its own storage."""

    def __init__(self):
        super().__init__()
        self.base = ["buildah", "--root", self.directory / "root", "--runroot", self.directory / "run",
                     "--storage-driver", "vfs"]

    def buildah(self, *arguments, **named):
        return run(*self.base, *arguments, **named)

    def make(self):
        context, name = self.fresh("rootfs"), f"argosy-test-{secrets.token_hex(6)}"
        root_file_system(context, name)
        container = self.buildah("from", "scratch")
        self.buildah("copy", "--quiet", container, context, "/")
        self.buildah("config", "--cmd", "/bin/cat /salt", container)
        self.buildah("commit", "--quiet", "--rm", container, name)
        return self.image_id(name)

    def image_id(self, reference):
        return json.loads(self.buildah("inspect", "--type", "image", reference))["FromImageID"]

    def push(self, identity, reference):
        self.buildah("push", "--quiet", INSECURE, identity, f"docker://{reference}")

    def pull(self, identity, reference):
        self.buildah("rmi", "--force", identity, check=False)
        self.buildah("pull", "--quiet", INSECURE, f"docker://{reference}")
        return self.image_id(reference)


class Skopeo(Client):
    """skopeo between OCI layouts and the registry; every blob of what it pulled is hashed again."""

    def __init__(self):
        super().__init__()
        self.layouts = {}

    def make(self):
        layout = self.fresh("layout")
        layers = [tar_of({"base": b"base" * 1000}), tar_of({"salt": secrets.token_bytes(1 << 20)}), tar_of({"x": b""})]
        digest = write_layout(layout, layers)
        self.layouts[digest] = layout
        return digest

    def push(self, identity, reference):
        run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{self.layouts[identity]}:v1", f"docker://{reference}")

    def pull(self, identity, reference):
        layout = self.fresh("pulled")
        run("skopeo", "copy", "--src-tls-verify=false", f"docker://{reference}", f"oci:{layout}:v1")
        inspected = json.loads(run("skopeo", "inspect", INSECURE, f"docker://{reference}"))
        check(inspected["Digest"] == identity, f"skopeo inspect names {inspected['Digest']}")
        return layout_digest(layout)


class Umoci(Skopeo):
    """Layouts that umoci made and can unpack again; skopeo carries them."""

    def make(self):
        layout, bundle = self.fresh("layout"), self.fresh("bundle")
        run("umoci", "init", "--layout", layout / "oci")
        run("umoci", "new", "--image", f"{layout}/oci:v1")
        run("umoci", "unpack", "--image", f"{layout}/oci:v1", bundle / "b")
        root_file_system(bundle / "b/rootfs", secrets.token_hex(8))
        run("umoci", "repack", "--image", f"{layout}/oci:v1", bundle / "b")
        digest = layout_digest(layout / "oci")
        self.layouts[digest] = layout / "oci"
        return digest

    def pull(self, identity, reference):
        layout, bundle = self.fresh("pulled"), self.fresh("bundle")
        run("skopeo", "copy", "--src-tls-verify=false", f"docker://{reference}", f"oci:{layout}:v1")
        run("umoci", "unpack", "--image", f"{layout}:v1", bundle / "b")
        check((bundle / "b/rootfs/bin/busybox").exists(), "the unpacked image lacks its files")
        return layout_digest(layout)


@contextlib.contextmanager
def client(kind):
    """A client that is tidied away afterwards."""
    one = kind()
    try:
        yield one
    finally:
        one.close()
