"""Seed makes two runs draw the same numbers; deterministic mode ends with the run."""

import os
import random

import keras
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from fitkit import ConfigError, Event, FitLoop, Seed, supervised
from tests.unit.tune.trainings import batches, loop_of


def drawn():
    return (
        random.random(),
        np.random.rand(),
        torch.rand(1).item(),
        float(keras.random.normal(())),
        keras.random.SeedGenerator()._initial_seed or 0,
        float(keras.random.uniform((), seed=keras.random.SeedGenerator())),
    )


def test_every_generator_is_seeded():
    Seed(3).apply()
    first = drawn()
    assert drawn() != first
    Seed(3).apply()
    assert drawn() == first
    Seed(4).apply()
    assert all(a != b for a, b in zip(drawn(), first, strict=True) if b)


def weights_after(*seeds):
    loop = loop_of("torch")
    torch.manual_seed(int.from_bytes(os.urandom(4)))
    noise = []
    loop.attach(*seeds)
    loop.on(Event.BATCH_BEGIN)(lambda state: noise.append((torch.rand(1).item(), random.random())))
    loop.fit(epochs=1)
    loop.fit(epochs=1)
    return noise


def test_a_run_is_seeded_once():
    one, other = weights_after(Seed(0)), weights_after(Seed(0))
    assert one == other
    assert len(set(one)) == len(one)  # the second call of fit goes on
    assert weights_after() != weights_after()


def test_a_resumed_run_is_not_seeded_again():
    seed, resumed = Seed(0), Seed(0)
    loop_of("torch", seed).fit(epochs=1)
    resumed.load_state_dict(seed.state_dict())
    torch.manual_seed(77)
    expected = torch.get_rng_state()
    loop = loop_of("torch", resumed)
    torch.manual_seed(77)
    loop.fit(epochs=1)
    assert torch.equal(torch.get_rng_state(), expected)


class Drawing(Dataset):
    """Samples that a worker draws from all of its generators."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        values = [random.random(), np.random.rand(), torch.rand(1).item(), float(index)]
        return torch.tensor(values), torch.zeros(1)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_are_seeded():
    def rows():
        loop = FitLoop(torch.nn.Linear(4, 1), DataLoader(Drawing(), 4, num_workers=2))
        optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), Seed(5))
        found = []
        loop.on(Event.BATCH_END)(lambda state: found.append(state.inputs.clone()))
        loop.fit(epochs=1)
        return torch.cat(found)

    first = rows()
    assert torch.equal(first, rows())
    assert len(first[:, :3].unique()) == 24  # the two workers draw different numbers


def test_deterministic_mode_lasts_as_long_as_the_run(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    loop = loop_of("torch", Seed(0, deterministic=True))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    flags, is_on = [], torch.are_deterministic_algorithms_enabled
    loop.on(Event.BATCH_END)(lambda state: flags.append(is_on()))
    loop.fit(epochs=1)
    assert flags == [True] * 5
    assert not is_on()
    plain = loop_of("torch", Seed(0))
    plain.on(Event.BATCH_END)(lambda state: flags.append(is_on()))
    plain.fit(epochs=1)
    assert flags[5:] == [False] * 5


@pytest.mark.parametrize("value", [-1, 2**32, 1.5, True, "3", float("nan")])
def test_wrong_seeds_are_refused(value):
    with pytest.raises(ConfigError, match="from 0 to 4294967295"):
        Seed(value)
    assert len(batches()) == 5
