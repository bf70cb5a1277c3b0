"""A Wasserstein GAN with gradient penalty, as two turns: five of the critic to the generator's."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import torch
from digits import load
from networks import make_discriminator, make_generator

import fitkit
from fitkit import Backward, Callback, FitLoop, KerasApply, Turn

LATENT = 32


class Noise(Callback):
    """Draws all random numbers of a batch before its steps, so that these can be recorded."""

    def on_batch_begin(self, state):
        """Draw."""
        size = state.batch_size
        state.extra.latent = torch.randn(size, LATENT, device=state.device)
        state.extra.mix = torch.rand(size, 1, 1, 1, device=state.device)


class Critic(Callback):
    """Real images should score high, fakes low, and slopes between them should be one."""

    def __init__(self, generator, critic):
        self.generator, self.critic = generator, critic

    def on_forward(self, state):
        """Score real images and fakes."""
        with torch.no_grad():
            state.extra.fakes = self.generator(state.extra.latent)
        state.outputs = self.critic(torch.cat([state.inputs, state.extra.fakes]))

    def on_loss(self, state):
        """Subtract the scores, add the penalty."""
        real, fake = state.outputs.split(state.batch_size)
        mix = state.extra.mix * state.inputs + (1 - state.extra.mix) * state.extra.fakes
        mix.requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(mix).sum(), mix, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        state.loss = fake.mean() - real.mean() + 10 * penalty


class Generator(Callback):
    """Fakes should score high."""

    def __init__(self, generator, critic):
        self.generator, self.critic = generator, critic

    def on_forward(self, state):
        """Score fakes."""
        state.outputs = self.critic(self.generator(state.extra.latent))

    def on_loss(self, state):
        """Turn the sign."""
        state.loss = -state.outputs.mean()


def build(images, width=16):
    """Return the loop, ready to train."""
    side = images.shape[1]
    generator, critic = make_generator(side, LATENT, width), make_discriminator(side, width)
    adams = [keras.optimizers.Adam(2e-4, beta_1=0.5, beta_2=0.9) for _ in range(2)]
    loop = FitLoop(
        torch.nn.ModuleList([generator, critic]),
        fitkit.TensorLoader(images, batch_size=64, shuffle=True, seed=0),
    )
    learn = [Critic(generator, critic), Backward(critic), KerasApply(adams[0], model=critic)]
    fool = [Generator(generator, critic), Backward(generator)]
    fool += [KerasApply(adams[1], model=generator)]
    turns = [Turn("critic", learn), Turn("generator", fool, every=5)]
    return loop.attach(fitkit.TrainMode(), Noise(), fitkit.ZeroGrad(), *turns, fitkit.Metrics())


if __name__ == "__main__":
    loop = build(load()[0]).attach(fitkit.Record("interpret"))
    for row in loop.fit(epochs=2).rows:
        print(f"critic_loss {row['critic_loss']:.4f}, generator_loss {row['generator_loss']:.4f}")
    print(loop.state.turn_updates)
