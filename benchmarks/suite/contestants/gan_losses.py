"""The two losses of the guide's GAN, for loops that bring their own optimizers."""

from typing import Any

import torch
from torch import Tensor, nn

LEARNING_RATE = 3e-4


class GanLosses(nn.Module):
    """Losses of both networks of a `UserGAN`, with its noise in its order."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def optimizers(self, **options: Any) -> list[torch.optim.Optimizer]:
        """One Adam per network: the discriminator's first."""
        networks = (self.model.discriminator, self.model.generator)
        return [
            torch.optim.Adam(each.parameters(), lr=LEARNING_RATE, **options) for each in networks
        ]

    def discriminator_loss(self, real: Tensor) -> Tensor:
        """Tell made images (label 1) from real ones (label 0), with noise on the labels."""
        from keras import random

        model, size = self.model, len(real)
        made = model.generator(model.latent(size)).detach()
        ones = torch.ones((size, 1), device=real.device)
        labels = torch.concat([ones, torch.zeros_like(ones)])
        labels += 0.05 * random.uniform(labels.shape, seed=model.seed_generator)
        return model.loss_fn(labels, model.discriminator(torch.concat([made, real])))

    def generator_loss(self, real: Tensor) -> Tensor:
        """Have made images taken for real."""
        model, size = self.model, len(real)
        made = model.generator(model.latent(size))
        return model.loss_fn(torch.zeros((size, 1), device=real.device), model.discriminator(made))
