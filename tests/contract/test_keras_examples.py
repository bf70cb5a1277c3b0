"""The examples of customized `fit` run as they are, are short, and learn."""

import re
import runpy

import keras
import pytest

from tests.contract.source import ROOT

MAX_LINES = 90
FOLDER = ROOT / "examples" / "keras_fit"
SHARED = {"digits.py", "networks.py"}
EXAMPLES = sorted({path.name for path in FOLDER.glob("*.py")} - SHARED)
GANS = {"gan_class.py", "gan_turns.py", "wgan_gp.py"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_is_short_and_says_what_it_shows(name):
    lines = (FOLDER / name).read_text().splitlines()
    assert len(lines) < MAX_LINES
    assert lines[0].startswith('"""')


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys):
    """Run an example like a script and return what it prints."""

    def run(name, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(FOLDER))
        monkeypatch.setattr("sys.argv", [name, *arguments])
        keras.utils.set_random_seed(0)
        runpy.run_path(str(FOLDER / name), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("name", sorted(set(EXAMPLES) - GANS))
def test_the_example_learns(name, printed):
    text = printed(name)
    accuracies = [float(value) for value in re.findall(r"accuracy\D{0,4}(\d\.\d+)", text)]
    assert accuracies, text
    assert max(accuracies) > 0.9


@pytest.mark.parametrize("name", sorted(GANS))
def test_the_gan_trains(name, printed, tmp_path):
    text = printed(name)
    losses = [float(value) for value in re.findall(r"_loss (-?\d+\.\d+)", text)]
    assert losses, text
    if name == "wgan_gp.py":
        assert "{'critic': 58, 'generator': 11}" in text
    if name == "gan_turns.py":
        assert "{'d': 58, 'g': 58}" in text
        assert list(tmp_path.rglob("images/events.out.tfevents.*"))


def test_data_may_come_from_a_file(tmp_path, printed):
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=np.arange(40) % 10)
    assert "accuracy" in printed("train_step.py", "--data", str(tmp_path / "mnist.npz"))
