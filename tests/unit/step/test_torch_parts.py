"""The actions of a step, for torch modules: what each reads and writes."""

import pytest
import torch
from torch import nn

from fitkit import (
    Backward,
    Callback,
    DataError,
    Event,
    FitLoop,
    Forward,
    TensorLoader,
    TorchLoss,
    TorchStep,
    ZeroGrad,
    supervised,
)


def sgd(model, rate=0.1):
    return torch.optim.SGD(model.parameters(), lr=rate)


def loop_of(model, *arrays, loss=None, **options):
    stack = supervised(loss=loss or nn.MSELoss(), optimizer=sgd(model))
    return FitLoop(model, TensorLoader(*arrays, batch_size=4), callbacks=stack, **options)


def test_forward_calls_with_keywords_positions_or_one_tensor():
    calls = []

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, a, b=None):
            calls.append((a.shape[0], None if b is None else b.shape[0]))
            return a * self.weight

    x = torch.ones(4, 1)
    inputs = [x, (x, x), [x, x], {"b": x, "a": x}]
    for each in inputs:
        loop_of(Model(), each, x).fit(max_steps=1)
    assert calls == [(4, None), (4, 4), (4, 4), (4, 4)]


def test_zero_grad_leaves_none_and_gradients_stay_readable():
    model = nn.Linear(1, 1)
    model.unused = nn.Parameter(torch.ones(()))
    x = torch.ones(8, 1)
    loop, seen = loop_of(model, x, x), []

    @loop.on(Event.BATCH_END)
    def look(state):
        seen.append(state.model.weight.grad is not None)

    model.unused.grad = torch.ones(())
    loop.fit(epochs=1)
    assert seen == [True, True]
    assert model.unused.grad is None
    assert model.unused == 1  # an optimizer leaves alone what has no gradient


@pytest.mark.filterwarnings("ignore:.* flags of the model changed")
def test_parameter_that_was_frozen_in_mid_run_gets_no_gradient():
    model = nn.Linear(1, 1)
    x = torch.ones(8, 1)
    loop = loop_of(model, x, x)
    loop.on(Event.BATCH_END, once=True)(lambda state: model.bias.requires_grad_(False))
    loop.fit(epochs=1)
    assert model.bias.grad is None


@pytest.mark.parametrize("scale", [None, 0.25])
def test_backward_applies_the_grad_scale(scale):
    model = nn.Linear(1, 1, bias=False)
    x = torch.full((4, 1), 2.0)

    class Scale(Callback):
        def on_loss_ready(self, state):
            state.grad_scale = None if scale is None else torch.tensor(scale)

    before = model.weight.item()
    loop_of(model, x, torch.zeros(4, 1)).attach(Scale()).fit(max_steps=1)
    assert model.weight.grad.item() == pytest.approx((scale or 1.0) * 8 * before)


def test_loss_weighs_samples_as_keras_does():
    model = nn.Linear(1, 1, bias=False)
    x, y = torch.ones(4, 1), torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    weights = torch.tensor([1.0, 0.0, 2.0, 1.0])
    loop = loop_of(model, x, y, weights, loss=nn.MSELoss(reduction="none"))
    w = model.weight.item()
    errors = [(w - t) ** 2 for t in (0.0, 1.0, 2.0, 3.0)]
    loop.fit(max_steps=1)
    expected = sum(e * s for e, s in zip(errors, weights.tolist(), strict=True)) / 4
    assert loop.state.logs["loss"] == pytest.approx(expected, rel=1e-5)


def test_weights_of_shape_batch_by_one_weigh_samples_too():
    x, y = torch.ones(4, 1), torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    weights, loss = torch.tensor([1.0, 0.0, 2.0, 1.0]), nn.MSELoss(reduction="none")
    model = nn.Linear(1, 1)
    flat = loop_of(model, x, y, weights, loss=loss).evaluate(TensorLoader(x, y, weights))
    column = TensorLoader(x, y, weights.unsqueeze(1))
    assert loop_of(model, x, y, loss=loss).evaluate(column) == flat


def test_weights_that_are_not_one_per_sample_are_refused():
    x, y = torch.ones(4, 1), torch.ones(4, 1)
    loop = loop_of(nn.Linear(1, 1), x, y, torch.ones(4, 4), loss=nn.MSELoss(reduction="none"))
    with pytest.raises(DataError, match=r"Tensor\[4, 4\].*expected \(4,\)\n.*one weight per"):
        loop.fit(epochs=1)


def test_unreduced_loss_without_weights_is_averaged():
    model = nn.Linear(1, 1)
    x = torch.ones(4, 1)
    loop_of(model, x, x, loss=nn.MSELoss(reduction="none")).fit(max_steps=1)
    assert model.weight.grad is not None


def test_torch_step_logs_the_learning_rate():
    model = nn.Linear(1, 1)
    x = torch.ones(8, 1)
    loop = loop_of(model, x, x)
    group = next(c for c in loop.callbacks if isinstance(c, TorchStep)).optimizer.param_groups[0]
    loop.on(Event.EPOCH_END)(lambda state: group.update(lr=0.05))
    loop.fit(epochs=2)
    assert loop.history["lr"] == [0.1, 0.05]


def test_parts_work_without_a_stack():
    model = nn.Linear(1, 1)
    x = torch.ones(8, 1)
    parts = [ZeroGrad(), Forward(), TorchLoss(nn.MSELoss()), Backward(), TorchStep(sgd(model))]
    before = model.weight.item()
    FitLoop(model, TensorLoader(x, x), callbacks=parts).fit(epochs=1)
    assert model.weight.item() != before


def test_added_losses_do_nothing_to_a_torch_module():
    model = nn.Linear(1, 1)
    model.losses = None  # a name a torch module may use for anything
    x = torch.ones(8, 1)
    loop_of(model, x, x).fit(epochs=1)
