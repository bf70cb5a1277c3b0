"""Windows of turns that do not run in every batch: closed where the window of all closes."""

import pytest
import torch
from torch import nn

from fitkit import (
    Accumulate,
    Backward,
    Callback,
    Checkpoint,
    ConfigError,
    FitLoop,
    Forward,
    NaNGuard,
    Record,
    TorchLoss,
    TorchStep,
    Turn,
    ZeroGrad,
)
from tests.unit.tune import windows as w


def square_error(outputs, targets):
    return ((outputs - nn.functional.one_hot(targets, 4)) ** 2).mean()


LOSSES = {"often": nn.CrossEntropyLoss(), "rare": square_error}


def two_turns(loader, *callbacks, every=2, losses=LOSSES, run_dir=None):
    """One turn in every batch, one in each second; they share no weight and no loss."""
    model = w.torch_mlp()
    turns = []
    for (name, loss), part, period in zip(
        losses.items(), (model[0], model[2]), (1, every), strict=True
    ):
        step = TorchStep(torch.optim.SGD(part.parameters(), lr=0.5))
        actions = [ZeroGrad(), Forward(), TorchLoss(loss), Backward(part), step]
        turns.append(Turn(name, actions, every=period))
    return FitLoop(model, loader, callbacks=[*turns, *callbacks], run_dir=run_dir)


def by_hand(given, size, *, epochs, with_length):
    """Each turn updates once per window, by the batches of the window it has run in."""
    model, num_batches = w.torch_mlp(), 0
    parts = [model[0], model[2]]
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.5) for part in parts]
    for _ in range(epochs):
        for begin in range(0, len(given), size):
            window, gathered = given[begin : begin + size], ([], [])
            late = len(window) < size and not with_length

            def update(turn, gathered=gathered):
                total = sum(rows for _, rows in gathered[turn])
                for index, parameter in enumerate(parts[turn].parameters()):
                    each = [gradients[index] * (n / total) for gradients, n in gathered[turn]]
                    parameter.grad = torch.stack(each).sum(0)
                optimizers[turn].step()
                gathered[turn].clear()

            for index, (x, y) in enumerate(window):
                num_batches += 1
                for turn, loss in enumerate(LOSSES.values()):
                    if turn == 0 or num_batches % 2 == 0:
                        weights = list(parts[turn].parameters())
                        gathered[turn].append(
                            (torch.autograd.grad(loss(model(x), y), weights), len(y))
                        )
                        if index == len(window) - 1 and not late:
                            update(turn)
            for turn in range(2):
                if gathered[turn]:
                    update(turn)
    return w.weights(model)


pytestmark = pytest.mark.filterwarnings("ignore:the optimizer leaves out")


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("with_length", [True, False])
@pytest.mark.parametrize("rows", [72, 61])  # 9 and 8 batches: windows of 3, 3, 3 and 3, 3, 2
def test_a_turn_that_misses_the_last_batch_of_a_window_updates_there(rows, with_length, recorded):
    given = w.batches(rows, 8)
    loader = given if with_length else w.WithoutLength(given)
    loop = two_turns(loader, Accumulate(3), *([Record("interpret")] if recorded else []))
    loop.fit(epochs=2)
    assert loop.state.turn_updates == {"often": 6, "rare": 6}
    assert loop.state.num_updates == 6
    expected = by_hand(given, 3, epochs=2, with_length=with_length)
    assert w.distance(w.weights(loop.model), expected) < 2e-6


def test_the_end_of_an_epoch_leaves_no_window_open(tmp_path):
    """A checkpoint is refused within one."""
    checkpoint = Checkpoint()
    loop = two_turns(w.batches(72, 8), Accumulate(3), checkpoint, run_dir=tmp_path)
    loop.fit(epochs=1)
    assert not loop.runner.window_is_open
    assert checkpoint.store.latest().meta["counters"]["turn_updates"]["rare"] == 3


def test_a_window_counts_where_no_turn_runs_in_its_last_batch():
    model = w.torch_mlp()
    step = TorchStep(w.sgd(model))
    turn = Turn(
        "rare", [ZeroGrad(), Forward(), TorchLoss(LOSSES["often"]), Backward(), step], every=2
    )
    loop = FitLoop(model, w.batches(72, 8), callbacks=[turn, Accumulate(3)])
    loop.fit(epochs=1)
    assert loop.state.turn_updates == {"rare": 3}
    assert loop.state.num_updates == 3


@pytest.mark.parametrize("rows", [72, 64])  # the loader ends with a window, and within one
def test_a_window_that_is_closed_later_has_the_loss_of_its_own_turn(rows):
    seen = []

    class Look(Callback):
        def on_grads_ready(self, state):
            seen.append((state.turn, state.loss.item()))

    losses = {"often": lambda o, t: o.sum() * 0 + 1, "rare": lambda o, t: o.sum() * 0 + 2}
    loader = w.WithoutLength(w.batches(rows, 8))
    two_turns(loader, Accumulate(3), Look(), losses=losses).fit(epochs=1)
    assert len(seen) == 6
    assert all(loss == {"often": 1.0, "rare": 2.0}[turn] for turn, loss in seen)


def test_an_update_is_not_skipped_for_the_loss_of_another_turn():
    """The last batch of the loader, in mid-window, spoils the second turn alone."""
    factor = [1.0]

    class Spoil(Callback):
        def on_batch_begin(self, state):
            factor[0] = float("nan") if state.batch_index == 7 else 1.0

    losses = {"first": nn.CrossEntropyLoss(), "second": lambda o, t: square_error(o, t) * factor[0]}
    loader = w.WithoutLength(w.batches(64, 8))
    more = Accumulate(3), NaNGuard("skip"), Spoil()
    with pytest.warns(UserWarning, match="NaNGuard skipped 1 updates"):
        two_turns(loader, *more, every=1, losses=losses).fit(epochs=1)


class Climb(Callback):
    """Move the weights for the next turn, as SAM does."""

    def on_apply(self, state):
        for weight in state.model.parameters():
            weight.add_(weight.grad, alpha=0.1)


class GoBack(Callback):
    def on_grads_ready(self, state):
        pass


def test_turns_that_look_from_moved_weights_are_refused():
    """Only in the last batch of a window would they be moved: that is not SAM on a large batch."""
    loop = w.loop_of(w.torch_mlp(), w.batches(64, 8))
    loop.attach(Turn("climb", [Climb()]), Turn("descend", [GoBack()]), Accumulate(2))
    words = "Climb moves the weights in the turn 'climb'", "larger batches"
    w.refused(loop, ConfigError, *words)
