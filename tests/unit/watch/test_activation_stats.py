"""ActivationStats: the numbers are those of the outputs, recorded or not; other steps are free."""

import sys

import keras
import matplotlib
import pytest
import torch

from fitkit import (
    ActivationStats,
    Checkpoint,
    ConfigError,
    Event,
    FitLoop,
    Phase,
    Record,
    TensorLoader,
    supervised,
)
from fitkit.interop import modules_of
from tests.unit.watch.helpers import counted_syncs

matplotlib.use("Agg")

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(3))
Y = X.sum(1, keepdim=True)


def torch_model():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 1))
    with torch.no_grad():
        model[0].bias[:2] = -100.0  # two units that give nothing
    return model


def keras_model():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(6, "relu", name="1"), keras.layers.Dense(1, name="2")]
    return keras.Sequential([keras.Input((4,)), *layers])


def loop_of(model, *callbacks, val=False):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, fused=True)
    data = TensorLoader(X, Y, batch_size=8)
    loop = FitLoop(model, data, data if val else None)
    return loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), *callbacks)


class Outputs:
    """What a layer gave in every training step, by a hook of its own."""

    def __init__(self, loop, module):
        self.found = []
        module.register_forward_hook(lambda m, i, out: self.found.append(out.detach().clone()))

    def expected(self, step):
        out = self.found[step]
        return (
            out.mean().item(),
            out.std(correction=0).item(),
            (out == 0).all(0).float().mean().item(),
        )


@pytest.mark.parametrize("make", [torch_model, keras_model])
def test_the_numbers_are_those_of_the_outputs(make):
    stats = ActivationStats(every=3)
    loop = loop_of(make(), stats)
    layers = {name: module for name, module in stats._layers.items() if name in "12"}
    outputs = {name: Outputs(loop, module) for name, module in layers.items()}
    history = loop.fit(epochs=2)
    assert [at for at, _ in stats.rows] == [1, 4, 7, 10]
    for at, row in stats.rows:
        for name in layers:
            assert row[name] == pytest.approx(outputs[name].expected(at - 1), rel=1e-6, abs=1e-7)
    for figure, value in zip(("mean", "std", "dead"), stats.rows[-1][1]["1"], strict=True):
        assert history[f"activations/1/{figure}"][-1] == value
    if make is torch_model:
        assert min(row["1"][2] for _, row in stats.rows) == pytest.approx(2 / 6)


