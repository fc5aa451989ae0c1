"""Referrers (R)."""

import os
from urllib.parse import quote

from harness.registry import (
    OCI_EMPTY, OCI_INDEX, OCI_MANIFEST, check, descriptor, encode, expect, in_parallel, next_link, sha256)
from rows import COMPAT, MUST, SHOULD, row

SIGNATURE = "application/vnd.example.signature+json"


def subject_of(image):
    return {"mediaType": image.media_type, "digest": image.digest, "size": len(image.body)}


def artifact(subject, artifact_type=SIGNATURE, **fields):
    """The bytes of an artifact manifest that refers to a subject; each call gives other bytes."""
    empty = descriptor(OCI_EMPTY, b"{}")
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": artifact_type, "config": empty,
                "layers": [empty], "subject": subject, "annotations": {"salt": os.urandom(8).hex()}, **fields}
    return encode({key: value for key, value in document.items() if value is not None})


def subject(t):
    """A repository with an image and the empty blob."""
    name = t.repository()
    image = t.image(name, "v1")
    t.push_blob(name, b"{}")
    return name, image


def refer(t, name, body, target, media_type=OCI_MANIFEST):
    response = expect(t.put_manifest(name, sha256(body), body, media_type), 201)
    check(response.header("OCI-Subject") == target, f"OCI-Subject {response.header('OCI-Subject')}")
    return sha256(body)


def digests(entries):
    return [entry["digest"] for entry in entries]


@row("R01", MUST, "referrers of something unknown are an empty index")
def unknown(t):
    name, _ = subject(t)
    for repository in (name, t.repository()):
        response = expect(t.referrers(repository, sha256(os.urandom(9))), 200)
        check(response.header("Content-Type") == OCI_INDEX, f"Content-Type {response.header('Content-Type')}")
        document = response.json()
        check(document["schemaVersion"] == 2 and document["mediaType"] == OCI_INDEX, f"got {document}")
        check(document["manifests"] == [], f"got {document}")


@row("R02", MUST, "referrers of a malformed digest or a tag are 400")
def malformed(t):
    name, image = subject(t)
    for target in ("sha256:short", "v1", "md5:" + "a" * 32, image.digest.upper()):
        expect(t.referrers(name, target), 400)


@row("R03", MUST, "a manifest with a subject is listed with all its facts")
def listed(t):
    name, image = subject(t)
    annotations = {"org.example.key": "value \u00e9"}
    body = artifact(subject_of(image), annotations=annotations)
    digest = refer(t, name, body, image.digest)
    entries = t.referrer_list(name, image.digest)
    wanted = {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(body), "artifactType": SIGNATURE,
              "annotations": annotations}
    check(entries == [wanted], f"got {entries}")


@row("R04", MUST, "the subject may come later")
def subject_later(t):
    name = t.repository()
    t.push_blob(name, b"{}")
    image = t.image(name, push=False)
    digest = refer(t, name, artifact(subject_of(image)), image.digest)
    check(digests(t.referrer_list(name, image.digest)) == [digest], "not listed before the subject came")
    t.push_manifest(name, "v1", image.body)
    check(digests(t.referrer_list(name, image.digest)) == [digest], "not listed after the subject came")


@row("R05", MUST, "an absent artifactType is the config's media type, and none for an index")
def default_type(t):
    name, image = subject(t)
    config = descriptor("application/vnd.example.config", b"{}")
    from_config = refer(t, name, artifact(subject_of(image), None, config=config), image.digest)
    index = t.index(image, subject=subject_of(image))
    from_index = refer(t, name, index, image.digest, OCI_INDEX)
    found = {entry["digest"]: entry for entry in t.referrer_list(name, image.digest)}
    check(found[from_config].get("artifactType") == "application/vnd.example.config", f"got {found[from_config]}")
    check("artifactType" not in found[from_index], f"got {found[from_index]}")


@row("R06", SHOULD, "referrers are filtered by artifactType")
def filtered(t):
    name, image = subject(t)
    wanted = refer(t, name, artifact(subject_of(image)), image.digest)
    refer(t, name, artifact(subject_of(image), "application/vnd.example.sbom"), image.digest)
    response = expect(t.referrers(name, image.digest, f"artifactType={quote(SIGNATURE, safe='')}"), 200)
    check(response.header("OCI-Filters-Applied") == "artifactType", f"got {response.header('OCI-Filters-Applied')}")
    check(digests(response.json()["manifests"]) == [wanted], f"got {response.json()}")


