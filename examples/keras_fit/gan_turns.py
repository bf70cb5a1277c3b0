"""The same GAN as two turns of stacked actions: nothing is computed twice, and it is recorded."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import torch
from digits import load
from networks import make_discriminator, make_generator

from fitkit import FitLoop, ImageGrid, Record, TensorBoard, TensorLoader, gan


def build(images, latent_dim=32):
    """Return the loop, ready to train, and the generator."""
    side = images.shape[1]
    generator = make_generator(side, latent_dim, width=16)
    discriminator = make_discriminator(side, width=16)
    loop = FitLoop(
        torch.nn.ModuleList([generator, discriminator]),  # the loop's model holds both
        TensorLoader(images, batch_size=64, shuffle=True, seed=0),
        callbacks=gan(
            generator=generator,
            discriminator=discriminator,
            generator_optimizer=keras.optimizers.Adam(3e-4),
            discriminator_optimizer=keras.optimizers.Adam(3e-4),
            loss=keras.losses.BinaryCrossentropy(from_logits=True),
            latent_dim=latent_dim,
        ),
    )
    return loop, generator


def main():
    """Train on images of digits, and put a grid of samples into TensorBoard after each epoch."""
    images, _ = load()
    loop, generator = build(images)
    latent = torch.randn(16, 32, device=loop.device)  # always the same, to see them change
    loop.attach(TensorBoard(), ImageGrid(lambda: generator(latent)), Record())
    for row in loop.fit(epochs=2).rows:
        print(f"d_loss {row['d_loss']:.4f}, g_loss {row['g_loss']:.4f}")
    print(loop.state.turn_updates)
    print(f"tensorboard --logdir {loop.run_dir}")


if __name__ == "__main__":
    main()
