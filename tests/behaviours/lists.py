"""Tag lists and the catalog (L)."""

from harness.registry import check, expect, in_parallel, next_link
from rows import COMPAT, MUST, SHOULD, row


def tagged(t, *tags):
    name = t.repository()
    image = t.image(name)
    for tag in tags:
        t.push_manifest(name, tag, image.body)
    return name


def follow(t, target, field, limit=100):
    """Every page from this target on, as lists of names."""
    pages = []
    while target is not None:
        check(len(pages) < limit, f"more than {limit} pages")
        response = expect(t.request("GET", target), 200)
        pages.append(response.json()[field])
        target = next_link(response)
    return pages


@row("L01", SHOULD, "tags of an unknown repository are 404")
def unknown_repository(t):
    expect(t.tags(t.repository()), 404, code="NAME_UNKNOWN")


@row("L02", SHOULD, "a repository without tags has an empty list")
def no_tags(t):
    name = t.repository()
    t.image(name)
    document = expect(t.tags(name), 200).json()
    check(document == {"name": name, "tags": []}, f"got {document}")


@row("L03", MUST, "tags are in lexical order")
def order(t):
    tags = ["b", "A", "a", "10", "2", "_x", "B"]
    names = t.tag_names(tagged(t, *tags))
    check(names in (sorted(tags), sorted(tags, key=str.lower)), f"got {names}")


@row("L04", MUST, "pages of two, followed by Link, give every tag once")
def pages(t):
    name = tagged(t, *"abcde")
    first = expect(t.tags(name, "n=2"), 200)
    link = next_link(first)
    check(link is not None and link.startswith(f"/v2/{name}/tags/list?"), f"Link {first.header('Link')}")
    got = follow(t, f"/v2/{name}/tags/list?n=2", "tags")
    check(got == [["a", "b"], ["c", "d"], ["e"]], f"got {got}")


@row("L05", MUST, "last= gives what comes strictly after it")
def after_last(t):
    name = tagged(t, *"abcd")
    for query, wanted in (("last=b", ["c", "d"]), ("last=bb&n=2", ["c", "d"]), ("last=d", []), ("last=zz", []),
                          ("last=a&n=1", ["b"])):
        check(t.tag_names(name, query) == wanted, f"{query}: got {t.tag_names(name, query)}")


@row("L06", MUST, "n=0 is an empty list without Link")
def zero(t):
    response = expect(t.tags(tagged(t, "a", "b"), "n=0"), 200)
    check(response.json()["tags"] == [], f"got {response.json()}")
    check(response.header("Link") is None, "a Link")


@row("L07", SHOULD, "a negative or unreadable n is refused")
def bad_number(t):
    name = tagged(t, "a")
    for number in ("-1", "foo", "1.5", "0x10", "%00"):
        expect(t.tags(name, f"n={number}"), 400)


@row("L08", SHOULD, "a large n gives everything")
def large_number(t):
    name = tagged(t, "a", "b", "c")
    response = expect(t.tags(name, "n=100"), 200)
    check(response.json()["tags"] == ["a", "b", "c"] and response.header("Link") is None, f"got {response.json()}")
    expect(t.tags(name, "n=99999999999999999999"), 200, 400)


@row("L09", SHOULD, "empty n and last are as absent")
def empty_parameters(t):
    name = tagged(t, "a", "b")
    for query in ("n=", "last=", "n=&last="):
        check(t.tag_names(name, query) == ["a", "b"], f"{query}: got {t.tag_names(name, query)}")


@row("L10", COMPAT, "the catalog is sorted and complete")
def catalog(t):
    root = t.repository()
    # A plain prefix scan loses or repeats exactly these: each is a prefix of another.
    names = [root + suffix for suffix in ("", "-a", ".b", "/c", "0", "/c/d", "_e")]
    in_parallel(lambda name: t.image(name, "v1"), names)
    listed = [name for page in follow(t, "/v2/_catalog?n=100", "repositories", 1000) for name in page]
    check(listed == sorted(set(listed)), "not sorted, or a name twice")
    check([name for name in listed if name.startswith(root)] == sorted(names), "a pushed name is missing")
    first = expect(t.request("GET", "/v2/_catalog"), 200).json()["repositories"]
    check(first == listed[:len(first)], "the plain catalog differs from its pages")


