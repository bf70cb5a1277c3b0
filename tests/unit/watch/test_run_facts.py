"""Settings, graph and text: what TensorBoard is told of the run itself."""

import os
import re

import keras
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from fitkit import Callback, Checkpoint, ConfigError, Event, FitLoop, Histograms, supervised
from fitkit.loop.callback import TRAIN_ONLY
from fitkit.watch.graph import Graph
from fitkit.watch.hparams import HParams
from fitkit.watch.op_graph import GraphRecorder
from fitkit.watch.run_text import RunText
from fitkit.watch.tensorboard import TensorBoard
from tests.unit.watch.event_files import event_files, opened, scalars, tensors, texts
from tests.unit.watch.helpers import data, make_loop, validate_every


def layout_in(folder):
    """{category: {title of a chart: its tags}}"""
    [(_, content)] = tensors(folder)["custom_scalars__config__"]
    return {
        group.title: {chart.title: list(chart.multiline.tag) for chart in group.chart}
        for group in Layout.FromString(content.item()).category
    }


def settings_in(folder):
    """Settings, columns, and how the run ended."""
    events = EventAccumulator(str(folder)).Reload()
    found = {}
    for tag in events.Tags()["tensors"]:
        if tag.startswith("_hparams_"):
            content = events.SummaryMetadata(tag).plugin_data.content
            found[tag] = HParamsPluginData.FromString(content)
    start = found[metadata.SESSION_START_INFO_TAG].session_start_info
    settings = {
        name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()
    }
    experiment = found.get(metadata.EXPERIMENT_TAG)
    columns = [m.name.tag for m in experiment.experiment.metric_infos] if experiment else None
    end = found.get(metadata.SESSION_END_INFO_TAG)
    return settings, columns, end.session_end_info.status if end else None


def test_settings_and_results_are_those_of_the_run(tmp_path):
    given = {"units": 4, "name": "first|run", "wide": True}
    loop = make_loop(TensorBoard(), HParams(given), val=data(8), run_dir=tmp_path)
    history = loop.fit(2)
    settings, columns, status = settings_in(tmp_path)
    assert settings == {"optimizer": "SGD", "lr": 0.01, "batch_size": 4.0, **given}
    assert columns == ["results/val_loss", "results/loss"]
    assert status == 1  # success
    found = scalars(tmp_path)
    for name in ("loss", "val_loss"):
        assert [v for _, v in found[f"results/{name}"]] == pytest.approx(history[name])


class Fail(Callback):
    phases = TRAIN_ONLY

    def __init__(self, at):
        self.at = at

    def on_batch_end(self, state):
        if state.num_updates == self.at:
            raise ZeroDivisionError


def test_a_run_that_failed_says_success_only_after_it_was_resumed_to_its_end(tmp_path):
    with pytest.raises(ZeroDivisionError):
        make_loop(HParams(), Checkpoint(), Fail(8), val=data(8), run_dir=tmp_path).fit(2)
    columns = ["results/val_loss", "results/loss"]
    assert settings_in(tmp_path)[1:] == (columns, None)
    resumed = make_loop(HParams(), Checkpoint(), Fail(None), val=data(8), run_dir=tmp_path)
    resumed.fit(2, resume="auto")
    assert settings_in(tmp_path)[1:] == (columns, 1)
    assert not (tmp_path / "earlier_1").exists()


def test_another_run_in_the_same_folder_shows_its_own_settings_and_graph(tmp_path):
    def run(units):
        model = torch.nn.Sequential(torch.nn.Linear(3, units), torch.nn.Linear(units, 1))
        loop = FitLoop(model, data(20), data(8), run_dir=tmp_path)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
        loop.attach(TensorBoard(x="epoch"), HParams({"units": units}), Graph()).fit(1)
        loop.fit(1)

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "events.out.tfevents.1").write_bytes(b"")
    for units in (4, 32, 8):
        run(units)
        assert settings_in(tmp_path)[0]["units"] == units
        [weight] = [n for n in graph_in(tmp_path).node if n.name == "Linear_0/weight"]
        assert weight.attr["_output_shapes"].list.shape[0].dim[0].size == units
        assert len(scalars(tmp_path / "train")["epoch/loss"]) == 2
    assert settings_in(tmp_path / "earlier_1")[0]["units"] == 4
    assert settings_in(tmp_path / "earlier_2")[0]["units"] == 32
    assert {p.name for p in (tmp_path / "earlier_2").iterdir() if p.is_dir()} == {
        *("train", "val", "updates")
    }
    assert (tmp_path / "other" / "events.out.tfevents.1").exists()


