"""Two turns with optimizers of their own compute what an alternating loop by hand computes."""

import pytest
import torch
from torch import nn

from fitkit import (
    Backward,
    FitLoop,
    Forward,
    Metrics,
    TorchLoss,
    TorchStep,
    TrainMode,
    Turn,
    ZeroGrad,
)
from tests.parity import hand_loops as hand
from tests.parity import ours


class Halves(nn.Module):
    """Two stacked layers, each trained by an optimizer and a loss of its own."""

    def __init__(self):
        super().__init__()
        self.low = nn.Linear(784, 16)
        self.high = nn.Linear(16, 10)

    def forward(self, inputs):
        return self.high(torch.relu(self.low(inputs)))


def optimizers(model):
    return (
        torch.optim.SGD(model.low.parameters(), lr=1e-5, momentum=0.9),
        torch.optim.Adam(model.high.parameters(), lr=1e-3),
    )


def square_error(outputs, targets):
    return ((outputs - targets) ** 2).mean()


def alternating_by_hand(model, train, *, epochs, every):
    low, high = optimizers(model)
    turns = [(low, nn.CrossEntropyLoss(), 1), (high, square_error, every)]
    rows, count = [], 0
    for _ in range(epochs):
        seen = ([], [])
        for inputs, targets in train:
            count += 1
            for losses, (optimizer, loss_fn, each) in zip(seen, turns, strict=True):
                if count % each == 0:
                    model.zero_grad()
                    loss = loss_fn(model(inputs), targets)
                    loss.backward()
                    optimizer.step()
                    losses.append((loss.detach(), len(targets)))
        rows.append({f"{n}_loss": hand.weighted_mean(s) for n, s in zip("ab", seen, strict=True)})
    return hand.HandRun(hand.weights_of(model), rows)


def turns_of(model, every):
    low, high = optimizers(model)
    return [
        Turn("a", [TorchLoss(nn.CrossEntropyLoss()), TorchStep(low)]),
        Turn("b", [TorchLoss(square_error), TorchStep(high)], every=every),
    ]


SHARED = (TrainMode, ZeroGrad, Forward, Backward, Metrics)


@pytest.mark.parametrize("every", [1, 3])
def test_turns_alternate(every):
    by_hand = alternating_by_hand(*ours.seeded(Halves, 300)[:2], epochs=2, every=every)
    model, train, _ = ours.seeded(Halves, 300)
    shared = [callback() for callback in SHARED]
    loop = FitLoop(model, train, callbacks=[*shared, *turns_of(model, every)])
    history = loop.fit(epochs=2)
    rows = [{name: row[name] for name in ("a_loss", "b_loss")} for row in history.rows]
    ours.assert_same(hand.HandRun(hand.weights_of(model), rows), by_hand)
    # 20 batches: the counter of batches runs on over epochs, so 3 fires in 2, 5, ..., 17
    assert loop.state.turn_updates == {"a": 20, "b": 20 // every}
    assert loop.state.num_updates == loop.state.num_batches == 20


def test_order_of_turns_matters():
    by_hand = alternating_by_hand(*ours.seeded(Halves, 300)[:2], epochs=1, every=1)
    model, train, _ = ours.seeded(Halves, 300)
    shared = [callback() for callback in SHARED]
    FitLoop(model, train, callbacks=[*shared, *reversed(turns_of(model, 1))]).fit(epochs=1)
    assert not ours.same_weights(hand.weights_of(model), by_hand.weights)


def test_optimizers_of_all_turns_together_must_hold_every_weight():
    model, train, _ = ours.seeded(Halves, 300)
    shared = [callback() for callback in SHARED]
    turn = turns_of(model, 1)[0]
    with pytest.warns(UserWarning, match="leaves out 2 trainable parameters"):
        FitLoop(model, train, callbacks=[*shared, turn]).fit(max_steps=1)


def test_a_batch_without_a_turn_counts_no_update():
    model, train, _ = ours.seeded(Halves, 300)
    model.low.requires_grad_(False)
    shared = [callback() for callback in SHARED]
    rare = Turn("rare", [TorchLoss(square_error), TorchStep(optimizers(model)[1])], every=4)
    loop = FitLoop(model, train, callbacks=[*shared, rare])
    loop.fit(epochs=1)
    assert loop.state.num_batches == 10
    assert loop.state.num_updates == loop.state.turn_updates["rare"] == 2
