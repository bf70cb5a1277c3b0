"""ModelSummary: the numbers are those of a count by hand, and nothing is left in the model."""

import io

import keras
import pytest
import torch

from fitkit import ConfigError, Event, FitLoop, ModelSummary, Record, TensorLoader, supervised
from fitkit.interop import children_of, modules_of, weights_of
from fitkit.loop.runner import Runner, nothing_recorded
from fitkit.watch.layers import leaf_layers, named_layers
from fitkit.watch.step_context import StepContext
from tests.unit.watch.helpers import make_loop

BATCH = 8
X = torch.randn(16, 6, 6, 1, generator=torch.Generator().manual_seed(0))
Y = torch.arange(16) % 3
CONV = 2 * BATCH * 16 * 4 * 9  # two per product, 16 positions, 4 filters of 9 weights
DENSE = 2 * BATCH * 64 * 3


def keras_loop(*callbacks):
    keras.utils.set_random_seed(1)
    layers = keras.layers
    inner = keras.Sequential([layers.Dropout(0.1), layers.Flatten(), layers.Dense(3, name="head")])
    parts = [layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="norm"), inner]
    model = keras.Sequential([keras.Input((6, 6, 1)), *parts])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    loop = FitLoop(model, TensorLoader(X, Y, batch_size=BATCH))
    return loop.attach(supervised(loss=loss, optimizer=keras.optimizers.SGD(0.1)), *callbacks)


def torch_loop(*callbacks):
    torch.manual_seed(1)
    head = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.1), torch.nn.Linear(64, 3))
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), head)
    loop = FitLoop(model, TensorLoader(X.reshape(16, 1, 6, 6), Y, batch_size=BATCH))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    return loop.attach(
        supervised(loss=torch.nn.CrossEntropyLoss(), optimizer=optimizer), *callbacks
    )


@pytest.mark.parametrize("make", [keras_loop, torch_loop])
@pytest.mark.parametrize("record", [False, True])
def test_weights_outputs_and_operations_are_those_counted_by_hand(make, record):
    file = io.StringIO()
    summary = ModelSummary(file=file)
    loop = make(summary, *([Record("interpret")] if record else []))
    loop.fit(epochs=3)
    rows = {row.kind.lower(): row for row in summary.rows}
    model = summary.rows[0]
    assert (rows["conv2d"].num_trained, rows["conv2d"].flops) == (40, CONV)
    dense = rows.get("dense") or rows["linear"]
    assert (dense.num_trained, dense.flops, dense.output) == (195, DENSE, (BATCH, 3))
    norm = rows.get("batchnormalization") or rows["batchnorm2d"]
    assert (norm.num_trained, norm.num_other, norm.flops) == (8, 8 + (make is torch_loop), 0)
    assert model.flops == summary.forward_flops == CONV + DENSE
    # backward: both products again for the head, only that for the weights in the first layer
    assert summary.step_flops == 2 * CONV + 3 * DENSE
    assert model.num_trained == 40 + 8 + 195
    assert summary.batch_size == BATCH
    assert rows["conv2d"].output_bytes == BATCH * 4 * 4 * 4 * 4
    lines = file.getvalue().splitlines()
    assert lines[0].split() == ["layer", "class", "output", "trained", "other", "bytes", "FLOPs"]
    assert lines[1].split()[0] == "model"
    assert lines[-1].startswith(f"FLOPs for a batch of {BATCH}: forward ")
    assert str(summary).splitlines() == lines
    if record:
        assert "replays" in loop.record_report()
        assert [r.num_eager for r in record_of(loop).recordings.values()] == [1]


def record_of(loop):
    return next(c for c in loop.callbacks if isinstance(c, Record))


def test_attention_is_counted_on_a_cpu():
    torch.manual_seed(0)
    q = torch.nn.Linear(8, 8)

    class Attends(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.q = q

        def forward(self, x):
            return torch.nn.functional.scaled_dot_product_attention(self.q(x), x, x).mean((1, 2, 3))

    x = torch.randn(4, 2, 5, 8)
    summary = ModelSummary(file=io.StringIO())
    loop = FitLoop(Attends(), TensorLoader(x, x.sum((1, 2, 3)), batch_size=4))
    optimizer = torch.optim.SGD(q.parameters(), lr=0.1)
    loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), summary).fit(1)
    assert summary.forward_flops == 2 * 4 * 2 * 5 * 8 * 8 + 2 * (2 * 4 * 2 * 5 * 5 * 8)