class Shared(torch.nn.Module):
    """A ReLU in three places: behind the first it is dead, behind the others it is not."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(4, 6), torch.nn.Linear(6, 3)
        self.relu, self.head = torch.nn.ReLU(), torch.nn.Linear(3, 1)
        torch.nn.init.constant_(self.first.bias, -100.0)

    def forward(self, x):
        h = self.second(self.relu(self.first(x)))
        return self.head(self.relu(h) + self.relu(-h))


def test_a_layer_that_is_called_several_times_counts_with_the_mean_of_its_calls():
    stats = ActivationStats(every=2)
    loop = loop_of(Shared(), stats)
    outputs = Outputs(loop, loop.model.relu)
    loop.fit(epochs=1)
    assert [at for at, _ in stats.rows] == [1, 3, 5]
    for at, row in stats.rows:
        calls = torch.tensor([outputs.expected(3 * (at - 1) + call) for call in range(3)])
        assert row["relu"] == pytest.approx(calls.mean(0).tolist(), rel=1e-6)
        assert calls[0, 2] == 1.0
        assert row["relu"] != pytest.approx(calls[-1].tolist(), rel=1e-2)  # of the last call alone


def test_recorded_they_are_the_same_and_only_those_steps_run_eagerly():
    eager, recorded = ActivationStats(every=4), ActivationStats(every=4)
    first = loop_of(torch_model(), eager)
    first.fit(epochs=4)
    record = Record("interpret")
    second = loop_of(torch_model(), recorded, record)
    second.fit(epochs=4)
    assert [at for at, _ in eager.rows] == [1, 5, 9, 13, 17]
    assert recorded.rows == eager.rows
    assert first.history.rows == second.history.rows
    assert all(map(torch.equal, first.model.parameters(), second.model.parameters()))
    [recording] = record.recordings.values()  # what was looked at is no other kind of step
    assert (recording.num_eager, recording.program.num_replays) == (5, 15)


def test_that_a_replayed_step_could_not_be_looked_at(monkeypatch):
    monkeypatch.setattr("fitkit.loop.state.State.request_eager", lambda state: None)
    stats = ActivationStats(every=3)  # away from the replays that are audited
    loop_of(torch_model(), stats, Record("interpret")).fit(epochs=2)
    assert [at for at, _ in stats.rows] == [1]


def test_nothing_is_left_in_the_model_and_other_steps_have_no_hooks():
    loop, hooked = loop_of(torch_model(), ActivationStats(every=4), val=True), []

    def count(state):
        hooked.append(sum(len(m._forward_hooks) for m in modules_of(loop.model)) > 0)

    for phase in (Phase.TRAIN, Phase.VAL):
        loop.on(Event.UPDATE_METRICS, phases=[phase])(count)
    loop.fit(epochs=1)
    assert hooked == [True, False, False, False, True] + [False] * 5
    assert not any(m._forward_hooks for m in loop.model.modules())
    assert "run_step" not in vars(loop.runner)


def resumed_rows(folder, **cut):
    """The rows of a run of 3 epochs that was cut, and of the process that went on with it."""
    for limits in (cut, {"epochs": 3, "resume": "auto"}):
        stats = ActivationStats(every=2)
        model, saves = torch_model(), Checkpoint(folder, every="3 updates")
        loop_of(model, stats, saves).fit(**limits)
    return stats.rows


@pytest.mark.parametrize("cut", [{"epochs": 1}, {"max_steps": 3}])
def test_a_run_that_goes_on_has_the_rows_of_one_in_one_go(cut, tmp_path):
    whole = ActivationStats(every=2)
    loop_of(torch_model(), whole).fit(epochs=3)
    assert [at for at, _ in whole.rows] == [1, 3, 5, 7, 9, 11, 13, 15]
    assert resumed_rows(tmp_path, **cut) == whole.rows


def test_that_the_saved_state_is_what_keeps_them(monkeypatch, tmp_path):
    monkeypatch.setattr(ActivationStats, "state_dict", lambda stats: {})
    assert [at for at, _ in resumed_rows(tmp_path, max_steps=3)] == [5, 7, 9, 11, 13, 15]


def test_rows_of_other_layers_and_without_any_are_saved_as_they_are():
    stats, other = ActivationStats(), ActivationStats()
    assert stats.state_dict() == {}  # so that it can be attached where a run goes on
    figures = (0.5, float("inf"), 0.25)
    stats.rows = [(1, {"a": figures, "b": (1.0, 2.0, 0.0)}), (1, {}), (3, {"b": figures})]
    other.load_state_dict(stats.state_dict())
    assert other.rows == stats.rows
    other.load_state_dict({})  # a checkpoint of a version that had no state here
    assert other.rows == []


def test_an_error_in_such_a_step_leaves_nothing():
    stats = ActivationStats(every=1)
    loop = loop_of(torch_model(), stats)
    fails = loop.on(Event.LOSS_READY)(lambda state: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loop.fit(epochs=1)
    assert not any(m._forward_hooks for m in loop.model.modules())
    assert "run_step" not in vars(loop.runner)
    fails.remove()
    loop.fit(epochs=1)
    assert len(stats.rows) == 5


def test_no_step_waits_for_the_device(monkeypatch):
    loop, seen = loop_of(torch_model(), ActivationStats(every=1)), []
    loop.fit(epochs=1)
    with counted_syncs(monkeypatch) as syncs:
        loop.on(Event.BATCH_END)(lambda state: seen.append(len(syncs)))
        loop.fit(epochs=1)
    assert seen == [0] * 5
    assert 0 < len(syncs) < 5  # at PASS_END


def test_layers_can_be_chosen():
    loop = loop_of(torch_model(), ActivationStats(every=1, layers=["[01]"]))
    assert {n.split("/")[1] for n in loop.fit(1).names if n.startswith("activ")} == {"0", "1"}
    with pytest.raises(
        ConfigError, match=r"layers=\['relu'\]\) names no layer(.|\n)*'0', '1', '2'"
    ):
        loop_of(torch_model(), ActivationStats(layers="relu"))


def test_outputs_that_are_no_tensors_are_left_out():
    class Odd(torch.nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.kind = kind

        def forward(self, x):
            return {"ints": (x.long(), x), "none": None, "dict": {"a": x, "b": x}}[self.kind]

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.ints, self.none, self.dict = Odd("ints"), Odd("none"), Odd("dict")
            self.head = torch.nn.Linear(4, 1)

        def forward(self, x):
            self.none(x)
            return self.head(self.dict(self.ints(x)[1])["a"])

    stats = ActivationStats(every=1)
    loop_of(Model(), stats).fit(1)
    assert {name for _, row in stats.rows for name in row} == {"dict", "head"}


def test_the_picture_has_a_line_per_layer(monkeypatch):
    stats = ActivationStats(every=2)
    with pytest.raises(RuntimeError, match="nothing to draw"):
        stats.plot()
    loop_of(torch_model(), stats).fit(epochs=2)
    charts = stats.plot(figure=matplotlib.figure.Figure())
    assert [axes.get_title() for axes in charts] == [
        *("mean", "standard deviation", "share of dead units")
    ]
    for index, axes in enumerate(charts):
        assert [line.get_label() for line in axes.get_lines()] == ["0 Linear", "1 ReLU", "2 Linear"]
        line = axes.get_lines()[1]
        assert list(line.get_xdata()) == [1, 3, 5, 7, 9]
        assert list(line.get_ydata()) == [row["1"][index] for _, row in stats.rows]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="needs matplotlib"):
        stats.plot()
