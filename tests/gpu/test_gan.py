"""GANs on a CUDA device: the class as it is, and two turns, eager and recorded."""

import pytest
import torch

from fitkit import FitLoop, Record, compiled
from tests.parity import adversaries as adv

pytestmark = pytest.mark.gpu


def parameters(model):
    networks = (model.generator, model.discriminator)
    return [v.value.detach().cpu() for network in networks for v in network.variables]


def trained_by_turns(*more):
    model = adv.user_gan()
    loop = adv.gan_loop(model, adv.images(64), *more)
    loop.fit(epochs=4)
    return parameters(model)


def test_the_class_runs_as_it_is_with_images_from_the_host():
    model = adv.user_gan()
    loop = FitLoop(model, adv.images(64), callbacks=[compiled()])
    loop.fit(epochs=4)
    assert loop.device.type == "cuda"
    for ours, theirs in zip(trained_by_turns(), parameters(model), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backend", ["interpret", "cudagraph"])
def test_recorded_turns_equal_eager_ones(backend):
    recorded = trained_by_turns(Record(backend, strict=True))
    for ours, theirs in zip(recorded, trained_by_turns(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
