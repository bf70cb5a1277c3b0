"""Every python block of README, docs and docstrings runs; what is shown as output is printed."""

import keras
import pytest

from tests.contract.markdown import Block, blocks, docstring_blocks, masked, pages, run
from tests.contract.source import ROOT


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in an empty folder, from a known seed."""
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)


def check_page(place, text):
    """Run the python blocks of a page in order, in one namespace.

    A block of language "text" right after a python block is its output, up to decimal numbers.
    """
    namespace = {"__name__": "snippet"}
    printed = None
    for block in blocks(place, text):
        if block.language == "python":
            printed = run(block, namespace)
        elif block.language == "text" and printed:
            assert masked(block.text) == masked(printed), f"{block.place} is not what was printed"
            printed = None


@pytest.mark.parametrize("page", pages())
def test_the_page_runs(page):
    check_page(page, (ROOT / page).read_text())


@pytest.mark.parametrize("block", docstring_blocks(), ids=lambda block: block.place)
def test_the_docstring_runs(block):
    run(block, {"__name__": "snippet"})


def test_a_page_that_fails_or_shows_something_else_is_seen():
    good = "```python\nx = 1.5\nprint('loss', x)\n```\n\nprints\n\n```text\nloss  2.5\n```\n"
    check_page("good.md", good)
    with pytest.raises(AssertionError, match="is not what was printed"):
        check_page("bad.md", good.replace("loss  2.5", "accuracy 2.5"))
    with pytest.raises(NameError):
        check_page("bad.md", "```python\nprint(y)\n```")


def test_indented_blocks_are_found():
    text = "Example:\n    ```python\n    x = 1\n    if x:\n        y = 2\n    ```\n"
    assert blocks("a", text) == [Block("a:2", "python", "x = 1\nif x:\n    y = 2\n")]


def test_every_page_has_its_blocks_closed():
    for page in pages():
        assert (ROOT / page).read_text().count("```") % 2 == 0, page
