"""What every registry test does: push blobs, manifests and images, and say clearly what was not as expected."""

import hashlib
import json
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .http_raw import with_query

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
ALL_MANIFESTS = ", ".join([OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST])
OCTETS = {"Content-Type": "application/octet-stream"}


class Unexpected(AssertionError):
    """The registry did something else than the row says."""


def check(condition, message):
    if not condition:
        raise Unexpected(message)


def expect(response, *statuses, code=None):
    """The status is one of these and, where a code is named, the error body carries it."""
    check(response.status in statuses, f"wanted {'/'.join(map(str, statuses))}, got {response}")
    if code is not None and response.status >= 400:
        codes = [code] if isinstance(code, str) else code
        check(set(codes) & set(response.codes()), f"wanted code {'/'.join(codes)}, got {response}")
    return response


def expect_refused(response, what=""):
    """A client error: not a success, not a redirect, not a server error."""
    check(400 <= response.status < 500, f"{what} wanted 4xx, got {response}".strip())
    return response


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def sha512(data):
    return "sha512:" + hashlib.sha512(data).hexdigest()


def descriptor(media_type, data, **more):
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}


def encode(document):
    return json.dumps(document, separators=(",", ":")).encode()


def in_parallel(function, items, threads=16):
    """All results in order; the first failure is raised."""
    with ThreadPoolExecutor(max_workers=threads) as pool:
        return list(pool.map(function, items))


@dataclass
class Image:
    """A manifest in some repository, with all it names pushed."""

    body: bytes
    digest: str
    media_type: str
    config: bytes
    layers: list


class Registry:
    """A registry behind one or several endpoints; targets are built without any escaping."""

    def __init__(self, client):
        self.client = client

    def repository(self, suffix=""):
        """A repository name nobody used before."""
        return f"probe-{secrets.token_hex(4)}" + (f"/{suffix}" if suffix else "")

    def request(self, method, target, *arguments, **named):
        return self.client.request(method, target, *arguments, **named)

    def blob(self, repository, digest, method="GET", headers=(), **named):
        return self.request(method, f"/v2/{repository}/blobs/{digest}", headers, **named)

    def manifest(self, repository, reference, method="GET", accept=ALL_MANIFESTS, headers=(), **named):
        pairs = list(dict(headers).items()) + ([("Accept", accept)] if accept else [])
        return self.request(method, f"/v2/{repository}/manifests/{reference}", pairs, **named)

    def start(self, repository, query="", **named):
        """Opens an upload session and returns its target."""
        target = f"/v2/{repository}/blobs/uploads/" + (f"?{query}" if query else "")
        return expect(self.request("POST", target, **named), 202).location()

    def patch(self, target, data, content_range=None, **named):
        headers = dict(OCTETS)
        if content_range is not None:
            headers["Content-Range"] = content_range
        return self.request("PATCH", target, headers, data, **named)

    def finish(self, target, digest, data=b"", headers=OCTETS, **named):
        return self.request("PUT", with_query(target, f"digest={digest}"), headers, data, **named)

    def push_blob(self, repository, data=None, digest=None):
        """POST then PUT; returns the digest."""
        data = os.urandom(1024) if data is None else data
        digest = digest or sha256(data)
        expect(self.finish(self.start(repository), digest, data), 201)
        return digest

    def put_manifest(self, repository, reference, body, media_type=OCI_MANIFEST, headers=(), **named):
        pairs = list(dict(headers).items()) + ([("Content-Type", media_type)] if media_type else [])
        return self.request("PUT", f"/v2/{repository}/manifests/{reference}", pairs, body, **named)

    def push_manifest(self, repository, reference, body, media_type=OCI_MANIFEST):
        """Puts a manifest and insists on 201; without a reference it goes by its digest."""
        expect(self.put_manifest(repository, reference or sha256(body), body, media_type), 201)
        return sha256(body)

    def image(self, repository, tag=None, layers=1, push=True, **fields):
        """A small image with random layers; its blobs are pushed, and the manifest too unless told otherwise."""
        config = encode({"architecture": "amd64", "os": "linux", "salt": secrets.token_hex(8)})
        blobs = [os.urandom(512) for _ in range(layers)]
        for data in [config, *blobs]:
            self.push_blob(repository, data)
        body = encode({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, config),
            "layers": [descriptor(OCI_LAYER, data) for data in blobs],
            **fields,
        })
        if push:
            self.push_manifest(repository, tag, body)
        return Image(body, sha256(body), OCI_MANIFEST, config, blobs)

    def index(self, *images, **fields):
        """The bytes of an index over these images."""
        manifests = [{"mediaType": one.media_type, "digest": one.digest, "size": len(one.body)} for one in images]
        return encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests, **fields})

    def tags(self, repository, query=""):
        return self.request("GET", f"/v2/{repository}/tags/list" + (f"?{query}" if query else ""))

    def tag_names(self, repository, query=""):
        return expect(self.tags(repository, query), 200).json()["tags"]

    def referrers(self, repository, digest, query=""):
        return self.request("GET", f"/v2/{repository}/referrers/{digest}" + (f"?{query}" if query else ""))

    def referrer_list(self, repository, digest, query=""):
        return expect(self.referrers(repository, digest, query), 200).json()["manifests"]

    def absent(self, repository, digest):
        expect(self.blob(repository, digest, "HEAD"), 404)

    def holds(self, repository, digest, data):
        """The blob is there, byte for byte."""
        response = expect(self.blob(repository, digest), 200)
        check(response.body == data, f"blob {digest[:19]} came back with other bytes")

    def alive(self):
        """Every endpoint still answers."""
        for endpoint in self.client.endpoints:
            expect(self.request("GET", "/v2/", endpoint=endpoint), 200)


def next_link(response):
    """The target of the `rel="next"` link, or None."""
    link = response.header("Link")
    if link is None:
        return None
    check(link.startswith("<") and 'rel="next"' in link, f"malformed Link {link!r}")
    return link[1:link.index(">")]
