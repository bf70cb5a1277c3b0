"""What every exported callback keeps to, with torch and Keras models.

The docstring sections are demanded in test_public_api.py.
"""

import inspect
import random
import warnings

import keras
import numpy as np
import pytest
import torch

import fitkit
from fitkit import Callback, Checkpoint, ConfigError, Record
from fitkit.testing.reads import counted_reads
from tests.contract import every_callback as every
from tests.contract.every_callback import EXTRA, cases, loop_of, plain, the, weights_of
from tests.unit.loop.test_no_hidden_sync import Arm, Disarm

# They only look on: tried with everything in the slow run, where they cannot change a result.
WATCHING = {n for n in EXTRA if getattr(fitkit, n).__module__.startswith("fitkit.watch")}
# They time, so that two runs never log the same.
TIMED = {"Throughput", "DeviceStats", "Benchmark", "EventTrace", "TensorBoard", "Checkpoint"}
# They do not go on after a resume as in one go, in what is known; each is a fault to be mended.
# What is done once per batch or epoch on the host, and said in the docstring under Syncs.
MAY_READ = {
    "NaNGuard": "once per update",
    "Predictions": "once per batch",
    "PrintLog": "once per printed loss",
    "ImageGrid": "once per",
}


def changes_training(name, kind):
    """Whether a case is in every run: those that only watch are in the slow one."""
    return name not in WATCHING and (kind == "torch" or name in every.ONLY)


def test_every_exported_callback_has_a_case():
    known = every.STACK | every.COMPILED | every.WHOLE_STEP | every.OF_LOOP | set(EXTRA)
    assert set(every.exported()) - {"Callback"} == known


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def fit(loop, **options):
    """Train; what a library warns of is not the matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return loop.fit(**options)


def rows(loop, name):
    found = [dict(row) for row in loop.history.rows]
    if name in TIMED:
        found = [{k: v for k, v in row.items() if "/" not in k} for row in found]
    return found


def resumable():
    """All but Benchmark, which ends the run by itself."""
    for case in cases(quick=changes_training):
        name, _ = case.values
        if name != "Benchmark":
            yield case


@pytest.mark.parametrize(("name", "kind"), list(resumable()))
def test_a_resumed_run_is_the_run_in_one_go(name, kind, tmp_path):
    def made(folder):
        behind = () if name == "Checkpoint" else (Checkpoint(tmp_path / folder),)
        return loop_of(name, kind, tmp_path / folder, behind=behind)

    whole = made("whole")
    fit(whole, epochs=3)
    fit(made("parts"), epochs=1)
    keras.utils.set_random_seed(99)  # another process would have other numbers
    resumed = made("parts")
    fit(resumed, epochs=3, resume="auto")
    assert all(map(torch.equal, weights_of(whole), weights_of(resumed)))
    assert rows(whole, name) == rows(resumed, name)
    for one, other in zip(whole.callbacks, resumed.callbacks, strict=True):
        if type(one).__name__ not in TIMED | {"History"}:  # its rows are compared above
            assert plain(one.state_dict()) == plain(other.state_dict())


@pytest.mark.parametrize(("name", "kind"), cases())
def test_a_state_goes_round(name, kind, tmp_path):
    first, second = (loop_of(name, kind, tmp_path / folder) for folder in "ab")
    fit(first, epochs=1)
    fit(second, max_steps=2)  # a Keras optimizer has its slots then
    for one, other in zip(first.callbacks, second.callbacks, strict=True):
        saved = one.state_dict()
        other.load_state_dict(saved)
        assert plain(other.state_dict()) == plain(saved)


class Fails(Callback):
    """Raise once, in the third training batch."""

    def __init__(self):
        self.is_armed = True

    def on_batch_end(self, state):
        if self.is_armed and state.num_batches == 3:
            self.is_armed = False
            raise OSError("broken")


def globals_now():
    """What a run may change for others, and must put back."""
    return (
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        keras.config.dtype_policy().name,
        warnings.filters[:],
    )


def flags_of(model):
    trained = [parameter.requires_grad for parameter in model.parameters()]
    return [*trained, *[module.training for module in model.modules()]]


@pytest.mark.parametrize(("name", "kind"), cases())
def test_an_error_leaves_a_loop_that_works(name, kind, tmp_path):
    loop = loop_of(name, kind, tmp_path, behind=[Fails()])
    before = globals_now()
    flags = flags_of(loop.model)
    loaders = (loop.train_loader, dict(loop.val_loaders))
    with pytest.raises(OSError, match="broken") as caught:
        fit(loop, epochs=3)
    assert any("Fails.on_batch_end" in note for note in caught.value.__notes__)
    assert globals_now() == before
    assert flags_of(loop.model) == flags
    assert (loop.train_loader, dict(loop.val_loaders)) == loaders
    fit(loop, epochs=1)
    loop.evaluate()


@pytest.mark.parametrize(("name", "kind"), cases(set(EXTRA) - {"Record"}))
def test_no_step_reads_the_device(name, kind, tmp_path):
    with counted_reads() as reads:
        loop = loop_of(name, kind, tmp_path, front=[Arm(reads)], behind=[Disarm(reads)])
        fit(loop, epochs=2)
    doc = inspect.getdoc(type(the(name, loop))) or ""
    if reads.by:
        assert MAY_READ.get(name, "?") in doc.split("Syncs:")[1], reads.by


@pytest.mark.parametrize(("name", "kind"), cases(set(EXTRA)))
def test_two_of_them_work_or_are_refused(name, kind, tmp_path):
    try:
        loop = loop_of(name, kind, tmp_path, times=2)
        fit(loop, epochs=2)
    except ConfigError as error:
        first, *_, last = str(error).splitlines()
        assert len(first) <= 120
        assert last.endswith(".")
        return
    single = loop_of(name, kind, tmp_path / "single")
    fit(single, epochs=2)
    assert all(map(torch.isfinite, (t.float().sum() for t in weights_of(loop))))
    if name in WATCHING:
        assert all(map(torch.equal, weights_of(loop), weights_of(single)))


@pytest.mark.parametrize(("name", "kind"), cases(WATCHING - {"Benchmark"} | {"Checkpoint"}))
def test_who_only_watches_changes_nothing(name, kind, tmp_path):
    loop = loop_of(name, kind, tmp_path)
    fit(loop, epochs=2)
    drawn = torch.rand(1), random.random(), np.random.rand()
    bare = loop_of("History", kind, tmp_path / "bare")
    fit(bare, epochs=2)
    assert drawn == (torch.rand(1), random.random(), np.random.rand())
    assert all(map(torch.equal, weights_of(loop), weights_of(bare)))


@pytest.mark.slow  # the unit tests of each callback show it, too
@pytest.mark.parametrize(("name", "kind"), cases(set(EXTRA) - {"Record"}))
def test_recorded_it_is_the_same_or_says_why_not(name, kind, tmp_path):
    eager = loop_of(name, kind, tmp_path / "eager")
    fit(eager, epochs=2)
    record = Record("interpret")
    recorded = loop_of(name, kind, tmp_path / "recorded", behind=[record])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        recorded.fit(epochs=2)
    assert all(map(torch.equal, weights_of(eager), weights_of(recorded)))
    assert rows(eager, name) == rows(recorded, name)
    replays = sum(r.program.num_replays for r in record.recordings.values() if r.program)
    assert replays or any("Record" in str(warning.message) for warning in told)
