"""Mistakes in loaders and batches."""

import keras
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fitkit import DataError, Event, FitLoop, Forward, TensorLoader, supervised
from tests.unit.bad_input.mistakes import CLASSES, Counted, X, Y, batches, loop_of, refused, stack


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, image, scale=1.0):
        return self.layer(image) * scale


@pytest.mark.parametrize(
    ("batch", "shown", "tokens"),
    [
        (X, "Tensor[64, 4] float32", ["no targets"]),
        ((X,), "(Tensor[64, 4] float32,)", ["no targets"]),
        ((X, Y, Y, Y), "Tensor[64, 1] float32)", ["a tuple of 4 items"]),
        ({"image": X, "label": Y}, "{'image': Tensor[64, 4] float32", ["a dict"]),
    ],
)
def test_the_structure_of_a_batch(batch, shown, tokens):
    loader = Counted([batch] * 3)
    loop = loop_of(loader=loader)
    expected = ["(inputs, targets, weights)", "unpack=lambda batch"]
    with refused(DataError, shown, *tokens, *expected, model=loop.model, loader=loader):
        loop.fit(epochs=1)


@pytest.mark.parametrize(
    ("unpack", "reason"),
    [
        (lambda batch: (batch["picture"], batch["label"], None), "KeyError: 'picture'"),
        (lambda batch: (batch["image"], batch["label"]), "not enough values"),
        (lambda batch: None, "TypeError"),
        (lambda batch: (batch.image, batch.label, None), "AttributeError"),
    ],
)
def test_unpack_does_not_fit(unpack, reason):
    loader = Counted([{"image": X, "label": Y}] * 3)
    loop = loop_of(loader=loader, unpack=unpack)
    shown = "{'image': Tensor[64, 4] float32, 'label': Tensor[64, 1] float32}"
    with refused(DataError, "unpack=", shown, reason, model=loop.model, loader=loader):
        loop.fit(epochs=1)


def test_unpack_is_no_function():
    with refused(TypeError, "unpack=(0, 1)", "tuple", "expected a function"):
        loop_of(unpack=(0, 1))


def test_a_dict_of_inputs_has_other_keys_than_the_model():
    loader = Counted([({"picture": X}, Y)] * 3)
    loop = loop_of(Named(), loader)
    tokens = ["Named.forward", "'image'", "{'picture': Tensor[64, 4] float32}", "(image, scale"]
    with refused(DataError, *tokens, model=loop.model, loader=loader):
        loop.fit(epochs=1)


def test_too_many_inputs_for_the_model():
    loop = loop_of(loader=Counted([((X, X), Y)] * 3))
    with refused(DataError, "Linear.forward", "too many", "unpack=", model=loop.model):
        loop.fit(epochs=1)


class Picture:
    pass


@pytest.mark.parametrize(
    ("batch", "path", "kind"),
    [
        ((["a", "b"], Y), "batch[0][0]", "builtins.str"),
        (({"image": Picture()}, Y), "batch[0]['image']", "Picture"),
        ((X, X.numpy().astype(object)), "batch[1]", "object"),
    ],
)
def test_a_batch_of_other_things_than_numbers(batch, path, kind):
    loader = Counted([batch] * 3)
    loop = loop_of(loader=loader)
    with refused(DataError, path, kind, "collate_fn", model=loop.model, loader=loader):
        loop.fit(epochs=1)


def test_numpy_and_lists_of_numbers_are_taken():
    loop = loop_of(loader=[(X.numpy(), Y.numpy())])
    assert loop.fit(epochs=1)["loss"]


SHAPES = [
    (nn.MSELoss(), "MSELoss"),
    (nn.functional.l1_loss, "l1_loss"),
    (nn.BCEWithLogitsLoss(), "BCEWithLogitsLoss"),
]


@pytest.mark.parametrize(("loss", "name"), SHAPES)
@pytest.mark.parametrize("targets", [Y[:, 0], Y.expand(64, 3)])
def test_outputs_and_targets_differ_in_shape(loss, name, targets):
    loader = batches(X, targets)
    loop = loop_of(loader=loader, loss=loss)
    found = f"outputs (8, 1) and targets {tuple(targets[:8].shape)}"
    with refused(DataError, name, found, "in batch 0", model=loop.model, loader=loader):
        loop.fit(epochs=1)


def test_the_own_loss_of_a_user_is_warned_of_broadcasting():
    def mine(outputs, targets):
        return (outputs - targets).square().mean()

    from fitkit import TorchLoss

    loop = loop_of(loader=batches(X, Y[:, 0]), loss=TorchLoss(mine))
    with pytest.warns(UserWarning, match="mine got outputs") as caught:
        loop.fit(epochs=1)
    assert len(caught) == 1
    assert "(8, 1) and targets (8,) in batch 0" in str(caught[0].message)


