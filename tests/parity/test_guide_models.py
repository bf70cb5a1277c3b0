"""The models of the examples, their code untouched, give what `model.fit` gives."""

import importlib.util
import sys

import keras
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fitkit import FitLoop, Record, TensorLoader, compiled
from tests.contract.source import ROOT
from tests.parity import adversaries

FOLDER = ROOT / "examples" / "keras_fit"
EPOCHS = 3


@pytest.fixture
def example(monkeypatch):
    """Import an example."""

    def load(name):
        monkeypatch.syspath_prepend(str(FOLDER))
        spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in ("digits", "networks"):
        sys.modules.pop(name, None)


def digits(*, one_hot=False, weighted=False):
    """Digit-like numbers: 90 to train on, 40 to validate on; the last batches are ragged."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 130)
    x = rng.normal(size=(10, 16))[y] + rng.normal(size=(130, 16))
    parts = [x.astype("float32"), np.eye(10, dtype="float32")[y] if one_hot else y]
    if weighted:
        parts.append(rng.uniform(0.5, 2, 130).astype("float32"))
    parts = [torch.from_numpy(part) for part in parts]
    return [part[:90] for part in parts], [part[90:] for part in parts]


def values(model):
    variables = [*model.variables, *(v for m in model.metrics for v in m.variables)]
    return [variable.value.detach().numpy().copy() for variable in variables]


def build(example, name):
    keras.utils.set_random_seed(1)
    return example(name).build(16)


def by_fit(model, train, val=None):
    batches = DataLoader(TensorDataset(*train), 16)
    validation = None if val is None else DataLoader(TensorDataset(*val), 16)
    return model.fit(
        batches, shuffle=False, epochs=EPOCHS, verbose=0, validation_data=validation
    ).history


def by_loop(model, train, val=None, *more):
    loaders = [
        None if part is None else TensorLoader(*part, batch_size=16) for part in (train, val)
    ]
    loop = FitLoop(model, *loaders, callbacks=[compiled(), *more])
    return loop, loop.fit(epochs=EPOCHS)


def assert_same(ours, history, theirs, expected):
    for left, right in zip(values(ours), values(theirs), strict=True):
        np.testing.assert_array_equal(left, right)
    for name, series in expected.items():
        np.testing.assert_allclose(history[name], series, rtol=1e-6, err_msg=name)


MODELS = {
    "train_step": {},
    "own_trackers": {"one_hot": True},
    "sample_weights": {"weighted": True},
    "own_evaluation": {},
}


@pytest.mark.parametrize("record", [False, True], ids=["eager", "recorded"])
@pytest.mark.parametrize("name", MODELS)
def test_the_model_trains_as_in_fit(example, name, record):
    train, val = digits(**MODELS[name])
    val = None if name == "own_trackers" else val  # without a loss there is no validation
    theirs, ours = build(example, name), build(example, name)
    expected = by_fit(theirs, train, val)
    more = [Record("interpret", strict=True)] if record else []
    loop, history = by_loop(ours, train, val, *more)
    assert_same(ours, history, theirs, expected)
    if record:
        recordings = more[0].recordings.values()
        assert sum(each.program.num_replays for each in recordings if each.program) > 6
    if name == "own_evaluation":
        results = theirs.evaluate(DataLoader(TensorDataset(*val), 16), verbose=0, return_dict=True)
        assert loop.evaluate() == pytest.approx(results, rel=1e-6)


def test_weights_may_be_left_out(example):
    train, _ = digits()
    theirs, ours = build(example, "sample_weights"), build(example, "sample_weights")
    expected = by_fit(theirs, train)
    assert_same(ours, by_loop(ours, train)[1], theirs, expected)


def example_gan(example):
    keras.utils.set_random_seed(1)
    module, networks = example("gan_class"), example("networks")
    model = module.GAN(networks.make_discriminator(8, 4), networks.make_generator(8, 6, 4), 6)
    model.compile(
        d_optimizer=keras.optimizers.Adam(3e-4),
        g_optimizer=keras.optimizers.Adam(3e-4),
        loss_fn=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    return model


def gan_of(kind, example):
    return example_gan(example) if kind == "example" else adversaries.user_gan()


@pytest.mark.parametrize("kind", ["example", "user's"])
def test_the_gan_trains_as_in_fit(example, kind):
    side = 8 if kind == "example" else 28
    images = torch.rand(40, side, side, 1, generator=torch.Generator().manual_seed(0))
    theirs, ours = gan_of(kind, example), gan_of(kind, example)
    expected = by_fit(theirs, [images, images])
    _, history = by_loop(ours, [images, images])
    assert_same(ours, history, theirs, expected)


def test_wgan_gp_is_the_same_recorded(example):
    images = np.random.default_rng(0).random((96, 8, 8, 1)).astype("float32")
    rows, weights = [], []
    for more in ([], [Record("interpret", strict=True)]):
        keras.utils.set_random_seed(0)
        module = example("wgan_gp")
        module.Critic.__module__ = module.Generator.__module__ = "wgan_gp"
        loop = module.build(images, width=4).attach(*more)
        rows.append(loop.fit(epochs=8).rows)
        weights.append([p.detach().clone() for p in loop.model.parameters()])
    assert loop.state.turn_updates == {"critic": 16, "generator": 3}
    assert rows[0] == rows[1]
    assert all(map(torch.equal, *weights))
    assert "turn critic" in loop.record_report()
