"""A loop that costs nothing: one weight, four batches, and callbacks that write down events."""

import torch
from torch import nn

from fitkit import Callback, Event, FitLoop, TensorLoader, supervised
from fitkit.loop.events import hook_name

NUM_BATCHES = 4


def loader(num_batches=NUM_BATCHES, **options):
    rows = torch.arange(2.0 * num_batches).unsqueeze(1)
    return TensorLoader(rows, rows, batch_size=2, **options)


def make_loop(*callbacks, train=None, val=None):
    """A linear model with one weight, SGD, and `callbacks` behind the standard stack."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    stack = supervised(loss=nn.MSELoss(), optimizer=optimizer)
    return FitLoop(model, train or loader(), val, callbacks=[*stack, *callbacks])


def recorder(*events, name="Recorder"):
    """A callback that appends the names of the events it hears to `.heard`."""

    def hook(event):
        def method(self, state):
            self.heard.append(event.name)

        return method

    hooks = {hook_name(event): hook(event) for event in events or Event}
    made = type(name, (Callback,), hooks)()
    made.heard = []
    return made
