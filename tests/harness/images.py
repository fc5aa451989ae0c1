"""Images made on this machine: a small root file system, and OCI layouts."""

import gzip
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

from .registry import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, OCI_INDEX, Unexpected, descriptor, encode, sha256

BUSYBOX = "/bin/busybox"
BULK_BYTES = 2 << 20


def root_file_system(directory, salt):
    """A root file system that can run `cat /salt`, with enough random bytes to be a real transfer."""
    directory = Path(directory)
    if not os.path.exists(BUSYBOX):
        raise Unexpected(f"{BUSYBOX} is missing; install busybox-static")
    for name in ("bin", "etc", "tmp", "var"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(BUSYBOX, directory / "bin/busybox")
    for name in ("sh", "cat", "ls", "sleep"):
        (directory / "bin" / name).symlink_to("busybox")
    (directory / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    (directory / "salt").write_text(salt)
    (directory / "var/bulk").write_bytes(os.urandom(BULK_BYTES))
    return directory


def tar_of(files):
    """An uncompressed layer with these files, the same bytes for the same content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def write_layout(directory, layers, tag="v1"):
    """Writes an OCI layout with one image over these uncompressed layers; returns the manifest's digest."""
    directory = Path(directory)
    (directory / "blobs/sha256").mkdir(parents=True, exist_ok=True)

    def store(data):
        (directory / "blobs/sha256" / sha256(data)[7:]).write_bytes(data)
        return data

    packed = [store(gzip.compress(layer, 1, mtime=0)) for layer in layers]
    config = store(encode({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/cat", "/salt"]},
                           "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]}}))
    manifest = store(encode({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(OCI_CONFIG, config),
                             "layers": [descriptor(OCI_LAYER, data) for data in packed]}))
    entry = descriptor(OCI_MANIFEST, manifest, annotations={"org.opencontainers.image.ref.name": tag})
    (directory / "index.json").write_bytes(encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return sha256(manifest)


def layout_digest(directory):
    """The digest of the one manifest in an OCI layout, after checking every blob in it."""
    directory = Path(directory)
    for blob in (directory / "blobs/sha256").iterdir():
        if sha256(blob.read_bytes())[7:] != blob.name:
            raise Unexpected(f"blob {blob.name[:12]} in {directory} has other bytes")
    index = json.loads((directory / "index.json").read_bytes())
    return index["manifests"][0]["digest"]
