"""What a resumed run could not have: it is refused or told, never silent."""

import keras
import pytest
import torch

from fitkit import (
    EMA,
    Callback,
    Checkpoint,
    CheckpointMismatchError,
    FitLoop,
    Freeze,
    Limits,
    TensorBoard,
    TensorLoader,
    supervised,
)
from fitkit.loop import same
from fitkit.optimizer_state import load_optimizer, optimizer_state

X, Y = torch.randn(40, 4), torch.randn(40, 1)


def torch_model():
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))


def keras_model():
    layers = [keras.layers.Dense(3, name="first"), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((4,)), *layers])


def set_trained(model, flag):
    if isinstance(model, keras.Model):
        model.layers[0].trainable = flag
    else:
        model[0].requires_grad_(flag)


def loop_of(folder, model, *callbacks):
    parameters = list(model.parameters())  # all of them, trained or not
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    stack = supervised(loss=torch.nn.MSELoss(), optimizer=optimizer)
    batches = TensorLoader(X, Y, batch_size=8, shuffle=True)
    return FitLoop(model, batches, callbacks=[*stack, *callbacks, Checkpoint()], run_dir=folder)


class Thaws(Callback):
    """Trains the first layer from the second epoch on."""

    def on_epoch_begin(self, state):
        if state.epoch == 1:
            set_trained(state.model, True)


def test_what_only_reads_may_come_and_go(tmp_path):
    loop_of(tmp_path, torch_model(), TensorBoard()).fit(epochs=1)
    loop_of(tmp_path, torch_model()).fit(epochs=2, resume="auto")
    loop = loop_of(tmp_path, torch_model(), TensorBoard())
    assert len(loop.fit(epochs=3, resume="auto")) == 3
    loop_of(tmp_path, torch_model(), EMA()).fit(
        epochs=4, resume="auto", allow_changed=["callbacks"]
    )
    with pytest.raises(CheckpointMismatchError, match="EMA: saved 'attached', now nothing"):
        loop_of(tmp_path, torch_model()).fit(epochs=5, resume="auto")


@pytest.mark.parametrize("make", [torch_model, keras_model])
def test_flags_that_somebody_has_changed(make, tmp_path):
    def begun():
        model = make()
        set_trained(model, False)
        return loop_of(tmp_path, model, Thaws())

    begun().fit(epochs=2)
    with pytest.raises(CheckpointMismatchError) as caught:
        begun().fit(epochs=4, resume="auto")
    told = str(caught.value)
    for token in ("and 1 more weights: saved 'trained', now 'frozen'", "['trainable']"):
        assert token in told
    again = begun()
    set_trained(again.model, True)
    assert len(again.fit(epochs=3, resume="auto")) == 3
    assert len(begun().fit(epochs=4, resume="auto", allow_changed=["trainable"])) == 4


def test_without_looking_at_flags_it_trains_less(tmp_path, monkeypatch):
    """The negative control."""
    monkeypatch.setattr(same, "_trained", lambda loop, saved: [])
    ends = []
    for resumed in (False, True):
        for epochs in (2, 4) if resumed else (4,):
            torch.manual_seed(0)
            model = torch_model()
            set_trained(model, False)
            loop = loop_of(tmp_path / str(resumed), model, Thaws())
            loop.fit(epochs, resume="auto")
        ends.append(loop.model[0].weight)
    assert not torch.equal(*ends)


def test_what_freeze_holds_is_its_own_affair(tmp_path):
    for epochs in (1, 3):
        freeze = Freeze("0", until="2 epochs")
        loop_of(tmp_path, torch_model(), freeze).fit(epochs, resume="auto")


class Critic(Callback):
    """Holds an optimizer of its own."""

    def __init__(self):
        self.weight = torch.nn.Parameter(torch.zeros(3))
        self.optimizer = torch.optim.Adam([self.weight])


class SavedCritic(Critic):
    def state_dict(self):
        return {"optimizer": self.optimizer.state_dict()}


class Watches(Callback):
    """Holds the optimizer that another one saves."""

    def __init__(self, optimizer):
        self.held = {"optimizer": optimizer}


def test_an_optimizer_that_nobody_saves(tmp_path):
    with pytest.warns(UserWarning, match="Critic holds Adam, which nobody saves"):
        loop_of(tmp_path, torch_model(), Critic()).fit(epochs=1)
    saved = SavedCritic()
    loop_of(tmp_path / "saved", torch_model(), saved, Watches(saved.optimizer)).fit(epochs=1)


def test_batches_that_are_kept_are_those_of_a_process(tmp_path):
    loop_of(tmp_path, torch_model(), Limits(overfit_batches=2)).fit(epochs=1, resume="auto")
    with pytest.warns(UserWarning, match="first batches of this process"):
        loop_of(tmp_path, torch_model(), Limits(overfit_batches=2)).fit(epochs=2, resume="auto")


def test_another_model_is_told_before_all_that_follows_from_it(tmp_path):
    def loop_of_width(width):
        model = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Linear(width, 1))
        optimizer = torch.optim.Adam(model.parameters())
        stack = supervised(loss=torch.nn.MSELoss(), optimizer=optimizer)
        return FitLoop(model, [(X, Y)], callbacks=[*stack, Checkpoint()], run_dir=tmp_path)

    loop_of_width(3).fit(epochs=1)
    with pytest.raises(CheckpointMismatchError, match="is of another model"):
        loop_of_width(5).fit(epochs=2, resume="auto")


def test_an_optimizer_of_other_weights():
    saved, other = (torch.nn.Linear(width, 1) for width in (3, 5))
    optimizers = [torch.optim.Adam(model.parameters()) for model in (saved, other)]
    saved(torch.ones(1, 3)).sum().backward()
    optimizers[0].step()
    with pytest.raises(
        CheckpointMismatchError, match=r"of other weights(.|\n)*exp_avg of weight 0 is \(1, 3\)"
    ):
        load_optimizer(optimizers[1], optimizer_state(optimizers[0]))


@pytest.mark.filterwarnings("error")
def test_going_on_where_nothing_is_saved_is_told(tmp_path):
    def fit(*callbacks):
        model = torch_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        stack = supervised(loss=torch.nn.MSELoss(), optimizer=optimizer)
        loop = FitLoop(model, [(X, Y)], callbacks=[*stack, *callbacks], run_dir=tmp_path)
        return loop.fit(epochs=1, resume="auto")

    with pytest.raises(UserWarning, match=r"no callback writes one(.|\n)*Attach Checkpoint"):
        fit()
    fit(Checkpoint())  # it will be saved from now on
    fit()  # there is one
