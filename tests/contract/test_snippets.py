"""Every python block of README, docs and docstrings runs; what is shown as output is printed."""

import ast

import keras
import pytest

from docs.snippets import Block, agrees, blocks, outputs, refreshed, run
from tests.contract.source import ROOT, Documented, modules

PATTERNS = ("README.md", "docs/**/*.md", "fitkit/**/*.md")
PAGES = [path.relative_to(ROOT).as_posix() for pattern in PATTERNS for path in ROOT.glob(pattern)]


def docstring_blocks():
    """The python blocks of all docstrings of fitkit."""
    for module in modules():
        for node in ast.walk(module.tree):
            doc = ast.get_docstring(node) if isinstance(node, Documented) else None
            place = f"{module.path} {getattr(node, 'name', '')}"
            found = blocks(place, doc or "")
            yield from (each._replace(place=place) for each in found if each.language == "python")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in an empty folder, from a known seed."""
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)


@pytest.mark.parametrize("page", PAGES)
def test_the_page_runs_and_shows_what_it_prints(page):
    for place, shown, printed in outputs(page, (ROOT / page).read_text()):
        assert agrees(shown, printed), f"{place}: run python -m docs.generate\n{printed}"


@pytest.mark.parametrize("block", list(docstring_blocks()), ids=lambda block: block.place)
def test_the_docstring_runs(block):
    run(block, {"__name__": "snippet"})


GOOD = "```python\nprint('loss', 1.5)\nprint(7)\n```\nprints\n```text\nloss  2.5\n7\n```\n"


def test_another_output_is_seen_and_can_be_refreshed():
    assert refreshed("a.md", GOOD) == GOOD
    bad = GOOD.replace("\n7\n", "\n8\n")
    assert [agrees(shown, printed) for _, shown, printed in outputs("a.md", bad)] == [False]
    assert refreshed("a.md", bad) == GOOD.replace("loss  2.5", "loss 1.5")


def test_the_beginning_of_an_output_may_be_shown():
    assert refreshed("a.md", GOOD.replace("\n7\n", "\n...\n")) == GOOD.replace("\n7\n", "\n...\n")
    assert not agrees("loss 1.5\n9\n...", "loss 1.5\n7\n8\n")


def test_a_block_that_raises_is_seen():
    with pytest.raises(NameError):
        outputs("a.md", "```python\nprint(y)\n```")


def test_indented_blocks_are_found():
    text = "Example:\n    ```python\n    x = 1\n    if x:\n        y = 2\n    ```\n"
    assert blocks("a", text) == [Block("a:2", "python", "x = 1\nif x:\n    y = 2\n")]


def test_every_page_has_its_blocks_closed():
    assert [page for page in PAGES if (ROOT / page).read_text().count("```") % 2] == []