@pytest.mark.parametrize("loss", ["mse", keras.losses.MeanSquaredError(), "mean_absolute_error"])
def test_keras_losses_broadcast_nothing_but_a_last_axis(loss):
    def loop_with(targets):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        callbacks = supervised(loss=loss, optimizer="sgd")
        return FitLoop(model, batches(X, targets), callbacks=callbacks)

    loop = loop_with(Y.expand(64, 3))
    with refused(DataError, "outputs (8, 1) and targets (8, 3)", model=loop.model):
        loop.fit(epochs=1)
    assert loop_with(Y[:, 0]).fit(epochs=1)["loss"]


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.functional.cross_entropy])
@pytest.mark.parametrize(
    ("targets", "tokens"),
    [
        (CLASSES.float(), ["float32", "3 classes", "int64"]),
        (CLASSES.int(), ["int32", "3 classes", "int64"]),
        (CLASSES + 1, ["from 1 to 3", "3 classes", "0 to 2"]),
        (CLASSES - 1, ["from -1 to 1", "3 classes"]),
        (CLASSES[:, None], ["(8, 3)", "(8, 1)", "squeeze"]),
    ],
)
def test_class_indices_that_cannot_be(loss, targets, tokens):
    model = nn.Linear(4, 3)
    loader = batches(X, targets)
    loop = loop_of(model, loader, loss)
    with refused(DataError, *tokens, model=model, loader=loader):
        loop.fit(epochs=1)


def test_ignored_class_indices_are_none():
    targets = torch.where(CLASSES == 2, 255, CLASSES)
    loop = loop_of(nn.Linear(4, 3), batches(X, targets), nn.CrossEntropyLoss(ignore_index=255))
    assert loop.fit(epochs=1)["loss"]


@pytest.mark.parametrize(
    "loss", ["sparse_categorical_crossentropy", keras.losses.SparseCategoricalCrossentropy()]
)
@pytest.mark.parametrize("shift", [1, -1])
def test_class_indices_of_keras_losses(loss, shift):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    loader = batches(X, CLASSES + shift)
    loop = FitLoop(model, loader, callbacks=supervised(loss=loss, optimizer="sgd"))
    with refused(DataError, f"from {shift}", "3 classes", model=model, loader=loader):
        loop.fit(epochs=1)


def test_keras_ignores_no_class_index_by_itself():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    loader = batches(X, torch.full_like(CLASSES, -100))
    stack = supervised(loss="sparse_categorical_crossentropy", optimizer="sgd")
    loop = FitLoop(model, loader, callbacks=stack)
    with refused(DataError, "from -100", "3 classes", model=model, loader=loader):
        loop.fit(epochs=1)


@pytest.mark.parametrize("loss", [nn.BCELoss(), nn.functional.binary_cross_entropy_with_logits])
def test_whole_numbers_as_targets_of_a_binary_loss(loss):
    loop = loop_of(loader=batches(X, (Y > 0).long()), loss=loss)
    with refused(DataError, "int64", "floating", "targets.float()", model=loop.model):
        loop.fit(epochs=1)


@pytest.mark.parametrize(
    ("model", "inputs", "found"),
    [
        (nn.Linear(4, 1), X.double(), "torch.float64"),
        (nn.Linear(4, 1), (X * 9).to(torch.uint8), "torch.uint8"),
        (nn.Sequential(nn.Conv1d(1, 1, 4), nn.Flatten()), X[:, None].double(), "torch.float64"),
        (nn.Sequential(nn.Conv1d(1, 1, 4), nn.Flatten()), X[:, None].long(), "torch.int64"),
    ],
)
def test_inputs_of_another_dtype_than_the_weights(model, inputs, found):
    loader = batches(inputs, Y)
    loop = loop_of(model, loader)
    tokens = ["inputs is", found, "torch.float32", "x.to(torch.float32)"]
    with refused(DataError, *tokens, model=model, loader=loader):
        loop.fit(epochs=1)


def test_the_note_of_another_failure_of_the_model_shows_its_inputs():
    loop = loop_of(loader=batches(X[:, :3], Y))
    with pytest.raises(RuntimeError) as caught:
        loop.fit(epochs=1)
    assert "the model was given Tensor[8, 3] float32" in caught.value.__notes__


def test_inputs_made_in_inference_mode():
    with torch.inference_mode():
        inputs = X * 2
    loop = loop_of(loader=[(inputs, Y)])
    with refused(DataError, "inputs", "inference_mode", "clone", model=loop.model):
        loop.fit(epochs=1)


@pytest.mark.parametrize("argument", ["train_loader", "val_loader"])
def test_a_dataset_instead_of_a_loader(argument):
    with refused(TypeError, argument, "a TensorDataset", "Wrap it in a DataLoader"):
        FitLoop(nn.Linear(4, 1), **{argument: TensorDataset(X, Y)})


@pytest.mark.parametrize("arrays", [(X, Y), (X.numpy(), Y.numpy()), (X, Y, Y[:, 0])])
@pytest.mark.parametrize("argument", ["train_loader", "val_loader"])
def test_arrays_as_keras_takes_them_instead_of_a_loader(argument, arrays):
    with refused(TypeError, f"{argument} is a tuple", "TensorLoader(x, y"):
        FitLoop(nn.Linear(4, 1), **{argument: arrays})


