"""What predict gives back, and what it cannot put together."""

import numpy as np
import pytest
import torch
from torch import nn

from fitkit import DataError, FitLoop, supervised


class Odd(nn.Module):
    """Gives something of its inputs."""

    def __init__(self, give):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.give = give

    def forward(self, x):
        return self.give(x)


def predicted(give):
    model = Odd(give)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop = FitLoop(model, callbacks=supervised(loss=nn.MSELoss(), optimizer=optimizer))
    rows = torch.arange(10.0).reshape(5, 2)
    return loop.predict([(rows[:2],), (rows[2:4],), (rows[4:],)])


def test_nested_outputs_keep_their_structure():
    found = predicted(lambda x: {"sum": x.sum(1), "both": (x, x[:, :1])})
    rows = np.arange(10.0, dtype=np.float32).reshape(5, 2)
    assert np.array_equal(found["sum"], rows.sum(1))
    assert np.array_equal(found["both"][0], rows)
    assert np.array_equal(found["both"][1], rows[:, :1])


@pytest.mark.parametrize(
    ("give", "told"),
    [
        (lambda x: (x, 3), r"outputs\[1\] of a batch of samples is int"),
        (
            lambda x: {"mean": x.mean()},
            r"outputs\['mean'\] of a batch of samples is the shape \(\)",
        ),
        (lambda x: x.expand(len(x), 2, 2)[:, :, : len(x)], r"the shape \(2, 2\) here, \(2, 1\)"),
    ],
)
def test_what_has_no_rows_is_refused_by_name(give, told):
    with pytest.raises(DataError, match=f"^predict: .*{told}"):
        predicted(give)