@row("L11", COMPAT, "the catalog has pages too")
def catalog_pages(t):
    root = t.repository("cat")
    for name in (f"{root}/a", f"{root}/b", f"{root}/c"):
        t.image(name, "v1")
    response = expect(t.request("GET", f"/v2/_catalog?n=1&last={root}/a"), 200)
    check(response.json()["repositories"] == [f"{root}/b"], f"got {response.json()}")
    check(next_link(response) is not None, "no Link")
    check(expect(t.request("GET", "/v2/_catalog?n=0"), 200).json()["repositories"] == [], "n=0 is not empty")
    expect(t.request("GET", "/v2/_catalog?n=-1"), 400)
    pages = follow(t, f"/v2/_catalog?n=1&last={root}/a", "repositories", 1000)
    check(pages[:2] == [[f"{root}/b"], [f"{root}/c"]], f"got {pages[:2]}")


@row("K13", SHOULD, "an n above the maximum gives a clamped page with Link")
def clamped(t):
    name = t.repository()
    image = t.image(name)
    tags = [f"t{number:04}" for number in range(1200)]
    in_parallel(lambda tag: t.push_manifest(name, tag, image.body), tags)
    for target in (f"/v2/{name}/tags/list?n=2147483647", f"/v2/{name}/tags/list"):
        got = [tag for page in follow(t, target, "tags") for tag in page]
        check(got == tags, f"{target}: {len(set(got))} of 1,200 tags, or out of order")


PAGE = 4


def walk_while_changing(t, target, field, prefix, names, add, remove=None):
    """Follows pages of four, each from the next node, while names go and come around the border between two pages. At each
    moment it is known exactly what the next page has to hold."""
    names, last, step, changes = set(names), "", 0, 0
    while target is not None:
        response = expect(t.request("GET", target, endpoint=t.client.endpoints[step % len(t.client.endpoints)]), 200)
        page = [name for name in response.json()[field] if name.startswith(prefix)]
        behind = sorted(name for name in names if name > last)
        check(page == behind[:PAGE], f"page {step} behind {last!r} is {page}, wanted {behind[:PAGE]}")
        target, step = next_link(response), step + 1
        check(target is not None or len(behind) <= PAGE, f"page {step} has no Link, {len(behind) - PAGE} names follow")
        if len(page) < PAGE:
            break
        last = page[-1]
        # One more in front of the border, which nobody may see any more, and one right behind it, which comes next.
        for name in (page[1] + "-new", last + "-new"):
            add(name)
            names.add(name)
        # The border itself, and what would have come next.
        gone = [last, *behind[PAGE:PAGE + 1]] if remove else []
        for name in gone:
            remove(name)
            names.discard(name)
        changes += 1
    check(changes >= 5, f"only {changes} changes between pages")


@row("E15", MUST, "tags that come and go between two pages: the next page begins right behind the one before")
def changing_tags(t):
    name, tags = t.repository(), [f"t{number:02}" for number in range(30)]
    image = t.image(name)
    in_parallel(lambda tag: t.push_manifest(name, tag, image.body), tags)
    walk_while_changing(t, f"/v2/{name}/tags/list?n={PAGE}", "tags", "t", tags,
                        add=lambda tag: t.push_manifest(name, tag, image.body),
                        remove=lambda tag: expect(t.request("DELETE", f"/v2/{name}/manifests/{tag}"), 202))


@row("E16", COMPAT, "repositories that come between two pages of the catalog: the next page begins right behind")
def growing_catalog(t):
    root = t.repository("grow")
    names = [f"{root}/r{number:02}" for number in range(24)]
    in_parallel(lambda name: t.image(name, "v1"), names)
    walk_while_changing(t, f"/v2/_catalog?n={PAGE}&last={root}", "repositories", root, names,
                        add=lambda name: t.image(name, "v1"))
