"""Each pair of callbacks of tune/ is the loop written by hand, or is refused: docs/combine.md."""

import warnings

import pytest
import torch

from docs.combine_table import EQUAL, NAMES, OUTCOMES, PAIRS, REFUSED
from fitkit import Callback, ConfigError, tune
from tests.contract import combine
from tests.contract.combine import MAKERS, by_hand, loop_of


def trained(pair, **options):
    loop = loop_of(pair, **options)
    loop.fit(epochs=combine.NUM_EPOCHS)
    return loop, combine.weights_of(combine.kind_of(pair), loop.model)


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_the_pair(pair):
    outcome = OUTCOMES[pair]
    if outcome == REFUSED:
        with pytest.raises(ConfigError) as caught:
            trained(pair)
        lines = str(caught.value).splitlines()
        assert len(lines) > 1
        assert len(lines[0]) <= 120
        assert pair[0] in "\n".join(lines)
        return
    loop, weights = trained(pair)
    expected, val_losses = by_hand(pair)
    if outcome == EQUAL:
        assert all(map(torch.equal, weights, expected))
        assert loop.history["val_loss"] == val_losses
    else:
        for weight, value in zip(weights, expected, strict=True):
            torch.testing.assert_close(weight, value, rtol=1e-4, atol=1e-6)
        assert loop.history["val_loss"] == pytest.approx(val_losses, rel=1e-4)


# NaNGuard waits for a loss that is no number; see tests/unit/tune/test_nan_guard.py.
@pytest.mark.parametrize("name", [name for name in MAKERS if name != "NaNGuard"])
def test_each_of_them_makes_a_difference(name):
    """Else a pair would be equal by doing nothing."""
    loop, changed = trained((name,))
    reference, val_losses = by_hand(())
    same_weights = len(changed) == len(reference) and all(map(torch.equal, changed, reference))
    assert not (same_weights and loop.history["val_loss"] == val_losses)


def test_every_callback_of_tune_is_there():
    exported = [getattr(tune, name) for name in tune.__all__]
    callbacks = [e for e in exported if isinstance(e, type) and issubclass(e, Callback)]
    assert {cls.__name__ for cls in callbacks} == set(MAKERS) == set(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("pair", [p for p in PAIRS if OUTCOMES[p] != REFUSED], ids="+".join)
def test_recorded_the_pair_is_the_same(pair):
    loop, weights = trained(pair)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is refused runs eagerly, and says so
        recorded, others = trained(pair, recorded=True)
    assert all(map(torch.equal, weights, others))
    assert loop.history["val_loss"] == recorded.history["val_loss"]
