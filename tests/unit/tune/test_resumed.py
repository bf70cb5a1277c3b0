"""A run that is cut off and resumed is the run in one go: numbers nobody saves, early ends."""

import pytest
import torch

from fitkit import Accumulate, Callback, Checkpoint, EarlyStopping, LRSchedule, Plateau
from tests.unit.tune.trainings import KINDS, loop_of, weights_of

NUMBERS = {
    "by epoch": lambda: LRSchedule(
        lambda epoch: 0.5 / (epoch + 1), of="weight_decay", every="1 epoch"
    ),
    "beta by epoch": lambda: LRSchedule(
        lambda epoch: 0.5 / (epoch + 1), of="momentum", every="1 epoch"
    ),
    "plateau": lambda: LRSchedule(
        Plateau("loss", patience=1, min_delta=1e3, factor=0.5), of="weight_decay"
    ),
}


class Killed(Exception):
    pass


class Kill(Callback):
    """End the process, so to say, right after a checkpoint."""

    def __init__(self, update):
        self.update = update

    def on_save(self, state):
        if state.num_updates >= self.update:
            raise Killed


def resumed(make, folder, update, *, epochs=3):
    """A loop that has gone on where another one was killed after so many updates."""
    killed = make(folder).attach(Kill(update))
    with pytest.raises(Killed):
        killed.fit(epochs=epochs)
    loop = make(folder)
    loop.fit(epochs=epochs, resume=folder)
    return loop


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_no_optimizer_of_keras_saves_is_set_again(name, kind, tmp_path):
    """In mid-epoch, where nothing sets it until the next one begins."""

    def make(folder):
        return loop_of(kind, NUMBERS[name](), Checkpoint(folder, every=12))

    whole = make(tmp_path / "whole")
    whole.fit(epochs=3)
    loop = resumed(make, tmp_path / "cut", 12)
    assert loop.resumed_from.name.startswith("step-00000012")
    assert all(map(torch.equal, weights_of(kind, whole.model), weights_of(kind, loop.model)))
    assert loop.history.rows == whole.history.rows


def stopping(folder, patience, *more):
    early = EarlyStopping("val_loss", patience=patience, min_delta=1e3)  # never better
    return loop_of("torch", *more, early, Checkpoint(folder, every=1))


@pytest.mark.parametrize("windows", [False, True])
def test_a_run_that_was_stopped_early_ends_at_once(windows, tmp_path):
    """As where a scheduler starts the job again, or it is killed after its last checkpoint."""
    more = [Accumulate(2)] if windows else []
    whole = stopping(tmp_path / "whole", 1, *more)
    whole.fit(epochs=5)
    assert whole.state.num_epochs == 2
    loop = resumed(
        lambda folder: stopping(folder, 1, *more),
        tmp_path / "cut",
        whole.state.num_updates,
        epochs=5,
    )
    again = stopping(tmp_path / "whole", 1, *more)
    again.fit(epochs=5, resume=tmp_path / "whole")
    for other in (loop, again):
        assert other.state.num_updates == whole.state.num_updates
        assert other.state.stop_reason == whole.state.stop_reason
        assert all(map(torch.equal, whole.model.parameters(), other.model.parameters()))
        assert other.history.rows == whole.history.rows


def test_more_patience_goes_on_where_less_had_stopped(tmp_path):
    stopping(tmp_path, 1).fit(epochs=5)
    loop = stopping(tmp_path, 3)
    loop.fit(epochs=5, resume=tmp_path)
    assert loop.state.num_epochs == 4
