"""What every refusal must keep to: the right type, the words that help, nothing touched."""

from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fitkit import FitLoop, TensorLoader, supervised

X, Y = torch.randn(64, 4), torch.randn(64, 1)
CLASSES = torch.arange(64) % 3


def regression(**arguments):
    """A model and a stack that work, and the loop of them."""
    model = nn.Linear(4, 1)
    return model, stack(model), TensorLoader(X, Y, batch_size=8, **arguments)


def stack(model, loss=None, **arguments):
    """The standard stack for a torch module."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return supervised(loss=loss or nn.MSELoss(), optimizer=optimizer, **arguments)


def loop_of(model=None, loader=None, loss=None, **arguments):
    """A loop that trains, unless an argument spoils it."""
    model = model or nn.Linear(4, 1)
    loader = TensorLoader(X, Y, batch_size=8) if loader is None else loader
    return FitLoop(model, loader, callbacks=stack(model, loss), **arguments)


class Counted:
    """A loader that counts the batches taken from it."""

    def __init__(self, loader):
        self.loader = loader
        self.taken = 0

    def __iter__(self):
        for batch in self.loader:
            self.taken += 1
            yield batch


def batches(*arrays, size=8):
    """Batches through a plain DataLoader: nothing is checked by TensorLoader."""
    return Counted(DataLoader(TensorDataset(*arrays), batch_size=size))


@contextmanager
def refused(kind, *tokens, model=None, loader=None):
    """Expect exactly `kind`, every token in the message, weights and data as they were."""
    before = [p.detach().clone() for p in model.parameters()] if model is not None else []
    caught = None
    try:
        yield
    except Exception as error:
        caught = error
    assert caught is not None, "nothing was raised"
    assert type(caught) is kind, repr(caught)
    check_message(str(caught), *tokens)
    if model is not None:
        after = list(model.parameters())
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert loader is None or loader.taken <= 1


def check_message(message, *tokens):
    """The first line is short and says what is wrong, the last what to do."""
    lines = message.splitlines()
    missing = [token for token in tokens if token.lower() not in message.lower()]
    assert missing == [], f"{missing} not in {message!r}"
    assert len(lines[0]) <= 120, len(lines[0])
    assert len(lines) >= 2
    assert lines[-1].strip().endswith((".", ").", '".'))