@pytest.mark.parametrize("epochs", [1, 4])
def test_columns_and_charts_wait_for_the_first_validation(tmp_path, epochs):
    loop = make_loop(TensorBoard(), HParams(), val=data(8), run_dir=tmp_path)
    validate_every(loop, "2 epochs")

    @loop.on(Event.EPOCH_END)
    def log(state):
        state.logs["top 5 acc"] = 0.5

    loop.fit(epochs)
    _, columns, _ = settings_in(tmp_path)
    found = ["results/val_loss"] if epochs > 1 else []
    assert columns == [*found, "results/loss", "results/top_5_acc"]
    assert set(columns) <= scalars(tmp_path).keys()
    assert ("Training and validation" in layout_in(tmp_path)) == (epochs > 1)


def test_a_chart_asks_for_the_name_that_was_written(tmp_path):
    loop = make_loop(TensorBoard(), val=data(8), run_dir=tmp_path)

    @loop.on(Event.EPOCH_END)
    def log(state):
        state.logs |= {"top 5 acc": 0.5, "val_top 5 acc": 0.4}

    loop.fit(1)
    [tag] = layout_in(tmp_path)["Training and validation"]["top 5 acc"]
    assert re.fullmatch(tag[1:-1], "epoch/top_5_acc")
    for run in ("train", "val"):
        assert "epoch/top_5_acc" in scalars(tmp_path / run)


def test_numbers_of_numpy_are_settings(tmp_path):
    given = {"a": np.int64(3), "b": np.float32(0.5), "c": np.bool_(True), "d": np.str_("x")}
    make_loop(HParams(given), run_dir=tmp_path).fit(1)
    settings, _, _ = settings_in(tmp_path)
    assert [settings[name] for name in "abcd"] == [3, 0.5, True, "x"]


@pytest.mark.parametrize("owner", [TensorBoard, Histograms])
def test_an_error_while_closing_leaves_no_file_open(tmp_path, monkeypatch, owner):
    from fitkit.watch import histograms, tensorboard

    def lost(*_):
        raise RuntimeError("the device is gone")

    boards = [TensorBoard(), Histograms(every=1), HParams()]
    loop = make_loop(*boards, run_dir=tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        if owner is TensorBoard:
            patch.setattr(tensorboard, "points_of", lost)
        else:
            patch.setattr(histograms, "_write", lost)
        with pytest.raises(RuntimeError, match="the device is gone"):
            loop.fit(1)
    assert len(os.listdir("/proc/self/fd")) == before
    assert [board.files for board in boards] == [None] * 3
    loop.fit(1)
    assert len(scalars(tmp_path / "train")["epoch/loss"]) == 1


@pytest.mark.parametrize("hparams", [{"a": [1]}, {1: 2}, {"a": None}, "text", [("a", 1)]])
def test_settings_of_other_kinds_are_refused(hparams):
    with pytest.raises(ConfigError, match="HParams"):
        HParams(hparams)


def graph_in(folder):
    return GraphDef.FromString(opened(folder).Graph().SerializeToString())


@pytest.mark.parametrize("kind", ["torch", "keras"])
def test_the_graph_has_layers_weights_and_shapes(tmp_path, kind):
    if kind == "torch":
        layers = [torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 1)]
        model = torch.nn.Sequential(*layers)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        names = ("Linear_0", "ReLU_1", "Linear_2")
    else:
        inputs = keras.Input((3,))
        hidden = keras.layers.Dense(5, activation="relu", name="first")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(1, name="last")(hidden))
        optimizer, names = "sgd", ("first", "first", "last")
    loop = FitLoop(model, data(20), run_dir=tmp_path)
    loss = torch.nn.MSELoss() if kind == "torch" else "mse"
    loop.attach(supervised(loss=loss, optimizer=optimizer), Graph())
    loop.fit(1)
    nodes = {node.name: node for node in graph_in(tmp_path).node}
    assert list(nodes)[0] == "inputs"
    assert list(nodes)[-1] == "outputs"
    assert {name.split("/")[0] for name in nodes} == {*names, "inputs", "outputs"}
    relu = next(node for node in nodes.values() if node.op == "relu")
    assert relu.name.startswith(names[1])
    assert [d.size for d in relu.attr["_output_shapes"].list.shape[0].dim] == [4, 5]
    assert sum(node.op == "Parameter" for node in nodes.values()) == 4
    for node in nodes.values():
        assert set(node.input) <= set(nodes)


