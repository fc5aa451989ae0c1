"""Base endpoint and errors (B)."""

import re

from harness.registry import check, expect, sha256
from rows import COMPAT, MUST, SHOULD, row

NOWHERE = sha256(b"nobody ever pushed this")


@row("B01", MUST, "GET /v2/ answers 200")
def base(t):
    expect(t.request("GET", "/v2/"), 200)


@row("B02", COMPAT, "GET /v2/ names the API version")
def version_header(t):
    value = t.request("GET", "/v2/").header("Docker-Distribution-API-Version")
    check(value == "registry/2.0", f"Docker-Distribution-API-Version: {value}")


@row("B03", COMPAT, "GET /v2 without the slash works or redirects to /v2/")
def base_without_slash(t):
    response = expect(t.request("GET", "/v2"), 200, 301, 307, 308)
    if response.status != 200:
        check(response.location() == "/v2/", f"redirects to {response.location()}")


@row("B04", SHOULD, "an unknown endpoint is 404")
def unknown_endpoint(t):
    expect(t.request("GET", "/v2/nosuch-endpoint"), 404)


@row("B05", SHOULD, "a method that is not defined is 405 with Allow")
def undefined_method(t):
    response = expect(t.request("POST", f"/v2/{t.repository()}/manifests/x", (), b"{}"), 405, 400, 404)
    if response.status == 405:
        check(response.header("Allow"), "405 without Allow")


@row("B06", SHOULD, "errors are the specification's JSON")
def error_body(t):
    for target in ("manifests/nosuch", f"manifests/{NOWHERE}", f"blobs/{NOWHERE}", "tags/list", "blobs/uploads/nosuch"):
        response = expect(t.request("GET", f"/v2/{t.repository()}/{target}"), 400, 404)
        codes = response.codes()
        check(codes, f"{target}: no specification error in {response.body[:80]!r}")
        check(all(re.fullmatch("[A-Z_]+", code) for code in codes), f"{target}: codes {codes}")
        content_type = (response.header("Content-Type") or "").split(";")[0]
        check(content_type == "application/json", f"{target}: Content-Type {content_type}")


@row("B07", MUST, "HEAD of something missing is 404 without a body on the wire")
def head_without_body(t):
    for target in (f"manifests/{NOWHERE}", "manifests/nosuch", f"blobs/{NOWHERE}"):
        response = expect(t.request("HEAD", f"/v2/{t.repository()}/{target}"), 404)
        check(not response.surplus, f"{target}: {len(response.surplus)} body bytes after HEAD")


@row("B08", SHOULD, "HTTP/1.0 works")
def http_1_0(t):
    expect(t.client.raw(b"GET /v2/ HTTP/1.0\r\n\r\n"), 200)
