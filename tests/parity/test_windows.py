"""Accumulation windows that a callback opens and closes equal gradients summed up by hand."""

import pytest
import torch
from torch import nn

from fitkit import Backward, Callback, FitLoop, Forward, TorchLoss, TorchStep, Turn, ZeroGrad
from fitkit.loop.callback import TRAIN_ONLY
from tests.parity import hand_loops as hand
from tests.parity import ours
from tests.parity.digits import torch_mlp


class Window(Callback):
    """Open a window every `size` batches and close it with its last one."""

    phases = TRAIN_ONLY

    def __init__(self, size):
        self.size = size

    def on_batch_begin(self, state):
        position = state.batch_index % self.size
        state.opens_update = position == 0
        state.closes_update = position == self.size - 1


class WithoutLength:
    """A loader that cannot tell how many batches it has."""

    def __init__(self, num_batches):
        self.batches = list(ours.seeded(torch_mlp, 32 * num_batches)[1])

    def __iter__(self):
        return iter(self.batches)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)


def accumulated_by_hand(model, batches, *, epochs, size):
    optimizer, loss_fn, num_updates = sgd(model), nn.CrossEntropyLoss(), 0
    for _ in range(epochs):
        is_open = False
        for index, (inputs, targets) in enumerate(batches):
            if index % size == 0:
                optimizer.zero_grad()
            loss_fn(model(inputs), targets).backward()
            is_open = index % size != size - 1
            if not is_open:
                optimizer.step()
                num_updates += 1
        if is_open:
            optimizer.step()
            num_updates += 1
    return hand.weights_of(model), num_updates


def windowed(model, loader, size):
    parts = [ZeroGrad(), Forward(), TorchLoss(nn.CrossEntropyLoss()), Backward()]
    return FitLoop(model, loader, callbacks=[*parts, TorchStep(sgd(model)), Window(size)])


@pytest.mark.parametrize("num_batches", [8, 10])
def test_windows(num_batches):
    batches = WithoutLength(num_batches)
    weights, updates = accumulated_by_hand(ours.seeded(torch_mlp)[0], batches, epochs=2, size=4)
    loop = windowed(ours.seeded(torch_mlp)[0], batches, size=4)
    loop.fit(epochs=2)
    assert ours.same_weights(hand.weights_of(loop.model), weights)
    assert loop.state.num_updates == updates == 2 * -(-num_batches // 4)
    assert loop.state.num_batches == 2 * num_batches


def test_update_that_the_end_of_a_pass_completes_counts_for_max_steps():
    loop = windowed(ours.seeded(torch_mlp)[0], WithoutLength(10), size=4)
    loop.fit(max_steps=3)
    assert (loop.state.num_updates, loop.state.num_batches) == (3, 10)


def test_open_windows_of_turns_are_closed():
    batches = WithoutLength(10)
    weights, _ = accumulated_by_hand(ours.seeded(torch_mlp)[0], batches, epochs=1, size=4)
    model = ours.seeded(torch_mlp)[0]
    parts = [ZeroGrad(), Forward(), TorchLoss(nn.CrossEntropyLoss()), Backward()]
    turn = Turn("only", [*parts, TorchStep(sgd(model))])
    loop = FitLoop(model, batches, callbacks=[turn, Window(4)])
    loop.fit(epochs=1)
    assert ours.same_weights(hand.weights_of(model), weights)
    assert loop.state.turn_updates == {"only": 3}
