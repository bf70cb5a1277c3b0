"""The two networks of the GAN examples, for square images whose side is a multiple of four."""

from keras import Input, Sequential, layers


def leaky():
    """Return the activation between layers."""
    return layers.LeakyReLU(negative_slope=0.2)


def make_discriminator(side, width=64):
    """Return a network that gives one number per image of shape (side, side, 1)."""
    down = {"kernel_size": 3, "strides": 2, "padding": "same"}
    blocks = [layers.Conv2D(width, **down), leaky(), layers.Conv2D(2 * width, **down), leaky()]
    head = [layers.GlobalMaxPooling2D(), layers.Dense(1)]
    return Sequential([Input((side, side, 1)), *blocks, *head], name="discriminator")


def make_generator(side, latent_dim, width=64):
    """Return a network that makes images of shape (side, side, 1) of latent vectors."""
    low, up = side // 4, {"kernel_size": 4, "strides": 2, "padding": "same"}
    start = [layers.Dense(low * low * 2 * width), leaky(), layers.Reshape((low, low, 2 * width))]
    blocks = [layers.Conv2DTranspose(2 * width, **up), leaky()]
    blocks += [layers.Conv2DTranspose(2 * width, **up), leaky()]
    head = layers.Conv2D(1, 7, padding="same", activation="sigmoid")
    return Sequential([Input((latent_dim,)), *start, *blocks, head], name="generator")