@pytest.mark.parametrize("make", [keras_loop, torch_loop])
def test_it_changes_nothing_and_leaves_nothing(make):
    plain = make()
    plain.fit(epochs=2)
    loop = make(ModelSummary(file=io.StringIO()))
    names = {*vars(loop.runner)}
    loop.fit(epochs=2)
    assert all(map(torch.equal, plain.model.parameters(), loop.model.parameters()))
    assert names == {*vars(loop.runner)}
    for module in modules_of(loop.model):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_a_first_step_that_fails_leaves_nothing_and_is_counted_the_next_time():
    summary = ModelSummary(file=io.StringIO())
    loop = torch_loop(summary)
    fails = loop.on(Event.GRADS_READY)(lambda state: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loop.fit(epochs=1)
    assert "run_step" not in vars(loop.runner)
    assert not any(module._forward_hooks for module in loop.model.modules())
    assert str(summary) == "ModelSummary: no step was run yet"
    fails.remove()
    loop.fit(epochs=1)
    assert summary.forward_flops == CONV + DENSE


def test_deep_layers_are_counted_and_not_shown():
    file = io.StringIO()
    summary = ModelSummary(1, file=file)
    torch_loop(summary).fit(1)
    assert len(summary.rows) == 7
    assert "(3 layers deeper than 1)" in file.getvalue()
    assert "Linear" not in file.getvalue()
    with pytest.raises(ConfigError, match="depth"):
        ModelSummary(0)


def test_the_layers_of_a_model_by_name():
    keras_model, torch_model = keras_loop().model, torch_loop().model
    names = [layer.name.rpartition(".")[2] for layer in named_layers(keras_model)]
    assert names[:3] == ["", "conv", "norm"]
    assert names[-1] == "head"
    assert [layer.depth for layer in named_layers(keras_model)] == [0, 1, 1, 1, 2, 2, 2]
    assert list(leaf_layers(torch_model)) == ["0", "1", "2.0", "2.1", "2.2"]
    assert list(leaf_layers(torch.nn.Linear(1, 1))) == ["model"]
    shared = torch.nn.Linear(2, 2)
    assert list(leaf_layers(torch.nn.Sequential(shared, shared))) == ["0"]


def test_keras_layers_in_a_torch_module_and_the_other_way_round():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dropout(0.5)])
    both = torch.nn.Sequential(torch.nn.Linear(4, 4), inner)
    assert [type(child).__name__ for _, child in children_of(both)] == ["Linear", "Sequential"]
    assert sum(t.numel() for t, trained in weights_of(both) if trained) == 20 + 15
    assert all(trained for _, trained in weights_of(both))  # no seed of the dropout
    wrapped = keras.Sequential([keras.Input((4,)), keras.layers.TorchModuleWrapper(both[0])])
    assert [type(m).__name__ for m in leaf_layers(wrapped).values()] == ["Linear"]


class Bare(Runner):
    """A runner that notes what ran."""

    def __init__(self):
        self.ran = []
        self.report = nothing_recorded

    def run_region(self):
        self.ran.append("step")

    run_step = run_region


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_contexts_nest_and_leave_in_any_order(order):
    runner = Bare()

    class Around:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            runner.ran.append(self.name)

        def __exit__(self, *_):
            runner.ran.append(f"/{self.name}")

    contexts = [StepContext(runner, lambda n=n: Around(n), eager=False) for n in "abc"]
    runner.run_step()
    assert runner.ran == ["c", "b", "a", "step", "/a", "/b", "/c"]
    left = list("abc")
    for index in order:
        contexts[index].remove()
        contexts[index].remove()  # twice is once
        left.remove("abc"[index])
        runner.ran.clear()
        runner.run_step()
        assert runner.ran[: len(left)] == left[::-1]
        assert len(runner.ran) == 2 * len(left) + 1
    assert "run_step" not in vars(runner)


def test_other_processes_print_nothing():
    file = io.StringIO()
    loop = make_loop(ModelSummary(file=file))
    loop.state.is_main = False
    loop.fit(1)
    assert file.getvalue() == ""