def graph_of(model, *args, **kwargs):
    recorder = GraphRecorder(model)
    with recorder.watching():
        model(*args, **kwargs)
    assert recorder.error is None
    return recorder.nodes


def test_drawing_a_model_computes_what_it_computes_anyhow():
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5), torch.nn.Dropout(0.5), torch.nn.Linear(5, 1)
    )
    model[1].eval()
    inputs, random = torch.randn(4, 3), torch.get_rng_state()
    wanted = model(inputs)
    after = torch.get_rng_state()
    torch.set_rng_state(random)
    recorder = GraphRecorder(model)
    with recorder.watching():
        outputs = model(inputs)
        num_nodes = len(recorder.nodes)
        model(inputs)
    assert torch.equal(outputs, wanted)
    assert outputs.grad_fn is not None
    assert len(recorder.nodes) == num_nodes  # of the first call only
    torch.set_rng_state(random)
    graph_of(model, inputs)
    assert torch.equal(torch.get_rng_state(), after)
    assert [module.training for module in model] == [True, False, True, True]
    assert not any("forward" in vars(module) for module in model.modules())


class Remembers(torch.nn.Linear):
    """Keeps what it gave, counts its calls, and reads numbers."""

    def __init__(self):
        super().__init__(3, 1)
        self.kept, self.calls = None, 0

    def forward(self, x):
        self.calls += 1
        y = super().forward(x)
        if self.kept is not None:
            y = y + 0.1 * self.kept.mean() * (1 if float(x.sum()) else 2)
        self.kept = y.detach()
        return y


def test_a_model_that_remembers_trains_as_without_the_graph(tmp_path):
    weights = []
    for number, callbacks in enumerate([(), (Graph(),)]):
        torch.manual_seed(0)
        model, got = torch.nn.Sequential(Remembers()), []
        model.register_forward_hook(lambda *args, got=got: got.append(args[2]))
        loop = FitLoop(model, data(20), run_dir=tmp_path / str(number))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), *callbacks)
        loop.fit(2)
        assert {type(outputs) for outputs in got} == {torch.Tensor}
        weights.append((model[0].calls, *model[0].weight[0].tolist()))
    assert weights[0] == weights[1]
    names = [node.name for node in graph_in(tmp_path / "1").node]
    assert (names[0], names[-1]) == ("inputs", "outputs")


def test_an_error_of_the_first_batch_leaves_nothing_behind(tmp_path):
    loop = make_loop(Graph(), run_dir=tmp_path)

    @loop.on(Event.LOSS_READY)
    def fail(state):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop.fit(1)
    assert "forward" not in vars(loop.model)
    assert not {"run_region", "run_step"} & vars(loop.runner).keys()


def test_a_sequence_of_keras_is_drawn_as_its_layers():
    dense = keras.layers.Dense
    inner = keras.Sequential([dense(4, name="first"), dense(3, name="second")], name="inner")
    model = keras.Sequential([keras.Input((3,)), inner, dense(1, name="last")])
    nodes = graph_of(model, torch.ones(2, 3))
    layers = {node.name.rpartition("/")[0] for node in nodes}
    assert layers == {"", "inner/first", "inner/second", "last"}


