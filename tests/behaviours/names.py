"""Repository names, tags and paths (N)."""

from harness.registry import check, expect, expect_refused, sha256
from rows import MUST, SHOULD, row


def post(t, name):
    return t.request("POST", f"/v2/{name}/blobs/uploads/")


def refused_or_cleaned(response, what):
    """A client error, or a redirect to the path without its odd segments."""
    check(300 <= response.status < 500, f"{what}: wanted 4xx or a redirect, got {response}")


@row("N01", MUST, "upper case in a name is refused")
def upper_case(t):
    for name in (f"{t.repository()}/UPPER", "UPPER/lower", "Mixed"):
        response = expect(post(t, name), 400, 404)
        check(response.status == 404 or "NAME_INVALID" in response.codes(), f"{name}: got {response}")


@row("N02", MUST, "dot-dot segments never reach the store")
def dot_dot(t):
    for name in ("a/../b", "..", "../../../tmp/x", "a/%2e%2e/b", "%2e%2e/%2e%2e/etc", "a/..%2fb", "a/.%2e/b"):
        refused_or_cleaned(post(t, name), name)
        refused_or_cleaned(t.request("GET", f"/v2/{name}/manifests/x"), name)


@row("N03", MUST, "unicode, space and NUL in a name are refused")
def strange_bytes(t):
    for name in ("caf%C3%A9", "a%20b", "a%00b", "a%0ab", "\u00e9", "a%ff", "a+b", "a\\b", "a%5cb"):
        expect_refused(post(t, name), name)


@row("N04", MUST, "separators inside a component follow the grammar")
def separators(t):
    root = t.repository()
    for name in ("a.b", "a_b", "a__b", "a--b", "a-b.c_d"):
        expect(post(t, f"{root}/{name}"), 202)
    for name in ("a___b", "a..b", "a.-b", "-a", "a_", ".a", "a-", "a.", "_a", "a._b"):
        expect_refused(post(t, f"{root}/{name}"), name)


@row("N05", SHOULD, "a name of 200 characters is accepted, one of 300 refused")
def name_length(t):
    root = t.repository()
    expect(post(t, root + "/" + "a" * (200 - len(root) - 1)), 202)
    expect(post(t, root + "/" + "a" * (300 - len(root) - 1)), 400, code="NAME_INVALID")


@row("N06", MUST, "a name of eight components works")
def deep_name(t):
    name = t.repository("b/c/d/e/f/g/h")
    image = t.image(name, "v1")
    check(expect(t.manifest(name, "v1"), 200).body == image.body, "other bytes")


@row("N07", MUST, "components that are API words work")
def api_words(t):
    for words in ("manifests", "blobs", "tags", "referrers", "tags/list", "blobs/uploads", "manifests/blobs",
                  "referrers/manifests"):
        name = t.repository(words)
        image = t.image(name, "v1")
        check(expect(t.manifest(name, "v1"), 200).body == image.body, f"{name}: other bytes")
        check(expect(t.manifest(name, image.digest), 200).body == image.body, f"{name}: other bytes by digest")
        check(t.tag_names(name) == ["v1"], f"{name}: tags {t.tag_names(name)}")
        t.holds(name, sha256(image.config), image.config)


@row("N08", MUST, "tags follow the grammar")
def tag_grammar(t):
    name = t.repository()
    image = t.image(name)
    for tag in ("t" * 128, "_x.y-Z", "0", "A"):
        t.push_manifest(name, tag, image.body)
        expect(t.manifest(name, tag), 200)
    for tag in ("t" * 129, ".x", "-x", "a+b", "a%2Bb", "a%20b", "%C3%A9"):
        expect_refused(t.put_manifest(name, tag, image.body), tag[:8])


@row("N09", SHOULD, "doubled slashes are refused or redirected")
def double_slash(t):
    for target in ("/v2//double//slash/manifests/x", "/v2/a//b/tags/list", "//v2/a/tags/list", "/v2/a/tags/list/"):
        response = t.request("GET", target)
        check(300 <= response.status < 500, f"{target}: got {response}")


@row("N10", SHOULD, "a tag or digest of 4 KiB is refused")
def long_reference(t):
    name = t.repository()
    for target in (f"manifests/{'t' * 4096}", f"manifests/sha256:{'a' * 4096}", f"blobs/sha256:{'a' * 4096}",
                   f"blobs/{'a' * 4096}:{'b' * 64}", f"referrers/sha256:{'a' * 4096}"):
        expect_refused(t.request("GET", f"/v2/{name}/{target}"), target[:20])
