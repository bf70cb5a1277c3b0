"""A GAN as a Keras user writes it, with a `train_step` of its own, and the same one by `gan()`."""

import keras
import torch
from keras import layers

from fitkit import FitLoop, TensorLoader, gan

LATENT = 16


class UserGAN(keras.Model):
    """Trains two networks in one `train_step`; every pass is run in full."""

    def __init__(self, discriminator, generator, latent_dim):
        super().__init__()
        self.discriminator = discriminator
        self.generator = generator
        self.latent_dim = latent_dim
        self.d_loss_tracker = keras.metrics.Mean(name="d_loss")
        self.g_loss_tracker = keras.metrics.Mean(name="g_loss")
        self.seed_generator = keras.random.SeedGenerator(1337)
        self.built = True

    @property
    def metrics(self):
        return [self.d_loss_tracker, self.g_loss_tracker]

    def compile(self, d_optimizer, g_optimizer, loss_fn):
        super().compile()
        self.d_optimizer = d_optimizer
        self.g_optimizer = g_optimizer
        self.loss_fn = loss_fn

    def train_step(self, data):
        real = data[0] if isinstance(data, tuple | list) else data
        size = real.shape[0]
        d_loss = self.train_discriminator(real, size)
        g_loss = self.train_generator(size, real.device)
        self.d_loss_tracker.update_state(d_loss)
        self.g_loss_tracker.update_state(g_loss)
        return {metric.name: metric.result() for metric in self.metrics}

    def latent(self, size):
        return keras.random.normal(shape=(size, self.latent_dim), seed=self.seed_generator)

    def train_discriminator(self, real, size):
        images = torch.concat([self.generator(self.latent(size)), real])
        ones = torch.ones((size, 1), device=real.device)
        labels = torch.concat([ones, torch.zeros_like(ones)])
        labels += 0.05 * keras.random.uniform(labels.shape, seed=self.seed_generator)
        self.zero_grad()
        loss = self.loss_fn(labels, self.discriminator(images))
        loss.backward()
        self.update(self.d_optimizer, self.discriminator.trainable_weights)
        return loss

    def train_generator(self, size, device):
        latent = self.latent(size)
        self.zero_grad()
        predictions = self.discriminator(self.generator(latent))
        loss = self.loss_fn(torch.zeros((size, 1), device=device), predictions)
        loss.backward()
        self.update(self.g_optimizer, self.generator.trainable_weights)
        return loss

    def update(self, optimizer, weights):
        gradients = [weight.value.grad for weight in weights]
        with torch.no_grad():
            optimizer.apply(gradients, weights)


def discriminator(width=64):
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(width, 3, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2D(2 * width, 3, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.GlobalMaxPooling2D(),
            layers.Dense(1),
        ],
        name="discriminator",
    )


def generator(width=64, latent_dim=LATENT):
    return keras.Sequential(
        [
            keras.Input((latent_dim,)),
            layers.Dense(7 * 7 * 2 * width),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Reshape((7, 7, 2 * width)),
            layers.Conv2DTranspose(2 * width, 4, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2DTranspose(2 * width, 4, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2D(1, 7, padding="same", activation="sigmoid"),
        ],
        name="generator",
    )


def user_gan(width=4, latent_dim=LATENT):
    """The class, compiled; every call gives the same weights."""
    keras.utils.set_random_seed(1)
    model = UserGAN(discriminator(width), generator(width, latent_dim), latent_dim)
    model.compile(
        d_optimizer=keras.optimizers.Adam(3e-4),
        g_optimizer=keras.optimizers.Adam(3e-4),
        loss_fn=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    return model


def images(num=72, batch_size=16):
    """Batches of images, the last one ragged."""
    noise = torch.rand(num, 28, 28, 1, generator=torch.Generator().manual_seed(0))
    return TensorLoader(noise, batch_size=batch_size)


def gan_loop(model, loader, *more):
    """The networks, optimizers and loss of a `UserGAN` as two turns of stacked actions."""
    stack = gan(
        generator=model.generator,
        discriminator=model.discriminator,
        generator_optimizer=model.g_optimizer,
        discriminator_optimizer=model.d_optimizer,
        loss=model.loss_fn,
        latent_dim=model.latent_dim,
        seed=model.seed_generator,
    )
    networks = torch.nn.ModuleList([model.generator, model.discriminator])
    return FitLoop(networks, loader, callbacks=[*stack, *more])