@row("R07", MUST, "a filter that matches nothing, and one that is unknown")
def odd_filters(t):
    name, image = subject(t)
    digest = refer(t, name, artifact(subject_of(image)), image.digest)
    response = expect(t.referrers(name, image.digest, "artifactType=application/none"), 200)
    check(response.json()["manifests"] == [], "something matches")
    check(response.header("OCI-Filters-Applied") == "artifactType", f"got {response.header('OCI-Filters-Applied')}")
    response = expect(t.referrers(name, image.digest, "colour=blue"), 200)
    check("colour" not in (response.header("OCI-Filters-Applied") or ""), "an unknown filter is named")
    check(digests(response.json()["manifests"]) == [digest], "an unknown filter filters")


@row("R08", MUST, "a deleted referrer leaves the list, a deleted subject leaves it answerable")
def deleted(t):
    name, image = subject(t)
    first = refer(t, name, artifact(subject_of(image)), image.digest)
    second = refer(t, name, artifact(subject_of(image)), image.digest)
    expect(t.request("DELETE", f"/v2/{name}/manifests/{first}"), 202)
    check(digests(t.referrer_list(name, image.digest)) == [second], "the deleted referrer is still listed")
    expect(t.request("DELETE", f"/v2/{name}/manifests/{image.digest}"), 202)
    t.referrer_list(name, image.digest)


@row("R09", MUST, "referrers belong to their repository")
def per_repository(t):
    first, image = subject(t)
    second, _ = subject(t)
    refer(t, first, artifact(subject_of(image)), image.digest)
    check(t.referrer_list(second, image.digest) == [], "listed in another repository")


@row("R10", SHOULD, "a referrer pushed twice is listed once")
def pushed_twice(t):
    name, image = subject(t)
    body = artifact(subject_of(image))
    refer(t, name, body, image.digest)
    t.push_manifest(name, "signature", body)
    check(digests(t.referrer_list(name, image.digest)) == [sha256(body)], "listed more than once")


@row("R11", MUST, "sixty referrers with 100 kB of annotations each are all reachable")
def many(t):
    name, image = subject(t)
    bodies = [artifact(subject_of(image), annotations={"fill": os.urandom(50_000).hex()}) for _ in range(60)]
    in_parallel(lambda body: refer(t, name, body, image.digest), bodies, threads=8)
    found, target = [], f"/v2/{name}/referrers/{image.digest}"
    while target is not None:
        response = expect(t.request("GET", target), 200)
        document = response.json()
        check(document["mediaType"] == OCI_INDEX, "a page is not an index")
        found += digests(document["manifests"])
        target = next_link(response)
        check(len(found) <= 60, "a referrer is repeated")
    check(sorted(found) == sorted(map(sha256, bodies)), f"{len(set(found))} of 60 reachable")


@row("R12", COMPAT, "the referrers tag of clients without the API works like any tag")
def fallback_tag(t):
    name, image = subject(t)
    index = t.index(image)
    tag = image.digest.replace(":", "-")
    t.push_manifest(name, tag, index, OCI_INDEX)
    check(expect(t.manifest(name, tag), 200).body == index, "other bytes")


@row("R13", SHOULD, "sixteen referrers pushed at once are all listed")
def at_once(t):
    name, image = subject(t)
    bodies = [artifact(subject_of(image)) for _ in range(16)]
    in_parallel(lambda body: refer(t, name, body, image.digest), bodies)
    found = digests(t.referrer_list(name, image.digest))
    check(sorted(found) == sorted(map(sha256, bodies)), f"{len(found)} of 16 listed")


@row("K10", MUST, "what an index under the referrers tag names is in the API")
def fallback_index(t):
    name, image = subject(t)
    body = artifact(subject_of(image))
    digest = t.push_manifest(name, None, body)
    entry = {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(body), "artifactType": SIGNATURE}
    index = encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})
    t.push_manifest(name, image.digest.replace(":", "-"), index, OCI_INDEX)
    check(digests(t.referrer_list(name, image.digest)) == [digest], "not in the API, or twice")


@row("K18", MUST, "the list never names a manifest that is 404")
def no_dead_entries(t):
    name, image = subject(t)
    for number in range(6):
        digest = refer(t, name, artifact(subject_of(image)), image.digest)
        if number % 2:
            expect(t.request("DELETE", f"/v2/{name}/manifests/{digest}"), 202)
    expect(t.request("DELETE", f"/v2/{name}/manifests/{image.digest}"), 202)
    for digest in digests(t.referrer_list(name, image.digest)):
        expect(t.manifest(name, digest), 200)


@row("K20", SHOULD, "deleting one child leaves the index as it is")
def child_deleted(t):
    name = t.repository()
    first, second = t.image(name), t.image(name)
    index = t.index(first, second)
    t.push_manifest(name, "v1", index, OCI_INDEX)
    response = t.request("DELETE", f"/v2/{name}/manifests/{first.digest}")
    expect(response, 202)
    check(expect(t.manifest(name, "v1"), 200).body == index, "other bytes")
    expect(t.manifest(name, first.digest), 404)
    expect(t.manifest(name, second.digest), 200)
