"""Predictions keeps what the model gave, with the rows it was given for, within its bounds."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fitkit import (
    Callback,
    ConfigError,
    DataError,
    Event,
    FitLoop,
    Forward,
    Predictions,
    Record,
    TensorLoader,
    supervised,
)
from fitkit.loop import Phase

X = torch.randn(22, 4, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)


def loop_of(*callbacks, val=None, mode="eager"):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    loop = FitLoop(model, TensorLoader(X, Y, batch_size=8, shuffle=True), val)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), *callbacks)
    return loop.attach(Record("interpret", strict=True)) if mode == "recorded" else loop


@pytest.mark.parametrize("mode", ["eager", "recorded"])
def test_a_validation_is_kept_with_the_final_weights(mode):
    predictions = Predictions()
    loop = loop_of(predictions, val=TensorLoader(X, Y, batch_size=5), mode=mode)
    loop.fit(epochs=3)
    val = predictions.passes["val"]
    with torch.no_grad():
        assert torch.equal(val.outputs, torch.cat([loop.model(x) for x in X.split(5)]))
    assert torch.equal(val.targets, Y)
    assert torch.equal(val.ids, torch.arange(22))
    assert val.num_dropped == 0
    assert set(predictions.passes) == {"val"}


@pytest.mark.parametrize("mode", ["eager", "recorded"])
def test_the_rows_of_a_shuffled_pass_are_known(mode):
    predictions = Predictions(["train"])
    loop = loop_of(predictions, mode=mode)
    loop.fit(epochs=4)
    train = predictions.passes["train"]
    assert sorted(train.ids.tolist()) == list(range(22))
    assert train.ids.tolist() != list(range(22))
    assert torch.equal(train.targets, Y[train.ids])
    assert train.outputs.shape == (22, 1)


@pytest.mark.parametrize("limit", [13, 100])
def test_batches_that_somebody_has_looked_at_are_in_their_place(limit):
    predictions = Predictions(["train"], max_samples=limit)
    loop = loop_of(predictions)

    @loop.on(Event.BATCH_BEGIN)
    def look(state):
        if state.batch_index == 1:
            state.targets = state.targets + 1

    loop.fit(epochs=1)
    train = predictions.passes["train"]
    expected = Y[train.ids]
    expected[8:16] += 1
    assert torch.equal(train.targets, expected)
    assert len(train.ids) == min(limit, 22)


def test_a_loader_of_datasets_tells_rows_as_well():
    predictions = Predictions()
    loader = DataLoader(TensorDataset(X, Y), 5, shuffle=True)
    loop_of(predictions, val=loader).fit(epochs=1)
    val = predictions.passes["val"]
    assert torch.equal(val.targets, Y[val.ids])
    assert sorted(val.ids.tolist()) == list(range(22))


def test_other_loaders_have_positions():
    predictions = Predictions()
    loop_of(predictions, val=[(X[:3], Y[:3]), (X[3:9], Y[3:9])]).fit(epochs=1)
    assert predictions.passes["val"].ids.tolist() == list(range(9))


@pytest.mark.parametrize("limit", [1, 5, 7, 21, 22, 100])
def test_memory_is_bounded(limit):
    predictions = Predictions(max_samples=limit)
    loop = loop_of(predictions, val=TensorLoader(X, Y, batch_size=5))
    loop.evaluate()
    val = predictions.passes["val"]
    kept = min(limit, 22)
    assert len(val.outputs) == len(val.targets) == len(val.ids) == kept
    assert val.outputs.untyped_storage().nbytes() == kept * 4
    assert val.num_dropped == 22 - kept
    assert torch.equal(val.targets, Y[:kept])


def test_loaders_have_names_and_passes_their_own():
    predictions = Predictions(["train", "val", "predict"])
    val = {"a": TensorLoader(X[:6], Y[:6]), "b": TensorLoader(X[:4], Y[:4])}
    loop = loop_of(predictions, val=val)
    loop.on(Event.BATCH_END)(lambda state: loop.evaluate(TensorLoader(X[:3], Y[:3])))
    loop.fit(epochs=1)
    loop.predict(TensorLoader(X[:2]))
    sizes = {name: len(each.ids) for name, each in predictions.passes.items()}
    assert sizes == {"train": 22, "val_a": 6, "val_b": 4, "val": 3, "predict": 2}
    assert predictions.passes["predict"].targets is None


def test_nested_outputs_keep_their_structure():
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 1)

        def forward(self, x):
            return {"y": self.linear(x), "both": (x, x[:, 0])}

    class Loss(Callback):
        phases = frozenset({Phase.VAL})

        def on_loss(self, state):
            state.loss = state.outputs["y"].mean()

    predictions = Predictions()
    loop = FitLoop(Two(), callbacks=[Forward(), Loss(), predictions])
    loop.evaluate(TensorLoader(X, {"t": Y}, batch_size=5))
    outputs, targets = predictions.passes["val"].outputs, predictions.passes["val"].targets
    assert torch.equal(outputs["both"][0], X)
    assert torch.equal(outputs["both"][1], X[:, 0])
    assert torch.equal(targets["t"], Y)


class Gives(torch.nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, x):
        return self.outputs(x)


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        (
            lambda x: {"y": x, "aux": x.mean()},
            r"outputs\['aux'\] of a batch of 8 samples .* shape \(\)",
        ),
        (lambda x: (x, 3), r"outputs\[1\] of a batch of 8 samples is int"),
        (lambda x: x.T, r"outputs of a batch of 8 samples is the shape \(4, 8\)"),
        (lambda x: x.reshape(2 * len(x), 2), r"outputs .* the shape \(16, 2\), expected a row"),
        (lambda x: x[:, : len(x) // 2], r"the shape \(4,\) here, \(3,\) in another"),
    ],
)
def test_outputs_without_a_row_for_each_sample_are_refused(outputs, says):
    """They would stand beside the ids and targets of other samples."""
    loop = FitLoop(Gives(outputs), callbacks=[Forward(), Predictions()])
    with pytest.raises(DataError, match=says) as caught:
        loop.evaluate(TensorLoader(X, batch_size=8))
    lines = str(caught.value).splitlines()
    assert len(lines[0]) <= 120
    assert lines[1].endswith("do without Predictions.")


def test_absent_outputs_stay_absent():
    predictions = Predictions(["predict"])
    loop = FitLoop(Gives(lambda x: (x, None)), callbacks=[Forward(), predictions])
    loop.predict(TensorLoader(X, batch_size=8))
    kept, absent = predictions.passes["predict"].outputs
    assert torch.equal(kept, X)
    assert absent is None


@pytest.mark.parametrize("looks", [False, True])
def test_targets_that_change_within_a_pass_are_told_or_copied(looks, recwarn):
    labels, predictions = torch.zeros(40, 1), Predictions("train")
    model = torch.nn.Linear(4, 1)
    loop = FitLoop(model, TensorLoader(torch.randn(40, 4), labels, batch_size=8))
    if looks:
        loop.on(Event.BATCH_BEGIN)(lambda state: state.targets)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    stack = supervised(loss=torch.nn.MSELoss(), optimizer=optimizer)
    loop.attach(stack, Record("interpret"), predictions)
    loop.on(Event.BATCH_END)(lambda state: labels.add_(1))
    loop.fit(epochs=2)
    told = [str(each.message) for each in recwarn if "targets" in str(each.message)]
    assert len(told) == (0 if looks else 1)
    if looks:
        assert predictions.passes["train"].targets[::8, 0].tolist() == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("phases", [[], ["test"], "training"])
def test_wrong_phases_are_refused(phases):
    with pytest.raises(ConfigError, match="predict, train, val"):
        Predictions(phases)


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_a_wrong_bound_is_refused(value):
    with pytest.raises(ConfigError, match="max_samples"):
        Predictions(max_samples=value)
