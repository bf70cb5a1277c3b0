"""A small loop, a clock that stands still, and a counter of host syncs."""

from contextlib import contextmanager

import torch

from fitkit import Callback, FitLoop, Phase, TensorLoader, Validate, supervised

SYNCS = ("item", "tolist", "cpu", "numpy", "__float__", "__bool__", "__int__", "__array__")


class FakeClock:
    """A clock that is moved by hand."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


class Takes(Callback):
    """Let the fake clock run in every batch: a list by step, or one number for all."""

    def __init__(self, clock, train, *, val=0.0):
        self.clock, self.train, self.val = clock, train, val
        self.num = 0

    def on_batch_begin(self, state):
        if state.phase is not Phase.TRAIN:
            self.clock.now += self.val
            return
        self.clock.now += self.train[self.num] if isinstance(self.train, list) else self.train
        self.num += 1


class Losses(Callback):
    """Keep the loss of every training batch."""

    phases = frozenset({Phase.TRAIN})

    def __init__(self):
        self.tensors = []

    def on_batch_end(self, state):
        self.tensors.append(state.loss.clone())

    @property
    def values(self):
        return [float(loss) for loss in self.tensors]


def data(num_samples, *, batch_size=4):
    generator = torch.Generator().manual_seed(num_samples)
    x = torch.randn(num_samples, 3, generator=generator)
    return TensorLoader(x, x.sum(1, keepdim=True), batch_size=batch_size)


def stack(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return supervised(loss=torch.nn.MSELoss(), optimizer=optimizer)


def make_loop(*callbacks, num_samples=20, val=None, batch_size=4, run_dir=None, first=()):
    """Return a loop over 5 batches of 4 samples; `first` is attached before the stack."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    loop = FitLoop(model, data(num_samples, batch_size=batch_size), val, run_dir=run_dir)
    return loop.attach(*first, stack(model), *callbacks)


@contextmanager
def counted_syncs(monkeypatch):
    """Yield a list that gets the name of every read of a tensor by the host."""
    found = []
    with monkeypatch.context() as patch:
        for name in SYNCS:
            original = getattr(torch.Tensor, name)

            def counted(self, *args, _name=name, _original=original, **kwargs):
                found.append(_name)
                return _original(self, *args, **kwargs)

            patch.setattr(torch.Tensor, name, counted)
        yield found


def validate_every(loop, every):
    """Let the loop validate at other times than the stack has it."""
    [validate] = [c for c in loop.callbacks if isinstance(c, Validate)]
    loop.detach(validate)
    loop.attach(Validate(every=every))
