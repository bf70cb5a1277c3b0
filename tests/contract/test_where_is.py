"""docs/where_is.md and loop/README.md name files that exist and hold what they are said to hold."""

import re

import pytest

from tests.contract.source import PACKAGE, ROOT

ROW = re.compile(r"^\| (?P<what>.+?) \| `(?P<file>[^`]+)` \| `(?P<line>[^`]+)` \|$", re.MULTILINE)
PAGE = (ROOT / "docs" / "where_is.md").read_text()
ROWS = [match.group("what", "file", "line") for match in ROW.finditer(PAGE)]


@pytest.mark.parametrize(("what", "file", "line"), ROWS, ids=[what for what, _, _ in ROWS])
def test_it_is_there(what, file, line):
    assert line in (ROOT / file).read_text()


def test_every_row_was_read():
    assert len(ROWS) == sum(line.startswith("| ") for line in PAGE.splitlines()) - 2
    assert len(ROWS) > 20


def test_the_actions_are_all_asked_for():
    asked = {file for _, file, _ in ROWS}
    actions = {
        path.relative_to(ROOT).as_posix()
        for path in (PACKAGE / "step").glob("*.py")
        if re.search(r"^@final\nclass \w+\(", path.read_text(), re.MULTILINE)
    }
    assert actions <= asked


def test_the_page_beside_the_loop_names_all_its_files():
    page = (PACKAGE / "loop" / "README.md").read_text()
    elsewhere = {"errors.py", "interop.py", "optimizer_state.py"}
    named = set(re.findall(r"`(\w+\.py)`", page)) - elsewhere
    files = {path.name for path in (PACKAGE / "loop").glob("*.py")} - {"__init__.py"}
    assert named == files


LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


@pytest.mark.parametrize(
    "page", [p for f in ("README.md", "docs/*.md", "fitkit/**/*.md") for p in ROOT.glob(f)], ids=str
)
def test_links_lead_to_files(page):
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert missing == []