def test_weights_have_the_same_charts_however_often_the_model_was_made(tmp_path):
    found = []
    for run in ("first", "second"):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="only")])
        loop = FitLoop(model, data(20), run_dir=tmp_path / run)
        loop.attach(supervised(loss="mse", optimizer="sgd"), Histograms()).fit(1)
        found.append({tag for tag in tensors(tmp_path / run / "train") if tag.startswith("w")})
    assert found[0] == found[1] == {"weights/only/kernel", "weights/only/bias"}


def test_layers_called_twice_and_dicts_of_inputs_are_drawn():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 3)

        def forward(self, left, right):
            return {"sum": self.layer(left) + self.layer(right)}

    nodes = graph_of(Twice(), left=torch.ones(2, 3), right=torch.ones(2, 3))
    names = [node.name for node in nodes]
    assert names[:2] == ["inputs['left']", "inputs['right']"]
    assert names[-1] == "outputs['sum']"
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("why", ["never called", "cannot be noted"])
def test_a_model_that_cannot_be_drawn_is_a_warning(tmp_path, monkeypatch, why):
    loop = make_loop(Graph(), run_dir=tmp_path)
    if why == "never called":

        @loop.on(Event.FORWARD)
        def forward(state):
            state.outputs = torch.nn.functional.linear(state.inputs, loop.model.weight)

        for callback in [c for c in loop.callbacks if type(c).__name__ == "Forward"]:
            loop.detach(callback)
    else:
        monkeypatch.setattr(GraphRecorder, "_operation", lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match="Graph cannot draw Linear") as told:
        loop.fit(1)
    assert len(told) == 1
    loop.fit(1)


def test_a_run_that_goes_on_draws_no_second_graph(tmp_path):
    loop = make_loop(Graph(), run_dir=tmp_path)
    loop.fit(1)
    loop.fit(1)
    sizes = [(tmp_path / name).stat().st_size for name in event_files(tmp_path)]
    assert len(sizes) == 1 or sizes[1] < sizes[0]


def test_the_text_tells_settings_loop_weights_and_versions(tmp_path):
    loop = make_loop(RunText({"data": "a|b\nc\x1b[31m"}), val=data(8), run_dir=tmp_path)
    loop.fit(2)
    found = texts(tmp_path)
    assert "| data | a\\|b c [31m |" in found["run/settings"]
    assert "| lr | 0.01 |" in found["run/settings"]
    assert "| max_epochs | 2 |" in found["run/settings"]
    assert str(loop) in found["run/loop"]
    assert "**Linear**: 4 numbers to train in 2 weights" in found["run/weights"]
    assert "| weight | (1, 3) | 3 |" in found["run/weights"]
    assert f"| torch | {torch.__version__} |" in found["run/versions"]


def test_the_commit_is_that_of_the_program(tmp_path, monkeypatch):
    import subprocess

    from fitkit.watch import run_text

    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "train.py").write_text("pass")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    monkeypatch.setattr(run_text.sys, "argv", [str(tmp_path / "train.py")])
    loop = make_loop(RunText(), run_dir=tmp_path / "a")
    loop.fit(1)
    assert f"| git commit | {commit} |" in texts(tmp_path / "a")["run/versions"]
    (tmp_path / "train.py").write_text("pass  # changed")
    make_loop(RunText(), run_dir=tmp_path / "b").fit(1)
    assert f"{commit}, with changes" in texts(tmp_path / "b")["run/versions"]
    monkeypatch.setattr(run_text.sys, "argv", ["/train.py"])
    make_loop(RunText(), run_dir=tmp_path / "c").fit(1)
    assert "git" not in texts(tmp_path / "c")["run/versions"]


def test_a_config_that_is_no_dict_is_refused():
    with pytest.raises(ConfigError, match="expected a dict"):
        RunText("lr=1")


def test_a_keras_model_with_several_inputs_is_drawn():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    added = keras.layers.Add(name="plus")([a, b])
    model = keras.Model([a, b], keras.layers.Dense(1, name="last")(added))
    nodes = graph_of(model, (torch.ones(2, 3), torch.ones(2, 3)))
    plus = next(node for node in nodes if node.name.startswith("plus/"))
    assert plus.inputs == ("inputs[0]", "inputs[1]")
