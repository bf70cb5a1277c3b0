"""The examples run as they are, are short, and print something."""

import re
import runpy

import keras
import pytest

from tests.contract.source import ROOT

MAX_LINES = 60
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("[0-9]*.py"))


def test_the_examples_are_numbered_without_a_gap():
    assert [name[:2] for name in EXAMPLES] == [f"{n:02}" for n in range(1, len(EXAMPLES) + 1)]
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_is_short_and_says_what_it_adds(name):
    lines = (ROOT / "examples" / name).read_text().splitlines()
    assert len(lines) < MAX_LINES
    assert lines[0].startswith('"""')


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_learns(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    printed = capsys.readouterr().out
    accuracies = [float(value) for value in re.findall(r"accuracy\D{0,4}(\d\.\d+)", printed)]
    assert accuracies, printed
    assert max(accuracies) > 0.9


def test_the_demo_ends_with_a_table_and_the_way_to_tensorboard(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["demo.py", "--epochs", "2", "--run-dir", str(tmp_path)])
    runpy.run_path(str(ROOT / "examples" / "demo.py"), run_name="__main__")
    *_, first, second, _, last = capsys.readouterr().out.splitlines()
    assert first.split()[0] == "1"
    assert second.split()[0] == "2"
    assert str(tmp_path) in last
    assert "tensorboard" in last
    assert list(tmp_path.rglob("events.out.tfevents.*"))
