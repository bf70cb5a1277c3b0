"""Links lead somewhere, and every page and example is found from the README by following them."""

import re

from tests.contract.source import ROOT

LINK = re.compile(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
BY_NOBODY = {
    "examples/demo.py",  # by `make demo`
    *("examples/keras_fit/digits.py", "examples/keras_fit/networks.py"),  # parts of others
}


def links(page):
    """The files a page links to, each with the heading or None."""
    for target, heading in LINK.findall(page.read_text()):
        yield (page.parent / target).resolve() if target else page, heading or None


def headings(page):
    """What a link to a heading of the page is called."""
    found = (re.sub(r"[^\w\- ]", "", text.lower()) for text in HEADING.findall(page.read_text()))
    return {text.strip().replace(" ", "-") for text in found}


def reached(start):
    """All files to which links lead, from page to page; a link to a folder leads to its files."""
    found, todo = set(), [start]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        if path.is_dir():
            todo += path.iterdir()
        elif path.suffix == ".md":
            todo += [target for target, _ in links(path)]
    return found


def test_links_lead_somewhere():
    pages = [page for page in reached(ROOT / "README.md") if page.suffix == ".md"]
    assert len(pages) > 20
    for page in pages:
        for target, heading in links(page):
            assert target.exists(), f"{page} links to {target}"
            assert heading is None or heading in headings(target), f"{page}: {target}#{heading}"


def test_every_page_and_example_is_found_from_the_readme():
    paths = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.py")]
    missing = set(paths) - reached(ROOT / "README.md")
    assert {path.relative_to(ROOT).as_posix() for path in missing} == BY_NOBODY
