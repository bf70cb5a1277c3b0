"""A monitored value is looked at once, also by a run that goes on between validation and epoch."""

import pytest
from torch.optim.lr_scheduler import ReduceLROnPlateau

from fitkit import Checkpoint, ConfigError, EarlyStopping, LRSchedule, Plateau, Validate
from fitkit.loop.interval import Interval
from fitkit.loop.monitor import Monitor
from tests.unit.tune.trainings import Late, loop_of


def early_stopping():
    return EarlyStopping("val_loss", patience=9)


def plateau():
    return LRSchedule(Plateau("val_loss"))


def torchs_plateau():
    return Late(lambda optimizer: LRSchedule(ReduceLROnPlateau(optimizer), monitor="val_loss"))


def make_loop(watcher, folder):
    """Epochs of 5 batches, validated after batches 3, 6, 9, saved after batch 4."""
    loop = loop_of("torch", watcher(), Checkpoint(folder, every=4, keep_last=None))
    validate = next(each for each in loop.callbacks if isinstance(each, Validate))
    validate._interval = Interval.parse(3)
    return loop


@pytest.fixture
def looks(monkeypatch):
    """The values that were handed out, with the number of batches before."""
    seen = []
    for name in ("at_pass_end", "at_epoch_end"):
        original = getattr(Monitor, name)

        def noting(self, state, original=original):
            value = original(self, state)
            if value is not None:
                seen.append((state.num_batches, value))
            return value

        monkeypatch.setattr(Monitor, name, noting)
    return seen


@pytest.mark.parametrize("watcher", [early_stopping, plateau, torchs_plateau])
def test_a_run_that_goes_on_after_a_validation_does_not_look_again(watcher, tmp_path, looks):
    make_loop(watcher, tmp_path / "whole").fit(epochs=2)
    whole = list(looks)
    assert [batch for batch, _ in whole] == [3, 6, 9]
    looks.clear()
    make_loop(watcher, tmp_path / "cut").fit(max_steps=4)
    make_loop(watcher, tmp_path / "cut").fit(epochs=2, resume=tmp_path / "cut")
    assert looks == whole


def test_the_epochs_since_a_value_are_restored():
    first, second = (Monitor("Test", "val_loss", mode=None) for _ in range(2))
    first.num_epochs = 3
    second.load_state_dict(first.state_dict())
    assert second.num_epochs == 3


@pytest.mark.parametrize(
    ("given", "meant"),
    [("val_lss", "val_loss"), ("Val_acuracy", "val_accuracy"), ("val_confident", None)],
)
def test_a_word_that_looks_misspelled_is_asked_about(given, meant):
    with pytest.raises(ConfigError, match="which is better") as told:
        EarlyStopping(given)
    asked = f"Did you mean '{meant}'? If not:"
    lines = str(told.value).splitlines()[1:]
    assert lines[:-1] == ([asked] if meant else [])
    assert lines[-1].startswith('Say mode="min"')
