"""A GAN in one Keras class, `compile` and `train_step` of its own, run by the loop as it is."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import torch
from digits import load
from networks import make_discriminator, make_generator

from fitkit import FitLoop, TensorLoader, compiled


class GAN(keras.Model):
    """Two networks, two optimizers, one `train_step`."""

    def __init__(self, discriminator, generator, latent_dim):
        super().__init__()
        self.discriminator = discriminator
        self.generator = generator
        self.latent_dim = latent_dim
        self.d_loss = keras.metrics.Mean(name="d_loss")
        self.g_loss = keras.metrics.Mean(name="g_loss")
        self.random = keras.random.SeedGenerator(1337)
        self.built = True

    @property
    def metrics(self):
        """What is reset at the beginning of every epoch."""
        return [self.d_loss, self.g_loss]

    def compile(self, d_optimizer, g_optimizer, loss_fn):
        """Take one optimizer for each network."""
        super().compile()
        self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn

    def fakes(self, size):
        """Return images made of noise."""
        return self.generator(keras.random.normal((size, self.latent_dim), seed=self.random))

    def update(self, loss, optimizer, weights):
        """Make one step along the gradients of `loss`."""
        loss.backward()
        gradients = [weight.value.grad for weight in weights]
        with torch.no_grad():
            optimizer.apply(gradients, weights)

    def train_step(self, data):
        """Train both networks on one batch of real images and return the logs."""
        real = data[0]
        size = len(real)
        images = torch.concat([self.fakes(size), real])
        ones = torch.ones(size, 1, device=real.device)
        labels = torch.concat([ones, torch.zeros_like(ones)])
        labels += 0.05 * keras.random.uniform(labels.shape, seed=self.random)
        self.zero_grad()
        d_loss = self.loss_fn(labels, self.discriminator(images))
        self.update(d_loss, self.d_optimizer, self.discriminator.trainable_weights)

        fakes = self.fakes(size)
        self.zero_grad()
        g_loss = self.loss_fn(torch.zeros_like(ones), self.discriminator(fakes))
        self.update(g_loss, self.g_optimizer, self.generator.trainable_weights)
        self.d_loss.update_state(d_loss)
        self.g_loss.update_state(g_loss)
        return {metric.name: metric.result() for metric in self.metrics}


def main():
    """Train on images of digits for one epoch."""
    images, _ = load()
    side = images.shape[1]
    model = GAN(make_discriminator(side, 16), make_generator(side, 32, 16), latent_dim=32)
    model.compile(
        d_optimizer=keras.optimizers.Adam(3e-4),
        g_optimizer=keras.optimizers.Adam(3e-4),
        loss_fn=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    loop = FitLoop(model, TensorLoader(images, batch_size=64, shuffle=True), callbacks=compiled())
    row = loop.fit(epochs=1).rows[-1]
    print(f"d_loss {row['d_loss']:.4f}, g_loss {row['g_loss']:.4f}")


if __name__ == "__main__":
    main()