def test_a_list_of_arrays_is_a_list_of_batches():
    loop = FitLoop(nn.Linear(4, 1), callbacks=[Forward()])
    assert loop.predict([X, X[:3]]).shape == (len(X) + 3, 1)


def test_an_array_to_predict_on():
    with refused(TypeError, "the loader to predict on is a Tensor", "TensorLoader("):
        FitLoop(nn.Linear(4, 1), callbacks=[Forward()]).predict(X)


def one_shot():
    return [iter([(X, Y)]), ((X, Y) for _ in range(3)), zip([X], [Y], strict=True), map(list, [X])]


@pytest.mark.parametrize("index", range(4))
def test_an_iterator_is_to_be_read_more_than_once(index):
    loader = one_shot()[index]
    loop = loop_of(loader=loader)
    kind = type(loader).__name__
    with refused(DataError, "train_loader", kind, "one-shot", "epochs=2", model=loop.model):
        loop.fit(epochs=2)
    assert next(loader) is not None  # nothing was taken from it


def test_an_iterator_for_validation_is_to_be_read_more_than_once():
    model = nn.Linear(4, 1)
    loop = FitLoop(model, [(X, Y)], one_shot()[0], callbacks=stack(model))
    with refused(
        DataError, "val_loader", "list_iterator", "one-shot", "every 1 epoch", model=model
    ):
        loop.fit(epochs=2)


@pytest.mark.parametrize(
    ("every", "limits", "said"),
    [
        (2, {"epochs": 1}, "every 2 updates"),  # 8 batches
        ("3 updates", {"max_steps": 6}, "every 3 updates"),
        (2, {"max_time": 60}, "every 2 updates"),
        ("1 minute", {"max_time": 120}, "every 1 minute"),
        ("2 epochs", {"epochs": 4}, "every 2 epochs"),
    ],
)
def test_an_iterator_for_validation_in_mid_run_is_refused_before_the_first_batch(
    every, limits, said
):
    model = nn.Linear(4, 1)
    loaders = {"a": [(X, Y)], "b": one_shot()[1]}
    train = TensorLoader(X, Y, batch_size=8)
    loop = FitLoop(model, train, loaders, callbacks=stack(model, validate=every))
    with refused(DataError, "val_loader['b']", "a generator", "one-shot", said, model=model):
        loop.fit(**limits)
    assert next(loaders["b"]) is not None


@pytest.mark.parametrize(
    ("every", "limits"),
    [
        (5, {"epochs": 1}),  # due once in 8 batches
        (5, {"max_steps": 9}),
        ("1 minute", {"epochs": 2}),
        ("2 epochs", {"epochs": 3}),
        ("1 epoch", {"max_steps": 8}),
    ],
)
def test_an_iterator_for_one_validation_is_read(every, limits):
    model = nn.Linear(4, 1)
    train = TensorLoader(X, Y, batch_size=8)
    loop = FitLoop(model, train, one_shot()[1], callbacks=stack(model, validate=every))
    logged = [row for row in loop.fit(**limits).rows if "val_loss" in row]
    assert len(logged) == (every != "1 minute")


def test_a_validation_that_was_asked_for_once_more_says_what_is_used_up():
    model = nn.Linear(4, 1)
    train = TensorLoader(X, Y, batch_size=8)
    loop = FitLoop(model, train, {"b": one_shot()[1]}, callbacks=stack(model))
    loop.on(Event.BATCH_END, every=4)(lambda state: state.request(Event.VALIDATE))
    with refused(DataError, "val_b loader has no batches left", "a generator", "one-shot"):
        loop.fit(epochs=1)


@pytest.mark.parametrize("limit", [{"epochs": 1}, {"epochs": 9, "max_steps": 1}])
def test_an_iterator_is_read_once(limit):
    assert loop_of(loader=one_shot()[1]).fit(**limit)["loss"]


def test_an_iterator_that_is_used_up():
    loop = loop_of(loader=one_shot()[1])
    loop.fit(epochs=1)
    with refused(DataError, "one-shot", "generator", model=loop.model):
        loop.fit(epochs=1)


@pytest.mark.parametrize(
    ("loader", "tokens"),
    [
        (DataLoader(TensorDataset(X), batch_size=100, drop_last=True), ["=64", "=100", "=True"]),
        (TensorLoader(X, Y, batch_size=100, drop_last=True), ["=64", "=100", "=True"]),
        (TensorLoader(X[:0]), ["=0", "=32", "=False"]),
    ],
)
def test_an_empty_loader(loader, tokens):
    expected = ["len(dataset)", "batch_size", "drop_last", *tokens]
    with refused(DataError, *expected):
        FitLoop(nn.Linear(4, 1), loader)


def test_an_empty_loader_without_a_length():
    loop = loop_of(loader=Counted([]))
    with refused(DataError, "gave no batches", "Counted", model=loop.model):
        loop.fit(epochs=1)


def test_an_empty_loader_to_predict_on():
    loop = FitLoop(nn.Linear(4, 1), callbacks=[Forward()])
    with refused(DataError, "gave no batches"):
        loop.predict(iter_nothing())


def iter_nothing():
    return Counted([])
